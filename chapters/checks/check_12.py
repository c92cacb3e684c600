"""第 12 章的练习怎么检查。"""

import numpy as np
import torch
from course import answered, expect

from sam_lite.masks.rle import mask_to_rle_pytorch, rle_to_mask

# ---- 练习 12.1 ------------------------------------------------------------------


def ex_12_1(answer) -> None:
    """每层的块数 1、4、16，每块每边 24、12、6 个点。"""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "要三个整数：(编码次数, 点数, 掩码张数)。",
    )
    encodings, points, masks = answer
    expect(encodings != 20, "编码次数漏了第 0 层：整张照片也要编码。")
    expect(encodings != 3, "3 是层数；同一层的每一块都要单独编码。")
    expect(encodings != 5, "编码次数漏了第 2 层，或第 2 层当成了 2×2 块。")
    expect(encodings == 1 + 4 + 16, "编码次数不对：每层各有几块？加起来。")
    expect(points != 21 * 576, "点数没有减：每深一层，每边的点数除以 2。")
    expect(points != 576 + 4 * 288 + 16 * 144, "除以 2 的是每边的点数，不是总点数。")
    expect(points != 576 + 144 + 36, "点数没有乘块数：每一块都要撒一遍。")
    expect(points != 2 * 576, "点数漏了一层：整张照片和两层裁图都要问。")
    expect(points != 576 + 20 * 144, "第 2 层每边要除两次 2，不是一次。")
    expect(points == 3 * 576, "点数不对：每层是块数乘每边点数的平方，三层相加。")
    expect(masks != points, "掩码张数等于点数了：每个点有几张？")
    expect(masks == 3 * points, "掩码张数不对：还没有筛，每个点三张。")


# ---- 练习 12.2 ------------------------------------------------------------------


def ex_12_2(smallest_radius) -> None:
    """几组坡度和阈值，与解出来的半径比。"""
    for slope, thresh in ((1, 0.95), (2, 0.5), (0.5, 0.8), (4, 0.25)):
        got = float(answered(smallest_radius(slope, thresh)))
        d, q = 1 / slope, thresh**0.5
        ways = {
            "忘了开方：分数是比值的平方。": (d, thresh),
            "多开了一次，或平方写反了：q 是阈值的平方根。": (d, thresh**2),
            "坡度和 d 弄反了：坡度是 2，边只挪 1/2 像素。": (slope, q),
            "漏了坡度：坡越陡，需要的半径越小。": (1, q),
            "阈值是上下各挪 1，不是各挪半个。": (d / 2, q),
        }
        right = radius(d, q)
        where = f"slope={slope}、thresh={thresh} 时"
        for hint, way in ways.items():
            wrong = radius(*way)
            if not close(wrong, right):
                expect(not close(got, wrong), f"{where}不对。{hint}")
        flipped = d * (1 - q) / (1 + q)
        expect(not close(got, flipped), f"{where}不对：分子和分母弄反了。")
        expect(got != np.ceil(right), f"{where}取整了：要的是刚好达到的半径，不取整。")
        expect(close(got, right), f"{where}不对：代回公式得不到 {thresh}。")


def radius(d: float, q: float) -> float:
    """r - d = q (r + d) 的解。"""
    return d * (1 + q) / (1 - q)


def close(a: float, b: float) -> bool:
    return abs(a - b) < 1e-4 * max(1, abs(b))


# ---- 练习 12.3 ------------------------------------------------------------------


def cut_reference(
    box, crop, image, shift=(0, 1), exempt="same", edge=20, every=False
) -> bool:
    """按 12.8 节的规矩；后面几个参数是典型的错法。"""
    if shift:
        x, y = crop[shift[0]], crop[shift[1]]
        box = [box[0] + x, box[1] + y, box[2] + x, box[3] + y]
    near = [abs(b - c) <= edge for b, c in zip(box, crop, strict=True)]
    outer = [abs(b - c) <= edge for b, c in zip(box, image, strict=True)]
    if exempt == "no":
        outer = [False] * 4
    if exempt == "any":
        return any(near) and not any(outer)
    cut = [a and not b for a, b in zip(near, outer, strict=True)]
    return all(cut) if every else any(cut)


