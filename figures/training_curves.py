"""画 training_curves.svg：试过的各种尺寸，质量随训练用时的变化。

数字在 benchmarks/training/curves.json 里，一次训练一项：label、shape（输入边长、图像块
边长）、points，每点是 [分钟, 一个框, 一次点击, 一次点击三张里最好的, 三次点击]。

从训练目录添一项：python figures/training_curves.py runs/tiny/log.jsonl 名字 192/8
重画：python figures/training_curves.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from style import BLUE, GREEN, LINE, MUTED, ORANGE, PURPLE, RED, new_figure, save_all

DATA = Path(__file__).parent.parent / "benchmarks" / "training" / "curves.json"
KEYS = ("box", "click", "click_oracle", "clicks3")
TITLES = ("一个框", "一次点击，IoU 头选的", "一次点击，三张里最好的", "三次点击")
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED)
WIDTH, HEIGHT = 8.6, 6.4


def read_runs() -> list[dict[str, Any]]:
    """全部训练的曲线，一次一项。"""
    return json.loads(DATA.read_text(encoding="utf-8"))


def read_log(path: Path) -> list[list[float]]:
    """从 log.jsonl 取出小考的那些行，变成 points。"""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [[row[k] for k in ("minutes", *KEYS)] for row in rows if "box" in row]


def add_run(log: Path, label: str, shape: str) -> None:
    """往 curves.json 添一项；同名的换成新的。"""
    points = [[round(x, 4) for x in point] for point in read_log(log)]
    runs = [run for run in read_runs() if run["label"] != label]
    runs.append({"label": label, "shape": shape, "points": points})
    lines = ",\n".join(json.dumps(run, ensure_ascii=False) for run in runs)
    DATA.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def draw(runs: list[dict[str, Any]]) -> Figure:
    """四格：四种提示；一次训练一条线，横轴是训练的分钟，纵轴是平均 IoU。"""
    figure, _ = new_figure(WIDTH, HEIGHT)
    grid = {"left": 0.07, "right": 0.98, "top": 0.84, "bottom": 0.08, "hspace": 0.34}
    panels = figure.subplots(2, 2, sharex=True, gridspec_kw=grid)
    for i, (title, axes) in enumerate(zip(TITLES, panels.flat, strict=True), 1):
        for n, run in enumerate(runs):
            line = "o-" if n < len(COLORS) else "o--"  # 颜色不够时用虚线
            minutes = [point[0] for point in run["points"]]
            scores = [point[i] for point in run["points"]]
            name = f"{run['label']}（{run['shape']}）"
            color = COLORS[n % len(COLORS)]
            axes.plot(minutes, scores, line, color=color, lw=1.6, ms=3.5, label=name)
        axes.set_title(title, size=10.5, loc="left")
        axes.grid(color=LINE, lw=0.6)
        axes.tick_params(colors=MUTED, labelsize=8.5, labelbottom=True)
        for side in axes.spines.values():
            side.set_color(LINE)
        if i > 2:
            axes.set_xlabel("训练用时，分钟", size=9, color=MUTED)
        if i % 2:
            axes.set_ylabel("平均 IoU", size=9, color=MUTED)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncol=2, frameon=False, fontsize=9)
    return figure


def main() -> None:
    """画图；还没有数据就什么也不画。"""
    runs = read_runs()
    if runs:
        save_all({"training_curves": draw(runs)})


if __name__ == "__main__":
    if len(sys.argv) == 4:
        add_run(Path(sys.argv[1]), *sys.argv[2:])
    main()
