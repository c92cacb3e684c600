"""掩码解码器（vit_b 的尺寸，一组提示）：词元从上面走，图像从下面走，最后点积。

绿的是学来的输出词元和它们的去处，橙的来自提示，蓝的来自照片。
"""

import style
from style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, Canvas

LEFT, RIGHT = 3.5, 4.75  # 双向 Transformer 的左右两边
IOU, MASK, PROMPT, DENSE, IMAGE = 4.6, 3.55, 2.6, 1.65, 0.75  # 各行的高度
TALL = 0.62  # 方框的高
PLUS, DOT = (2.35, IMAGE), (9.75, MASK)  # 加号、点积


def part(
    axes: Canvas, x: float, y: float, width: float, text: str, line: str, fill=None
) -> None:
    """一个方框，y 是它正中的高度。"""
    axes.box(x, y - TALL / 2, width, TALL, text, line=line, fill=fill, size=11)


def draw_inputs(axes: Canvas) -> None:
    """左边：三种词元，和图像嵌入加稠密嵌入。"""
    part(axes, 0.15, IOU, 1.7, "1 个 IoU 词元", GREEN)
    part(axes, 0.15, MASK, 1.7, "4 个掩码词元", GREEN)
    part(axes, 0.15, PROMPT, 1.7, "N 个提示词元\n（稀疏嵌入）", ORANGE)
    part(axes, 0.15, DENSE, 1.7, "稠密嵌入", ORANGE)
    part(axes, 0.15, IMAGE, 1.7, "图像嵌入", BLUE)
    for y, shape in ((IOU, "1×1×256"), (MASK, "1×4×256"), (PROMPT, "1×N×256")):
        axes.link((1.85, y), (LEFT, y))
        axes.label(2.67, y + 0.16, shape, size=10.5)
    axes.label(2.67, 4.07, "拼成 1×(5+N)×256", size=10.5, color=MUTED)
    axes.plot([1.85, PLUS[0]], [DENSE, DENSE], color=MUTED, lw=1.3)
    axes.link((PLUS[0], DENSE), (PLUS[0], IMAGE + 0.2))
    axes.label(2.47, 1.3, "加，不是拼", size=10.5, color=ORANGE, align="left")
    axes.link((1.85, IMAGE), (PLUS[0] - 0.2, IMAGE))
    axes.link((PLUS[0] + 0.2, IMAGE), (LEFT, IMAGE))
    axes.label(2.67, IMAGE - 0.36, "1×256×64×64", size=10.5)
    axes.plus(*PLUS, 0.2)


def draw_tokens_out(axes: Canvas) -> None:
    """右边上半：IoU 词元去打分，掩码词元去写权重，提示词元丢掉。"""
    part(axes, 6.0, IOU, 1.5, "IoU 头\n三层 MLP", GREEN)
    part(axes, 6.0, MASK, 1.5, "超网络\n4 个三层 MLP", GREEN)
    for y, shape in ((IOU, "1×256"), (MASK, "1×4×256")):
        axes.link((RIGHT, y), (6.0, y))
        axes.label(5.37, y + 0.16, shape, size=10.5)
    axes.link((7.5, IOU), (10.75, IOU))
    axes.label(9.1, IOU + 0.16, "1×4", size=10.5)
    part(axes, 10.75, IOU, 1.75, "4 个预测的 IoU", GREEN, PAPER)
    axes.link((7.5, MASK), (DOT[0] - 0.2, MASK))
    axes.label(8.5, MASK + 0.16, "1×4×32，4 组权重", size=10.5)
    axes.link((RIGHT, PROMPT), (6.0, PROMPT)).set_linestyle((0, (4, 2)))
    axes.label(5.37, PROMPT + 0.16, "1×N×256", size=10.5, color=MUTED)
    axes.label(6.1, PROMPT, "提示词元不再用", size=10.5, color=MUTED, align="left")


def draw_image_out(axes: Canvas) -> None:
    """右边下半：放大四倍，和权重点积，成四张掩码。"""
    part(axes, 6.0, IMAGE, 1.5, "转置卷积 2×2\n规范化、GELU", BLUE)
    part(axes, 8.95, IMAGE, 1.6, "转置卷积 2×2\nGELU", BLUE)
    axes.link((RIGHT, IMAGE), (6.0, IMAGE))
    axes.label(5.37, IMAGE + 0.28, "1×256\n×64×64", size=10.5)
    axes.link((7.5, IMAGE), (8.95, IMAGE))
    axes.label(8.22, IMAGE + 0.28, "1×64\n×128×128", size=10.5)
    axes.link((DOT[0], IMAGE + TALL / 2), (DOT[0], MASK - 0.2))
    words = "1×32×256×256\n每个像素 32 个数"
    axes.label(DOT[0] + 0.12, 2.1, words, size=10.5, align="left")
    axes.label(DOT[0], MASK + 0.36, "点积", size=11)
    axes.circle(DOT, 0.2, fc=PAPER, ec=INK, lw=1.4, zorder=4)
    axes.plot(*DOT, "o", color=INK, ms=4.5, zorder=5)
    axes.link((DOT[0] + 0.2, MASK), (10.75, MASK))
    part(axes, 10.75, MASK, 1.75, "4 张掩码\n1×4×256×256", GREEN, PAPER)
    words = "multimask_output\n真：第 1–3 张\n假：第 0 张"
    axes.label(11.62, 2.8, words, size=10.5)


def main() -> dict[str, style.Figure]:
    """左边进，中间互相看，右边出。"""
    figure, axes = style.new_figure(12.65, 5.1)
    draw_inputs(axes)
    axes.box(LEFT, 0.3, RIGHT - LEFT, 4.65, line=PURPLE)
    words = "双向\nTransformer\n\n词元看图像\n图像看词元\n（第 7 章）"
    axes.label((LEFT + RIGHT) / 2, 2.6, words, size=11, color=PURPLE)
    draw_tokens_out(axes)
    draw_image_out(axes)
    return {"mask_decoder": figure}
