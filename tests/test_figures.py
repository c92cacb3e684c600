"""示意图没有过时：重画一遍，和仓库里的 SVG 逐字节相同；字都在字体里。"""

import importlib
import re
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

FIGURES = Path(__file__).resolve().parent.parent / "figures"
sys.path.insert(0, str(FIGURES))

import style  # noqa: E402

# style 是共用的样子；这几个画的是照片那样的 JPEG：名字 -> 画出哪几张
PICTURES = {
    "photos_masks": ["photos_masks"],
    "shape_scenes": ["scenes", "scenes_rich"],
    "sticker_scenes": ["sticker_scenes"],
}
OTHERS = {"style", *PICTURES}
SCRIPTS = sorted(p.stem for p in FIGURES.glob("*.py") if p.stem not in OTHERS)
SVGS = sorted(FIGURES.glob("*.svg"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_svg_is_current(script, monkeypatch, tmp_path):
    monkeypatch.setattr(style, "HERE", tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        importlib.import_module(script).main()
    drawn = sorted(tmp_path.glob("*.svg"))
    assert drawn
    for path in drawn:
        same = (FIGURES / path.name).read_bytes() == path.read_bytes()
        assert same, f"{path.name} 过时了：运行 make figures"


def test_every_picture_has_a_script():
    for path in SVGS:
        assert any(path.stem.startswith(script) for script in SCRIPTS), path.name
    drawn = {name for names in PICTURES.values() for name in names}
    assert {p.stem for p in FIGURES.glob("*.jpg")} == drawn | {"demo"}


@pytest.mark.parametrize("path", SVGS, ids=lambda p: p.stem)
def test_svg_stands_alone(path):
    """文字是轮廓，不要系统字体；有自己的白底；不引用外面的东西。"""
    text = path.read_text("utf-8")
    assert "<text" not in text
    assert re.search(r"fill: #ffffff", text)
    assert not re.search(r'href="(?!#)', text)
    assert "dc:date" not in text


def test_sticker_scenes_are_twelve_pairs_and_small():
    path = FIGURES / "sticker_scenes.jpg"
    assert path.stat().st_size < 250_000
    width, height = Image.open(path).size
    assert width > 1100 and height > 800  # 三列四行
