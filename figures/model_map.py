"""整个模型的地图：从照片到掩码，箭头上写着形状（以 vit_b 为例）。

每一章一张，这一章的部件点亮，标着“你在这里”；model_map.svg 全部点亮。第 10 章多画一个
权重文件，第 11 章多画 predictor 的两半，第 12 章多画网格和几道筛子，第 13 章多画两个
ONNX 文件，第 14 章多画一排可以换的底座。
"""

import style
from style import BLUE, GREEN, LIGHT, MUTED, ORANGE, PAPER, PURPLE, RED, Canvas

# 部件：名字、哪一章、左下角 x、y、宽、高、颜色
Part = tuple[str, tuple[int, ...], float, float, float, float, str]
TOP, LOW = 2.7, 0.95
PARTS: list[Part] = [
    ("预处理\n缩放、补边", (1,), 1.35, TOP, 1.05, 0.75, BLUE),
    ("图像块嵌入\n+ 位置编码", (2,), 3.35, TOP, 1.15, 0.75, BLUE),
    ("12 个 Block", (3, 4, 5), 5.4, TOP - 0.28, 1.75, 1.3, BLUE),
    ("颈部\n两层卷积", (5,), 7.85, TOP, 0.95, 0.75, BLUE),
    ("提示编码器", (6,), 3.35, LOW - 0.5, 1.3, 1.15, ORANGE),
    ("双向\nTransformer", (7,), 7.72, LOW - 0.3, 1.2, 0.75, GREEN),
    ("上采样、超网络\nIoU 头", (8,), 9.45, LOW - 0.3, 1.3, 0.75, GREEN),
    ("后处理\n放大、裁剪", (9,), 11.85, LOW - 0.3, 1.05, 0.75, BLUE),
]
INNER = [("注意力", 3), ("窗口", 4)]  # Block 里的两样，各有一章


def model_map(*lit: int, here: bool = True) -> tuple[style.Figure, Canvas]:
    """画一张地图，lit 是要点亮的章号，不给就全亮；here 为假时不标“你在这里”。"""
    figure, axes = style.new_figure(14.15, 4.35)
    for text, chapters, x, y, width, height, line in PARTS:
        on = not lit or bool(set(chapters) & set(lit))
        color, fill = (line, LIGHT[line]) if on else (MUTED, style.GREY_LIGHT)
        look = {"line": color, "fill": fill, "size": 9.5}
        names = f"第 {chapters[0]} 章"
        if len(chapters) == 1:
            axes.box(x, y, width, height, text, **look)
        else:
            axes.box(x, y, width, height, **look)
            axes.label(x + width / 2, y + 0.17, text, size=9.5, color=color)
            draw_inner(axes, x, y, line, lit)
            names = f"第 {chapters[0]}–{chapters[-1]} 章"
        axes.label(x + width / 2, y - 0.14, names, size=7.5, color=color)
    draw_flow(axes)
    draw_frames(axes)
    if here and lit:
        draw_here(axes, lit)
    return figure, axes


def draw_inner(
    axes: Canvas, x: float, y: float, line: str, lit: tuple[int, ...]
) -> None:
    """Block 里的注意力和窗口。"""
    for i, (text, chapter) in enumerate(INNER):
        on = not lit or chapter in lit or 5 in lit
        look = {"line": line, "fill": PAPER} if on else {"line": MUTED}
        look = {"fill": style.GREY_LIGHT, **look, "size": 9}
        axes.box(x + 0.12 + i * 0.78, y + 0.38, 0.72, 0.7, text, **look)


