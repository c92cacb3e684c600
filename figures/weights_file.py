"""两种权重文件里各有什么：.pth 是 zip，里面一份 pickle；.safetensors 是头加裸数。"""

import style
from style import BLUE, GREEN, GREY_LIGHT, INK, LIGHT, MUTED, PAPER, RED, Canvas

NAMES = ("image_encoder.pos_embed", "….patch_embed.proj.weight")
SHAPES = ("(1, 64, 64, 768)", "(768, 3, 16, 16)")
BYTES = (4 * 64 * 64 * 768, 4 * 768 * 3 * 16 * 16)


def main() -> dict[str, style.Figure]:
    """左边 .pth，右边 .safetensors，数是 vit_b 的前两个张量。"""
    figure, axes = style.new_figure(12.4, 4.7)
    draw_pth(axes)
    draw_safetensors(axes)
    return {"weights_file": figure}


def draw_pth(axes: Canvas) -> None:
    """一个 zip：data.pkl 是指令，data/N 是裸数。"""
    axes.box(0.2, 0.2, 5.9, 3.95, line=MUTED, fill=GREY_LIGHT)
    axes.label(3.15, 4.4, "sam_vit_b_01ec64.pth：一个 zip", size=11)
    axes.box(0.45, 2.15, 5.4, 1.75, line=RED)
    title = "data.pkl：一串 pickle 指令，能叫任何函数"
    axes.label(3.15, 3.68, title, size=9.5, color=RED)
    for i, (name, shape) in enumerate(zip(NAMES, SHAPES)):
        y = 3.3 - 0.42 * i
        axes.label(0.6, y, f"“{name}”：叫 _rebuild_tensor_v2，", align="left")
        axes.label(4.15, y, f"data/{i}，{shape}", align="left")
    axes.label(0.6, 2.42, "……一共 314 个", color=MUTED, align="left")
    for i, (x, width) in enumerate(((0.45, 2.3), (2.85, 1.5))):
        text = f"data/{i}\n{BYTES[i]:,} 字节"
        axes.box(x, 0.95, width, 0.75, text, line=BLUE, size=9)
    axes.box(4.45, 0.95, 1.4, 0.75, "……\ndata/313", line=BLUE, size=9)
    for x in (1.6, 3.6, 5.15):
        axes.link((x, 2.15), (x, 1.72), color=BLUE)
    text = "version、byteorder……几个小文件；末尾是 zip 的目录"
    axes.label(3.15, 0.58, text, color=MUTED)


def draw_safetensors(axes: Canvas) -> None:
    """从头到尾三段：长度、JSON、裸数。"""
    left, width = 6.5, 5.7
    axes.label(left + width / 2, 4.4, "model.safetensors：三段接起来", size=11)
    rows = (
        (3.55, 0.6, "8 字节：后面的头有多长", MUTED, GREY_LIGHT),
        (1.85, 1.6, "", GREEN, LIGHT[GREEN]),
        (0.2, 1.55, "", BLUE, LIGHT[BLUE]),
    )
    for y, height, text, line, fill in rows:
        axes.rectangle((left, y), width, height, fc=fill, ec=line, lw=1.2)
        axes.label(left + width / 2, y + height / 2, text, size=9.5)
    axes.label(left + width / 2, 3.25, "头：一段 JSON，只有数据", color=GREEN, size=9.5)
    ends = (0, BYTES[0], BYTES[0] + BYTES[1])
    for i, name in enumerate(NAMES):
        y = 2.9 - 0.56 * i
        axes.label(left + 0.15, y, f'"{name}": {{"dtype": "F32",', align="left")
        text = f'"shape": {SHAPES[i]}, "data_offsets": [{ends[i]}, {ends[i + 1]}]}}'
        text = text.replace("(", "[").replace(")", "]")
        axes.label(left + 0.4, y - 0.25, text, align="left")
    axes.label(left + 1.5, 1.4, "裸数，字节从 0 数起", color=BLUE, size=9.5)
    for x, part, text in ((0.15, 3.0, "0"), (3.15, 1.5, f"{ends[1]}"), (4.65, 0.9, "")):
        axes.rectangle((left + x, 0.55), part, 0.45, fc=PAPER, ec=BLUE, lw=1.2)
        axes.label(left + x, 0.4, text, size=8, color=INK)
    axes.label(left + 1.65, 0.77, "pos_embed")
    axes.label(left + 3.9, 0.77, "proj.weight")
    axes.label(left + 5.1, 0.77, "……")
    axes.label(left + 4.65, 0.4, f"{ends[2]}", size=8, color=INK)
    axes.link((left + 3.15, 1.85), (left + 3.15, 1.02), color=BLUE)
