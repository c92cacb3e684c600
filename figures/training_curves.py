"""画 training_curves.svg：试过的各种尺寸，质量随训练用时的变化。

数字在 benchmarks/training/curves.json 里，一次训练一项：label、start（weights 或
nothing）、points，每点是 [分钟, 一个框, 一次点击, 一次点击三张里最好的, 三次点击]。比较
已经做完，量它的程序在 Git 的历史里：``git log -- benchmarks/shapes.py``。
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import BLUE, GREEN, LINE, MUTED, ORANGE, new_figure

DATA = Path(__file__).parent.parent / "benchmarks" / "training" / "curves.json"
ROWS = {"weights": "从同一份权重出发，换网格", "nothing": "从零开始，换宽度和层数"}
COLUMNS = {1: "一个框", 3: "一次点击，三张里最好的", 4: "三次点击"}
COLORS = (BLUE, ORANGE, GREEN, MUTED)
WIDTH, HEIGHT = 9.6, 6.2


def read_runs() -> list[dict[str, Any]]:
    """全部训练的曲线，一次一项。"""
    return json.loads(DATA.read_text(encoding="utf-8"))


def draw_panel(axes: Axes, runs: list[dict[str, Any]], column: int) -> None:
    """一格：一次训练一条线，横轴是训练的分钟，纵轴是平均 IoU。"""
    for run, color in zip(runs, COLORS, strict=False):
        minutes = [point[0] for point in run["points"]]
        scores = [point[column] for point in run["points"]]
        axes.plot(minutes, scores, "o-", color=color, lw=1.6, ms=4, label=run["label"])
    axes.set_xlim(left=0)
    axes.grid(color=LINE, lw=0.6)
    axes.tick_params(colors=MUTED, labelsize=8.5)
    for side in axes.spines.values():
        side.set_color(LINE)


def draw(runs: list[dict[str, Any]]) -> Figure:
    """两行三列：从权重出发的和从零开始的；框、一次点击、三次点击。"""
    figure, _ = new_figure(WIDTH, HEIGHT)
    grid = {"left": 0.07, "right": 0.98, "top": 0.88, "bottom": 0.08, "hspace": 0.55}
    panels = figure.subplots(2, 3, gridspec_kw=grid | {"wspace": 0.22})
    for row, (start, title) in zip(panels, ROWS.items(), strict=True):
        chosen = [run for run in runs if run["start"] == start]
        for axes, (column, name) in zip(row, COLUMNS.items(), strict=True):
            draw_panel(axes, chosen, column)
            axes.set_title(name, size=10, loc="left")
            axes.set_xlabel("训练用时，分钟", size=8.5, color=MUTED)
        row[0].set_ylabel("平均 IoU", size=9, color=MUTED)
        place = {"x": 0.07, "y": row[0].get_position().y1 + 0.06}
        figure.text(**place, s=title, size=11.5, weight="bold")
        handles, names = row[0].get_legend_handles_labels()
        spot = (0.985, place["y"] - 0.012)  # 和这一行的题目并排
        style = {"loc": "lower right", "ncol": 4, "frameon": False, "fontsize": 9}
        figure.legend(handles, names, bbox_to_anchor=spot, **style)
    return figure


def main() -> dict[str, Figure]:
    """画图。"""
    return {"training_curves": draw(read_runs())}
