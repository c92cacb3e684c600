"""画 scenes.jpg 和 scenes_rich.jpg：训练用的场景，每一对右边是每个物体的掩码。

前一张是平常的十二张场景，后一张是新添的成分，一样一行。
"""

from dataclasses import replace
from pathlib import Path

from sam_lite import viz
from sam_lite.scenes import Scene, make_scene
from sam_lite.scenes.content import BASE, NEW

HERE = Path(__file__).parent


def row(scenes: list[Scene]) -> viz.Picture:
    """几对图和掩码，从左到右。"""
    pairs = [viz.side_by_side(s.image, viz.overlay(s.image, s.masks())) for s in scenes]
    return viz.side_by_side(*pairs)


plain = [make_scene(seed) for seed in range(100, 112)]
rows = [row(plain[i : i + 4]) for i in range(0, 12, 4)]
viz.save_image(HERE / "scenes.jpg", viz.stack_rows(rows))

rows = []
for name in NEW:
    content = replace(BASE, **{name: 1.0})
    rows.append(row([make_scene(s, 192, content=content) for s in range(300, 305)]))
viz.save_image(HERE / "scenes_rich.jpg", viz.stack_rows(rows))
