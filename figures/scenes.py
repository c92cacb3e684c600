"""画 scenes.jpg：训练用的场景长什么样，右边是每个物体的掩码。

运行：python figures/scenes.py
"""

from pathlib import Path

from sam_lite import viz
from sam_lite.scenes import make_scene

SEEDS = range(100, 112)
COLUMNS = 4

pairs = []
for seed in SEEDS:
    scene = make_scene(seed)
    pairs.append(viz.side_by_side(scene.image, viz.overlay(scene.image, scene.masks())))
rows = []
for start in range(0, len(pairs), COLUMNS):
    row = pairs[start]
    for pair in pairs[start + 1 : start + COLUMNS]:
        row = viz.side_by_side(row, pair)
    rows.append(row)
viz.save_image(Path(__file__).with_suffix(".jpg"), viz.stack_rows(rows))
