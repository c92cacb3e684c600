"""画 sticker_scenes.jpg：贴纸场景长什么样，右边是每样东西的掩码，下面是名字。"""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from style import FONT, INK

from sam_lite import viz
from sam_lite.scenes import Scene
from sam_lite.scenes.stickers import Collection, bundled_stickers, make_sticker_scene

SEEDS = (11, 115, 131, 156, 190, 167, 177, 147, 165, 166, 117, 128)
COLUMNS, SIDE, STRIP = 3, 192, 28  # 一行几对，一张的边长，写名字的一条有多高
ROOT = Path(__file__).resolve().parent.parent
PHOTOS = sorted((ROOT / "sam_lite" / "assets" / "photos").glob("*.jpg"))
LETTERS = ImageFont.truetype(str(FONT), 15)


def caption(scene: Scene, width: int) -> str:
    """不属于别的东西的各样，一群的写个数；太长就不写完。"""
    pairs = zip(scene.names, scene.parents[1:], strict=True)
    names = Counter(zh for (zh, _), parent in pairs if not parent)
    text = ""
    for name in sorted(names, key=len, reverse=True):  # 成组的名字长，先写
        more = text + "、" * bool(text) + name
        more += f" × {names[name]}" if names[name] > 1 else ""
        if LETTERS.getlength(more + "……") > width:
            return text + "……"
        text = more
    return text


collection = Collection(
    bundled_stickers().stickers,
    tuple(Image.open(path).convert("RGB") for path in PHOTOS),
)
cells = []
for seed in SEEDS:
    scene = make_sticker_scene(seed, 256, collection)
    pair = viz.side_by_side(scene.image, viz.overlay(scene.image, scene.masks()))
    width = round(pair.shape[1] * SIDE / pair.shape[0])
    cell = Image.new("RGB", (width, SIDE + STRIP), "white")
    picture = Image.fromarray(pair).resize((width, SIDE), Image.Resampling.LANCZOS)
    cell.paste(picture)
    place = (2, SIDE + 3)
    ImageDraw.Draw(cell).text(place, caption(scene, width), INK, LETTERS)
    cells.append(np.array(cell))
rows = [
    viz.side_by_side(*cells[i : i + COLUMNS], gap=20)
    for i in range(0, len(cells), COLUMNS)
]
viz.save_image(Path(__file__).with_suffix(".jpg"), viz.stack_rows(rows, gap=4))
