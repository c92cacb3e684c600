"""全部笔记本共守的规矩：模板、输出、字形；中文排版由 make lint 查。"""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from fontTools.ttLib import TTFont

from chapters.common import (
    CHAPTERS,
    NOTEBOOKS,
    ROOT,
    SOLUTIONS,
    cells,
    exercises,
    solution,
    tagged,
)

sys.path.insert(0, str(ROOT / "tools"))

from notebooks import WIDGET, sources_hash, without_widgets  # noqa: E402

EVERY = NOTEBOOKS + SOLUTIONS
FONT = ROOT / "figures" / "fonts" / "NotoSansCJKsc-subset.otf"
# 模板里每一章都要有的小标题
PARTS = (
    "学习目标",
    "猜一猜",
    "动手改坏",
    "常见误区与报错",
    "小结",
    "练习",
    "讨论",
    "给老师",
    "接下来",
)

every = pytest.mark.parametrize(
    "path", EVERY, ids=lambda p: f"{p.parent.name}-{p.stem}"
)
chapters = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def text(path: Path) -> str:
    return "\n\n".join(c["source"] for c in cells(path) if c["cell_type"] == "markdown")


@chapters
def test_stems_correspond(path):
    """第 N 章、第 N 个模块、它的测试同名；每章有答案。"""
    number, stem = path.stem.split("_", 1)
    if number != "00":
        assert (ROOT / "sam_lite" / f"{stem}.py").is_file()
        assert (ROOT / "tests" / f"test_{stem}.py").is_file()
        assert f"sam_lite/{stem}.py" in text(path)
    assert solution(path.stem).is_file()
    assert (ROOT / "tests" / "chapters" / f"test_{path.stem}.py").is_file()


@chapters
def test_template_is_followed(path):
    words = text(path)
    missing = [part for part in PARTS if part not in words]
    assert not missing
    assert "用时" in words and "先修" in words and "硬件" in words
    assert "glossary.md" in words
    number = path.stem[:2]
    picture = "model_map.svg" if number == "00" else f"model_map_{number}.svg"
    assert picture in words
    assert words.startswith("# ")


@every
def test_never_three_code_cells_in_a_row(path):
    kinds = [c["cell_type"] for c in cells(path)]
    for i in range(len(kinds) - 2):
        assert kinds[i : i + 3] != ["code"] * 3, cells(path)[i]["source"]


@every
def test_outputs_were_made_by_these_cells(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.get("sources") == sources_hash(notebook), (
        f"重新运行：python tools/notebooks.py {path.relative_to(ROOT)}"
    )
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@every
def test_outputs_are_clean(path):
    raw = path.read_text("utf-8")
    assert len(raw) < 3_000_000
    notebook = json.loads(raw)
    assert "widgets" not in notebook["metadata"]
    for cell in notebook["cells"]:
        assert "execution" not in cell["metadata"]
        for output in cell.get("outputs", []):
            shown = json.dumps(output, ensure_ascii=False)
            if "raises-exception" not in cell["metadata"].get("tags", []):
                assert output["output_type"] != "error"
                assert "Traceback" not in shown
            assert not re.search(r"/(home|work|tmp|root|Users)/", shown), shown[:300]
            assert "<matplotlib" not in shown, "画图的格子以分号结尾，别印出对象"
            assert not re.search(
                "missing from font|does not have a glyph|findfont", shown
            )
            if output["output_type"] == "stream":
                assert output["name"] == "stdout", shown[:300]


def test_widgets_leave_only_their_picture():
    """能点的画布在 GitHub 上是一张图；没有图的控件什么也不留。"""
    picture = {"data": {WIDGET: {}, "image/png": "…", "text/plain": "画布"}}
    slider = {"data": {WIDGET: {}, "text/plain": "滑块"}}
    printed = {"name": "stdout", "text": "…"}
    kept = without_widgets([picture, slider, printed])
    assert kept == [{"data": {"image/png": "…"}}, printed]


@every
def test_every_character_has_a_glyph(path):
    """正文的图和代码里的汉字，课程的字体里都有。"""
    known = set(TTFont(FONT).getBestCmap())
    for cell in cells(path):
        if cell["cell_type"] == "code":
            strange = {
                c for c in cell["source"] if ord(c) > 126 and ord(c) not in known
            }
            assert not strange, strange


@every
def test_bold_renders_and_pictures_have_words(path):
    words = text(path)
    # 结尾的标点在星号里面、后面紧跟汉字时，多数渲染器认不出加粗
    for line in re.sub(r"`[^`\n]*`", "码", words).splitlines():
        pieces = line.split("**")  # 第 1、3、5……段是加粗的
        for bold, after in zip(pieces[1::2], pieces[2::2], strict=False):
            ends_in_mark = re.search("[：，。；！？）”]$", bold)
            assert not (ends_in_mark and re.match(r"\w", after)), line
    assert not re.search(r"!\[\s*\]\(", words), "图片要有替代文字"
    for target in re.findall(r"!?\[[^\]]*\]\(([^)#]+)[^)]*\)", words):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@every
def test_words_we_do_not_use(path):
    assert not re.search("您|请|我们|咱", text(path))


@chapters
def test_exercises_are_complete(path):
    """四到六题；每题有题面、空白、两条提示、检查；答案本里有答案和检查。"""
    ids = exercises(path)
    number = path.stem[:2]
    assert ids == [f"ex-{number}-{i}" for i in range(1, len(ids) + 1)]
    assert 4 <= len(ids) <= 6
    for exercise in ids:
        (question,) = tagged(path, "exercise-text", exercise)
        for word in ("难度", "重要性", "分钟"):
            assert word in question["source"]
        assert len(tagged(path, "hint", exercise)) == 2
        assert all("<details>" in c["source"] for c in tagged(path, "hint", exercise))
        assert len(tagged(path, "check", exercise)) == 1
        assert len(tagged(solution(path.stem), "solution", exercise)) == 1
        (check,) = tagged(solution(path.stem), "check", exercise)
        shown = "".join("".join(o.get("text", "")) for o in check["outputs"])
        assert shown == f"{exercise}：通过\n"


@chapters
def test_blank_exercises_say_so_in_the_committed_outputs(path):
    for exercise in exercises(path):
        (check,) = tagged(path, "check", exercise)
        shown = "".join("".join(o.get("text", "")) for o in check["outputs"])
        assert shown == f"{exercise}：未作答\n"


def test_glossary_terms_are_used_in_one_form():
    """术语表里“不用”的说法，任何一章都不出现。"""
    table = (CHAPTERS / "glossary.md").read_text("utf-8")
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table.splitlines()]
    banned = {}
    for row in rows:
        if len(row) >= 4 and row[3] not in ("不用", "---", "—", ""):
            for word in re.split("[、，]", row[3]):
                banned[word.strip()] = row[0]
    assert len(banned) >= 10
    for path in EVERY:
        words = text(path)
        found = {w: right for w, right in banned.items() if w in words}
        assert not found, f"{path.name}：{found}"