def draw_flow(axes: Canvas) -> None:
    """照片、提示、掩码，和写着形状的箭头。"""
    middle, low = TOP + 0.375, LOW + 0.075
    axes.box(0.15, TOP, 0.8, 0.75, "照片", line=MUTED, size=9.5)
    axes.label(0.55, TOP - 0.14, "高×宽×3", size=7.5, color=MUTED)
    flow(axes, (0.95, middle), (1.35, middle), "")
    flow(axes, (2.4, middle), (3.35, middle), "1×3×1024\n×1024")
    flow(axes, (4.5, middle), (5.4, middle), "1×64×64\n×768")
    flow(axes, (7.15, middle), (7.85, middle), "1×64×64\n×768")
    # 颈部 -> 图像嵌入 -> 解码器
    axes.link((8.32, TOP - 0.24), (8.32, LOW + 0.47))
    axes.label(8.42, 1.95, "图像嵌入 1×256×64×64", size=8, align="left")
    for text, y in (("点、框", LOW + 0.3), ("掩码", LOW - 0.2)):
        axes.box(1.75, y, 0.95, 0.4, text, line=ORANGE, fill=PAPER, size=9.5)
        axes.link((2.7, y + 0.2), (3.35, y + 0.2))
    flow(axes, (4.65, LOW + 0.4), (7.72, LOW + 0.25), "稀疏嵌入 1×N×256", 0.16)
    flow(axes, (4.65, LOW - 0.2), (7.72, LOW - 0.1), "稠密嵌入 1×256×64×64", -0.2)
    flow(axes, (8.92, low), (9.45, low), "")
    flow(axes, (10.75, low), (11.85, low), "1×3×\n256×256")
    axes.label(11.42, LOW - 0.2, "和 3 个\n预测的 IoU", size=8, color=MUTED)
    flow(axes, (12.9, low), (13.25, low), "")
    axes.box(13.25, LOW - 0.3, 0.75, 0.75, "掩码", line=MUTED, size=9.5)
    axes.label(13.62, LOW - 0.44, "3×高×宽", size=7.5, color=MUTED)


def flow(axes: Canvas, start, end, shape: str, up: float = 0.26) -> None:
    """一支箭头，形状写在它旁边。"""
    axes.link(start, end)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.label(x, y + up, shape, size=8)


def draw_frames(axes: Canvas) -> None:
    """虚线框出两大部分。"""
    for text, x, y, width, height, above in (
        ("图像编码器：每张照片只算一次", 3.22, 2.15, 5.8, 1.95, True),
        ("掩码解码器：每个提示算一次", 7.45, 0.32, 3.55, 1.35, False),
    ):
        look = {"fc": "none", "ec": style.LINE, "lw": 1, "ls": (0, (4, 3))}
        axes.rectangle((x, y), width, height, **look)
        place = y + height + 0.12 if above else y - 0.13
        axes.label(x + 0.05, place, text, size=8, color=MUTED, align="left")


def draw_here(axes: Canvas, lit: tuple[int, ...]) -> None:
    """在第一个点亮的部件上方标“你在这里”；Block 里的两样，箭头指到里面。"""
    for _, chapters, x, y, width, height, _ in PARTS:
        if not set(chapters) & set(lit):
            continue
        inner = [i for i, (_, chapter) in enumerate(INNER) if chapter in lit]
        if inner and len(chapters) > 1:
            centre, tip = x + 0.48 + inner[0] * 0.78, y + 1.1
        else:
            centre, tip = x + width / 2, y + height + 0.04
        mark_here(axes, centre, y + height + 0.36, tip)
        return


def mark_here(axes: Canvas, x: float, top: float, tip: float) -> None:
    """“你在这里”和红箭头，从 top 指到 tip。"""
    axes.link((x, top), (x, tip), color=RED, weight=2)
    axes.label(x + 0.1, top - 0.08, "你在这里", color=RED, align="left")


def weights_map() -> style.Figure:
    """第 10 章：有参数的部件点亮，权重文件里的张量按名字分三路送进去。"""
    figure, axes = model_map(2, 3, 4, 5, 6, 7, 8, here=False)
    left, low, right, high, fold = 11.45, 2.4, 13.55, 3.5, 0.25
    inner = (right - fold, high - fold)
    outline = [(left, low), (right, low), (right, inner[1]), (inner[0], high)]
    for corners, fill in (
        ([*outline, (left, high)], LIGHT[PURPLE]),
        ([outline[2], inner, outline[3]], PAPER),  # 折起来的角
    ):
        axes.polygon(corners, fc=fill, ec=PURPLE, lw=1.3)
    text = "sam_vit_b_01ec64.pth\n314 个张量，\n各有名字"
    axes.label((left + right) / 2, (low + high) / 2, text, color=PURPLE)
    for start, end, part, x, y in (
        ((left, 3.2), (9.04, 3.2), "image_encoder.…\n177 个", 10.25, 3.45),
        ((left + 0.5, low), (10.6, 1.7), "mask_decoder.…\n120 个", 12.15, 2.02),
        ((left + 0.1, low), (4.4, 1.62), "prompt_encoder.…\n17 个", 5.4, 1.95),
    ):
        axes.link(start, end, color=PURPLE, weight=1.8)
        axes.label(x, y, part, size=8, color=PURPLE)
    mark_here(axes, (left + right) / 2, high + 0.4, high + 0.04)
    return figure


