"""窗口注意力的全过程（vit_b 的尺寸）：补边、切窗口、各做各的注意力、拼回、裁掉。

64×64 的网格补到 70×70，切成 5×5 个 14×14 的窗口；图里一格代表一个窗口，斜线的部分
是补上的格子。上面一行去，下面一行回：拼回在切开的正下方，裁掉在补零的正下方。
"""

import style
from style import BLUE, INK, LIGHT, LINE, MUTED, PURPLE, RED, Canvas

CELL = 0.42  # 图上一个 14×14 的窗口有多宽，英寸
REAL = CELL * 64 / 14  # 64 格有多宽
FULL = CELL * 5  # 70 格有多宽
SPREAD = 0.09  # 切开以后，窗口之间的空隙
LIT = (1, 2)  # 拿出来看的那个窗口：第几行、第几列


def rectangle(axes: Canvas, x: float, y: float, w: float, h: float, **look) -> None:
    """左上角在 (x, y) 的矩形。"""
    axes.rectangle((x, y - h), w, h, **look)


def padding(axes: Canvas, x: float, y: float, w: float, h: float) -> None:
    """一块补上的格子：红色斜线。"""
    rectangle(axes, x, y, w, h, fc=LIGHT[RED], ec=RED, lw=0.6, hatch="////")


def plain(axes: Canvas, x: float, y: float) -> None:
    """没有填充的一整张网格。"""
    rectangle(axes, x, y, REAL, REAL, fc=LIGHT[BLUE], ec=BLUE, lw=1.4)


def padded(axes: Canvas, x: float, y: float) -> None:
    """补好边的网格，画着窗口的界线，点亮一个窗口。"""
    rectangle(axes, x, y, REAL, REAL, fc=LIGHT[BLUE], ec="none")
    corner = (x + LIT[1] * CELL, y - LIT[0] * CELL)
    rectangle(axes, *corner, CELL, CELL, fc=LIGHT[PURPLE], ec="none")
    padding(axes, x + REAL, y, FULL - REAL, FULL)
    padding(axes, x, y - REAL, REAL, FULL - REAL)
    for i in range(1, 5):
        place = i * CELL
        axes.plot([x, x + FULL], [y - place] * 2, color=BLUE, lw=0.7)
        axes.plot([x + place] * 2, [y, y - FULL], color=BLUE, lw=0.7)
    rectangle(axes, x, y, FULL, FULL, fc="none", ec=BLUE, lw=1.4)


def pieces(axes: Canvas, x: float, y: float) -> None:
    """切开的 25 个窗口，右边和下边的带着填充。"""
    step = CELL + SPREAD
    inner = REAL - 4 * CELL  # 边上的窗口里真格子有多宽
    for i in range(5):
        for j in range(5):
            left, up = x + j * step, y - i * step
            lit = (i, j) == LIT
            w = inner if j == 4 else CELL
            h = inner if i == 4 else CELL
            fill = LIGHT[PURPLE] if lit else LIGHT[BLUE]
            rectangle(axes, left, up, w, h, fc=fill, ec="none")
            if j == 4:
                padding(axes, left + w, up, CELL - w, CELL)
            if i == 4:
                padding(axes, left, up - h, w, CELL - h)
            edge = PURPLE if lit else BLUE
            rectangle(axes, left, up, CELL, CELL, fc="none", ec=edge, lw=1)


def zoom(axes: Canvas, x: float, y: float, side: float) -> None:
    """放大一个窗口：14×14 个词元，一个查询看窗口里的所有格子。"""
    cell = side / 14
    rectangle(axes, x, y, side, side, fc=LIGHT[PURPLE], ec="none")
    for i in range(1, 14):
        axes.plot([x, x + side], [y - i * cell] * 2, color=LINE, lw=0.5)
        axes.plot([x + i * cell] * 2, [y, y - side], color=LINE, lw=0.5)
    rectangle(axes, x, y, side, side, fc="none", ec=PURPLE, lw=1.6)
    row, column = 6, 4
    start = (x + (column + 0.5) * cell, y - (row + 0.5) * cell)
    for i, j in ((1, 2), (2, 9), (5, 12), (10, 11), (12, 5), (9, 1)):
        end = (x + (j + 0.5) * cell, y - (i + 0.5) * cell)
        axes.link(start, end, color=PURPLE, weight=0.9)
    corner = (x + column * cell, y - row * cell)
    rectangle(axes, *corner, cell, cell, fc=PURPLE, ec="none")


def caption(axes: Canvas, centre: float, y: float, title: str, shape: str) -> None:
    """图的上方：这一步做什么，和形状。"""
    axes.label(centre, y + 0.47, title, size=12)
    axes.label(centre, y + 0.2, shape, size=11, color=BLUE)


def step(axes: Canvas, start: float, end: float, y: float, text: str) -> None:
    """两张图之间的箭头，上面写着做什么。"""
    axes.link((start, y), (end, y), color=MUTED, weight=1.8)
    axes.label((start + end) / 2, y + 0.2, text, size=11, color=MUTED)


def main() -> dict[str, style.Figure]:
    """上面一行：补零、切开；右边：注意力；下面一行：拼回、裁掉。"""
    figure, axes = style.new_figure(9.6, 6.75)
    wide = 5 * CELL + 4 * SPREAD
    first, second, third = 0.3, 3.35, 6.75
    high, low = 5.9, 2.6
    middle = low - FULL / 2

    plain(axes, first, high)
    caption(axes, first + REAL / 2, high, "① 词元网格", "1×64×64×768")
    step(axes, first + REAL + 0.1, second - 0.1, high - FULL / 2, "补零")
    padded(axes, second, high)
    caption(axes, second + FULL / 2, high, "② 右边、下边补到 70", "1×70×70×768")
    step(axes, second + FULL + 0.1, third - 0.1, high - FULL / 2, "切开")
    pieces(axes, third, high)
    caption(axes, third + wide / 2, high, "③ 25 个 14×14 的窗口", "25×14×14×768")

    inside = third + (wide - FULL) / 2
    right = inside + FULL - 0.1
    bottom = high - wide - 0.06
    axes.link((right, bottom), (right, low + 0.06), color=PURPLE, weight=1.8)
    zoom(axes, inside, low, FULL)
    words = "④ 只在窗口里互相看"
    caption(axes, inside + FULL / 2 - 0.2, low, words, "25×14×14×768")
    words = "每个窗口一张 196×196 的分数表"
    axes.label(inside + FULL / 2, low - FULL - 0.2, words, size=11, color=PURPLE)
    step(axes, inside - 0.1, second + FULL + 0.1, middle, "拼回")
    padded(axes, second, low)
    caption(axes, second + FULL / 2, low, "⑤ 每块放回原处", "1×70×70×768")
    step(axes, second - 0.1, first + REAL + 0.1, middle, "裁掉")
    plain(axes, first, low)
    words = "⑥ 形状和进来时一样"
    caption(axes, first + REAL / 2, low, words, "1×64×64×768")

    padding(axes, first, 0.34, 0.26, 0.18)
    words = "补上的格子：进注意力之前是零，出来以后不再是零"
    axes.label(first + 0.36, 0.25, words, size=11, color=INK, align="left")
    return {"window_partition": figure}
