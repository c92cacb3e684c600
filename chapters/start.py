"""打开课程：把 `chapters/` 里的文件复制到 `my/`，再启动 JupyterLab。

`my/` 里已有的笔记本一概不动，更新课程之后再运行一次，只会添上新的章节；课程自己的
工具、检查、术语表和答案（OURS）跟着课程更新。
运行：`python chapters/start.py`；后面的参数原样交给 JupyterLab。
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent
ROOT = CHAPTERS.parent
SKIPPED = {"start.py", "jupyter", "__pycache__", ".ipynb_checkpoints"}
OURS = {"course.py", "explorers.py", "gallery.py", "gallery.json", "checks", "recorded"}
OURS |= {"glossary.md", "solutions"}


def copy_new(source: Path, target: Path) -> list[Path]:
    """把 `target` 里没有的、OURS 里变了的文件复制过去，返回它们的相对路径。"""
    added = []
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        copy = target / relative
        if path.is_dir() or SKIPPED & set(relative.parts):
            continue
        if copy.exists():
            ours = relative.parts[0] in OURS
            if not ours or copy.read_bytes() == path.read_bytes():
                continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(copy.name + ".part")
        shutil.copyfile(path, part)
        part.replace(copy)  # 中途断掉也不会留下半个文件
        added.append(relative)
    return added


def quiet_environment() -> dict[str, str]:
    """环境变量，让 JupyterLab 多读 `jupyter/` 里的设置：不上网查新闻、查新版本。

    不关掉的话，它会联网，还弹窗问要不要看新闻；在菜单里改过的，以你的为准。
    """
    paths = [str(CHAPTERS / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def main() -> int:
    my = ROOT / "my"
    my.mkdir(exist_ok=True)
    added = copy_new(CHAPTERS, my)
    print(f"复制到 my/ 的文件：{len(added)} 个；你的笔记本没有改动。")
    first = my / "00_quickstart.ipynb"
    if not first.exists():
        print("章节还在编写中，JupyterLab 会打开空的 my/。")
    page = f"/lab/tree/{(first if first.exists() else my).relative_to(ROOT).as_posix()}"
    options = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url={page}"]
    command = [sys.executable, "-m", "jupyterlab", *options, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=quiet_environment()).returncode


if __name__ == "__main__":
    sys.exit(main())
