"""提示编码器（vit_b 的尺寸）：点和框变成稀疏嵌入，掩码变成稠密嵌入。

上半：每个点、每个角是“在哪里”加“是什么”，一个一个排成词元；填充只有“是什么”。
下半：掩码的 logits 经过三层卷积缩到图像嵌入的网格；没有掩码时，一个向量铺满每一格。
"""

import style
from style import GREEN, LIGHT, LINE, MUTED, ORANGE, PAPER, PURPLE, Canvas

TALL = 0.5  # 上半每一行方框的高
STEP = 0.62  # 两行之间的距离
TOP = 5.62  # 第一行方框的上沿
MASK = 1.25  # 下半那一行的中线
# 每一行：提示、种类、有没有位置
ROWS = (
    ("点 (x, y)，标签 1", "正点", True),
    ("点 (x, y)，标签 0", "负点", True),
    ("没有框：补一个点", "填充", False),
    ("框的 (x0, y0)", "左上角", True),
    ("框的 (x1, y1)", "右下角", True),
)


def middle(i: int) -> float:
    """第 i 行的中线；框的两行往下让一点。"""
    return TOP - TALL / 2 - i * STEP - (0.3 if i > 2 else 0)


def sparse_row(axes: Canvas, i: int) -> None:
    """一个点或一个角，从提示到词元。"""
    prompt, kind, placed = ROWS[i]
    y = middle(i)
    low = y - TALL / 2
    axes.box(0.15, low, 1.75, TALL, prompt, line=ORANGE, size=10.5, fill=PAPER)
    if placed:
        axes.link((1.9, y), (2.3, y))
        axes.label(5.55, y, "+", size=16)
    else:
        axes.label(3.75, y, "不要位置", size=10.5, color=MUTED)
    axes.box(5.9, low, 1.05, TALL, kind, line=PURPLE, size=10.5)
    axes.label(7.28, y, "=", size=16)
    fill = LIGHT[ORANGE] if placed else PAPER  # 一个词元：一行 256 个数
    axes.cells(7.6, y + 0.12, 1, 8, 0.24, fill=fill, line=ORANGE)


def codes(axes: Canvas) -> None:
    """两块“随机傅里叶特征”：点用一块，框用一块，是同一个矩阵。"""
    words = "加 0.5，除以宽、高\n乘随机矩阵（2×128）\nsin、cos → 256"
    for first, last in ((0, 1), (3, 4)):
        low = middle(last) - TALL / 2
        high = middle(first) + TALL / 2
        axes.box(2.3, low, 2.9, high - low, words, line=ORANGE, size=10.5)


def dense_row(axes: Canvas) -> None:
    """掩码的几层卷积；下面是没有掩码的那条路。"""
    steps = (
        (0.15, 1.55, "掩码 logits\n1×256×256", ORANGE, PAPER),
        (2.2, 1.6, "2×2 卷积，步幅 2\n4×128×128", GREEN, None),
        (4.3, 1.6, "2×2 卷积，步幅 2\n16×64×64", GREEN, None),
        (6.4, 1.35, "1×1 卷积\n256×64×64", GREEN, None),
    )
    end = 0.0
    for x, width, words, line, fill in steps:
        if end:
            axes.link((end, MASK), (x, MASK))
        size = 10 if line == GREEN else 10.5
        axes.box(x, MASK - 0.33, width, 0.66, words, line=line, fill=fill, size=size)
        end = x + width
    axes.link((end, MASK), (8.22, MASK))
    words = "两层 2×2 卷积之后各有规范化和 GELU"
    axes.label(4.05, MASK + 0.53, words, size=10.5, color=MUTED)
    y = MASK - 0.85
    axes.box(0.15, y - 0.23, 1.55, 0.46, "没有掩码", line=MUTED, size=10.5)
    axes.link((1.7, y), (2.2, y))
    words = "一个学来的向量，铺满每一格"
    axes.box(2.2, y - 0.23, 3.7, 0.46, words, line=PURPLE, size=10.5)
    axes.plot([5.9, 8.62], [y, y], color=MUTED, lw=1.3)
    axes.link((8.62, y), (8.62, MASK - 0.45))


def main() -> dict[str, style.Figure]:
    """上半稀疏，下半稠密。"""
    figure, axes = style.new_figure(11.4, 6.35)
    axes.label(3.75, TOP + 0.3, "在哪里", size=12, color=ORANGE)
    axes.label(6.42, TOP + 0.3, "是什么", size=12, color=PURPLE)
    axes.label(8.56, TOP + 0.3, "词元，每个 256 个数", size=12)
    for i in range(len(ROWS)):
        sparse_row(axes, i)
    codes(axes)
    right = 9.8
    for first, last, words in ((0, 2, "只有点：点数 + 1"), (3, 4, "有框：点数 + 2")):
        high, low = middle(first) + 0.12, middle(last) - 0.12
        axes.plot([right, right], [low, high], color=MUTED, lw=1.3)
        centre = (high + low) / 2
        axes.label(right + 0.1, centre, words, size=10.5, align="left")
    words = "稀疏嵌入\n(批量, N, 256)"
    axes.label(
        right + 0.1, middle(2) - 0.46, words, size=11, color=ORANGE, align="left"
    )
    axes.plot([0.15, 11.25], [2.16, 2.16], color=LINE, lw=1)
    dense_row(axes)
    for i in range(4, -1, -1):  # 一张特征图：几层叠着的方片
        corner = (8.24 + 0.07 * i, MASK - 0.4 + 0.07 * i)
        axes.rectangle(corner, 0.8, 0.8, fc=LIGHT[GREEN], ec=GREEN, lw=1)
    words = "稠密嵌入\n(批量, 256, 64, 64)"
    axes.label(9.45, MASK, words, size=11, color=GREEN, align="left")
    return {"prompt_encoder": figure}
