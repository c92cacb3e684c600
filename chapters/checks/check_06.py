"""第 6 章的练习：对的答案、典型的错误和提示。"""

import math

import numpy as np
import torch
from checks.common import Code, Like, Part, Values, Wrong, shake
from course import Mistake

from sam_lite.prompt_encoder import PositionEmbeddingRandom, PromptEncoder

SIZES = ((32, 48), (60, 20), (64, 64))  # 高、宽


def prompt(name: str, right: tuple, counts: dict[int, str]) -> tuple[str, Part]:
    """一种提示的词元的形状；counts 是“词元数 -> 提示”。"""
    batch, n, width = right
    wrong: dict = {
        Like((batch, n, 64), lambda shape: shape[2] != width): (
            f"“{name}”不对：最后一个数是词元的宽，vit_b 里每个词元 256 个数。"
        ),
        Like((batch + 1, n, width), lambda shape: shape[0] != batch): (
            f"“{name}”不对：批量是几组提示：各问各的才算一组。"
        ),
    }
    for count, hint in counts.items():
        wrong[batch, count, width] = f"“{name}”不对：{hint}"
    other = "点一个一个地数，框一个算两个，再想想补不补填充。"
    three = Like(5, lambda s: not isinstance(s, tuple) or len(s) != 3)
    return name, Part(
        right,
        f"“{name}”不对：{other}",
        {three: f"“{name}”要三个整数：(批量, N, 宽)。"} | wrong,
    )


PADDED = "没有框的时候，编码器还会补一个填充。"
BOXED, CORNERS = "有框的时候不补填充。", "一个框是两个词元，左上角和右下角。"
ex_06_1 = Values(
    "要一个字典，五个键照题目原样。",
    dict(
        [
            prompt("一组 4 个点", (1, 5, 256), {4: PADDED}),
            prompt("5 个框，一起问", (5, 2, 256), {3: BOXED, 1: CORNERS}),
            prompt("一组 2 个点和 1 个框", (1, 4, 256), {5: BOXED, 3: CORNERS}),
            prompt(
                "三组点，各 1、4、2 个，用 pad_points 补齐", (3, 5, 256), {4: PADDED}
            ),
            prompt(
                "一张掩码和 1 个点",
                (1, 2, 256),
                {1: PADDED, 3: "掩码变成稠密嵌入，不产生词元。"},
            ),
        ]
    ),
)


def bell(side: float, factor: float = 2 * math.pi**2, power: int = 2) -> float:
    """相隔 16 像素的两点，编码有多像；side 是边长的一半。"""
    return round(math.exp(-factor * (16 / side) ** power), 4)


def bells(one: float, two: float, factor: float = 2 * math.pi**2, power: int = 2):
    """两种边长时的答案：exp(−factor·d^power)，d 是 16 像素除以 one、two。"""
    return tuple(math.exp(-factor * (16 / side) ** power) for side in (one, two))


RIGHT = bells(512, 256)  # 坐标从 −1 到 1：整条边长是 2
SAME = "两个数不会相同：编码认的是占边长的几分之几，不是像素。"
AT = "边长 {} 时不对：先把 16 像素换成 −1–1 的坐标，再代进公式。"
ex_06_2 = Values(
    "要两个数：(1024 时, 512 时)。",
    [Part(x, AT.format(side), within=0.006) for x, side in zip(RIGHT, (1024, 512))],
    whole={
        RIGHT[::-1]: "两个数的次序反了：先 1024，后 512。",
        bells(1024, 512): "d 要按 −1–1 的坐标算，整条边长是 2，不是 1。",
        bells(512, 256, power=1): "d 忘了平方。",
        bells(512, 256, 4 * math.pi**2): "指数里是 2π²，不是 (2π)²。",
        bells(512, 256, 2): "指数里漏了 π²。",
        RIGHT[:1] * 2: SAME,
        RIGHT[1:] * 2: SAME,
    },
)


class OnlyEncoding:
    """只剩 _pe_encoding 的一层。"""

    def __init__(self, layer: PositionEmbeddingRandom) -> None:
        self._pe_encoding = layer._pe_encoding

    def __getattr__(self, name: str):
        if name.startswith("__"):  # 复制它的时候会问
            raise AttributeError(name)
        raise Mistake(ONLY)


ONLY = "layer 只许用 _pe_encoding，不要用别的。"


def pixels() -> dict[str, tuple]:
    layer = OnlyEncoding(PositionEmbeddingRandom(6))
    return {
        f"高 {h}、宽 {w} 的图": (
            layer,
            torch.rand(2, 3, 2) * torch.tensor([w, h]),
            (h, w),
        )
        for h, w in SIZES
    }


