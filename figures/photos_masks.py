"""画 photos_masks.jpg：十张照片，真值、给一个框的掩码、点一下的掩码。"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import sam_lite  # noqa: E402
from benchmarks.photos.truth import Photos  # noqa: E402
from sam_lite import viz  # noqa: E402
from sam_lite.learn.photos import make_tasks  # noqa: E402

WIDTH, COLUMNS = 1700, 2  # 每行一样宽，放两张照片

predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
panels = []  # 每张照片三幅
for i, photo in enumerate(Photos().photos):
    (task,) = make_tasks(photo.image, photo.masks, clicks=1, seed=(0, i))
    predictor.set_image(photo.image)
    by_box, by_click = [], []
    for click, box in zip(task.clicks, task.boxes):
        masks, _, _ = predictor.predict(box=box, multimask_output=False)
        by_box.append(masks[0])
        masks, guess, _ = predictor.predict(click[None], np.ones(1, dtype=int))
        by_click.append(masks[guess.argmax()])
    panels += [
        viz.overlay(photo.image, photo.masks),
        viz.overlay(photo.image, np.stack(by_box)),
        viz.overlay(photo.image, np.stack(by_click), task.clicks),
    ]
rows = []
for start in range(0, len(panels), 3 * COLUMNS):
    row = panels[start : start + 3 * COLUMNS]
    height = round(WIDTH / sum(p.shape[1] / p.shape[0] for p in row))
    strips = [viz.side_by_side(*row[i : i + 3], height=height) for i in (0, 3)]
    rows.append(viz.side_by_side(*strips, gap=20))
viz.save_image(Path(__file__).with_suffix(".jpg"), viz.stack_rows(rows))
