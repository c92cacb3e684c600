"""画 scenes_rich.jpg：训练的场景里新添的成分，一样一行，右边是每个物体的掩码。

运行：python figures/scenes_rich.py
"""

from dataclasses import replace
from pathlib import Path

from sam_lite import viz
from sam_lite.scenes import make_scene
from sam_lite.scenes.content import BASE, NEW

COLUMNS = 5
SIZE = 192

rows = []
for name in NEW:
    content = replace(BASE, **{name: 1.0})
    scenes = [
        make_scene(seed, SIZE, content=content) for seed in range(300, 300 + COLUMNS)
    ]
    pairs = [viz.side_by_side(s.image, viz.overlay(s.image, s.masks())) for s in scenes]
    rows.append(viz.side_by_side(*pairs))
viz.save_image(Path(__file__).with_suffix(".jpg"), viz.stack_rows(rows))