SCALED = "coords_input / torch.tensor([width, height])"
ex_06_3 = Code(
    f"""
def mended_with_coords(layer, coords_input, image_size):
    height, width = image_size
    return layer._pe_encoding({SCALED})
""",
    pixels,
    Wrong("x 除以了高、y 除以了宽，次序反了。", "[width, height]", "[height, width]"),
    Wrong(
        "多加了 0.5：半个像素在 _embed_points 里加，这里不加。",
        "coords_input /",
        "(coords_input + 0.5) /",
    ),
    Wrong("坐标的 x、y 弄反了。", SCALED, f"({SCALED}).flip(-1)"),
    Wrong("忘了除以宽、高。", SCALED, "coords_input"),
    Wrong("多挪了一次：_pe_encoding 自己会挪到 −1–1。", SCALED, f"2 * {SCALED} - 1"),
    Wrong(
        "调用者的坐标被原地改掉了：再问一次，同一批点就被除了两遍。",
        SCALED,
        "coords_input.div_(torch.tensor([width, height]))",
    ),
    Wrong(
        ONLY,
        f"layer._pe_encoding({SCALED})",
        "layer.forward_with_coords(coords_input, image_size)",
    ),
    kept=True,
    form="要返回一个张量，形状 (B, N, C)。",
    otherwise="和正确的编码不同。",
)

REFUSED = "不要调用 _embed_points、_embed_boxes 或整个编码器。"


def refuse(*args, **kwargs):
    raise Mistake(REFUSED)


def labelled() -> dict[str, tuple]:
    """五种标签混在一起。"""
    cases = {}
    for height, width in SIZES:
        encoder = shake(PromptEncoder(12, (4, 6), (height, width), 8))
        encoder._embed_points = encoder._embed_boxes = encoder.forward = refuse
        coords = torch.rand(2, 5, 2) * torch.tensor([width, height])
        labels = torch.tensor([[1, 2, -1, 3, 0], [0, -1, 3, 2, 1]])
        cases[f"高 {height}、宽 {width} 的图"] = encoder, coords, labels
    # ONNX 那边的标签是浮点数
    cases["标签是浮点数时"] = encoder, coords, labels.float()
    return cases


def by_label(all_tokens, encoder, coords, labels):
    """每种标签的词元分开看。"""
    got = all_tokens(encoder, coords, labels)
    if not isinstance(got, torch.Tensor) or got.shape != (2, 5, 12):
        return got
    return {f"标签 {k} 的词元": got[labels == k] for k in (-1, 0, 1, 2, 3)}


KINDS = "encoder.point_embeddings"


def order(*numbers: int) -> tuple[str, str]:
    return f"*{KINDS}]", f"*({KINDS}[i] for i in {numbers})]"


ex_06_4 = Code(
    f"""
def all_tokens(encoder, coords, labels):
    layer, size = encoder.pe_layer, encoder.input_image_size
    code = layer.forward_with_coords(coords + 0.5, size)
    code = code * (labels != -1)[..., None]
    kinds = [encoder.not_a_point_embed, *{KINDS}]
    table = torch.cat([kind.weight for kind in kinds])
    return code + table[labels.long() + 1]
""",
    labelled,
    Wrong("忘了加 0.5：像素的中心。", "coords + 0.5", "coords"),
    Wrong(
        "标签 −1 的词元留着位置编码：填充只有种类，没有位置。",
        "code * (labels != -1)[..., None]",
        "code",
    ),
    Wrong(
        "负点和正点的种类弄反了：标签 0 用 point_embeddings[0]。", *order(1, 0, 2, 3)
    ),
    Wrong("左上角和右下角的种类弄反了。", *order(0, 1, 3, 2)),
    Wrong(
        "标签 2、3 没有加种类，只剩位置。",
        "table[labels.long() + 1]",
        "table[labels.long() + 1] * (labels < 2)[..., None]",
    ),
    Wrong(
        "框角用了点的种类：标签 2、3 是 point_embeddings[2]、[3]。",
        *order(0, 1, 0, 1),
    ),
    Wrong(
        "没有加种类。",
        "table[labels.long() + 1]",
        "table[:1] * (labels == -1)[..., None]",
    ),
    Wrong(
        "每个词元的种类都差了一号：−1 是填充，0 才是负点。",
        "labels.long() + 1",
        "labels.long()",
    ),
    Wrong(
        "标签可能是浮点数（ONNX 那边就是）：当下标之前先 .long()。",
        "labels.long() + 1",
        "labels + 1",
    ),
    Wrong(
        "多了一个词元：这里不补填充。",
        "code + table[labels.long() + 1]",
        "F.pad(code + table[labels.long() + 1], (0, 0, 0, 1))",
    ),
    Wrong("调用者的坐标或标签被原地改掉了。", "coords + 0.5", "coords.add_(0.5)"),
    Wrong(
        REFUSED,
        "def all_tokens(encoder, coords, labels):\n"
        "    return encoder._embed_points(coords, labels, False)\n",
    ),
    ask=by_label,
    kept=True,
    form="要返回一个张量，形状 (B, N, C)。",
    otherwise="词元不对：词元是位置编码加种类，−1 只有种类。",
)


