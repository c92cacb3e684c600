"""第 0 章：正文的函数与 sam_lite 一致。"""

from chapters.common import course
from sam_lite.learn.evaluation import iou as package_iou

STEM = "00_quickstart"


def test_iou_is_the_package_one():
    """正文的 iou 与评测用的是同一个数。"""
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.random((2, 9, 13)) > 0.4
    for name in ("iou", "iou_by_loop"):
        assert abs(course.from_chapter(STEM, name)(a, b) - package_iou(a, b)) < 1e-12
