"""相对位置怎样拆成两张短表：以 2×3 的网格、一对 (查询格, 键格) 为例。

从左到右：网格里的一对格子；行、列各自的下标表（查询减键，再挪到从 0 起）；两张短表里
取出的两行；与查询相乘、相加，就是这一对格子的偏置。
"""

import style
from style import BLUE, GREEN, LIGHT, MUTED, ORANGE, PAPER, PURPLE, Canvas

H, W = 2, 3
QUERY, KEY = (1, 0), (0, 2)
CELL = 0.42
TOP, LOW = 3.55, 1.75  # 行、列两条路的上沿


def main() -> dict[str, style.Figure]:
    """整张图：上面一条路是行，下面一条路是列。"""
    figure, axes = style.new_figure(11.2, 4.3)
    draw_pair(axes)
    rows = (TOP, "行", H, QUERY[0], KEY[0], BLUE, LIGHT[BLUE])
    columns = (LOW, "列", W, QUERY[1], KEY[1], ORANGE, LIGHT[ORANGE])
    for path in (rows, columns):
        draw_index(axes, *path)
        draw_table(axes, *path)
    draw_sum(axes)
    return {"relative_position": figure}


def draw_pair(axes: Canvas) -> None:
    """网格，查询格与键格。"""
    x, y, cell = 0.3, 2.95, 0.62
    fill = [[PAPER] * W for _ in range(H)]
    texts = [[f"{i},{j}" for j in range(W)] for i in range(H)]
    fill[QUERY[0]][QUERY[1]], fill[KEY[0]][KEY[1]] = LIGHT[PURPLE], LIGHT[GREEN]
    texts[QUERY[0]][QUERY[1]], texts[KEY[0]][KEY[1]] = "查询", "键"
    axes.label(x + W * cell / 2, y + 0.22, f"网格 H={H}，W={W}", size=10)
    axes.cells(x, y, H, W, cell, fill=fill, texts=texts, size=9.5)
    dy, dx = QUERY[0] - KEY[0], QUERY[1] - KEY[1]
    axes.label(x, y - 1.62, f"行：1 − 0 = {dy:+d}", size=10, color=BLUE, align="left")
    text = f"列：0 − 2 = −{-dx}"
    axes.label(x, y - 1.92, text, size=10, color=ORANGE, align="left")
    axes.label(x, y - 2.22, "（查询减键）", size=9, color=MUTED, align="left")
    axes.link((2.3, 2.6), (2.85, 3.0), color=BLUE)
    axes.link((2.3, 2.0), (2.85, 1.4), color=ORANGE)


def draw_index(axes: Canvas, y, name, size, query, key, line, light) -> None:
    """一个方向的下标表：第几行是查询，第几列是键。"""
    x = 3.5
    texts = [[str(q - k + size - 1) for k in range(size)] for q in range(size)]
    fill = [[PAPER] * size for _ in range(size)]
    fill[query][key] = light
    title = f"{name}下标 = 查询 − 键 + {size - 1}"
    axes.label(x + 0.6, y + 0.5, title, size=10, color=line)
    for i in range(size):
        axes.label(x + (i + 0.5) * CELL, y + 0.14, f"键 {i}", size=8, color=MUTED)
        place = y - (i + 0.5) * CELL
        axes.label(x - 0.06, place, f"查询 {i}", size=8, color=MUTED, align="right")
    axes.cells(x, y, size, size, CELL, fill=fill, texts=texts, size=10)
    axes.link((x + 1.5, y - 0.5), (x + 2.15, y - 0.5), color=line)


def draw_table(axes: Canvas, y, name, size, query, key, line, light) -> None:
    """一个方向的短表：2·边长 − 1 行，每行一个 d 维向量；取出的一行点亮。"""
    x, length, width = 6.35, 2 * size - 1, 1.3
    picked, letter = query - key + size - 1, "h" if name == "行" else "w"
    title = f"rel_pos_{letter}：2×{size}−1 = {length} 行"
    axes.label(x + width / 2, y + 0.5, title, size=10, color=line)
    axes.label(x - 0.12, y + 0.14, "下标", size=8, color=MUTED, align="right")
    axes.label(x + width / 2, y + 0.14, "一行一个 d 维向量", size=8, color=MUTED)
    axes.label(x + width + 0.1, y + 0.14, "偏移", size=8, color=MUTED, align="left")
    for row in range(length):
        middle = y - (row + 0.5) * 0.3
        on = row == picked
        offset = f"{row - size + 1:+d}".replace("-", "−").replace("+0", "0")
        color = line if on else MUTED
        columns = [[light if on else PAPER] * 5]
        axes.cells(x, middle + 0.13, 1, 5, 0.26, fill=columns)
        axes.label(x - 0.12, middle, str(row), size=9, color=color, align="right")
        side = x + width + 0.1
        axes.label(side, middle, offset, size=9, color=color, align="left")
        if on:
            axes.link((x + width + 0.5, middle), (8.75, middle), color=line)
            name_here = f"q · R{letter}[{row}]"
            axes.box(8.75, middle - 0.2, 1.15, 0.4, name_here, line=line, fill=light)


def draw_sum(axes: Canvas) -> None:
    """两份相加，就是偏置。"""
    axes.link((9.32, 2.6), (9.7, 2.35), color=BLUE)
    axes.link((9.32, 1.8), (9.7, 1.95), color=ORANGE)
    axes.box(9.0, 1.95, 2.0, 0.4, "相加 = 偏置", line=GREEN)
    text = "q 是查询格的向量，\n没有除以 √d"
    axes.label(10.0, 0.95, text, size=9, color=PURPLE)
