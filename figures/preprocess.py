"""预处理的三步：照片 -> 最长边缩放 -> 规范化、在右边和下边填充；一个点跟着走。

尺寸按比例画：384×303 的照片，vit_b 的边长 1024。
"""

import style
from style import BLUE, GREEN, GREY_LIGHT, INK, LIGHT, LINE, ORANGE, PAPER, RED, Canvas

SIDE, PHOTO_W, PHOTO_H = 1024, 384, 303
INCH = 3.1 / SIDE  # 一个像素画多少英寸
TOP = 3.95
# 照片里的几枚硬币：中心 x、y 和半径，照片像素；第一枚是被点的
COINS = [(300, 100, 34), (70, 80, 30), (180, 75, 26), (90, 220, 36), (215, 215, 30)]
COINS += [(325, 225, 28)]


def coins(axes: Canvas, x: float, scale: float) -> None:
    """在左上角 (x, TOP) 处画放大 scale 倍的照片。"""
    unit = INCH * scale
    height = PHOTO_H * unit
    corner = (x, TOP - height)
    axes.rectangle(corner, PHOTO_W * unit, height, fc=LIGHT[BLUE], ec=BLUE)
    for i, (cx, cy, radius) in enumerate(COINS):
        centre = (x + cx * unit, TOP - cy * unit)
        fill = LIGHT[ORANGE] if i == 0 else PAPER
        edge = ORANGE if i == 0 else LINE
        axes.circle(centre, radius * unit, fc=fill, ec=edge, lw=1.2)


def point(axes: Canvas, x: float, place: tuple[float, float], text: str) -> None:
    """红点和它的坐标，place 是这张图上的像素。"""
    px, py = x + place[0] * INCH, TOP - place[1] * INCH
    axes.circle((px, py), 0.06, fc=RED, ec=PAPER, lw=1)
    axes.label(px, TOP + 0.5, text, size=10.5, color=RED)
    axes.plot([px, px], [TOP + 0.38, py + 0.08], color=RED, lw=0.9, ls=(0, (3, 2)))


def origin(axes: Canvas, x: float) -> None:
    """左上角的原点。"""
    axes.circle((x, TOP), 0.045, fc=INK, ec="none")
    axes.label(x + 0.02, TOP + 0.15, "(0, 0)", size=8, color=INK)


def main() -> dict[str, style.Figure]:
    """整张图。"""
    figure, axes = style.new_figure(11.4, 4.75)
    first, second, third = 0.4, 3.1, 7.95
    big = SIDE / PHOTO_W
    wide, tall = SIDE * INCH, PHOTO_H * big * INCH

    coins(axes, first, 1)
    coins(axes, second, big)
    look = {"fc": GREY_LIGHT, "ec": LINE, "lw": 1.4, "hatch": "//"}
    axes.rectangle((third, TOP - wide), wide, wide, **look)
    coins(axes, third, big)
    axes.rectangle((third, TOP - wide), wide, wide, fc="none", ec=INK, lw=1.4)
    axes.label(
        third + wide / 2, TOP - (wide + tall) / 2, "填充：0，也就是平均颜色", size=10
    )

    for x, place, text in (
        (first, (300, 100), "(300, 100)"),
        (second, (800, 266.7), "(800, 266.7)"),
        (third, (800, 266.7), "(800, 266.7)，不变"),
    ):
        origin(axes, x)
        point(axes, x, place, text)

    small_w, small_h = PHOTO_W * INCH, PHOTO_H * INCH
    names = (
        (first + small_w / 2, TOP - small_h - 0.2, "照片\n宽 384，高 303"),
        (second + wide / 2, TOP - tall - 0.2, "缩放后：宽 1024，高 808"),
        (third + wide / 2, TOP - wide - 0.2, "模型的输入：1024×1024"),
    )
    for (x, y, text), drop in zip(names, (0.12, 0, 0), strict=True):
        axes.label(x, y - drop, text, size=10.5)

    start = first + small_w + 0.12
    middle = TOP - small_h / 2
    axes.link((start, middle), (second - 0.12, middle), color=BLUE, weight=2)
    centre = (start + second - 0.12) / 2
    axes.label(centre, middle + 0.3, "最长边\n变成 1024", size=10, color=BLUE)
    axes.label(
        centre, middle - 0.24, "x 乘 1024/384\ny 乘 808/303", size=9.5, color=RED
    )

    start = second + wide + 0.12
    middle = TOP - tall / 2
    axes.link((start, middle), (third - 0.12, middle), color=BLUE, weight=2)
    centre = (start + third - 0.12) / 2
    axes.label(
        centre, middle + 0.4, "① 减均值、\n除标准差\n② 右、下补零", size=10, color=BLUE
    )
    axes.label(centre, middle - 0.24, "原点不动，\n坐标不用改", size=9.5, color=RED)

    # 回程：从正方形下面绕回照片
    low, start, end = 0.32, third + wide / 2, first + small_w / 2
    axes.plot([start, start, end], [TOP - wide - 0.38, low, low], color=GREEN, lw=2)
    axes.link((end, low), (end, TOP - small_h - 0.66), color=GREEN, weight=2)
    text = "掩码回来：先裁掉填充，再缩回照片的大小"
    axes.label((start + end) / 2 - 0.6, low + 0.2, text, size=10.5, color=GREEN)
    return {"preprocess": figure}
