"""第 6 章的练习怎么检查。"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from checks.common import must_be, same, shake
from course import Mistake, answered, expect

from sam_lite.prompt_encoder import PositionEmbeddingRandom, PromptEncoder

SIZES = ((32, 48), (60, 20), (64, 64))  # 高、宽


def ex_06_1(answer) -> None:
    """没有框加 1，有框加 2；批量是几组提示。"""
    right = {
        "一组 4 个点": (1, 5, 256),
        "5 个框，一起问": (5, 2, 256),
        "一组 2 个点和 1 个框": (1, 4, 256),
        "三组点，各 1、4、2 个，用 pad_points 补齐": (3, 5, 256),
        "一张掩码和 1 个点": (1, 2, 256),
    }
    expect(
        isinstance(answer, dict) and set(answer) == set(right),
        "要一个字典，五个键照题目原样。",
    )
    for name, shape in answer.items():
        answered(shape)
        expect(
            isinstance(shape, (tuple, list, np.ndarray)) and len(shape) == 3,
            f"“{name}”要三个整数：(批量, N, 宽)。",
        )
    for name, shape in right.items():
        got = tuple(answer[name])
        expect(got == shape, f"“{name}”不对：{count_hint(name, got, shape)}")


def count_hint(name: str, got: tuple, right: tuple) -> str:
    """词元数错在哪里。"""
    boxed, n = "框" in name, got[1]
    if got[2] != 256:
        return "最后一个数是词元的宽，vit_b 里每个词元 256 个数。"
    if got[0] != right[0]:
        return "批量是几组提示：各问各的才算一组。"
    if boxed and n == right[1] + 1:
        return "有框的时候不补填充。"
    if boxed and n == right[1] - 1:
        return "一个框是两个词元，左上角和右下角。"
    if n == right[1] + 1 and "掩码" in name:
        return "掩码变成稠密嵌入，不产生词元。"
    if n == right[1] - 1:
        return "没有框的时候，编码器还会补一个填充。"
    return "点一个一个地数，框一个算两个，再想想补不补填充。"


def ex_06_2(answer) -> None:
    """exp(−2π²d²)，d = 2·16/边长：约 0.981 和 0.926。"""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        "要两个数：(1024 时, 512 时)。",
    )
    got = [float(answered(value)) for value in answer]

    def bell(side: float, factor: float = 2 * math.pi**2, power: int = 2) -> float:
        return math.exp(-factor * (16 / side) ** power)

    right = [bell(512), bell(256)]
    mistakes = {
        "两个数的次序反了：先 1024，后 512": right[::-1],
        "d 要按 −1–1 的坐标算，整条边长是 2，不是 1": [bell(1024), bell(512)],
        "d 忘了平方": [bell(512, power=1), bell(256, power=1)],
        "指数里是 2π²，不是 (2π)²": [bell(n, 4 * math.pi**2) for n in (512, 256)],
        "指数里漏了 π²": [bell(512, 2), bell(256, 2)],
    }
    if close(got, right):
        return
    for words, wrong in mistakes.items():
        expect(not close(got, wrong), f"{words}。")
    expect(
        abs(got[0] - got[1]) > 1e-9,
        "两个数不会相同：编码认的是占边长的几分之几，不是像素。",
    )
    first = "1024" if abs(got[0] - right[0]) > 0.01 else "512"
    raise Mistake(f"边长 {first} 时不对：先把 16 像素换成 −1–1 的坐标，再代进公式。")


def close(got: list[float], right: list[float]) -> bool:
    return all(abs(a - b) <= 0.006 for a, b in zip(got, right, strict=True))


class OnlyEncoding:
    """只剩 _pe_encoding 的一层。"""

    def __init__(self, layer: PositionEmbeddingRandom) -> None:
        self._pe_encoding = layer._pe_encoding

    def __getattr__(self, name: str):
        raise Mistake(f"layer 只许用 _pe_encoding，不要用 {name}。")


def ex_06_3(answer) -> None:
    """长方形的图，调用两次。"""
    layer = PositionEmbeddingRandom(6)
    for height, width in SIZES:
        points = torch.rand(2, 3, 2) * torch.tensor([width, height])
        given, case = points.clone(), f"高 {height}、宽 {width} 的图"
        right = layer.forward_with_coords(points, (height, width))
        got = answered(answer(OnlyEncoding(layer), given, (height, width)))
        got = must_be(got, (2, 3, 12), f"{case}，结果")
        if not same(got, right):
            raise Mistake(coords_hint(layer, points, (height, width), got, case))
        expect(
            torch.equal(given, points),
            "调用者的坐标被原地改掉了：再问一次，同一批点就被除了两遍。",
        )


def coords_hint(layer, points, size, got, case: str) -> str:
    """像素坐标的编码错在哪里。"""
    height, width = size
    extent = torch.tensor([width, height])
    mistakes = {
        "x 除以了高、y 除以了宽，次序反了": points / extent.flip(0),
        "多加了 0.5：半个像素在 _embed_points 里加，这里不加": (points + 0.5) / extent,
        "坐标的 x、y 弄反了": (points / extent).flip(-1),
        "忘了除以宽、高": points,
        "多挪了一次：_pe_encoding 自己会挪到 −1–1": 2 * points / extent - 1,
    }
    for words, wrong in mistakes.items():
        if same(got, layer._pe_encoding(wrong)):
            return f"{words}（{case}）。"
    return f"和正确的编码不同：{case}。"


def refuse(*args, **kwargs):
    raise Mistake("不要调用 _embed_points、_embed_boxes 或整个编码器。")


def ex_06_4(answer) -> None:
    """五种标签混在一起；框角与 _embed_boxes 相同。"""
    for height, width in SIZES:
        encoder = shake(PromptEncoder(12, (4, 6), (height, width), 8))
        coords = torch.rand(2, 5, 2) * torch.tensor([width, height])
        labels = torch.tensor([[1, 2, -1, 3, 0], [0, -1, 3, 2, 1]])
        right = tokens_of(encoder, coords, labels)
        encoder._embed_points = encoder._embed_boxes = encoder.forward = refuse
        kept, case = (coords.clone(), labels.clone()), f"高 {height}、宽 {width} 的图"
        with torch.no_grad():
            got = answered(answer(encoder, coords, labels))
        expect(
            torch.equal(coords, kept[0]) and torch.equal(labels, kept[1]),
            "调用者的坐标或标签被原地改掉了。",
        )
        more = isinstance(got, torch.Tensor) and tuple(got.shape) == (2, 6, 12)
        expect(not more, "多了一个词元：这里不补填充。")
        got = must_be(got, (2, 5, 12), f"{case}，结果")
        if not same(got, right):
            raise Mistake(tokens_hint(encoder, coords, labels, got))


@torch.no_grad()
def tokens_of(encoder, coords, labels, half=0.5, order=(0, 1, 2, 3), blank=True):
    """逐个词元按规则算；几个参数各造一种常见的错误。"""
    code = encoder.pe_layer.forward_with_coords(coords + half, encoder.input_image_size)
    for b, i in np.ndindex(*labels.shape):
        label = int(labels[b, i])
        if label == -1:
            code[b, i] *= not blank
            code[b, i] += encoder.not_a_point_embed.weight[0]
        elif order[label] is not None:
            code[b, i] += encoder.point_embeddings[order[label]].weight[0]
    return code


def tokens_hint(encoder, coords, labels, got) -> str:
    """哪一种标签的词元错了，多半为什么。"""
    if same(got, tokens_of(encoder, coords, labels, half=0.0)):
        return "忘了加 0.5：像素的中心。"
    mistakes = {
        "标签 −1 的词元留着位置编码：填充只有种类，没有位置": {"blank": False},
        "负点和正点的种类弄反了：标签 0 用 point_embeddings[0]": {
            "order": (1, 0, 2, 3)
        },
        "左上角和右下角的种类弄反了": {"order": (0, 1, 3, 2)},
        "标签 2、3 没有加种类，只剩位置": {"order": (0, 1, None, None)},
        "框角用了点的种类：标签 2、3 是 point_embeddings[2]、[3]": {
            "order": (0, 1, 0, 1)
        },
        "没有加种类": {"order": (None,) * 4},
    }
    for words, change in mistakes.items():
        if same(got, tokens_of(encoder, coords, labels, **change)):
            return f"{words}。"
    right = tokens_of(encoder, coords, labels)
    bad = (got - right).abs().amax(-1) > 1e-2
    kinds = sorted(set(labels[bad].tolist()))
    return f"这些标签的词元不对：{kinds}。词元是位置编码加种类，−1 只有种类。"


def ex_06_5(answer) -> None:
    """横的、竖的、缩小、放大；边上几格不计较。"""
    for (H, W), side, strength in (
        ((60, 90), 48, 10.0),
        ((101, 40), 64, 10.0),
        ((30, 20), 48, 4.0),
    ):
        mask = np.zeros((H, W), dtype=bool)
        mask[H // 6 : H // 2, W // 3 : W - W // 8] = True
        case = f"高 {H}、宽 {W} 的掩码，side = {side}"
        got = answered(
            answer(mask.copy(), side)
            if strength == 10.0
            else answer(mask.copy(), side, strength)
        )
        if isinstance(got, np.ndarray):
            got = torch.from_numpy(got)
        flat = isinstance(got, torch.Tensor) and tuple(got.shape) == (side, side)
        expect(not flat, "少了最前面那一维：形状要是 (1, side, side)。")
        got = must_be(got, (1, side, side), f"{case}，结果")
        expect(got.dtype == torch.float32, f"要 float32，得到 {got.dtype}：{case}。")
        check_logits(got[0], mask, side, strength, case)


def resized(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """缩放后的二值掩码。形状：(H, W) -> size"""
    x = torch.from_numpy(mask).float()[None, None]
    return F.interpolate(x, size, mode="bilinear", align_corners=False)[0, 0] > 0.5


def check_logits(got, mask, side: int, strength: float, case: str) -> None:
    """逐区域核对一张 logits。"""
    H, W = mask.shape
    h, w = (math.floor(n * side / max(H, W) + 0.5) for n in (H, W))
    small = resized(mask, (h, w))
    right = F.pad(small, (0, side - w, 0, side - h))
    mistakes = {
        "直接缩成了正方形，长宽比变了：先按长边缩放，再补": resized(mask, (side, side)),
        "补在了左边和上边：照片是补在右边和下边": F.pad(
            small, (side - w, 0, side - h, 0)
        ),
        "高和宽弄反了": right.T,
        "正负反了：物体里才是正的": F.pad(~small, (0, side - w, 0, side - h)),
        "正负反了：物体里才是正的，补的部分也是背景": ~right,
    }
    mistakes["补的部分也当成了物体"] = F.pad(
        small, (0, side - w, 0, side - h), value=True
    )
    values = set(got.round(decimals=3).unique().tolist())
    expect(
        not values <= {0.0, 1.0},
        "还是 0 和 1：0 的意思是“说不准”，背景要给 −strength。",
    )
    agree = ((got > 0) == right).float().mean()
    if agree < 0.97:
        for words, wrong in mistakes.items():
            expect(((got > 0) == wrong).float().mean() < 0.97, f"{words}（{case}）。")
        raise Mistake(
            f"只有 {agree:.0%} 的格子正负对得上：缩放的大小、0.5 的阈值、"
            f"补边的位置，挨个看看（{case}）。"
        )
    outside = got.clone()
    outside[:h, :w] = -strength
    expect(
        (outside + strength).abs().max() < 0.01 * strength,
        f"补的部分要给 −strength，不是 {float(outside[-1, -1]):g}：{case}。",
    )
    for value, region in ((strength, right), (-strength, ~right)):
        middle = float(got[region].median())
        expect(
            abs(middle - value) < 0.01 * strength,
            f"strength = {strength:g} 时，{'物体里' if value > 0 else '别处'}"
            f"应该是 {value:g}，得到 {middle:g}。",
        )
