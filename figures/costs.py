"""画 costs_sides.svg、costs_counts.svg：花费随输入边长、点数、提示的组数怎样变。

数字在 benchmarks/results.json 里，由 ``make costs`` 量出；每项两方，sam_lite 在前。
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import BLUE, INK, LINE, MUTED, ORANGE, label, new_figure

DATA = Path(__file__).parent.parent / "benchmarks" / "results.json"
VARIANTS = ("tiny", "vit_b", "vit_l", "vit_h")
Place = tuple[float, float, float, float]
Sections = list[dict[str, Any]]


def read_sections(kind: str) -> Sections:
    """这一类里两方都量成的，按型号、边长、个数排好；kind 是项的名字的开头。"""
    return [
        section
        for section in json.loads(DATA.read_text(encoding="utf-8"))
        if section["case"].startswith(kind)
        and all(outcome["rounds"] for outcome in section["outcomes"])
    ]


def panel(figure: Figure, where: Place, title: str) -> Axes:
    """一幅小图的坐标轴；where 是 (左, 下, 宽, 高)，占整张图的几分之几。"""
    axes = figure.add_axes(where)
    axes.set_title(title, size=9.5, color=INK, loc="left")
    axes.grid(axis="y", color=LINE, lw=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    return axes


def curves(axes: Axes, sections: Sections, x: str, y: str, unit: float) -> None:
    """两方的折线，纵轴从零起；线的末端写着是谁。"""
    looks = (("official", "官方", ORANGE, "--"), ("sam_lite", "sam_lite", BLUE, "-"))
    highest, across = 0.0, [section[x] for section in sections]
    for who, name, color, dash in looks:
        found = [
            outcome["rounds"][0][y] / unit
            for section in sections
            for outcome in section["outcomes"]
            if outcome["contender"] == who
        ]
        axes.plot(across, found, dash, color=color, marker="o", markersize=3.5, lw=1.5)
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(name, (across[-1], found[-1]), color=color, size=8, **place)
        highest = max(highest, *found)
    axes.set_ylim(0, 1.15 * highest)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.22 * (high - low))  # 右边留给名字
    axes.set_xticks([tick for tick in across if x == "side" or tick >= across[-1] / 10])


def draw_sides() -> Figure:
    """每个型号一列，上面时间，下面内存增量，横轴是输入边长。"""
    figure, axes = new_figure(10, 5)
    for i, variant in enumerate(VARIANTS):
        mine = [s for s in read_sections("sides") if s["variant"] == variant]
        left = 0.05 + 0.242 * i
        unit, name = (1e-3, "毫秒") if variant == "tiny" else (1.0, "秒")
        top = panel(figure, (left, 0.575, 0.19, 0.34), f"{variant}，时间，{name}")
        curves(top, mine, "side", "seconds", unit)
        low = panel(figure, (left, 0.11, 0.19, 0.34), f"{variant}，内存，MB")
        curves(low, mine, "side", "increase", 1e6)
    label(axes, 5, 0.16, "输入边长，像素", size=9, color=MUTED)
    return figure


def draw_counts() -> Figure:
    """三幅：一组提示里的点数与时间；几组提示与时间、与内存增量。"""
    figure, axes = new_figure(10, 3.1)
    wanted = (
        ("points", "一组提示，时间，毫秒", "seconds", 1e-3, "点数"),
        ("prompts", "几组提示，时间，秒", "seconds", 1.0, "组数"),
        ("prompts", "几组提示，内存，GB", "increase", 1e9, "组数"),
    )
    for i, (kind, title, field, unit, name) in enumerate(wanted):
        left = 0.05 + 0.325 * i
        axis = panel(figure, (left, 0.2, 0.27, 0.65), title)
        curves(axis, read_sections(kind), "count", field, unit)
        label(axes, 10 * (left + 0.135), 0.16, name, size=9, color=MUTED)
    return figure


def main() -> dict[str, Figure]:
    """画两张图。"""
    return {"costs_sides": draw_sides(), "costs_counts": draw_counts()}
