"""第 15 章的练习：对的答案、典型的错误和提示。"""

import torch
from checks.common import Code, Part, Values, Wrong


def dice(name: str, overlap: float, guess: float, truth: float) -> Part:
    """15.3 节的 dice 损失；三位小数就够。"""

    def loss(overlap: float, guess: float, truth: float, one: float = 1) -> float:
        return 1 - (2 * overlap + one) / (guess + truth + one)

    right = loss(overlap, guess, truth)
    ways = {
        1 - right: "那是分数：损失是 1 减它。",
        loss(overlap, guess, truth, 0): "分子分母忘了各加 1。",
        loss(overlap / 2, guess, truth): "交没有乘 2。",
        1 - (overlap + 1) / (guess + truth - overlap + 1): (
            "分母是预测加答案，不是并：那是 IoU。"
        ),
        loss(960, 1000, 960): "那是背景的：交和答案都只数物体的像素。",
    }
    return Part(
        right,
        f"{name}不对：写出交、预测、答案各几个像素；小数至少写三位。",
        {
            wrong: f"{name}不对。{hint}"
            for wrong, hint in ways.items()
            if abs(wrong - right) > 1e-3  # 有的像素数，错的写法碰巧也对
        },
        within=6e-4,
    )


ex_15_1 = Values(
    "要三个数：(全选, 全不选, 选 40 对 30)。",
    [
        dice("全选", 40, 1000, 40),
        dice("全不选", 0, 0, 40),
        dice("选 40 对 30", 30, 40, 40),
    ],
)


def boxes() -> dict[str, tuple]:
    """长的、扁的、贴边的框，噪声有正有负、有大有小。"""
    cases = [
        ([20, 30, 120, 60], [0.5, -0.7, 1.2, 0.4], (100, 200)),
        ([5, 40, 25, 140], [-1.0, 0.3, -0.2, 0.9], (160, 60)),
        ([10, 10, 400, 90], [3.0, 1.5, -4.0, 0.5], (120, 500)),
        ([2, 1, 98, 48], [-1.0, -1.0, 1.0, 1.0], (50, 100)),
        ([0, 0, 40, 80], [-0.5, 0.0, 2.0, 2.0], (82, 44)),
    ]
    return {
        f"框 {box}、噪声 {noise}、图 {size}": (box, noise, size)
        for box, noise, size in cases
    }


SIDES, ENDS = "(x1 - x0, y1 - y0) * 2", "(size[1] - 1, size[0] - 1) * 2"
SHIFT = "max(-20, min(20, 0.1 * side * draw))"
MOVED = "max(0, min(end, value + shift))"
ex_15_2 = Code(
    f"""
def noisy_box(box, noise, size):
    x0, y0, x1, y1 = box
    sides, ends, moved = {SIDES}, {ENDS}, []
    for value, side, draw, end in zip(box, sides, noise, ends):
        shift = {SHIFT}
        moved.append({MOVED})
    return moved
""",
    boxes,
    Wrong("标准差是边长的一成，不是整个边长。", "0.1 * side", "side"),
    Wrong("偏移最多 20 像素：先夹住偏移，再加到框上。", SHIFT, "0.1 * side * draw"),
    Wrong("宽和高弄反了：x 用宽，y 用高。", SIDES, "(y1 - y0, x1 - x0) * 2"),
    Wrong("四条边都用了宽：y 要用高。", SIDES, "(x1 - x0,) * 4"),
    Wrong("框出了图：最后要夹在图里。", MOVED, "value + shift"),
    Wrong("小于 0 的也要夹到 0。", MOVED, "min(end, value + shift)"),
    Wrong("size 是 (高, 宽)：x 的上限由宽定。", ENDS, "(size[0] - 1, size[1] - 1) * 2"),
    Wrong("最后一个像素的坐标是宽减 1、高减 1。", ENDS, "(size[1], size[0]) * 2"),
    ask=lambda noisy_box, *args: [float(x) for x in noisy_box(*args)],
    form="要返回四个数 [x0, y0, x1, y1]。",
    otherwise="框不对。",
    names=("x0", "y0", "x1", "y1"),
)


def losses(B: int) -> tuple[torch.Tensor]:
    """第 0 张最小：取到它就错了。"""
    values = torch.rand(B, 4)
    values[:, 0] -= 0.5
    return (values,)


LEAST, MEAN = "three.min(dim=1).values", "three.mean(dim=1)"
ALL = "losses.min(dim=1).values"


def backward(ambiguous_loss, losses):
    """损失，和从它传回来的梯度。"""
    losses = losses.clone().requires_grad_()
    loss = ambiguous_loss(losses)
    if not isinstance(loss, torch.Tensor):
        return loss
    seen = {"损失": loss.detach(), "传得回梯度": loss.requires_grad}
    if loss.requires_grad and loss.shape == (len(losses),):
        loss.sum().backward()
        seen["梯度"] = losses.grad
    return seen


