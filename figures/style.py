"""所有示意图共用的样子：一套颜色、一种字体、几个画法，和可重复的 SVG。

每张图都有自己的白底，在深色页面和打印稿上一样清楚。文字转成轮廓，读的人不必装
字体。同样的脚本写出的文件逐字节相同，测试靠这一点查图有没有过时。
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import font_manager, pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle  # noqa: E402

HERE = Path(__file__).parent
FONT = HERE / "fonts" / "NotoSansCJKsc-subset.otf"

INK, MUTED, LINE, PAPER = "#1f2933", "#66727f", "#c3ccd5", "#ffffff"
# 每种颜色一深一浅：深的画线写字，浅的填底
BLUE, BLUE_LIGHT = "#2866ad", "#dce9f8"  # 图像，编码器
ORANGE, ORANGE_LIGHT = "#b9650f", "#fcebd5"  # 提示
GREEN, GREEN_LIGHT = "#23794a", "#daf1e3"  # 掩码，解码器
PURPLE, PURPLE_LIGHT = "#6d4fa3", "#ebe3f7"  # 注意力
RED, RED_LIGHT = "#b8352e", "#fbe0de"  # 错误，要注意的地方
GREY_LIGHT = "#f1f4f7"  # 背景里的东西


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """一张空白的图：坐标单位是英寸，左下角是 (0, 0)，没有坐标轴。"""
    font_manager.fontManager.addfont(FONT)
    matplotlib.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["Noto Sans CJK SC", "DejaVu Sans"],
            "axes.unicode_minus": False,
            "svg.hashsalt": "sam_lite",
            "svg.fonttype": "path",
        }
    )
    figure = pyplot.figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str = "",
    *,
    line: str = INK,
    fill: str = PAPER,
    size: float = 10,
    weight: float = 1.2,
) -> None:
    """一个圆角方框，左下角在 (x, y)，字在正中。"""
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle=style, ec=line, fc=fill, lw=weight
        )
    )
    label(axes, x + width / 2, y + height / 2, text, size=size, color=line)


def label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = 9,
    color: str = INK,
    align: str = "center",
) -> None:
    """一段字，(x, y) 是它的中心；align 可以是 left、center、right。"""
    axes.text(
        x, y, text, size=size, color=color, ha=align, va="center", linespacing=1.35
    )


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = MUTED,
    weight: float = 1.3,
    bend: float = 0.0,
    both: bool = False,
) -> None:
    """从 start 到 end 的箭头；bend 不为零时是弧线，both 为真时两头都有箭头。"""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="<|-|>" if both else "-|>",
            mutation_scale=9,
            color=color,
            lw=weight,
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def grid(
    axes: Axes,
    x: float,
    y: float,
    rows: int,
    columns: int,
    cell: float,
    *,
    fill: str | list[list[str]] = PAPER,
    line: str = LINE,
    texts: list[list[str]] | None = None,
    size: float = 8,
) -> None:
    """rows×columns 的格子，左上角在 (x, y)，一格边长 cell；fill 可以逐格给。"""
    for i in range(rows):
        for j in range(columns):
            color = fill if isinstance(fill, str) else fill[i][j]
            corner = (x + j * cell, y - (i + 1) * cell)
            axes.add_patch(Rectangle(corner, cell, cell, fc=color, ec=line, lw=0.8))
            if texts is not None:
                centre = (corner[0] + cell / 2, corner[1] + cell / 2)
                label(axes, *centre, texts[i][j], size=size)


def to_svg(figure: Figure) -> str:
    """图的 SVG 文本，每次都一样：没有日期，编号的盐固定。"""
    text = io.StringIO()
    figure.savefig(text, format="svg", facecolor=PAPER, metadata={"Date": None})
    pyplot.close(figure)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def save_all(figures: dict[str, Figure]) -> None:
    """把几张图写成 figures/ 里的 SVG，名字是键。"""
    for name, figure in figures.items():
        (HERE / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")
        print(f"写好了 figures/{name}.svg")
