"""所有示意图共用的样子：一套颜色、一种字体、几个画法，和可重复的 SVG。

每张图都有自己的白底，在深色页面和打印稿上一样清楚。文字转成轮廓，读的人不必装
字体。同样的脚本写出的文件逐字节相同，测试靠这一点查图有没有过时。
"""

import io
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import font_manager, pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import (  # noqa: E402
    Ellipse,
    FancyArrowPatch,
    FancyBboxPatch,
    Polygon,
    Rectangle,
)

HERE = Path(__file__).parent
FONT = HERE / "fonts" / "NotoSansCJKsc-subset.otf"

INK, MUTED, LINE, PAPER = "#1f2933", "#66727f", "#c3ccd5", "#ffffff"
GREY_LIGHT = "#f1f4f7"  # 背景里的东西
BLUE = "#2866ad"  # 图像，编码器
ORANGE = "#b9650f"  # 提示
GREEN = "#23794a"  # 掩码，解码器
PURPLE = "#6d4fa3"  # 注意力
RED = "#b8352e"  # 错误，要注意的地方
LIGHT = {  # 深的画线写字，浅的填底
    BLUE: "#dce9f8",
    ORANGE: "#fcebd5",
    GREEN: "#daf1e3",
    PURPLE: "#ebe3f7",
    RED: "#fbe0de",
}
Point = tuple[float, float]


class Canvas(Axes):
    """一张图的画布：坐标单位是英寸，左下角是 (0, 0)；在坐标轴上添了几个画法。"""

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str = "",
        *,
        line: str = INK,
        fill: str | None = None,
        size: float = 10,
    ) -> FancyBboxPatch:
        """一个圆角方框，左下角在 (x, y)，字在正中；不给 fill 就填 line 的浅色。"""
        look = {"ec": line, "fc": fill or LIGHT.get(line, PAPER), "lw": 1.2}
        style = "round,pad=0,rounding_size=0.07"
        patch = FancyBboxPatch((x, y), width, height, boxstyle=style, **look)
        self.add_patch(patch)
        self.label(x + width / 2, y + height / 2, text, size=size, color=line)
        return patch

    def label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 9,
        color: str = INK,
        align: str = "center",
    ) -> None:
        """一段字，(x, y) 是它的中心；align 可以是 left、center、right。"""
        place = {"ha": align, "va": "center"}
        self.text(x, y, text, size=size, color=color, linespacing=1.35, **place)

    def link(
        self,
        start: Point,
        end: Point,
        *,
        color: str = MUTED,
        weight: float = 1.3,
        bend: float = 0.0,
    ) -> FancyArrowPatch:
        """从 start 到 end 的箭头；bend 不为零时是弧线。"""
        look = {"color": color, "lw": weight, "mutation_scale": 9}
        look |= {"shrinkA": 0, "shrinkB": 0, "connectionstyle": f"arc3,rad={bend}"}
        patch = FancyArrowPatch(start, end, arrowstyle="-|>", **look)
        return self.add_patch(patch)

    def cells(
        self,
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
                left, low = x + j * cell, y - (i + 1) * cell
                self.rectangle((left, low), cell, cell, fc=color, ec=line, lw=0.8)
                if texts is not None:
                    centre = left + cell / 2, low + cell / 2
                    self.label(*centre, texts[i][j], size=size)

    def rectangle(self, corner: Point, width: float, height: float, **look) -> None:
        """左下角在 corner 的矩形；look 是 matplotlib 的 fc、ec、lw 等等。"""
        self.add_patch(Rectangle(corner, width, height, **look))

    def circle(self, centre: Point, radius: float, squash=1.0, **look) -> None:
        """圆；squash 是竖着压成几成。"""
        self.add_patch(Ellipse(centre, 2 * radius, 2 * radius * squash, **look))

    def polygon(self, corners: list[Point], **look) -> None:
        """多边形。"""
        self.add_patch(Polygon(corners, **look))

    def plus(self, x: float, y: float, radius: float, color: str = INK) -> None:
        """圆里一个加号。"""
        self.circle((x, y), radius, fc=PAPER, ec=color, lw=1.6, zorder=4)
        arm = radius * 0.53
        for dx, dy in ((arm, 0), (0, arm)):
            ends = [x - dx, x + dx], [y - dy, y + dy]
            self.plot(*ends, color=color, lw=1.6, zorder=5)


label = Canvas.label


def new_figure(width: float, height: float) -> tuple[Figure, Canvas]:
    """一张空白的图和它的画布，宽、高是英寸，没有坐标轴。"""
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
    canvas = figure.add_axes((0, 0, 1, 1), axes_class=Canvas)
    canvas.set(xlim=(0, width), ylim=(0, height))
    canvas.axis("off")
    return figure, canvas


def to_svg(figure: Figure) -> str:
    """图的 SVG 文本，每次都一样：没有日期，编号的盐固定。"""
    text = io.StringIO()
    figure.savefig(text, format="svg", facecolor=PAPER, metadata={"Date": None})
    pyplot.close(figure)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    return "\n".join(lines) + "\n"
