"""第 14 章的图：import 一个被换掉的名字，依次问谁，最后从哪里取。"""

from __future__ import annotations

from matplotlib.figure import Figure
from style import (
    BLUE,
    BLUE_LIGHT,
    GREEN,
    GREEN_LIGHT,
    MUTED,
    PURPLE,
    PURPLE_LIGHT,
    RED,
    RED_LIGHT,
    arrow,
    box,
    label,
    new_figure,
    save_all,
)


def redirect() -> Figure:
    """登记簿、查找器、替身、真身，各一个方框。"""
    figure, axes = new_figure(10.6, 3.75)
    box(axes, 0.2, 2.5, 1.95, 0.8, "源码\nimport abacus.log", line=MUTED)
    box(axes, 3.0, 2.5, 2.1, 0.8, "登记簿\nsys.modules", line=BLUE, fill=BLUE_LIGHT)
    label(axes, 4.05, 3.5, "1  先查名字在不在", color=BLUE)
    arrow(axes, (2.15, 2.9), (3.0, 2.9))
    box(axes, 6.3, 2.5, 2.3, 0.8, "Redirect\nabacus 归我管", line=PURPLE,
        fill=PURPLE_LIGHT)  # fmt: skip
    label(axes, 7.45, 3.5, "2  不在，就问 sys.meta_path", color=PURPLE)
    arrow(axes, (5.1, 2.9), (6.3, 2.9))
    label(axes, 5.7, 3.08, "没有", size=8.5, color=MUTED)
    box(axes, 8.85, 2.5, 1.55, 0.8, "平常的查找器\n轮不到", line=MUTED, size=9)
    box(axes, 6.3, 1.05, 2.3, 0.8, "替身 Stand\n登记成 abacus.log", line=GREEN,
        fill=GREEN_LIGHT)  # fmt: skip
    arrow(axes, (7.45, 2.5), (7.45, 1.85), color=GREEN)
    label(axes, 7.6, 2.18, "3  造一个替身", color=GREEN, align="left")
    box(axes, 3.0, 1.05, 2.1, 0.8, "真身\nruler.log", line=GREEN)
    arrow(axes, (6.3, 1.55), (5.1, 1.55), color=GREEN)
    label(axes, 5.7, 1.73, "要什么去取", size=8.5, color=GREEN)
    box(axes, 2.35, 0.12, 3.4, 0.5, "没有：抛 NotImplementedError", line=RED,
        fill=RED_LIGHT, size=9)  # fmt: skip
    arrow(axes, (4.05, 1.05), (4.05, 0.62), color=RED)
    arrow(axes, (3.4, 2.5), (1.2, 2.48), color=BLUE, bend=-0.55)
    label(axes, 2.3, 1.75, "在：直接给，查找器\n根本不被问到", size=8.5, color=BLUE)
    return figure


def main() -> None:
    """画出 backends.svg。"""
    save_all({"backends": redirect()})


if __name__ == "__main__":
    main()
