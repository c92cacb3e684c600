"""后处理：低分辨率 logits -> 放大 -> 裁掉填充 -> 缩放到照片；和三种错的次序。

上面一排按比例画：400×600 的照片，缩放后 683×1024，vit_b 的边长 1024。
"""

import numpy as np
import style
from style import BLUE, GREEN, GREY_LIGHT, INK, LIGHT, LINE, MUTED, PAPER, RED, Canvas

INCH = 2.3 / 1024  # 一个像素画多少英寸
TOP, LOW = 5.85, 2.4  # 上排、下排的上边
TALL = 683 / 1024  # 正方形里照片占的高
DISC = (0.56, 0.36, 0.16)  # 物体的中心 x、y 和半径，以正方形的边长为 1


def square(axes: Canvas, x: float, side: float, rows: float) -> None:
    """照片和它下面的填充，rows 是画到第几成高；物体是绿色的圆。"""
    if rows > TALL:
        look = {"fc": GREY_LIGHT, "ec": LINE, "hatch": "//"}
        axes.rectangle((x, TOP - side), side, side * (1 - TALL), **look)
    photo = (x, TOP - side * TALL), side, side * TALL
    axes.rectangle(*photo, fc=LIGHT[BLUE], ec=BLUE)
    cx, cy, radius = (side * v for v in DISC)
    axes.circle((x + cx, TOP - cy), radius, fc=LIGHT[GREEN], ec=GREEN, lw=1.2)
    axes.rectangle((x, TOP - side * rows), side, side * rows, fc="none", ec=INK)


def right_order(axes: Canvas) -> None:
    """上面一排：四个样子，三支箭头。"""
    sides = (256 * INCH, 1024 * INCH, 1024 * INCH, 600 * INCH)
    places = (0.55, 2.6, 6.35, 10.15)
    names = (
        "解码器给的 logits\n256×256",
        "1024×1024",
        "683×1024（高×宽）",
        "照片 400×600\n还是 logits",
    )
    for i, (x, side, name) in enumerate(zip(places, sides, names, strict=True)):
        rows = 1 if i < 2 else TALL
        square(axes, x, side, rows)
        drop = 0.3 if "\n" in name else 0.2
        axes.label(x + side / 2, TOP - side * rows - drop, name, size=10)
    steps = ("① 放大\n四倍", "② 裁掉\n填充", "③ 缩放\n到照片")
    middle = TOP - 0.32
    for i, text in enumerate(steps):
        start, end = places[i] + sides[i] + 0.12, places[i + 1] - 0.12
        axes.link((start, middle), (end, middle), color=BLUE, weight=2)
        axes.label((start + end) / 2, middle - 0.38, text, size=10, color=BLUE)
    x, side = places[1], sides[1]
    y = TOP - side * (1 + TALL) / 2
    axes.label(x + side / 2, y, "填充", size=10, color=MUTED)
    x, y = places[3] + sides[3] / 2, TOP - sides[3] * TALL - 0.62
    axes.link((x, y), (x, y - 0.42), color=GREEN, weight=2)
    axes.label(x, y - 0.6, "④ 和 0 比，得到掩码", size=10, color=GREEN)


def wrong_squeeze(axes: Canvas, x: float) -> None:
    """不裁：物体被压扁、上移。"""
    side = 2.55
    high = side * TALL
    axes.rectangle((x, LOW - high), side, high, fc=LIGHT[BLUE], ec=BLUE)
    cx, cy, radius = (side * v for v in DISC)
    centre = (x + cx, LOW - cy * TALL)
    axes.circle(centre, radius, TALL, fc=LIGHT[RED], ec=RED, lw=1.4)
    look = {"fc": "none", "ec": GREEN, "lw": 1.4, "ls": (0, (4, 2))}
    axes.circle((x + cx, LOW - cy), radius, **look)


def wrong_crop(axes: Canvas, x: float) -> None:
    """先裁：裁线落在第 170 格的四分之三处，只能取整。"""
    cell = 0.55
    fill = [[LIGHT[BLUE]] * 4, [LIGHT[BLUE]] * 4, [GREY_LIGHT] * 4]
    axes.cells(x + 0.45, LOW, 3, 4, cell, fill=fill)
    for i, number in enumerate((169, 170, 171)):
        axes.label(x + 0.2, LOW - (i + 0.5) * cell, str(number), size=9, color=MUTED)
    start, end = x + 0.35, x + 0.45 + 4 * cell
    for rows, color, text, up in (
        (1.75, GREEN, "照片到 170.75 格", 0.1),
        (2, RED, "只能裁在 171 格", -0.1),
    ):
        y = LOW - rows * cell
        axes.plot([start, end + 0.08], [y, y], color=color, lw=2)
        axes.label(end + 0.14, y + up, text, size=9.5, color=color, align="left")


def wrong_threshold(axes: Canvas, x: float) -> None:
    """先取阈值：一格要么全是，要么全不是，边缘成了台阶。"""
    cell, rows, columns = 0.275, 6, 9

    j, i = np.arange(columns) + 0.5, np.arange(rows)[:, None] + 0.5
    fill = np.where(i > 0.6 + 0.062 * j**2, LIGHT[RED], PAPER).tolist()
    axes.cells(x, LOW, rows, columns, cell, fill=fill)
    places = np.linspace(0, columns, 60)  # 真正的边缘：列，和它在第几行
    edge = 0.6 + 0.062 * places**2
    axes.plot(x + places * cell, LOW - edge * cell, color=GREEN, lw=2)
    for y, text, color in (
        (LOW - 0.4, "绿线：边缘\n真正的位置", GREEN),
        (LOW - 1.2, "红格：先变成\n1 的格子", RED),
    ):
        side = x + columns * cell + 0.12
        axes.label(side, y, text, size=9.5, color=color, align="left")


def main() -> dict[str, style.Figure]:
    """整张图。"""
    figure, axes = style.new_figure(12.1, 6.15)
    right_order(axes)
    axes.plot([0.3, 11.8], [3.15, 3.15], color=LINE, lw=1)
    titles = ("错：不裁，直接缩放", "错：先裁再放大", "错：先取阈值再放大")
    draws = (wrong_squeeze, wrong_crop, wrong_threshold)
    for x, title, draw in zip((0.4, 3.95, 8.3), titles, draws, strict=True):
        axes.label(x, LOW + 0.35, title, size=11, color=RED, align="left")
        draw(axes, x)
    notes = (
        "填充也挤进照片：\n物体压扁、上移（虚线是原位）",
        "整张掩码压短四分之一格，\n越往下偏得越多",
        "分数的大小没了，\n边缘只能落在整格上",
    )
    for x, note in zip((0.4, 3.95, 8.3), notes, strict=True):
        axes.label(x, LOW - 2.05, note, size=10, align="left")
    return {"postprocess": figure}
