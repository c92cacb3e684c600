"""第 15 章的图：训练时，一个物体要问好几轮。"""

import style
from style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, RED, Canvas

HIGH, LOW, TALL = 2.75, 0.75, 0.8  # 两轮的高度，一个方框的高


def main() -> dict[str, style.Figure]:
    """第一轮从答案抽提示，第二轮在错处补一个点，损失加起来。"""
    figure, axes = style.new_figure(11.2, 4.5)
    column(axes, 0.2, HIGH, "答案\n一个物体的掩码", PURPLE, 1.4)
    column(axes, 2.35, HIGH, "第一轮的提示\n一个点，或框", ORANGE, 1.55)
    column(axes, 4.65, HIGH, "解码器", GREEN, 1.1)
    column(axes, 6.5, HIGH, "三张掩码", INK, 1.2)
    column(axes, 8.9, HIGH, "损失\n三张里最小的", RED, 1.5)
    flow(axes, 1.6, 2.35, HIGH, "抽")
    column(axes, 2.35, LOW, "第二轮的提示\n再加一个纠正的点", ORANGE, 1.55)
    column(axes, 4.65, LOW, "解码器", GREEN, 1.1)
    column(axes, 6.5, LOW, "一张掩码", INK, 1.2)
    column(axes, 8.9, LOW, "损失\n第 0 张", RED, 1.5)
    for y in (HIGH, LOW):
        for x, end in ((3.9, 4.65), (5.75, 6.5), (7.7, 8.9)):
            flow(axes, x, end, y)
    # 第一轮的掩码 -> 错处的点；它的 logits -> 解码器
    axes.link((6.75, HIGH), (3.4, LOW + TALL), color=ORANGE, weight=1.8)
    text = "预测的 IoU 最高的一张\n与答案比，在错处抽一点"
    axes.label(3.4, 2.2, text, size=8.5, color=ORANGE)
    axes.link((7.1, HIGH), (5.4, LOW + TALL), color=BLUE, weight=1.8)
    axes.label(7.35, 2.05, "它的 logits\n当掩码提示", size=8.5, color=BLUE)
    axes.box(4.5, 3.95, 1.4, 0.42, "图像嵌入", line=BLUE, size=9.5)
    axes.link((5.2, 3.95), (5.2, HIGH + TALL), color=BLUE)
    axes.label(
        6.0, 4.16, "图像只编码一次，各轮共用", size=8.5, color=BLUE, align="left"
    )
    axes.label(9.65, 2.15, "加起来", size=9.5, color=RED)
    axes.link((9.65, HIGH), (9.65, 2.3), color=RED)
    axes.link((9.65, LOW + TALL), (9.65, 2.0), color=RED)
    text = "还有第三轮、第四轮……论文一共 11 轮，其中两轮只送 logits，不补点"
    axes.label(5.6, 0.35, text, size=9, color=MUTED)
    return {"training": figure}


def column(
    axes: Canvas, x: float, y: float, text: str, line: str, width: float
) -> None:
    """一个方框，左下角在 (x, y)。"""
    axes.box(x, y, width, TALL, text, line=line, size=9.5)


def flow(axes: Canvas, start: float, end: float, y: float, text: str = "") -> None:
    """一行里的箭头。"""
    middle = y + TALL / 2
    axes.link((start, middle), (end, middle))
    axes.label((start + end) / 2, middle + 0.14, text, size=8.5, color=MUTED)
