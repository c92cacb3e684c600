"""第 15 章的练习怎么检查。"""

import math

import torch
from course import answered, expect

# ---- 练习 15.1 ------------------------------------------------------------------


def dice(overlap: float, guess: float, truth: float, one: float = 1) -> float:
    """15.3 节的 dice 损失；one 是分子分母各加的数。"""
    return 1 - (2 * overlap + one) / (guess + truth + one)


CASES = {"全选": (40, 1000, 40), "全不选": (0, 0, 40), "选 40 对 30": (30, 40, 40)}


def ex_15_1(answer) -> None:
    """三个 dice 损失，逐个与典型的错法比；三位小数就够。"""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "要三个数：(全选, 全不选, 选 40 对 30)。",
    )
    for got, (name, (overlap, guess, truth)) in zip(answer, CASES.items(), strict=True):
        got = float(answered(got))
        right = dice(overlap, guess, truth)
        ways = {
            "那是分数：损失是 1 减它。": 1 - right,
            "分子分母忘了各加 1。": dice(overlap, guess, truth, 0),
            "交没有乘 2。": 1 - (overlap + 1) / (guess + truth + 1),
            "分母是预测加答案，不是并：那是 IoU。": 1
            - (overlap + 1) / (guess + truth - overlap + 1),
            "那是背景的：交和答案都只数物体的像素。": dice(960, 1000, 960),
        }
        for hint, wrong in ways.items():
            if abs(wrong - right) > 6e-4:
                expect(abs(got - wrong) > 1e-4, f"{name}不对。{hint}")
        hint = "写出交、预测、答案各几个像素；小数至少写三位。"
        expect(abs(got - right) < 6e-4, f"{name}不对：{hint}")


# ---- 练习 15.2 ------------------------------------------------------------------


def box_reference(box, noise, size, way: str = "") -> list[float]:
    """论文的噪声；way 是典型的错法。"""
    wide, high = box[2] - box[0], box[3] - box[1]
    sides = (wide, high, wide, high)
    if way == "swapped sides":
        sides = (high, wide, high, wide)
    if way == "one side":
        sides = (wide,) * 4
    limit = math.inf if way == "no limit" else 20
    share = 1 if way == "share" else 0.1
    moved = [
        side_end + max(-limit, min(limit, share * side * draw))
        for side_end, side, draw in zip(box, sides, noise, strict=True)
    ]
    if way == "no clamp":
        return moved
    last = 0 if way == "off by one" else 1
    ends = (size[1] - last, size[0] - last) * 2
    if way == "swapped size":
        ends = (size[0] - 1, size[1] - 1) * 2
    low = -math.inf if way == "only upper" else 0
    return [max(low, min(end, value)) for value, end in zip(moved, ends, strict=True)]


BOX_MISTAKES = {
    "share": "标准差是边长的一成，不是整个边长。",
    "no limit": "偏移最多 20 像素：先夹住偏移，再加到框上。",
    "swapped sides": "宽和高弄反了：x 用宽，y 用高。",
    "one side": "四条边都用了宽：y 要用高。",
    "no clamp": "框出了图：最后要夹在图里。",
    "only upper": "小于 0 的也要夹到 0。",
    "swapped size": "size 是 (高, 宽)：x 的上限由宽定。",
    "off by one": "最后一个像素的坐标是宽减 1、高减 1。",
}


def ex_15_2(noisy_box) -> None:
    """长的、扁的、贴边的框，噪声有正有负、有大有小。"""
    cases = [
        ([20, 30, 120, 60], [0.5, -0.7, 1.2, 0.4], (100, 200)),
        ([5, 40, 25, 140], [-1.0, 0.3, -0.2, 0.9], (160, 60)),
        ([10, 10, 400, 90], [3.0, 1.5, -4.0, 0.5], (120, 500)),
        ([2, 1, 98, 48], [-1.0, -1.0, 1.0, 1.0], (50, 100)),
        ([0, 0, 40, 80], [-0.5, 0.0, 2.0, 2.0], (82, 44)),
    ]
    got = []
    for box, noise, size in cases:
        found = answered(noisy_box(list(box), list(noise), size))
        found = found.tolist() if hasattr(found, "tolist") else list(found)
        expect(len(found) == 4, "要返回四个数 [x0, y0, x1, y1]。")
        got.append([float(value) for value in found])
    right = [box_reference(*case) for case in cases]
    for way, hint in BOX_MISTAKES.items():
        wrong = [box_reference(*case, way) for case in cases]
        expect(not alike(got, wrong), hint)
    for found, wanted, (box, noise, size) in zip(got, right, cases, strict=True):
        where = f"框 {box}、噪声 {noise}、图 {size}"
        shown = [round(value, 2) for value in wanted]
        expect(alike([found], [wanted]), f"{where}：应是 {shown}。")


def alike(a: list[list[float]], b: list[list[float]]) -> bool:
    """两串框逐个数相同。"""
    return all(
        abs(x - y) < 1e-3 for p, q in zip(a, b, strict=True) for x, y in zip(p, q)
    )


# ---- 练习 15.3 ------------------------------------------------------------------


