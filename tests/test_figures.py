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

# style 是共用的样子；这几个画的是照片那样的 JPEG：名字 -> 画出哪几张
PICTURES = {
    "photos_masks": ["photos_masks"],
    "shape_scenes": ["scenes", "scenes_rich"],
    "sticker_scenes": ["sticker_scenes"],
}
OTHERS = {"__main__", "style", *PICTURES}
SCRIPTS = sorted(p.stem for p in FIGURES.glob("*.py") if p.stem not in OTHERS)
SVGS = sorted(FIGURES.glob("*.svg"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_svg_is_current(script):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        drawn = importlib.import_module(script).main()
    assert drawn
    for name, figure in drawn.items():
        text, path = style.to_svg(figure), FIGURES / f"{name}.svg"
        assert "<text" not in text  # 文字是轮廓，不要系统字体
        assert "fill: #ffffff" in text  # 有自己的白底
        assert not re.search(r'href="(?!#)', text)  # 不引用外面的东西
        assert path.read_text("utf-8") == text, f"{path.name} 过时了：运行 make figures"


def test_every_picture_has_a_script():
    for path in SVGS:
        assert any(path.stem.startswith(script) for script in SCRIPTS), path.name
    drawn = {name for names in PICTURES.values() for name in names}
    assert {p.stem for p in FIGURES.glob("*.jpg")} == drawn | {"demo"}
