"""示意图没有过时：重画一遍，和仓库里的 SVG 逐字节相同；字都在字体里。"""

import importlib
import re
import sys
import warnings
from pathlib import Path

import pytest

FIGURES = Path(__file__).resolve().parent.parent / "figures"
sys.path.insert(0, str(FIGURES))

import style  # noqa: E402

# style 是共用的样子；另三个画的不是 SVG，各有各的测试
OTHERS = ("style", "scenes", "scenes_rich", "photos_masks")
SCRIPTS = sorted(p.stem for p in FIGURES.glob("*.py") if p.stem not in OTHERS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_svg_is_current(script, monkeypatch):
    drawn = {}
    module = importlib.import_module(script)
    monkeypatch.setattr(module, "save_all", drawn.update)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        module.main()
        texts = {name: style.to_svg(figure) for name, figure in drawn.items()}
    assert texts
    for name, text in texts.items():
        committed = (FIGURES / f"{name}.svg").read_text("utf-8")
        assert committed == text, f"{name}.svg 过时了：运行 make figures"


def test_every_svg_has_a_script():
    names = {path.stem for path in FIGURES.glob("*.svg")}
    known = {n for n in names if any(n.startswith(script) for script in SCRIPTS)}
    assert names == known


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.svg")), ids=lambda p: p.stem)
def test_svg_stands_alone(path):
    """文字是轮廓，不要系统字体；有自己的白底；不引用外面的东西。"""
    text = path.read_text("utf-8")
    assert "<text" not in text
    assert re.search(r"fill: #ffffff", text)
    assert not re.search(r'href="(?!#)', text)
    assert "dc:date" not in text