def ex_15_3(ambiguous_loss) -> None:
    """几批损失：第 0 张有时最小，最小的落在各处。"""
    g = torch.Generator().manual_seed(0)
    for B in (5, 3, 1):
        losses = torch.rand(B, 4, generator=g)
        losses[:, 0] -= 0.5  # 第 0 张最小：取到它就错了
        got = answered(ambiguous_loss(losses.clone()))
        three = losses[:, 1:]
        least, mean = three.min(dim=1).values, three.mean(dim=1)
        expect(torch.is_tensor(got), "要返回张量，每组提示一个数。")
        expect(
            got.shape == (B,), f"形状要 ({B},)，来的是 {tuple(got.shape)}：每组一个。"
        )
        ways = {
            "取的是整批里最小的一个：各组要各取各的。": three.min() + 0.05 * mean,
            "平均也要各组各的，不是整批的。": least + 0.05 * three.mean(),
            "第 0 张也算进去了：只看第 1–3 张。": losses.min(dim=1).values
            + 0.05 * losses.mean(dim=1),
            "最小的里面混进了第 0 张。": losses.min(dim=1).values + 0.05 * mean,
            "平均里混进了第 0 张。": least + 0.05 * losses.mean(dim=1),
            "平均占 5%，不是一半：一半会把三张拉成一样。": least + 0.5 * mean,
            "漏了平均的 5%：会有掩码荒废。": least,
            "是平均，不是总和。": least + 0.05 * three.sum(dim=1),
        }
        right = least + 0.05 * mean
        for hint, wrong in ways.items():
            if not torch.allclose(wrong, right):
                expect(not torch.allclose(got, wrong), hint)
        expect(torch.allclose(got, right), f"{B} 组提示时不对：最小的 + 5% 的平均。")


# ---- 练习 15.4 ------------------------------------------------------------------


def ex_15_4(answer) -> None:
    """19·12 步，300·12·8·3 组提示，300 次编码。"""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "要三个整数：(步数, 提示的组数, 编码的次数)。",
    )
    steps, prompts, encodings = map(answered, answer)
    expect(steps != 18 * 12, "每遍除不尽的那一步也要走：300 / 16 进一。")
    expect(steps not in (225, 226), "是每遍除不尽就进一，不是 12 遍合起来再除。")
    expect(steps != 150 * 12, "8 块显卡同时算一步，一步是 16 张。")
    expect(steps != 38 * 12, "每块 2 张、共 8 块：一步 16 张，不是 8 张。")
    expect(steps != 19, "那是一遍的步数：还要乘 12 遍。")
    expect(steps == 19 * 12, "步数不对：一遍 300 张，一步 16 张，12 遍。")
    expect(prompts != 300 * 12 * 8, "忘了每个物体要问 3 轮。")
    expect(prompts != 300 * 8 * 3, "忘了 12 遍：每遍都要重新问。")
    expect(prompts != 300 * 12 * 20 * 3, "每张抽 8 个物体，不是全部 20 个。")
    expect(prompts != 300 * 12 * 8 * 3 * 8, "显卡是分着干，总数不乘 8。")
    expect(prompts != 19 * 12 * 16 * 8 * 3, "最后一步不满 16 张，提示按照片数。")
    expect(prompts == 300 * 12 * 8 * 3, "组数不对：照片数 × 遍数 × 物体 × 轮。")
    expect(encodings != 300 * 12, "编码器冻住，结果存着：只有第一遍要算。")
    expect(encodings != 300 * 8, "每张照片只由一块显卡编码，不是每块都来一次。")
    expect(encodings == 300, "编码的次数不对：每张照片一次。")


# ---- 练习 15.5 ------------------------------------------------------------------


def ex_15_5(combine) -> None:
    """不一样多、一样多、有人没分到、形状不是一维。"""
    g = torch.Generator().manual_seed(1)
    for counts, shape in (((3, 2, 2), (4,)), ((4, 4), (2, 3)), ((5, 0, 1), (3,))):
        each = [torch.randn(*shape, generator=g) * (n > 0) for n in counts]
        given = [gradient.clone() for gradient in each]
        got = answered(combine(given, list(counts)))
        expect(torch.is_tensor(got), "要返回一个张量，与每个梯度同形状。")
        expect(got.shape == shape, f"形状要 {shape}，来的是 {tuple(got.shape)}。")
        weighted = sum(n * gradient for n, gradient in zip(counts, each, strict=True))
        right = weighted / sum(counts)
        ways = {
            "每个进程当成一样重了：3 张的要比 2 张的重。": sum(each) / len(each),
            "没有除以总张数。": weighted,
            "除的是总张数，不是进程数。": weighted / len(each),
            "没有乘张数：平均乘张数才是总和。": sum(each) / sum(counts),
            "没有乘张数，也没有除。": sum(each),
        }
        for hint, wrong in ways.items():
            if not torch.allclose(wrong, right, atol=1e-5):
                expect(not torch.allclose(got, wrong, atol=1e-5), hint)
        expect(torch.allclose(got, right, atol=1e-5), f"张数是 {counts} 时不对。")
