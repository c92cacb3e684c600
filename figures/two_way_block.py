"""TwoWayAttentionBlock 的四步（vit_b 的尺寸，一个点的提示）：上面是词元，下面是图像。

橙色的加号加 query_pe，蓝色的加号加 key_pe；值从加号旁边绕过去。
"""

import style
from style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, PURPLE, RED, Canvas

TOKEN, IMAGE = 3.45, 1.1  # 两条流的高度
END = 13.4  # 两条流的右端
HALF = 0.5  # 方框的半高
THICK = 2.6  # 两条流的线宽


def line(axes: Canvas, *points: tuple[float, float], **look) -> None:
    """一条折线，最后一点画箭头。"""
    color = look.pop("color", MUTED)
    xs, ys = zip(*points, strict=True)
    axes.plot(xs[:-1], ys[:-1], color=color, lw=1.3, **look)
    axes.link(points[-2], points[-1], color=color)


def stream(axes: Canvas, start: float, end: float, y: float, color: str) -> None:
    axes.plot([start, end], [y, y], color=color, lw=THICK, zorder=0.5)


def position(axes: Canvas, x: float, y: float, name: str, above: bool = True) -> None:
    """加位置编码的地方，名字写在旁边。"""
    color = ORANGE if name == "query_pe" else BLUE
    axes.plus(x, y, 0.15, color)
    axes.label(x, y + (0.28 if above else -0.28), name, size=9.5, color=color)


def step(axes: Canvas, x: float, y: float, width: float, text: str, **look) -> None:
    """四步里的一步，左边在 x，中线在 y。"""
    look = {"line": PURPLE, **look}
    axes.box(x, y - HALF, width, 2 * HALF, text, size=11, **look)


def residual(axes: Canvas, start: float, end: float, y: float, up: float) -> None:
    """从 start 绕过一步，在 end 处加回来；up 是绕行的高度，负的从下面走。"""
    edge = y + (0.15 if up > 0 else -0.15)
    axes.circle((start, y), 0.05, fc=INK, ec=INK, zorder=4)
    line(axes, (start, y), (start, y + up), (end, y + up), (end, edge), color=INK)
    axes.plus(end, y, 0.15)


def tokens(axes: Canvas) -> None:
    """上面一条流：自注意力、看图像、MLP，每步之后规范化。"""
    stream(axes, 1.05, END + 0.08, TOKEN, ORANGE)
    for x, name in ((3.72, "norm1"), (7.12, "norm2"), (9.37, "norm3")):
        axes.box(x, TOKEN - 0.2, 0.66, 0.4, name, line=MUTED, size=10)
    residual(axes, 1.2, 3.53, TOKEN, 0.9)
    residual(axes, 4.55, 6.93, TOKEN, 0.9)
    residual(axes, 7.93, 9.18, TOKEN, 0.9)
    axes.label(2.4, TOKEN + 1.05, "残差", size=11)
    # ① 的值绕过加号
    line(axes, (1.32, TOKEN), (1.32, TOKEN - 0.33), (2.0, TOKEN - 0.33))
    axes.label(1.75, TOKEN - 0.47, "v", size=11, color=MUTED)
    position(axes, 1.58, TOKEN, "query_pe")
    step(axes, 2.0, TOKEN, 1.35, "① 词元自注意力\n内部宽 256\n表 8×7×7")
    position(axes, 4.98, TOKEN, "query_pe")
    step(axes, 5.35, TOKEN, 1.4, "② 词元看图像\n内部宽 128\n表 8×7×4096")
    step(axes, 8.05, TOKEN, 0.95, "③ MLP\n256→2048\n→256", line=GREEN)
    axes.label(4.75, TOKEN - 0.3, "1×7×256", size=10, color=ORANGE)
    axes.label(1.85, TOKEN - 0.14, "q、k", size=9, color=MUTED)
    axes.label(5.24, TOKEN + 0.12, "q", size=11, color=MUTED)
    words = "第 0 层（skip_first_layer_pe）：没有 ① 前的 query_pe，也没有 ① 的残差"
    axes.label(0.15, 4.95, words, size=12, color=RED, align="left")


def image(axes: Canvas) -> None:
    """下面一条流：一路直通，到第四步才变。"""
    stream(axes, 1.05, END + 0.08, IMAGE, BLUE)
    # 图像给 ② 当键和值
    low = TOKEN - HALF
    line(axes, (5.7, IMAGE), (5.7, low))
    line(axes, (6.4, IMAGE), (6.4, low))
    axes.plus(5.7, 2.05, 0.15, BLUE)
    axes.label(5.5, 2.05, "key_pe", size=10, color=BLUE, align="right")
    axes.label(5.58, 2.6, "k", size=11, color=MUTED)
    axes.label(6.52, 2.6, "v", size=11, color=MUTED)
    # 词元给 ④ 当键和值
    top = IMAGE + HALF
    line(axes, (10.95, TOKEN), (10.95, top))
    line(axes, (11.65, TOKEN), (11.65, top))
    axes.plus(10.95, 2.5, 0.15, ORANGE)
    axes.label(10.75, 2.5, "query_pe", size=10, color=ORANGE, align="right")
    axes.label(10.83, 1.95, "k", size=11, color=MUTED)
    axes.label(11.77, 1.95, "v", size=11, color=MUTED)
    residual(axes, 9.8, 12.18, IMAGE, -0.75)
    position(axes, 10.22, IMAGE, "key_pe")
    axes.label(10.49, IMAGE + 0.14, "q", size=11, color=MUTED)
    step(axes, 10.6, IMAGE, 1.4, "④ 图像看词元\n内部宽 128\n表 8×4096×7")
    axes.box(12.37, IMAGE - 0.2, 0.66, 0.4, "norm4", line=MUTED, size=10)


def main() -> dict[str, style.Figure]:
    """两条流和四步，两头是形状。"""
    figure, axes = style.new_figure(14.2, 5.2)
    tokens(axes)
    image(axes)
    for name, y, color, shape in (
        ("词元\nqueries", TOKEN, ORANGE, "1×7×256"),
        ("图像\nkeys", IMAGE, BLUE, "1×4096×256"),
    ):
        axes.box(0.15, y - 0.38, 0.9, 0.76, name, line=color, size=11, fill=PAPER)
        axes.label(0.62, y - 0.56, shape, size=10, color=color)
        axes.link((END - 0.1, y), (END + 0.2, y), color=color, weight=THICK)
        axes.label(END + 0.25, y + 0.24, "下一层", size=11, color=color)
        axes.label(END + 0.25, y - 0.24, shape, size=10, color=color)
    axes.label(3.3, IMAGE - 0.24, "1×4096×256", size=10, color=BLUE)
    words = "先算，加回残差，再规范化；值里从不加位置编码"
    axes.label(3.3, IMAGE - 0.75, words, size=12, color=MUTED)
    return {"two_way_block": figure}
