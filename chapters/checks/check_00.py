"""第 0 章的练习：对的答案、典型的错误和提示。"""

import numpy as np
from checks.common import Code, Like, Part, Values, Wrong


def pairs() -> list[tuple]:
    """两张有重叠的、只有一张空的、两张都空的。"""
    a, b = np.zeros((2, 4, 6), dtype=bool)
    a[0:3, 1:4] = b[1:3, 2:6] = True
    empty = np.zeros((4, 6), dtype=bool)
    return [(a, b), (a, empty), (empty, a), (empty, empty)]


def quietly(function, *args):
    """除以零的警告不印出来：提示会说。"""
    with np.errstate(all="ignore"):
        return float(function(*args))


IOU = "(a & b).sum() / (a | b).sum()"
ex_00_1 = Code(
    f"""
def safe_iou(a, b):
    if (a | b).sum() == 0:
        return 1.0
    return {IOU}
""",
    pairs,
    Wrong(
        "两张都空时还是除以了零，得到 NaN：先看并集是不是 0。",
        f"def safe_iou(a, b):\n    return {IOU}",
    ),
    Wrong(
        "除以了两个面积之和：并集里，重叠的部分只算一次。",
        "/ (a | b).sum()",
        "/ (a.sum() + b.sum())",
    ),
    Wrong(
        "除以了两个面积之和：并集里，重叠的部分只算一次。",
        f"def safe_iou(a, b):\n    return {IOU.replace('(a | b)', '(a.sum() + b)')}",
    ),
    Wrong("只有一张空：交集是 0，并集不是 0，应是 0。", "(a | b)", "a"),
    Wrong(
        "只有一张空：交集是 0，并集不是 0，应是 0。", "(a | b).sum() ==", "b.sum() =="
    ),
    Wrong(
        "只有一张空：交集是 0，并集不是 0，应是 0。",
        "if (a | b).sum() == 0",
        "if a.sum() * b.sum() == 0",
    ),
    Wrong("两张都空时应是 1。", "1.0", "0.0"),
    ask=quietly,
    otherwise="和 IoU 的定义对不上：第一对应是 4/13，两张都空是 1，只有一张空是 0。",
)

ex_00_2 = Code(
    """
def to_point(row, column):
    return np.array([[column, row]])
""",
    lambda: [(3, 50), (7, 2)],
    Wrong(
        "次序没有换：行是 y，列是 x，点要写成 (x, y)。",
        "[column, row]",
        "[row, column]",
    ),
    Wrong(
        "少了一层括号：一个点的形状也是 (1, 2)。", "[[column, row]]", "[column, row]"
    ),
    Wrong("要的是一行两列，(1, 2)，不是两行。", "[column, row]", "[column], [row]"),
    Wrong("多了一层括号：形状是 (1, 2)。", "[[column, row]]", "[[[column, row]]]"),
)


def boxed() -> list[tuple]:
    mask = np.zeros((7, 11), dtype=bool)
    mask[2:5, 3:9] = True
    mask[3, 6] = False  # 中间有个洞，不影响
    slanted = np.zeros((7, 11), dtype=bool)  # 首尾两个像素都不在左右的边上
    slanted[1, 5] = slanted[3, 2:9] = slanted[5, 4] = True
    return [(mask,), (slanted,)]