CUT_MISTAKES = {
    "两处错都还在：box 没有搬到照片上，贴着照片的边的也当成切断。": {
        "shift": None,
        "exempt": "no",
    },
    "box 的坐标是块里的，要先加上块左上角的 x、y。": {"shift": None},
    "贴着照片的边的不算切断：物体本来就到那里为止。": {"exempt": "no"},
    "一条边一条边地看：左边贴着照片，不能给右边的切断说情。": {"exempt": "any"},
    "x 和 y 加反了：两个 x 加块左边的 x，两个 y 加块上边的 y。": {"shift": (1, 0)},
    "有一条边切断就算，不必四条都贴着。": {"every": True},
    "正好相差 20 像素也算贴着。": {"edge": 19.5},
}


def ex_12_3(is_cut) -> None:
    """各种位置的块和框；与典型的错法一一比较。"""
    image = [0, 0, 300, 200]
    crops = [
        [0, 0, 170, 120],
        [130, 0, 300, 120],
        [130, 80, 300, 200],
        [60, 40, 230, 160],
    ]
    cases = []
    for crop in crops:
        width, height = crop[2] - crop[0], crop[3] - crop[1]
        for left, right in ((2, 90), (60, width - 20), (40, 80), (21, width - 21)):
            for top, bottom in ((3, 50), (50, height), (30, 70), (20, height - 40)):
                cases.append(([left, top, right, bottom], crop, image))
    got = [bool(answered(is_cut(*map(list, case)))) for case in cases]
    right = [cut_reference(*case) for case in cases]
    for hint, mistake in CUT_MISTAKES.items():
        wrong = [cut_reference(*case, **mistake) for case in cases]
        expect(wrong == right or got != wrong, hint)
    expect(got != [not value for value in right], "真假弄反了：切断的返回真。")
    for value, answer, (box, crop, _) in zip(got, right, cases, strict=True):
        word = "是" if answer else "不是"
        expect(
            value == answer,
            f"块 {crop} 里的框 {box}，照片 {image}：{word}切断的。四条边分别看。",
        )


# ---- 练习 12.4 ------------------------------------------------------------------


def ex_12_4(columns) -> None:
    """几张掩码：两头有没有 0、空的、只有一个像素的。"""
    masks = [np.zeros((3, 7), bool) for _ in range(6)]
    masks[0][1, 3:6] = True  # 除以高、除以宽、取余，三种都不同
    masks[1][2, 6] = masks[1][0, 3] = True  # 以 1 结尾
    masks[2][0, 0] = True  # 以 1 开头
    masks[3][:, 4:6] = True
    masks[4][:] = True
    tall = np.zeros((8, 3), bool)
    tall[2:5, 1] = True
    for mask in (*masks, tall):
        (rle,) = mask_to_rle_pytorch(torch.from_numpy(mask)[None])
        got = answered(columns({key: list(value) for key, value in rle.items()}))
        got = got.tolist() if hasattr(got, "tolist") else got
        expect(
            isinstance(got, (tuple, list)) and len(got) == 2,
            "要返回两个整数：(第一列, 最后一列)。",
        )
        expect_columns(tuple(int(x) for x in got), rle)


