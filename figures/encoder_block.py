"""一个 Block（vit_b 的尺寸）：残差流是一条直线，注意力和 MLP 从它读、往它上加。

虚线框的两步只有窗口层才有；全局层跳过它们，直接做注意力。
"""

import style
from style import BLUE, GREEN, INK, MUTED, PURPLE, Canvas

STREAM = 0.95  # 残差流的高度
BRANCH = 2.35  # 两条支路上方框的下沿
TALL = 0.72  # 方框的高
MIDDLE = BRANCH + TALL / 2
# 支路上的方框：文字、左边、宽、颜色、是不是只有窗口层才有
Step = tuple[str, float, float, str, bool]
ATTEND: list[Step] = [
    ("规范化\nnorm1", 0.95, 0.95, BLUE, False),
    ("补零\n切窗口", 2.2, 0.9, MUTED, True),
    ("注意力\nattn", 3.4, 1.0, PURPLE, False),
    ("拼回\n裁掉", 4.7, 0.9, MUTED, True),
]
THINK: list[Step] = [
    ("规范化\nnorm2", 7.0, 0.95, BLUE, False),
    ("MLP\n768→3072→768", 8.25, 1.6, GREEN, False),
]


def branch(
    axes: Canvas, steps: list[Step], start: float, end: float, words: str
) -> None:
    """一条支路：从 start 处离开残差流，经过 steps，在 end 处加回去。"""
    last = steps[-1][1] + steps[-1][2]
    axes.plot([start, start], [STREAM, MIDDLE], color=MUTED, lw=1.3)
    axes.circle((start, STREAM), 0.055, fc=INK, ec=INK, zorder=4)
    place = start
    for text, x, width, color, optional in steps:
        axes.link((place, MIDDLE), (x, MIDDLE))
        patch = axes.box(x, BRANCH, width, TALL, text, line=color, size=11)
        patch.set_linestyle((0, (4, 2)) if optional else "-")
        place = x + width
    axes.plot([last, end], [MIDDLE, MIDDLE], color=MUTED, lw=1.3)
    axes.link((end, MIDDLE), (end, STREAM + 0.17))
    axes.label(end - 0.1, STREAM + 0.75, words, size=11, color=MUTED, align="right")
    axes.plus(end, STREAM, 0.17)


def main() -> dict[str, style.Figure]:
    """下面一条直线是残差流，上面两条支路。"""
    figure, axes = style.new_figure(11.2, 3.95)
    axes.plot([0.15, 10.85], [STREAM] * 2, color=INK, lw=4, solid_capstyle="butt")
    tip = [(10.8, STREAM + 0.13), (11.08, STREAM), (10.8, STREAM - 0.13)]
    axes.polygon(tip, fc=INK, ec="none")
    branch(axes, ATTEND, 0.6, 6.0, "注意力的贡献")
    branch(axes, THINK, 6.6, 10.25, "MLP 的贡献")
    words = "窗口层：25 个窗口各做各的，25×14×14×768"
    axes.label(3.9, BRANCH + TALL + 0.54, words, size=11, color=PURPLE)
    words = "全局层（从 0 数，第 2、5、8、11 层）没有两个虚线框"
    axes.label(3.9, BRANCH + TALL + 0.28, words, size=11, color=MUTED)
    words = "每一格单独算，格子之间不往来"
    axes.label(8.4, BRANCH + TALL + 0.28, words, size=11, color=GREEN)
    axes.label(1.5, STREAM - 0.28, "1×64×64×768", size=11, color=BLUE)
    axes.label(9.0, STREAM - 0.28, "1×64×64×768", size=11, color=BLUE)
    words = "残差流：一路直通，只做加法，从不被规范化"
    axes.label(4.9, STREAM - 0.6, words, size=12)
    return {"encoder_block": figure}
