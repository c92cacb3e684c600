"""章节测试共用：读笔记本、取部件、检查一份答案。"""

import contextlib
import io
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
CHAPTERS = ROOT / "chapters"
sys.path.insert(0, str(CHAPTERS))

import course  # noqa: E402
import torch  # noqa: E402
from checks import common as checks  # noqa: E402, F401
from torch import nn  # noqa: E402

NOTEBOOKS = sorted(CHAPTERS.glob("[0-9][0-9]_*.ipynb"))
SOLUTIONS = sorted((CHAPTERS / "solutions").glob("[0-9][0-9]_*.ipynb"))


@cache
def cells(path: Path) -> list[dict[str, Any]]:
    """笔记本的全部格子；source 接成一个字符串。"""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]


def tagged(path: Path, tag: str, exercise: str = "") -> list[dict[str, Any]]:
    """有这个标签的格子；给了编号就只要那一题的。"""
    return [
        cell
        for cell in cells(path)
        if tag in cell["metadata"].get("tags", [])
        and exercise in ("", cell["metadata"].get("exercise"))
    ]


def exercises(path: Path) -> list[str]:
    """一章里全部练习的编号，按出现的次序。"""
    return [cell["metadata"]["exercise"] for cell in tagged(path, "exercise")]


def chapter(stem: str) -> Path:
    return CHAPTERS / f"{stem}.ipynb"


def solution(stem: str) -> Path:
    return CHAPTERS / "solutions" / f"{stem}.ipynb"


@cache
def namespace(stem: str) -> dict[str, Any]:
    """做题时手边有的名字：那一章开头的导入，和正文里定义的一切。用前先复制。"""
    definitions, imports = course.read_definitions(chapter(stem))
    found: dict[str, Any] = {}
    for name in definitions:
        found[name] = course.from_chapter(stem, name)
    for node in imports:
        import ast

        exec(compile(ast.Module([node], []), stem, "exec"), found)
    return found


def verdict(stem: str, exercise: str, source: str) -> str:
    """先执行 source（一份答案），再执行那一题的检查格，返回它印出的话。"""
    import linecache

    found = dict(namespace(stem))
    name = f"<{exercise}-{abs(hash(source))}>"
    # 检查要看答案的源代码（是不是还空着），所以登记到 linecache 里
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), found)
    (check,) = tagged(chapter(stem), "check", exercise)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(check["source"], "check", "exec"), found)
    return out.getvalue()


def shake(module: nn.Module) -> nn.Module:
    """参数全换成不为零的随机数：零会把错误藏起来。"""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module.eval()


def load(mine: nn.Module, theirs: nn.Module) -> nn.Module:
    """把 sam_lite 的权重装进笔记本里的类；键和次序、哪些是参数，都要相同。"""
    assert list(mine.state_dict()) == list(theirs.state_dict())
    names = [[name for name, _ in m.named_parameters()] for m in (mine, theirs)]
    assert names[0] == names[1]
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return mine.eval()