def two_frames(
    upper: tuple[float, float], lower: tuple[float, float]
) -> tuple[style.Figure, Canvas]:
    """全部点亮的地图，上、下两半各框一圈；upper、lower 是两个框的（左边，宽）。"""
    figure, axes = model_map()
    figure.set_figheight(4.6)
    axes.set_ylim(-0.1, 4.5)
    for (x, width), y, height, color in (
        (upper, 2.08, 2.32, BLUE),
        (lower, 0.0, 1.82, GREEN),
    ):
        axes.rectangle((x, y), width, height, fc="none", ec=color, lw=2)
    return figure, axes


def predictor_map() -> style.Figure:
    """第 11 章：SamPredictor 把模型分成两半，照片一半算一次，提示一半算很多次。"""
    figure, axes = two_frames((1.2, 7.95), (1.55, 11.5))
    text = "set_image：每张照片算一次"
    axes.label(9.3, 4.25, text, size=9.5, color=BLUE, align="left")
    text = "predict：每个提示算一次，\n图像嵌入用留着的那一份"
    axes.label(11.0, 2.2, text, size=9.5, color=GREEN, align="left")
    axes.box(9.8, 2.7, 2.3, 0.75, line=PURPLE)
    text = "SamPredictor 留着\n图像嵌入、照片的尺寸"
    axes.label(10.95, 3.075, text, size=9.5, color=PURPLE)
    axes.link((9.17, 3.075), (9.8, 3.075), color=PURPLE, weight=1.8)
    axes.link((10.8, 2.7), (10.8, 1.84), color=PURPLE, weight=1.8)
    mark_here(axes, 10.95, 3.85, 3.49)
    return figure


def auto_mask_map() -> style.Figure:
    """第 12 章：网格的点一批一批当提示，每次的掩码和分数都送去过筛子。"""
    figure, axes = model_map()
    left, low, side = 0.2, 0.62, 0.98
    axes.rectangle((left, low), side, side, fc=PAPER, ec=PURPLE, lw=1.3)
    for i in range(6):
        for j in range(6):
            centre = left + (j + 0.5) * side / 6, low + (i + 0.5) * side / 6
            axes.circle(centre, 0.035, fc=PURPLE, ec="none")
    text = "网格：32×32 个点"
    axes.label(left + side / 2, low + side + 0.14, text, size=8.5, color=PURPLE)
    for bend, y in ((-0.35, 1.5), (0.0, 1.36), (0.35, 1.22)):  # 一批又一批
        axes.link((1.2, y), (1.73, y), color=PURPLE, weight=1.5, bend=bend)
    axes.label(1.45, 0.86, "一批\n又一批", size=8, color=PURPLE)
    x, y, height = 13.62, 2.75, 0.75
    axes.link((x, LOW + 0.47), (x, y - 0.03), color=PURPLE, weight=1.8)
    axes.label(
        x - 0.08, 2.1, "1024 次提问，3072 张", size=8, color=PURPLE, align="right"
    )
    names = ("预测的\nIoU", "稳定性\n分数", "框的\nNMS", "记录")
    for i, (name, x) in enumerate(zip(names, (13.15, 11.98, 10.81, 9.64), strict=True)):
        fill = LIGHT[PURPLE] if i < 3 else PAPER
        axes.box(x, y, 0.9, height, name, line=PURPLE, fill=fill, size=9.5)
        if i:
            start, end = (x + 1.17, y + height / 2), (x + 0.9, y + height / 2)
            axes.link(start, end, color=PURPLE, weight=1.8)
    mark_here(axes, 12.43, y + height + 0.45, y + height + 0.04)
    return figure


