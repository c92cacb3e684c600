"""第 0 章：练习的检查认得出典型的错误答案。"""

from chapters.common import assert_verdicts, course
from sam_lite.learn.evaluation import iou as package_iou

STEM = "00_quickstart"
WRONG = {
    "ex-00-1": [
        ("def safe_iou(a, b):\n    return (a & b).sum() / (a | b).sum()", "NaN"),
        ("def safe_iou(a, b):\n    return (a & b).sum() / (a.sum() + b.sum())", "4/13"),
        (
            "def safe_iou(a, b):\n"
            "    if a.sum() == 0 or b.sum() == 0:\n        return 1.0\n"
            "    return (a & b).sum() / (a | b).sum()",
            "只有一张空",
        ),
        (
            "def safe_iou(a, b):\n"
            "    if a.sum() == 0:\n        return 1.0\n"
            "    return (a & b).sum() / (a | b).sum()",
            "只有一张空",
        ),
    ],
    "ex-00-2": [
        ("def to_point(row, column):\n    return np.array([[row, column]])", "次序"),
        ("def to_point(row, column):\n    return np.array([column, row])", "一层括号"),
    ],
    "ex-00-3": [
        (
            "def tight_box(m):\n    r, c = np.nonzero(m)\n"
            "    return r.min(), c.min(), r.max(), c.max()",
            "弄反",
        ),
        (
            "def tight_box(m):\n    r, c = np.nonzero(m)\n"
            "    return c.min(), r.min(), c.max() + 1, r.max() + 1",
            "多了 1",
        ),
        (
            "def tight_box(m):\n    r, c = np.nonzero(m)\n"
            "    return c.min(), r.min(), np.ptp(c) + 1, np.ptp(r) + 1",
            "宽和高",
        ),
        (
            "def tight_box(m):\n    r, c = np.nonzero(m)\n"
            "    return np.array([[c.min(), r.min(), c.max(), r.max()]])",
            "一层括号",
        ),
    ],
    "ex-00-4": [
        ("def choose(m, s, lo):\n    return m[0], lo[0][None]", "没有按分数挑"),
        ("def choose(m, s, lo):\n    i = s.argmax()\n    return m[i], lo[i]", "[None]"),
        (
            "def choose(m, s, lo):\n    i = s.argmax()\n"
            "    return m[i], lo[i][None] > 0",
            "logits",
        ),
        ("def choose(m, s, lo):\n    return m[s.argmax()]", "两样"),
    ],
    "ex-00-5": [
        ("shapes = ((1, 800, 600), (1,), (1, 256, 256))", "高和宽弄反"),
        ("shapes = ((3, 600, 800), (3,), (3, 256, 256))", "只给一张"),
        ("shapes = ((1, 600, 800), (1,), (1, 64, 64))", "4 倍"),
        ("shapes = ((1, 600, 800), (1,), (1, 1, 256, 256))", "批量"),
        ("shapes = ((1, 600, 800), (1,), (256, 256))", "第一维"),
        ("shapes = ((1, 600, 800), (1), (1, 256, 256))", "逗号"),
    ],
}


def test_checks():
    assert_verdicts(STEM, WRONG)


def test_iou_is_the_package_one():
    """正文的 iou 与评测用的是同一个数。"""
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.random((2, 9, 13)) > 0.4
    for name in ("iou", "iou_by_loop"):
        assert abs(course.from_chapter(STEM, name)(a, b) - package_iou(a, b)) < 1e-12
