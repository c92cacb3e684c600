"""第 14 章的图：import 一个被换掉的名字，依次问谁，最后从哪里取。"""

import style
from style import BLUE, GREEN, MUTED, PAPER, PURPLE, RED


def main() -> dict[str, style.Figure]:
    """登记簿、查找器、替身、真身，各一个方框。"""
    figure, axes = style.new_figure(10.6, 3.75)
    axes.box(0.2, 2.5, 1.95, 0.8, "源码\nimport abacus.log", line=MUTED)
    axes.box(3.0, 2.5, 2.1, 0.8, "登记簿\nsys.modules", line=BLUE)
    axes.label(4.05, 3.5, "1  先查名字在不在", color=BLUE)
    axes.link((2.15, 2.9), (3.0, 2.9))
    axes.box(6.3, 2.5, 2.3, 0.8, "Redirect\nabacus 归我管", line=PURPLE)
    axes.label(7.45, 3.5, "2  不在，就问 sys.meta_path", color=PURPLE)
    axes.link((5.1, 2.9), (6.3, 2.9))
    axes.label(5.7, 3.08, "没有", size=8.5, color=MUTED)
    axes.box(8.85, 2.5, 1.55, 0.8, "平常的查找器\n轮不到", line=MUTED, size=9)
    axes.box(6.3, 1.05, 2.3, 0.8, "替身 Stand\n登记成 abacus.log", line=GREEN)
    axes.link((7.45, 2.5), (7.45, 1.85), color=GREEN)
    axes.label(7.6, 2.18, "3  造一个替身", color=GREEN, align="left")
    axes.box(3.0, 1.05, 2.1, 0.8, "真身\nruler.log", line=GREEN, fill=PAPER)
    axes.link((6.3, 1.55), (5.1, 1.55), color=GREEN)
    axes.label(5.7, 1.73, "要什么去取", size=8.5, color=GREEN)
    axes.box(2.35, 0.12, 3.4, 0.5, "没有：抛 NotImplementedError", line=RED, size=9)
    axes.link((4.05, 1.05), (4.05, 0.62), color=RED)
    axes.link((3.4, 2.5), (1.2, 2.48), color=BLUE, bend=-0.55)
    axes.label(2.3, 1.75, "在：直接给，查找器\n根本不被问到", size=8.5, color=BLUE)
    return {"backends": figure}