def onnx_map() -> style.Figure:
    """第 13 章：模型分装成两个文件，照片的缩放留在外面。"""
    figure, axes = two_frames((1.2, 7.95), (2.85, 10.25))
    text = "编码器.onnx：规范化、补边在里面；\n缩放留在外面，进去的是缩放好的照片"
    axes.label(9.3, 3.9, text, size=9.5, color=BLUE, align="left")
    text = "解码器.onnx：掩码放大到照片\n那么大，照片的高和宽也是输入"
    axes.label(10.2, 2.2, text, size=9.5, color=GREEN, align="left")
    mark_here(axes, 9.75, 3.45, 3.08)
    axes.link((9.75, 3.08), (9.17, 3.08), color=RED, weight=2)
    return figure


def backends_map() -> style.Figure:
    """第 14 章：模型原样不动，底下的底座可以换。"""
    figure, axes = model_map()
    figure.set_figheight(5.25)
    axes.set_ylim(-0.9, 4.35)
    names = (
        ("PyTorch\n易读、快路", BLUE),
        ("PyTorch\nbfloat16", BLUE),
        ("torch.compile\n现场生成代码", GREEN),
        ("ONNX Runtime\n导出的图", ORANGE),
        ("OneFlow\n换掉整个 torch", PURPLE),
    )
    for i, (name, line) in enumerate(names):
        axes.box(2.0 + i * 2.2, -0.72, 2.0, 0.7, name, line=line, size=9.5)
    axes.label(1.75, -0.37, "后端", size=9.5, color=RED, align="right")
    axes.link((0.75, -0.37), (1.2, -0.37), color=RED, weight=2)
    axes.label(0.7, -0.1, "你在这里", color=RED, align="center")
    return figure


def training_map() -> style.Figure:
    """第 15 章：掩码与答案比出损失，梯度沿原路往回走。"""
    figure, axes = model_map()
    figure.set_figheight(4.75)
    axes.set_ylim(-0.4, 4.35)
    axes.box(11.75, 3.3, 1.0, 0.75, "答案", line=PURPLE, fill=PAPER, size=9.5)
    axes.box(11.75, 2.0, 1.0, 0.75, "损失", line=RED, size=9.5)
    axes.link((12.25, 3.3), (12.25, 2.77), color=PURPLE, weight=1.8)
    axes.link((13.62, LOW + 0.47), (12.77, 2.2), color=PURPLE, weight=1.8)
    back = {"color": RED, "weight": 2}
    axes.link((11.73, 2.2), (10.4, LOW + 0.5), **back)
    axes.link((9.7, LOW + 0.5), (8.75, LOW + 0.5), **back, bend=0.5)
    axes.link((8.12, LOW + 0.5), (8.12, TOP - 0.28), **back)
    axes.link((7.8, TOP + 0.1), (7.2, TOP + 0.1), **back, bend=-0.3)
    axes.link((5.35, TOP + 0.1), (4.55, TOP + 0.1), **back, bend=-0.3)
    axes.link((8.1, LOW - 0.55), (4.4, LOW - 0.55), **back, bend=-0.08)
    text = "梯度往回走，\n每个参数挪一点"
    axes.label(9.55, 2.45, text, size=9.5, color=RED, align="left")
    axes.label(12.95, 2.85, "你在这里", color=RED, align="left")
    axes.link((13.2, 2.72), (12.78, 2.5), color=RED, weight=2)
    return figure


def main() -> dict[str, style.Figure]:
    """全部点亮的一张，和各章各一张。"""
    figures = {f"model_map_{i:02d}": model_map(i)[0] for i in range(1, 10)}
    extras = (weights_map, predictor_map, auto_mask_map)
    extras += (onnx_map, backends_map, training_map)
    figures |= {f"model_map_{10 + i}": draw() for i, draw in enumerate(extras)}
    return {"model_map": model_map()[0], **figures}