def expect_columns(got: tuple[int, int], rle) -> None:
    """一张掩码的左右两列对不对。"""
    (H, W), counts = rle["size"], rle["counts"]
    cols = np.flatnonzero(rle_to_mask(rle).any(axis=0))
    rows = np.flatnonzero(rle_to_mask(rle).any(axis=1))
    where = f"size={rle['size']}、counts={counts} 时"
    if len(cols) == 0:
        expect(got == (0, 0), f"{where}是空掩码，要返回 (0, 0)。")
        return
    first, last = counts[0], counts[0] + sum(counts[1:])
    if len(counts) % 2 == 1:
        last -= counts[-1]
    right = int(cols[0]), int(cols[-1])
    hints = {
        (int(rows[0]), int(rows[-1])): "那是行：题目问的是列。",
        (first // W, (last - 1) // W): "除的该是高：按列数，一列有 H 个像素。",
        (first % H, (last - 1) % H): "那是第几行：取商是列，取余是行。",
        (first // H, last // H): "最后一个 1 的位置没有减 1。",
        (first // H, (H * W - 1) // H): "末尾那段 0 没有减掉。",
        (
            first // H,
            (sum(counts[:-1]) - 1) // H,
        ): "末尾一定是 0 吗？看 counts 的个数。",
        (first // H, first // H): "只看了第一段 1，后面还有。",
    }
    for wrong, hint in hints.items():
        if wrong != right:
            expect(got != wrong, f"{where}不对。{hint}")
    expect(got == right, f"{where}应是第 {right[0]} 列到第 {right[1]} 列。")


# ---- 练习 12.5 ------------------------------------------------------------------


def box_of(mask) -> np.ndarray:
    """把掩码换成贴着它的实心框。"""
    filled = np.zeros_like(mask)
    if mask.any():
        rows, cols = np.nonzero(mask)
        filled[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1] = True
    return filled


def nms_reference(masks, scores, threshold, way="") -> list[int]:
    """按 12.6 节的规矩，way 是典型的错法。"""
    if way == "box":
        masks = np.array([box_of(mask) for mask in masks])
    sign = 1 if way == "low first" else -1
    order = sorted(range(len(masks)), key=lambda i: sign * scores[i])
    if way == "ties":
        order = np.argsort(scores, kind="stable")[::-1].tolist()
    kept, seen = [], []
    for i in order:
        rivals = seen if way == "dead too" else kept
        values = [overlap(masks[i], masks[j], way) for j in rivals]
        if way == "at least":
            pressed = any(value >= threshold for value in values)
        else:
            pressed = any(value > threshold for value in values)
        if not pressed:
            kept.append(i)
        seen.append(i)
    return sorted(kept) if way == "by index" else kept


def overlap(a, b, way: str) -> float:
    """两张掩码的 IoU；way 是 "min" 时分母是小的那张的面积。"""
    inter = (a & b).sum()
    under = min(a.sum(), b.sum()) if way == "min" else (a | b).sum()
    return inter / max(under, 1)


NMS_MISTAKES = {
    "box": "比的还是框：环和芯的框几乎重合，掩码却不重叠。",
    "low first": "从分数低的开始留了：要从高到低。",
    "dead too": "已经出局的还在压别人：只和留下的比。",
    "min": "分母是小的那张的面积：IoU 的分母是并。",
    "ties": "同分的次序变了：要按原来的先后，用稳定的排序。",
    "at least": "正好等于阈值的也去掉了：大于才算重复。",
    "by index": "留下的对了，次序不对：按分数从高到低，不是按下标。",
}


def ex_12_5(nms_of_masks) -> None:
    """环和芯、三连环、同分、空掩码，再加随机的。"""
    cases = nms_cases()
    got = []
    for masks, scores, threshold in cases:
        kept = answered(nms_of_masks(masks.copy(), scores.copy(), threshold))
        array = np.asarray(kept)
        expect(array.ndim <= 1, "要返回下标的列表，不是掩码。")
        expect(
            len(array) == 0 or array.dtype.kind in "iu",
            "要返回下标（整数）的列表，不是真假值或分数。",
        )
        got.append(array.astype(int).tolist())
    right = [nms_reference(*case) for case in cases]
    for way, hint in NMS_MISTAKES.items():
        expect(got != [nms_reference(*case, way) for case in cases], hint)
    for kept, answer, (masks, scores, threshold) in zip(got, right, cases, strict=True):
        if not masks.any():
            expect(kept == answer, "空掩码与谁的 IoU 都是 0，不该被压掉。")
        what = f"{len(masks)} 张、阈值 {threshold}、分数 {np.round(scores, 2).tolist()}"
        expect(sorted(kept) == sorted(answer), f"{what}：该留 {len(answer)} 张。")
        expect(kept == answer, f"{what}：次序不对，分数从高到低，同分按先后。")


def nms_cases() -> list[tuple[np.ndarray, np.ndarray, float]]:
    """检查用的几组 (掩码, 分数, 阈值)。"""
    ring = np.zeros((2, 12, 15), bool)
    ring[0, 1:11, 1:14] = True
    ring[0, 2:10, 2:13] = False
    ring[1, 2:10, 2:13] = True
    chain = np.zeros((3, 12, 20), bool)
    for i in range(3):
        chain[i, 2:9, 3 * i : 3 * i + 10] = True
    equal = np.zeros((2, 4, 9), bool)
    equal[0, 1, 0:6] = equal[1, 1, 0:3] = True  # IoU 正好 0.5
    rng = np.random.default_rng(0)
    noise = rng.random((9, 5, 7)) < 0.6
    return [
        (ring, np.array([0.6, 0.9]), 0.5),
        (chain, np.array([0.9, 0.8, 0.7]), 0.5),
        (equal, np.array([0.4, 0.8]), 0.5),
        (np.zeros((2, 4, 6), bool), np.array([0.5, 0.7]), 0.5),
        (noise, np.round(rng.random(9), 1), 0.4),
        (np.concatenate([chain, chain]), np.array([0.7, 0.7, 0.7, 0.7, 0.9, 0.7]), 0.5),
    ]
