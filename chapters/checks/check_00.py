"""第 0 章练习的检查：答案不对时，说出最可能错在哪里。"""

import numpy as np
from course import answered, expect


def ex_00_1(safe_iou) -> None:
    """safe_iou：两张都空是 1，其余照常。"""
    a, b = np.zeros((2, 4, 6), dtype=bool)
    a[0:3, 1:4] = b[1:3, 2:6] = True
    empty = np.zeros((4, 6), dtype=bool)
    value = answered(safe_iou(a, b))
    expect(
        abs(value - 6 / 17) > 1e-6, "除以了两个面积之和：并集里，重叠的部分只算一次。"
    )
    expect(
        abs(value - 4 / 13) < 1e-6, f"那两张掩码的 IoU 应是 4/13，你的是 {value:.3f}。"
    )
    with np.errstate(all="ignore"):
        both = safe_iou(empty, empty)
    expect(not np.isnan(both), "两张都空时还是除以了零，得到 NaN：先看并集是不是 0。")
    expect(both == 1, f"两张都空时应是 1，你的是 {both}。")
    for pair in ((a, empty), (empty, a)):
        expect(safe_iou(*pair) == 0, "只有一张空：交集是 0，并集不是 0，应是 0。")


def ex_00_2(to_point) -> None:
    """to_point：次序换过来，形状 (1, 2)。"""
    point = np.asarray(answered(to_point(3, 50)))
    expect(point.shape != (2,), "少了一层括号：一个点的形状也是 (1, 2)。")
    expect(point.shape == (1, 2), f"形状应是 (1, 2)，你的是 {point.shape}。")
    expect(point.tolist() != [[3, 50]], "次序没有换：行是 y，列是 x，点要写成 (x, y)。")
    expect(
        point.tolist() == [[50, 3]], f"第 3 行第 50 列应是 (50, 3)，你的是 {point[0]}。"
    )


def ex_00_3(tight_box) -> None:
    """tight_box：x 来自列，y 来自行，两头都含。"""
    mask = np.zeros((7, 11), dtype=bool)
    mask[2:5, 3:9] = True
    mask[3, 6] = False  # 中间有个洞，不影响
    box = answered(tight_box(mask))
    expect(np.shape(box) == (4,), "要四个数，只有一层括号：x0, y0, x1, y1。")
    box = tuple(int(v) for v in box)
    expect(box != (2, 3, 4, 8), "x 和 y 弄反了：x 看有物体的列，y 看有物体的行。")
    expect(box != (3, 2, 9, 5), "右下角多了 1：要最后一个像素的坐标，不是它的下一个。")
    expect(box != (3, 8, 2, 4), "次序不对：先左上角 (x0, y0)，再右下角 (x1, y1)。")
    wide = box in ((3, 2, 5, 2), (3, 2, 6, 3))
    expect(not wide, "后两个数是宽和高：框的后两个数是右下角的坐标 (x1, y1)。")
    expect(box == (3, 2, 8, 4), f"应是 (3, 2, 8, 4)，你的是 {box}。")


def ex_00_4(choose) -> None:
    """choose：按分数挑，mask_input 留着最前面的一维。"""
    rng = np.random.default_rng(0)
    masks = rng.random((3, 5, 7)) > 0.5
    low_res = rng.normal(size=(3, 8, 8))
    scores = np.array([0.2, 0.9, 0.4])
    both = answered(choose(masks, scores, low_res))
    expect(len(both) == 2, "要返回两样：掩码，和下一次的 mask_input。")
    mask, mask_input = both
    expect(
        np.shape(mask) == (5, 7), f"掩码的形状应是 (5, 7)，你的是 {np.shape(mask)}。"
    )
    first = np.array_equal(mask, masks[0]) or np.array_equal(mask, masks[2])
    expect(not first, "没有按分数挑：三张不是按分数排好的，用 scores.argmax()。")
    expect(np.array_equal(mask, masks[1]), "掩码不是分数最高的那一张。")
    expect(np.shape(mask_input) != (8, 8), "mask_input 少了最前面的一维：加上 [None]。")
    expect(np.shape(mask_input) == (1, 8, 8), "mask_input 的形状应是 (1, 4h, 4w)。")
    same = np.array_equal(mask_input[0], low_res[1])
    expect(same, "mask_input 要用同一张的 low_res，而且是 logits，不要变成真假值。")


def ex_00_5(shapes) -> None:
    """三样东西的形状。"""
    expect(len(shapes) == 3, "要三个元组：masks、scores、low_res。")
    for shape in shapes:
        answered(shape)
    comma = "(1) 只是整数 1：只有一项的元组要写逗号，(1,)。"
    expect(not any(np.ndim(s) == 0 for s in shapes), comma)
    masks, scores, low_res = (tuple(s) for s in shapes)
    expect(masks != (1, 800, 600), "高和宽弄反了：数组的形状是 (高, 宽)。")
    batch = "predict 的结果没有批量那一维，最前面是几张。"
    expect(len(masks) != 4 and len(low_res) != 4, batch)
    expect(masks != (600, 800), "只要一张时，第一维也还在，是 1。")
    expect(masks[0] != 3, "multimask_output=False 只给一张，不是三张。")
    expect(masks == (1, 600, 800), f"masks 不对，你写的是 {masks}。")
    expect(scores == (1,), "scores 一张掩码一个数，形状是 (1,)。")
    expect(low_res != (256, 256), "low_res 也留着第一维，只要一张时是 1。")
    expect(low_res != (1, 64, 64), "64 是图像嵌入的边长，低分辨率掩码是它的 4 倍。")
    expect(low_res == (1, 256, 256), f"low_res 不对，你写的是 {low_res}。")
