"""COSTS.md 的两张图，样子与 figures/ 里的示意图相同。"""

import sys
from pathlib import Path
from typing import Any

from sam_lite.errors import require

from .costs_page import Pair, Row, pairs, timed

FIGURES = Path(__file__).resolve().parent.parent / "figures"
VARIANTS = ("tiny", "vit_b", "vit_l", "vit_h")


def house_style() -> Any:
    """figures/style.py：颜色、字体、写成 SVG 的办法。"""
    require("matplotlib", "画图", "bench")
    if str(FIGURES) not in sys.path:
        sys.path.append(str(FIGURES))
    import style

    return style


def panel(figure: Any, where: tuple[float, float, float, float], title: str) -> Any:
    """一幅小图的坐标轴；where 是 (左, 下, 宽, 高)，占整张图的几分之几。"""
    style = house_style()
    axes = figure.add_axes(where)
    axes.set_title(title, size=9.5, color=style.INK, loc="left")
    axes.grid(axis="y", color=style.LINE, lw=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=style.MUTED, labelsize=8, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(style.LINE)
    return axes


def curves(axes: Any, found: list[Pair], x: str, y: str, unit: float) -> None:
    """两方的折线，纵轴从零起；线的末端写着是谁。"""
    style = house_style()
    looks = {
        "official": ("官方", style.ORANGE, "--"),
        "sam_lite": ("sam_lite", style.BLUE, "-"),
    }
    highest = 0.0
    for who, (name, color, dash) in looks.items():
        across = [pair[who][x] for pair in found]
        up = [pair[who][y] / unit for pair in found]
        axes.plot(across, up, dash, color=color, marker="o", markersize=3.5, lw=1.5)
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(name, (across[-1], up[-1]), color=color, size=8, **place)
        highest = max(highest, *up)
    axes.set_ylim(0, 1.15 * highest)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.22 * (high - low))  # 右边留给名字
    axes.set_xticks([pair["sam_lite"][x] for pair in found])


def draw_sides(found: list[Pair]) -> Any:
    """每个型号一列，上面时间（记了才画），下面内存增量，横轴是输入边长。"""
    style = house_style()
    figure, axes = style.new_figure(10, 5)
    for i, variant in enumerate(VARIANTS):
        mine = [pair for pair in found if pair["sam_lite"]["variant"] == variant]
        if not mine:
            continue
        left = 0.05 + 0.242 * i
        unit, name = (1e-3, "毫秒") if variant == "tiny" else (1.0, "秒")
        if all(map(timed, mine)):
            top = panel(figure, (left, 0.575, 0.19, 0.34), f"{variant}，时间，{name}")
            curves(top, mine, "side", "seconds", unit)
        low = panel(figure, (left, 0.11, 0.19, 0.34), f"{variant}，内存，MB")
        curves(low, mine, "side", "increase", 1e6)
    style.label(axes, 5, 0.16, "输入边长，像素", size=9, color=style.MUTED)
    return figure


def draw_counts(points: list[Pair], prompts: list[Pair]) -> Any:
    """三幅：一组提示里的点数与时间；几组提示与时间、与内存增量。"""
    style = house_style()
    figure, axes = style.new_figure(10, 3.1)
    wanted = (
        (points, "一组提示，时间，毫秒", "seconds", 1e-3, "点数"),
        (prompts, "几组提示，时间，秒", "seconds", 1.0, "组数"),
        (prompts, "几组提示，内存，GB", "increase", 1e9, "组数"),
    )
    for i, (found, title, field, unit, name) in enumerate(wanted):
        if found and (field == "increase" or all(map(timed, found))):
            left = 0.05 + 0.325 * i
            axis = panel(figure, (left, 0.2, 0.27, 0.65), title)
            curves(axis, found, "count", field, unit)
            where = 10 * (left + 0.135)
            style.label(axes, where, 0.16, name, size=9, color=style.MUTED)
            ticks = [pair["sam_lite"]["count"] for pair in found]
            axis.set_xticks([tick for tick in ticks if tick >= ticks[-1] / 10])
    return figure


def draw(rows: list[Row]) -> dict[str, str]:
    """名字到 SVG 的文本；还没有量的那张不画。"""
    sides, points = pairs(rows, "encoder"), pairs(rows, "points")
    prompts = pairs(rows, "prompts")
    figures = {}
    if sides:
        figures["costs_sides"] = draw_sides(sides)
    if points or prompts:
        figures["costs_counts"] = draw_counts(points, prompts)
    return {name: house_style().to_svg(figure) for name, figure in figures.items()}
