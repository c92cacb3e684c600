"""课程的小工具：准备画图、取用前面章节写好的部件、检查练习。

每个笔记本的第一格都是 ``import course``。取部件只有一个办法::

    Attention = course.from_chapter("03_attention", "Attention")

它从你自己那一份 ``03_attention.ipynb`` 里把 ``Attention`` 的代码剪出来（连同它用到的
函数和导入）；你还没有写的，就用 ``solutions/`` 里的答案。
"""

import ast
import functools
import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent


def root() -> Path:
    """课程的根目录，里面有 ``figures/`` 和 ``sam_lite/``。"""
    for folder in (HERE, *HERE.parents):
        if (folder / "figures" / "fonts").is_dir():
            return folder
    raise FileNotFoundError("找不到课程的 figures/fonts：笔记本要留在课程的文件夹里。")


# ---- 准备 ----------------------------------------------------------------------


def setup(seed: int = 0) -> None:
    """固定随机种子，让 matplotlib 认得汉字；每一章开头调用一次。"""
    import matplotlib
    import torch
    from matplotlib import font_manager

    torch.manual_seed(seed)
    font = root() / "figures" / "fonts" / "NotoSansCJKsc-subset.otf"
    font_manager.fontManager.addfont(font)
    matplotlib.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["Noto Sans CJK SC", "DejaVu Sans"],
            "axes.unicode_minus": False,
            "figure.dpi": 100,
            "image.interpolation": "nearest",
        }
    )


def photo(name: str = "coins") -> Any:
    """随包的一张照片，uint8 数组，形状 (高, 宽, 3)。"""
    import numpy as np
    from PIL import Image

    import sam_lite

    path = Path(sam_lite.__file__).parent / "assets" / "photos" / f"{name}.jpg"
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


# ---- 取用前面章节的部件 ----------------------------------------------------------


def from_chapter(chapter: str, name: str) -> Any:
    """取出某一章笔记本里定义的类或函数；读者那一份没有，就取答案里的。

    参数：
        chapter: 笔记本的名字，例如 ``"03_attention"``。
        name: 类或函数的名字。

    错误：两处都没有时抛 LookupError。
    """
    for path in (HERE / f"{chapter}.ipynb", HERE / "solutions" / f"{chapter}.ipynb"):
        if path.is_file():
            definitions, imports = read_definitions(path)
            if name in definitions and not is_blank(definitions[name]):
                return build(name, definitions, imports, str(path))
    raise LookupError(
        f"第 {chapter[:2]} 章（{chapter}.ipynb）里没有 {name}：先做完那一章，或把它的"
        "笔记本放回同一个文件夹。"
    )


def read_definitions(path: Path) -> tuple[dict[str, ast.stmt], list[ast.stmt]]:
    """笔记本里最外层的定义（同名的以后写的为准）和导入。"""
    return parse_notebook(path, path.stat().st_mtime_ns)


@functools.cache
def parse_notebook(
    path: Path, modified: int
) -> tuple[dict[str, ast.stmt], list[ast.stmt]]:
    """同 read_definitions；modified 是修改时间，文件没有变就不重新解析。"""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    definitions: dict[str, ast.stmt] = {}
    imports: list[ast.stmt] = []
    for cell in cells:
        if cell["cell_type"] != "code" or "exercise" in cell["metadata"].get(
            "tags", []
        ):
            continue
        try:
            body = ast.parse("".join(cell["source"])).body
        except SyntaxError:
            continue  # 没写完的格子，或者以 % 开头的命令
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports.append(node)
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                definitions[node.name] = node
            elif isinstance(node, ast.Assign) and is_reusable(node, path.stem):
                definitions[node.targets[0].id] = node
    return definitions, imports


def is_reusable(node: ast.Assign, chapter: str) -> bool:
    """是不是全大写的常数，或 ``名字 = course.from_chapter(另一章, …)``。"""
    target, call = node.targets[0], node.value
    if not isinstance(target, ast.Name):
        return False
    taken = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    if taken and call.func.attr == "from_chapter":
        return ast.literal_eval(call.args[0]) != chapter  # 取自己这一章会没完没了
    return target.id.isupper()


def is_blank(node: ast.stmt) -> bool:
    """函数体只有文档字符串和 ``...``：还没有写。"""
    body = [n for n in getattr(node, "body", [node]) if not is_constant(n)]
    return not body


def is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def build(
    name: str, definitions: dict[str, ast.stmt], imports: list[ast.stmt], path: str
) -> Any:
    """在一个干净的命名空间里执行 name 和它用到的一切，别的格子都不执行。"""
    needed, waiting = {name}, [name]
    while waiting:
        used = {
            n.id
            for n in ast.walk(definitions[waiting.pop()])
            if isinstance(n, ast.Name)
        }
        fresh = (used & set(definitions)) - needed
        needed |= fresh
        waiting += fresh
    body = imports + [node for key, node in definitions.items() if key in needed]
    module = ast.Module(body=body, type_ignores=[])
    namespace: dict[str, Any] = {"__name__": Path(path).stem}
    exec(compile(module, path, "exec"), namespace)
    return namespace[name]


# ---- 练习 ----------------------------------------------------------------------


class Mistake(AssertionError):
    """答案不对；消息说出最可能错在哪里。"""


def expect(condition: Any, hint: str) -> None:
    """条件不成立就抛 Mistake，带上提示；检查练习的函数用它。"""
    if not bool(condition):
        raise Mistake(hint)


def check(exercise: str, *answers: Any) -> bool | None:
    """检查一道练习，说出结果：通过、未作答，或哪里不对；绝不抛错。

    参数：
        exercise: 练习的编号，例如 ``"ex-04-2"``。
        answers: 你的答案：函数、类，或一个值。

    返回：通过是 True，不对是 False，未作答是 None。
    """
    checker = find_checker(exercise)
    if any(is_unanswered(answer) for answer in answers):
        print(f"{exercise}：未作答")
        return None
    try:
        checker(*answers)
    except Unanswered:
        print(f"{exercise}：未作答")
        return None
    except Mistake as mistake:
        print(f"{exercise}：不对。{mistake}")
        return False
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        print(f"{exercise}：运行时出错。{type(error).__name__}: {text}")
        return False
    print(f"{exercise}：通过")
    return True


class Unanswered(Exception):
    """检查到一半才发现还没有作答，例如函数返回了 ``...``。"""


def answered(value: Any) -> Any:
    """原样返回；如果是 ``...`` 或 None，就算未作答。"""
    if value is None or value is ...:
        raise Unanswered
    return value


def is_unanswered(answer: Any) -> bool:
    """答案还是 ``...``，或者函数体里除了文档字符串只有 ``...``。"""
    if answer is None or answer is ...:
        return True
    if not inspect.isfunction(answer):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer)))
    except (OSError, SyntaxError, TypeError):
        return False
    return bool(tree.body) and is_blank(tree.body[0])


def find_checker(exercise: str) -> Callable[..., None]:
    """编号对应的检查函数：``ex-04-2`` 在 ``checks/check_04.py`` 里叫 ``ex_04_2``。"""
    chapter = exercise.split("-")[1]
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    module = importlib.import_module(f"checks.check_{chapter}")
    return getattr(module, exercise.replace("-", "_"))


def versions() -> SimpleNamespace:
    """各个库的版本和机器的样子，第 0 章的环境检查用。"""
    import platform

    import matplotlib
    import numpy
    import torch

    import sam_lite

    return SimpleNamespace(
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        matplotlib=matplotlib.__version__,
        sam_lite=sam_lite.__version__,
        threads=torch.get_num_threads(),
        cuda=torch.cuda.is_available(),
    )
