"""老办法：在颜色分明的图上，IoU 可以手算。

重新调参数：``SAM_LITE_TUNE=100 pytest -s -k tuned tests/test_baselines.py``。
"""

import numpy as np
import pytest

from sam_lite.learn import baselines
from sam_lite.learn import evaluation as ev
from sam_lite.scenes import Scene


def flat_scene() -> Scene:
    """64×64：深色底，一个亮方块 20×20，一个中等亮度的圆盘。"""
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[8:28, 10:30] = 1
    y, x = np.ogrid[:64, :64]
    labels[(x - 44) ** 2 + (y - 44) ** 2 <= 12**2] = 2
    image = np.array([(20, 20, 20), (220, 200, 40), (60, 160, 220)], np.uint8)[labels]
    return Scene(image, labels, np.zeros(3, dtype=np.uint8))


def test_box_baselines_have_known_iou():
    square, circle = flat_scene().masks()
    box = ev.tight_box(circle)  # 半径 12：框 25×25
    filled = baselines.fill_box(box, circle.shape)
    assert ev.iou(filled, circle) == pytest.approx(circle.sum() / 25**2)
    assert ev.iou(baselines.ellipse_in_box(box, circle.shape), circle) == (
        pytest.approx(12**2 / 12.5**2, abs=0.03)
    )
    box = ev.tight_box(square)
    assert ev.iou(baselines.fill_box(box, square.shape), square) == 1
    ellipse = baselines.ellipse_in_box(box, square.shape)
    assert ev.iou(ellipse, square) == pytest.approx(np.pi / 4, abs=0.02)


def test_click_baselines_on_flat_colours():
    scene = flat_scene()
    square, circle = scene.masks()
    soft = baselines.smooth(scene.image)
    assert (
        ev.iou(baselines.flood_fill(soft, 20, 18), square) == 18**2 / 20**2
    )  # 吃掉一圈
    sharp = scene.image.astype(np.float32)
    assert ev.iou(baselines.flood_fill(sharp, 20, 18), square) == 1
    assert baselines.flood_fill(sharp, 20, 18, tolerance=255).all()  # 全图连成一片
    segments = baselines.felzenszwalb(scene.image)
    clicked = ev.iou(segments == segments[44, 44], circle)
    boxed = ev.iou(baselines.segments_in_box(segments, ev.tight_box(circle)), circle)
    assert 0.6 < clicked <= boxed  # 先模糊再分块，边上一圈归了别的块


def test_segments_in_box_wants_more_than_half():
    segments = np.zeros((4, 8), dtype=int)
    segments[:, 4:] = 1
    assert not baselines.segments_in_box(segments, (2, 0, 5, 3)).any()  # 正好一半不算
    assert np.array_equal(
        baselines.segments_in_box(segments, (3, 0, 6, 3)), segments == 1
    )
