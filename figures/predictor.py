"""SamPredictor 的时间线：set_image 一次，predict 很多次，中间留着什么。

方框的宽窄示意时间的多少。上面一行是你每次交的提示，中间是模型在算什么，下面的长条
是 predictor 一直留着的三样东西；两次 predict 之间的箭头是交回去的掩码 logits。
"""

import style
from style import BLUE, GREEN, GREY_LIGHT, MUTED, ORANGE, PAPER, Canvas

LOW, TALL = 2.3, 0.85  # 中间一行方框的下沿和高
MIDDLE = LOW + TALL / 2
SHELF, THICK = 0.95, 0.62  # 长条的下沿和高
ASKS = (4.1, 6.5, 8.9)  # 三次 predict 的左边
WIDE = 1.05  # predict 的宽
PROMPTS = ("第 1 个点", "第 1、2 个点", "第 1、2、3 个点")


def encode(axes: Canvas) -> None:
    """左边：照片进来，编码一次。"""
    axes.box(0.25, 3.75, 1.2, 0.5, "照片", line=MUTED, size=12)
    axes.link((0.85, 3.75), (0.85, LOW + TALL))
    words = "set_image\n图像编码器：慢"
    axes.box(0.25, LOW, 3.0, TALL, words, line=BLUE, size=13)
    axes.link((2.9, LOW), (2.9, SHELF + THICK), color=BLUE, weight=1.8)
    axes.label(2.8, LOW - 0.34, "算完留下", size=11, color=BLUE, align="right")


def shelf(axes: Canvas) -> None:
    """下面的长条：一直留到 reset_image 或下一次 set_image。"""
    axes.box(2.55, SHELF, 7.75, THICK, line=BLUE)
    words = "features  1×256×64×64　　original_size　　input_size"
    axes.label(6.42, SHELF + THICK / 2, words, size=12.5, color=BLUE)
    axes.link((10.3, SHELF + THICK / 2), (10.62, SHELF + THICK / 2), color=MUTED)
    words = "reset_image\n或换照片：丢掉"
    look = {"line": MUTED, "fill": GREY_LIGHT, "size": 10.5}
    axes.box(10.62, SHELF - 0.06, 1.4, THICK + 0.12, words, **look)
    axes.label(2.45, SHELF + THICK / 2, "predictor 留着", size=12, align="right")


def ask(axes: Canvas, i: int) -> None:
    """一次 predict：上面来提示，下面来图像嵌入。"""
    x = ASKS[i]
    centre = x + WIDE / 2
    axes.box(centre - 0.85, 3.75, 1.7, 0.5, PROMPTS[i], line=ORANGE, size=12)
    axes.link((centre, 3.75), (centre, LOW + TALL), color=ORANGE)
    axes.link((centre, SHELF + THICK), (centre, LOW), color=BLUE)
    words = "predict\n快"
    axes.box(x, LOW, WIDE, TALL, words, line=GREEN, size=13)


def feedback(axes: Canvas, start: float, end: float) -> None:
    """上一次的 logits 交给下一次；挑哪一张、要不要交，由你决定。"""
    axes.link((start, MIDDLE), (end, MIDDLE), color=ORANGE, weight=1.8)
    words = "low_res\n→ mask_input"
    axes.label((start + end) / 2, MIDDLE + 0.33, words, size=11, color=ORANGE)


def main() -> dict[str, style.Figure]:
    """从左到右是时间。"""
    figure, axes = style.new_figure(12.2, 4.55)
    encode(axes)
    shelf(axes)
    for i in range(3):
        ask(axes, i)
    for start, end in zip(ASKS[:-1], ASKS[1:], strict=True):
        feedback(axes, start + WIDE, end)
    words = "你留着：点、标签、\n挑中的 low_res"
    axes.label(11.2, 4.0, words, size=12, color=ORANGE)
    axes.link((ASKS[2] + WIDE, MIDDLE), (10.62, MIDDLE), color=GREEN)
    axes.box(10.62, MIDDLE - 0.3, 1.4, 0.6, "掩码", line=GREEN, fill=PAPER, size=12)
    axes.link((0.25, 0.42), (12.0, 0.42), color=MUTED)
    axes.label(0.25, 0.2, "时间", size=11, color=MUTED, align="left")
    return {"predictor": figure}