ex_15_3 = Code(
    f"""
def ambiguous_loss(losses):
    three = losses[:, 1:]
    return {LEAST} + 0.05 * {MEAN}
""",
    lambda: {f"{B} 组提示": losses(B) for B in (5, 3, 1)},
    Wrong("取的是整批里最小的一个：各组要各取各的。", LEAST, "three.min()"),
    Wrong("平均也要各组各的，不是整批的。", MEAN, "three.mean()"),
    Wrong("第 0 张也算进去了：只看第 1–3 张。", "losses[:, 1:]", "losses"),
    Wrong("最小的里面混进了第 0 张。", LEAST, ALL),
    Wrong("平均里混进了第 0 张。", MEAN, "losses.mean(dim=1)"),
    Wrong("平均占 5%，不是一半：一半会把三张拉成一样。", "0.05", "0.5"),
    Wrong("漏了平均的 5%：会有掩码荒废。", f" + 0.05 * {MEAN}", ""),
    Wrong("是平均，不是总和。", MEAN, "three.sum(dim=1)"),
    Wrong("取成最大的了：要最小的 + 5% 的平均。", LEAST, "three.max(dim=1).values"),
    Wrong(
        "梯度断了：别用 .detach()、.item() 或 numpy，训练要从损失传回去。",
        f"return {LEAST} + 0.05 * {MEAN}",
        f"return ({LEAST} + 0.05 * {MEAN}).detach()",
    ),
    Wrong(
        "梯度断了：别用 .detach()、.item() 或 numpy，训练要从损失传回去。",
        LEAST,
        "three.detach().min(dim=1).values",
    ),
    ask=backward,
    grad=True,
    form="要返回张量，每组提示一个数。",
    otherwise="要最小的 + 5% 的平均。",
)

ex_15_4 = Values(
    "要三个整数：(步数, 提示的组数, 编码的次数)。",
    [
        Part(
            19 * 12,
            "步数不对：一遍 300 张，一步 16 张，12 遍。",
            {
                18 * 12: "每遍除不尽的那一步也要走：300 / 16 进一。",
                225: "是每遍除不尽就进一，不是 12 遍合起来再除。",
                226: "是每遍除不尽就进一，不是 12 遍合起来再除。",
                150 * 12: "8 块显卡同时算一步，一步是 16 张。",
                38 * 12: "每块 2 张、共 8 块：一步 16 张，不是 8 张。",
                19: "那是一遍的步数：还要乘 12 遍。",
            },
        ),
        Part(
            300 * 12 * 8 * 3,
            "组数不对：照片数 × 遍数 × 物体 × 轮。",
            {
                300 * 12 * 8: "忘了每个物体要问 3 轮。",
                300 * 8 * 3: "忘了 12 遍：每遍都要重新问。",
                300 * 12 * 20 * 3: "每张抽 8 个物体，不是全部 20 个。",
                300 * 12 * 8 * 3 * 8: "显卡是分着干，总数不乘 8。",
                19 * 12 * 16 * 8 * 3: "最后一步不满 16 张，提示按照片数。",
            },
        ),
        Part(
            300,
            "编码的次数不对：每张照片一次。",
            {
                300 * 12: "编码器冻住，结果存着：只有第一遍要算。",
                300 * 8: "每张照片只由一块显卡编码，不是每块都来一次。",
            },
        ),
    ],
)


def gradients() -> dict[str, tuple]:
    """不一样多、一样多、有人没分到、形状不是一维。"""
    return {
        f"张数是 {counts}": ([torch.randn(*shape) * (n > 0) for n in counts], counts)
        for counts, shape in (([3, 2, 2], (4,)), ([4, 4], (2, 3)), ([5, 0, 1], (3,)))
    }


ex_15_5 = Code(
    """
def combine(gradients, counts):
    total = sum(n * g for n, g in zip(counts, gradients))
    return total / sum(counts)
""",
    gradients,
    Wrong(
        "每个进程当成一样重了：3 张的要比 2 张的重。",
        "total / sum(counts)",
        "sum(gradients) / len(gradients)",
    ),
    Wrong("没有除以总张数。", " / sum(counts)", ""),
    Wrong("除的是总张数，不是进程数。", "/ sum(counts)", "/ len(counts)"),
    Wrong("没有乘张数：平均乘张数才是总和。", "n * g", "g"),
    Wrong("没有乘张数，也没有除。", "total / sum(counts)", "sum(gradients)"),
    form="要返回一个张量，与每个梯度同形状。",
    otherwise="要的是按张数加权的平均。",
)
