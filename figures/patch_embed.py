"""图像块嵌入的两条路：切块、摊平、乘一个矩阵；或者一次步幅等于核的卷积。

用一张 4×6 的小图，图像块边长 2，每块变成 5 个数：高、宽、块数、通道数都不相同。
上面一行是笨办法，下面一条是卷积，两条路到同一张网格，通道在最后。
"""

import style
from style import BLUE, GREEN, INK, LIGHT, MUTED, ORANGE, PURPLE, RED, Canvas

CELL = 0.27  # 图上一个像素有多宽，英寸
GAP = 0.13  # 切开以后，图像块之间的空隙
SMALL = 0.19  # 向量和矩阵的一格
ROWS, COLUMNS, PATCH, WIDTH = 4, 6, 2, 5
LIT = (1, 2)  # 拿出来看的那一块：第几行、第几列
CHANNELS = (RED, GREEN, BLUE)
LENGTH = 3 * PATCH * PATCH  # 一块摊平以后有几个数


def outline(axes: Canvas, x: float, y: float, w: float, h: float, color: str) -> None:
    """左上角在 (x, y) 的粗框。"""
    axes.rectangle((x, y - h), w, h, fc="none", ec=color, lw=1.8)


def picture(axes: Canvas, x: float, y: float) -> None:
    """4×6 的图，三个通道叠在一起，画着图像块的界线。"""
    for k, line in reversed(list(enumerate(CHANNELS))):
        shift = 0.1 * k
        place = (x + shift, y + shift)
        axes.cells(*place, ROWS, COLUMNS, CELL, fill=LIGHT[line], line=line)
    side = PATCH * CELL
    for i in range(ROWS // PATCH):
        for j in range(COLUMNS // PATCH):
            outline(axes, x + j * side, y - i * side, side, side, INK)
    outline(axes, x + LIT[1] * side, y - LIT[0] * side, side, side, ORANGE)


def pieces(axes: Canvas, x: float, y: float) -> None:
    """切开的 2×3 块，点亮一块。"""
    side = PATCH * CELL
    for i in range(ROWS // PATCH):
        for j in range(COLUMNS // PATCH):
            lit = (i, j) == LIT
            corner = (x + j * (side + GAP), y - i * (side + GAP))
            fill = LIGHT[RED] if lit else style.GREY_LIGHT
            axes.cells(*corner, PATCH, PATCH, CELL, fill=fill)
            outline(axes, *corner, side, side, ORANGE if lit else MUTED)


def column(axes: Canvas, x: float, y: float) -> None:
    """一块摊平成一列 12 个数：先是红的 4 个，再绿，再蓝。"""
    for k, line in enumerate(CHANNELS):
        top = y - k * 4 * SMALL
        axes.cells(x, top, 4, 1, SMALL, fill=LIGHT[line], line=line)
        axes.label(x + SMALL + 0.15, top - 2 * SMALL, "红绿蓝"[k], size=9, color=line)
    outline(axes, x, y, SMALL, LENGTH * SMALL, ORANGE)


def matrix(axes: Canvas, x: float, y: float) -> None:
    """5×12 的矩阵：一行是一个核，红、绿、蓝各 4 个数。"""
    row = [LIGHT[line] for line in CHANNELS for _ in range(4)]
    axes.cells(x, y, WIDTH, LENGTH, SMALL, fill=[row] * WIDTH)
    outline(axes, x, y, LENGTH * SMALL, WIDTH * SMALL, INK)


def vectors(axes: Canvas, x: float, y: float) -> None:
    """2×3 的网格，每格朝里摞着 5 个数。"""
    side = 0.46
    for k in reversed(range(WIDTH)):
        shift = 0.1 * k
        fill = [[LIGHT[PURPLE]] * 3 for _ in range(2)]
        if k == 0:
            fill[LIT[0]][LIT[1]] = "#fff3df"
        axes.cells(x + shift, y + shift, 2, 3, side, fill=fill, line=PURPLE)
    outline(axes, x + LIT[1] * side, y - LIT[0] * side, side, side, ORANGE)


def caption(axes: Canvas, centre: float, y: float, title: str, shape: str = "") -> None:
    """图的上方：这一步做什么，和形状。"""
    axes.label(centre, y + 0.27, title, size=12)
    axes.label(centre, y, shape, size=11, color=BLUE)


def main() -> dict[str, style.Figure]:
    """上面：切、摊平、乘；下面：卷积、挪轴；右边汇合。"""
    figure, axes = style.new_figure(12.2, 4.6)
    high, title = 3.4, 3.98
    first, second, third, fourth, last = 0.3, 2.75, 5.35, 6.6, 10.25

    picture(axes, first, high)
    caption(axes, first + 0.9, title, "① 图像", "1×3×4×6")
    axes.link((first + 1.95, high - 0.55), (second - 0.12, high - 0.55), weight=1.8)
    pieces(axes, second, high)
    caption(axes, second + 0.94, title, "② 切成 2×3 块", "每块 3×2×2")
    start = (second + 3 * PATCH * CELL + 2 * GAP, high - 1.0)
    axes.link(start, (third - 0.1, high - 1.0), color=ORANGE, weight=1.8)
    column(axes, third, high)
    caption(axes, third + 0.12, title, "③ 摊平", "12 个数")

    axes.link((third + 0.48, high - 0.48), (fourth - 0.1, high - 0.48), weight=1.8)
    matrix(axes, fourth, high)
    words = "④ 乘一个矩阵，加偏置"
    caption(axes, fourth + LENGTH * SMALL / 2, title, words, "5×12，一行是一个核")
    out = fourth + LENGTH * SMALL + 0.16
    axes.label(out, high - 0.48, "=", size=14)
    axes.cells(out + 0.16, high, WIDTH, 1, SMALL, fill="#fff3df", line=PURPLE)
    outline(axes, out + 0.16, high, SMALL, WIDTH * SMALL, ORANGE)
    axes.label(out + 0.255, high - 1.1, "5 个数", size=10, color=BLUE)
    axes.link((out + 0.42, high - 0.48), (last - 0.08, high - 0.48), weight=1.8)

    vectors(axes, last, high)
    caption(axes, last + 0.85, title + 0.08, "⑤ 网格，通道在最后", "1×2×3×5")

    low = 0.3
    axes.plot([first + 0.8] * 2, [high - 1.2, low], color=GREEN, lw=1.8)
    axes.link((first + 0.8, low), (fourth, low), color=GREEN, weight=1.8)
    words = "一步到位：卷积，核 2×2，步幅也是 2；5 个核就是那 5 行"
    axes.label((first + 0.8 + fourth) / 2, low + 0.22, words, size=12, color=GREEN)
    axes.label(fourth + 0.6, low, "1×5×2×3", size=11, color=BLUE)
    axes.plot([fourth + 1.2, last + 0.75], [low] * 2, color=GREEN, lw=1.8)
    end = (last + 0.75, high - 1.0)
    axes.link((last + 0.75, low), end, color=GREEN, weight=1.8)
    middle = (fourth + 1.2 + last + 0.75) / 2
    words = "permute：通道挪到最后"
    axes.label(middle, low + 0.22, words, size=12, color=GREEN)
    return {"patch_embed": figure}