def masks() -> dict[str, tuple]:
    """横的、竖的、缩小、放大；最后一组给了 strength。"""
    cases = {}
    for (H, W), *rest in (((60, 90), 48), ((101, 40), 64), ((30, 20), 48, 4.0)):
        mask = np.zeros((H, W), dtype=bool)
        mask[H // 6 : H // 2, W // 3 : W - W // 8] = True
        strength = f"、strength = {rest[1]:g}" if rest[1:] else ""
        cases[f"高 {H}、宽 {W} 的掩码，side = {rest[0]}{strength}"] = mask, *rest
    for (H, W), side in (((53, 80), 48), ((101, 40), 64)):
        cases[f"高 {H}、宽 {W}、全是真，side = {side}"] = np.ones((H, W), bool), side
    return cases


def painted(mask_prompt, mask, side, *strength):
    """先看大小、有几种值，再看正负，最后看数值；numpy 的也收。"""
    got = mask_prompt(mask, side, *strength)
    got = torch.from_numpy(got) if isinstance(got, np.ndarray) else got
    if not isinstance(got, torch.Tensor):
        return got
    kinds = set(got.unique().tolist())
    values = "只有 0 和 1" if kinds <= {0.0, 1.0} else "有正有负"
    values = "不止两种" if len(kinds) > 2 else values
    seen = {"形状": tuple(got.shape), "类型": str(got.dtype), "值": values}
    if mask.all() and got.ndim == 3:
        rows, columns = (int((got[0] > 0).any(axis).sum()) for axis in (1, 0))
        seen |= {"照片占的行数": rows, "照片占的列数": columns}
    return seen | {"正负": got > 0, "logits": got}


def nearly(a: np.ndarray, b: np.ndarray) -> bool:
    """边上几格不计较。"""
    different = a != b if a.dtype == bool else abs(a - b) > 0.01 * abs(b).max()
    return bool(different.mean() < 0.03)


PAD = "F.pad(x, (0, side - w, 0, side - h), value=-strength)"
SHRINK = 'F.interpolate(x, (h, w), mode="bilinear")'
SIGN = "torch.where(x > 0.5, strength, -strength)"
ex_06_5 = Code(
    f"""
def mask_prompt(mask, side, strength=10.0):
    H, W = mask.shape
    h, w = (int(n * side / max(H, W) + 0.5) for n in (H, W))
    x = torch.tensor(mask, dtype=torch.float)[None, None]
    x = {SHRINK}
    x = {SIGN}
    return {PAD}[0]
""",
    masks,
    Wrong(
        "直接缩成了正方形，长宽比变了：先按长边缩放，再补。",
        "x, (h, w)",
        "x, (side, side)",
        PAD,
        "x",
    ),
    Wrong(
        "补在了左边和上边：照片是补在右边和下边。",
        "(0, side - w, 0, side - h)",
        "(side - w, 0, side - h, 0)",
    ),
    Wrong(
        "短边取整错了：要四舍五入，不是舍去。",
        "+ 0.5)",
        "+ 0.0)",
    ),
    Wrong(
        "短边取整错了：要四舍五入，不是进一。",
        "int(n * side / max(H, W) + 0.5)",
        "math.ceil(n * side / max(H, W))",
    ),
    Wrong(
        "边上的格子成了中间的值：缩放之后以 0.5 为界，二选一。",
        SIGN,
        "(2 * x - 1) * strength",
    ),
    Wrong("高和宽弄反了。", f"{PAD}[0]", f"{PAD}[0].transpose(1, 2)"),
    Wrong("正负反了：物体里才是正的。", "> 0.5", "< 0.5"),
    Wrong(
        "正负反了：物体里才是正的，补的部分也是背景。",
        "> 0.5",
        "< 0.5",
        "value=-",
        "value=",
    ),
    Wrong("补的部分也当成了物体。", "value=-strength", "value=strength"),
    Wrong("补的部分要给 −strength，不是 0。", "value=-strength", "value=0.0"),
    Wrong(
        "还是 0 和 1：0 的意思是“说不准”，背景要给 −strength。",
        SIGN,
        "(x > 0.5).float()",
        "value=-strength",
        "value=0.0",
    ),
    Wrong(
        "strength 写死成 10 了：物体里是 strength，别处是 −strength。",
        SIGN,
        SIGN.replace("strength", "10.0"),
        "-strength)[0]",
        "-10.0)[0]",
    ),
    Wrong("少了最前面那一维：形状要是 (1, side, side)。", f"{PAD}[0]", f"{PAD}[0, 0]"),
    Wrong("多了一维：形状要是 (1, side, side)。", f"{PAD}[0]", PAD),
    Wrong("类型要 float32。", f"{PAD}[0]", f"{PAD}[0].double()"),
    ask=painted,
    close=nearly,
    form="要返回一个张量，形状 (1, side, side)。",
    otherwise="缩放的大小、0.5 的阈值、补边的位置、数值，挨个看看。",
)
