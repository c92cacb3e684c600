"""自动掩码的流水线：网格 -> 每点三张 -> 两道分数 -> 框的 NMS -> 记录。

箭头上的张数以官方的默认设置为例；过了筛子剩几张，要看照片和权重。
"""

import math

import style
from style import BLUE, GREEN, LIGHT, LINE, MUTED, ORANGE, PAPER, PURPLE, RED, Canvas

WIDE, TALL, LOW, STEP = 1.42, 1.42, 1.0, 1.92
TITLES = ("网格", "每点三张", "预测的 IoU", "稳定性分数", "框的 NMS", "记录")
NOTES = (
    "每边 32 个点，\n各在自己那格正中",
    "部分、整体、更大，\n一张也不先扔",
    "解码器自己估的，\n大于 0.88 才留",
    "阈值 ±1 时面积之比，\n不小于 0.95 才留",
    "框的 IoU 大于 0.7\n算重复，留分数高的",
    "掩码写成 RLE，\n附上框、面积和分数",
)
COUNTS = ("1024 点", "3072 张", "少一些", "再少一些", "不重复的")


def frame(axes: Canvas, i: int) -> tuple[float, float]:
    """第 i 个格子：白底、标题、说明，返回左下角。"""
    x = 0.25 + i * STEP
    color = (BLUE, GREEN, PURPLE, PURPLE, PURPLE, ORANGE)[i]
    axes.rectangle((x, LOW), WIDE, TALL, fc=PAPER, ec=color, lw=1.4)
    axes.label(x + WIDE / 2, LOW + TALL + 0.2, TITLES[i], size=11, color=color)
    axes.label(x + WIDE / 2, LOW - 0.4, NOTES[i], size=8.5, color=MUTED)
    if i < len(COUNTS):
        middle = LOW + TALL / 2
        axes.link((x + WIDE + 0.04, middle), (x + STEP - 0.04, middle), weight=1.8)
        axes.label(x + (WIDE + STEP) / 2, middle + 0.2, COUNTS[i], size=8)
    return x, LOW


def dots(axes: Canvas, x: float, y: float) -> None:
    """一片网格的点。"""
    for i in range(8):
        for j in range(8):
            centre = x + (j + 0.5) * WIDE / 8, y + (i + 0.5) * TALL / 8
            axes.circle(centre, 0.035, fc=BLUE, ec="none")


def nested(axes: Canvas, x: float, y: float) -> None:
    """同一个点的三张掩码，一张套一张。"""
    middle = x + WIDE / 2, y + TALL / 2
    for radius, fill in ((0.6, LIGHT[GREEN]), (0.4, "#b4e0c6"), (0.2, "#7cc49a")):
        axes.circle(middle, radius, fc=fill, ec=GREEN, lw=1.1)
    axes.circle(middle, 0.05, fc=RED, ec=PAPER, lw=0.8)


def bars(axes: Canvas, x: float, y: float) -> None:
    """分数的柱子和一条阈值线：线以下的是空心。"""
    line = y + 0.85
    for i, height in enumerate((1.05, 0.5, 1.2, 0.7, 0.95, 0.3)):
        good = y + height > line
        fill, edge = (LIGHT[PURPLE], PURPLE) if good else (PAPER, LINE)
        place = x + 0.14 + i * 0.2
        axes.rectangle((place, y), 0.15, height, fc=fill, ec=edge, lw=1)
    axes.plot([x + 0.06, x + WIDE - 0.06], [line, line], color=RED, lw=1.3)
    axes.label(x + WIDE - 0.2, line + 0.13, "0.88", size=8, color=RED)


def slopes(axes: Canvas, x: float, y: float) -> None:
    """logits 的剖面：三条阈值线，陡的地方三处交点挨得近。"""
    middle = y + TALL / 2
    places = [x + 0.1 + i * (WIDE - 0.2) / 60 for i in range(61)]
    heights = [
        middle
        - 0.55
        + 0.55 * (math.tanh(8 * (t - x - 0.38)) + math.tanh(3 * (x + 1.1 - t)))
        for t in places
    ]
    axes.plot(places, heights, color=PURPLE, lw=2)
    for offset, name in ((0.25, "+1"), (0.0, "0"), (-0.25, "−1")):
        axes.plot(
            [x + 0.06, x + WIDE - 0.06],
            [middle + offset] * 2,
            color=RED if name == "0" else MUTED,
            lw=1,
            ls="-" if name == "0" else (0, (3, 2)),
        )
        axes.label(x + 0.17, middle + offset + 0.09, name, size=7.5, color=MUTED)


def boxes(axes: Canvas, x: float, y: float) -> None:
    """两个几乎重合的框，留一个；旁边不重叠的不受影响。"""
    spots = ((0.14, 0.55, 0.7, 0.7, True), (0.22, 0.48, 0.7, 0.7, False))
    for dx, dy, width, height, keep in (*spots, (1.0, 0.14, 0.3, 0.3, True)):
        color, dash = (PURPLE, "-") if keep else (RED, (0, (3, 2)))
        look = {"fc": "none", "ec": color, "lw": 1.8, "ls": dash}
        axes.rectangle((x + dx, y + dy), width, height, **look)
    axes.label(x + 1.08, y + 1.02, "×", size=15, color=RED)


def record(axes: Canvas, x: float, y: float) -> None:
    """一张记录的键。"""
    axes.rectangle((x, y), WIDE, TALL, fc=LIGHT[ORANGE], ec=ORANGE, lw=1.4)
    keys = "segmentation\narea、bbox\npredicted_iou\nstability_score\n"
    keys += "point_coords\ncrop_box"
    axes.label(x + 0.1, y + TALL / 2, keys, size=8.2, align="left")


def main() -> dict[str, style.Figure]:
    """整张图。"""
    figure, axes = style.new_figure(11.5, 2.95)
    for i, draw in enumerate((dots, nested, bars, slopes, boxes, record)):
        draw(axes, *frame(axes, i))
    return {"auto_mask": figure}
