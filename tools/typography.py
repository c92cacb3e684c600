"""按 ``.autocorrectrc`` 查中文排版：正文、注释和笔记本，毛病逐条列出来。"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import autocorrect_py as autocorrect
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROSE = yaml.safe_load((ROOT / ".autocorrectrc").read_text("utf-8"))["rules"]
# 代码里的形状写成 (批量, 高, 宽, 通道)，标点用半角，所以只查空格这一类规则
CODE = PROSE | {
    "fullwidth": 0,
    "halfwidth-punctuation": 0,
    "halfwidth-word": 0,
    "no-space-fullwidth-quote": 0,
    "space-backticks": 0,
    "space-punctuation": 0,
}
RULES = {"markdown": PROSE, "python": CODE}


def passages(path: Path) -> Iterator[tuple[str, str, str]]:
    """一个文件里要查的几段：(位置, markdown 或 python, 文字)。"""
    name, text = os.path.relpath(path, ROOT), path.read_text("utf-8")
    if path.suffix == ".py":
        yield name, "python", text
    elif path.suffix == ".md":  # 围栏里的代码换成空行，行号不变
        fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
        yield name, "markdown", fence.sub(lambda code: "\n" * code[0].count("\n"), text)
    else:
        kinds = {"markdown": "markdown", "code": "python"}
        for i, cell in enumerate(json.loads(text)["cells"]):
            if kind := kinds.get(cell["cell_type"]):
                yield f"{name} 第 {i} 格", kind, "".join(cell["source"])


def faults(path: Path) -> Iterator[str]:
    """一个文件的毛病：位置、原来的、该写成的。"""
    for place, kind, text in passages(path):
        autocorrect.load_config(json.dumps({"rules": RULES[kind]}))
        for line in autocorrect.lint_for(text, kind).lines:
            if line.severity == autocorrect.Severity.Error:
                change = f"{line.old.strip()} -> {line.new.strip()}"
                yield f"{place}，{line.line} 行：{change}"


def main() -> int:
    """查 Git 管的和新写的文件，有毛病返回 1；解压出来的源码包没有 Git，不查。"""
    if not (ROOT / ".git").exists():
        print("不是 Git 仓库，没有查中文排版")
        return 0
    which = ["--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(
        ["git", "ls-files", "-z", *which, "--", "*.md", "*.py", "*.ipynb"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        encoding="utf-8",
    ).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    wrong = [line for path in paths if path.is_file() for line in faults(path)]
    print("\n".join(wrong) or "中文排版：没有毛病")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
