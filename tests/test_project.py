"""项目文件彼此一致：依赖与版本、环境、许可、照片、README 里的命令。"""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sam_lite

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = PROJECT["dependencies"] + [line for e in EXTRAS.values() for line in e]
MEBIBYTE = 1 << 20


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def pins() -> dict[str, str]:
    """`constraints.txt` 的每一行必须是 `名字==版本`，名字不重复。"""
    lines = [line for line in read("constraints.txt").splitlines() if line.strip()]
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    found = {canonicalize_name(name): version for name, version in pairs}
    assert len(found) == len(pairs)
    return found


def tracked() -> list[Path]:
    """Git 管的文件；解压出来的源码包没有 Git，跳过。"""
    if not (ROOT / ".git").exists():
        pytest.skip("不是 Git 仓库")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    paths = [ROOT / name for name in listing.decode("utf-8").split("\0") if name]
    return [path for path in paths if path.is_file()]


# ---- 依赖与版本 ----------------------------------------------------------------


def test_direct_dependencies_are_pinned_and_have_one_range():
    known, ranges = pins(), {}
    for requirement in map(Requirement, DIRECT):
        name, allowed = canonicalize_name(requirement.name), requirement.specifier
        assert allowed.contains(known[name]), f"{requirement} 容不下 {known[name]}"
        assert ranges.setdefault(name, allowed) == allowed, f"{name} 写了两种范围"


def test_core_needs_four_packages_only():
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert names == {"torch", "numpy", "pillow", "safetensors"}


def test_environment_yml_leaves_everything_to_pip():
    environment = yaml.safe_load(read("environment.yml"))
    assert environment["dependencies"] == [
        "python=3.11",
        "pip",
        {"pip": ["-c constraints.txt", "-e .[course,test]"]},
    ]


def test_versions_agree():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert PROJECT["version"] == citation["version"] == sam_lite.__version__


# ---- 许可与照片 ----------------------------------------------------------------


def test_licence_files_are_whole():
    assert "END OF TERMS AND CONDITIONS" in read("LICENSE")
    assert "Section 8" in read("LICENSE-docs")
    for word in ("arXiv:2304.02643", "Meta", "segment_anything", "Apache License"):
        assert word in read("NOTICE")


def test_every_photo_has_source_and_licence():
    folder = ROOT / "sam_lite" / "assets" / "photos"
    table = (folder / "SOURCES.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\S+)` \|(.+)\|$", table, re.MULTILINE)
    cells = {name: [c.strip() for c in rest.split("|")] for name, rest in rows}
    photos = {p.name for p in folder.iterdir() if p.suffix != ".md"}
    assert set(cells) == photos
    for name, row in cells.items():
        assert len(row) == 5 and all(row), f"{name} 缺一格"
        assert re.search("CC0|公有领域|没有已知的版权限制", row[-1]), name


def test_no_file_is_over_ten_megabytes():
    large = [p.name for p in tracked() if p.stat().st_size > 10 * MEBIBYTE]
    assert large == []


# ---- 命令 --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README_zh.md", "README.md"])
def test_readme_names_only_what_exists(name):
    text = read(name)
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", text))
    assert named and named <= targets
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text):
        file, _, heading = link.partition("#")
        assert (ROOT / file).exists(), f"{name} 里的链接 {link} 没有文件"
        if heading:
            assert re.search(rf"^#+ {heading}$", read(file), re.MULTILINE), link


def test_start_keeps_the_readers_notebooks_and_refreshes_ours(tmp_path):
    copy_new = runpy.run_path(str(ROOT / "chapters" / "start.py"))["copy_new"]
    source, my = tmp_path / "chapters", tmp_path / "my"
    (source / "solutions").mkdir(parents=True)
    for name in ["00_a.ipynb", "course.py", "start.py", "solutions/00_a.ipynb"]:
        (source / name).write_text("原文", "utf-8")

    kept = {Path("00_a.ipynb"), Path("course.py"), Path("solutions/00_a.ipynb")}
    assert set(copy_new(source, my)) == kept
    (my / "00_a.ipynb").write_text("我的答案", "utf-8")
    (source / "00_a.ipynb").write_text("更新了", "utf-8")
    (source / "01_b.ipynb").write_text("新的一章", "utf-8")
    (source / "course.py").write_text("修好了", "utf-8")

    assert copy_new(source, my) == [Path("01_b.ipynb"), Path("course.py")]
    assert (my / "00_a.ipynb").read_text("utf-8") == "我的答案"
    assert (my / "course.py").read_text("utf-8") == "修好了"
    assert {p.relative_to(my) for p in my.rglob("*") if p.is_file()} == kept | {
        Path("01_b.ipynb")
    }


def test_start_keeps_jupyterlab_off_the_network(monkeypatch):
    """真的没有请求出去，由 test_browser.py 在浏览器里查。"""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "elsewhere")
    start = runpy.run_path(str(ROOT / "chapters" / "start.py"))
    paths = start["quiet_environment"]()["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert paths[1:] == ["elsewhere"]
    file = Path(paths[0]) / "labconfig" / "default_setting_overrides.json"
    (settings,) = json.loads(file.read_text("utf-8")).values()
    assert settings == {"checkForUpdates": False, "fetchNews": "false"}


# ---- 中文排版 ------------------------------------------------------------------


def test_typography_sees_prose_and_spares_shapes(tmp_path):
    pytest.importorskip("autocorrect_py")
    faults = runpy.run_path(str(ROOT / "tools" / "typography.py"))["faults"]
    bad = "通道数" + "C"
    code, prose, book = (tmp_path / f"a.{kind}" for kind in ("py", "md", "ipynb"))
    code.write_text(f"x = 1  # (批量, 高, 宽)\ny = 2  # {bad}\n", "utf-8")
    prose.write_text(f"通道数 C 不变,看图。\n\n```\n{bad}\n```\n\n{bad}\n", "utf-8")
    cells = [
        {"cell_type": "markdown", "source": ["看图,", "想一想。"]},
        {"cell_type": "code", "source": ["x  # (批量, 高)"]},
        {"cell_type": "code", "source": [f"y  # {bad}"]},
    ]
    book.write_text(json.dumps({"cells": cells}), "utf-8")
    assert [re.search(r"(\d+) 行", line)[1] for line in faults(code)] == ["2"]
    assert [re.search(r"(\d+) 行", line)[1] for line in faults(prose)] == ["1", "7"]
    assert [re.search(r"(\d+) 格", line)[1] for line in faults(book)] == ["0", "2"]