ex_00_3 = Code(
    """
def tight_box(mask):
    r, c = np.nonzero(mask)
    return c.min(), r.min(), c.max(), r.max()
""",
    boxed,
    Wrong(
        "x 和 y 弄反了：x 看有物体的列，y 看有物体的行。",
        "c.min(), r.min(), c.max(), r.max()",
        "r.min(), c.min(), r.max(), c.max()",
    ),
    Wrong(
        "右下角多了 1：要最后一个像素的坐标，不是它的下一个。",
        "c.max(), r.max()",
        "c.max() + 1, r.max() + 1",
    ),
    Wrong(
        "次序不对：先左上角 (x0, y0)，再右下角 (x1, y1)。",
        "c.min(), r.min(), c.max(), r.max()",
        "c.min(), c.max(), r.min(), r.max()",
    ),
    Wrong(
        "后两个数是宽和高：框的后两个数是右下角的坐标 (x1, y1)。",
        "c.max(), r.max()",
        "np.ptp(c) + 1, np.ptp(r) + 1",
    ),
    Wrong(
        "后两个数是宽和高：框的后两个数是右下角的坐标 (x1, y1)。",
        "c.max(), r.max()",
        "np.ptp(c), np.ptp(r)",
    ),
    Wrong(
        "第一个和最后一个像素不一定在边上：行、列各取最小和最大。",
        "c.min(), r.min(), c.max(), r.max()",
        "c[0], r[0], c[-1], r[-1]",
    ),
    Wrong(
        "要四个数，只有一层括号：x0, y0, x1, y1。",
        "return c.min(), r.min(), c.max(), r.max()",
        "return [[c.min(), r.min(), c.max(), r.max()]]",
    ),
    form="要四个数，只有一层括号：x0, y0, x1, y1。",
)


def three_masks() -> list[tuple]:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 5, 7)) > 0.5
    return [(masks, np.array([0.2, 0.9, 0.4]), rng.normal(size=(3, 8, 8)))]


ex_00_4 = Code(
    """
def choose(masks, scores, low_res):
    i = scores.argmax()
    return masks[i], low_res[i][None]
""",
    three_masks,
    Wrong(
        "没有按分数挑：三张不是按分数排好的，用 scores.argmax()。",
        "scores.argmax()",
        "0",
    ),
    Wrong(
        "没有按分数挑：三张不是按分数排好的，用 scores.argmax()。",
        "scores.argmax()",
        "2",
    ),
    Wrong("mask_input 少了最前面的一维：加上 [None]。", "[None]", ""),
    Wrong(
        "mask_input 要用同一张的 low_res，而且是 logits，不要变成真假值。",
        "[None]",
        "[None] > 0",
    ),
    Wrong(
        "mask_input 要用同一张的 low_res，而且是 logits，不要变成真假值。",
        "low_res[i]",
        "low_res[0]",
    ),
    Wrong("要返回两样：掩码，和下一次的 mask_input。", ", low_res[i][None]", ""),
    form="要返回两样：掩码，和下一次的 mask_input。",
    names=("掩码", "mask_input"),
)

FIRST = "只要一张时，第一维也还在，是 1。"
BATCH = "predict 的结果没有批量那一维，最前面是几张。"
BARE = Like(1, lambda shape: np.ndim(shape) == 0)
COMMA = "(1) 只是整数 1：只有一项的元组要写逗号，(1,)。"
ex_00_5 = Values(
    "要三个元组：masks、scores、low_res。",
    [
        Part(
            (1, 600, 800),
            "masks 不对：形状是 (几张, 高, 宽)。",
            {
                BARE: COMMA,
                (1, 800, 600): "高和宽弄反了：数组的形状是 (高, 宽)。",
                (600, 800): FIRST,
                Like((1, 1, 600, 800), lambda shape: len(shape) == 4): BATCH,
                Like((3, 600, 800), lambda shape: shape[0] == 3): (
                    "multimask_output=False 只给一张，不是三张。"
                ),
            },
        ),
        Part((1,), "scores 一张掩码一个数，形状是 (1,)。", {BARE: COMMA}),
        Part(
            (1, 256, 256),
            "low_res 不对：形状是 (几张, 4h, 4w)。",
            {
                BARE: COMMA,
                (256, 256): "low_res 也留着第一维，只要一张时是 1。",
                (1, 64, 64): "64 是图像嵌入的边长，低分辨率掩码是它的 4 倍。",
                Like((1, 1, 256, 256), lambda shape: len(shape) == 4): BATCH,
            },
        ),
    ],
)
