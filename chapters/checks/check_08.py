"""第 8 章的练习怎么检查。"""

import itertools
from unittest import mock

import torch
import torch.nn.functional as F
from checks.common import must_be, same, shake
from course import answered, expect

from sam_lite.mask_decoder import MaskDecoder
from sam_lite.two_way import TwoWayTransformer


def ex_08_1(answer) -> None:
    """词元 (7, 9, 256)，放大后 (7, 32, 256, 256)，掩码 (7, 3, 256, 256)。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "要三个形状：(词元, 放大之后的图像, 掩码)。",
    )
    shapes = []
    for shape in answer:
        good = isinstance(answered(shape), (tuple, list))
        expect(good, "每个形状写成元组，例如 (7, 9)。")
        shapes.append(tuple(answered(n) for n in shape))
    tokens, upscaled, masks = shapes
    expect(tokens == (7, 9, 256), token_hint(tokens))
    expect(upscaled == (7, 32, 256, 256), upscaled_hint(upscaled))
    expect(masks == (7, 3, 256, 256), mask_hint(masks))


def token_hint(shape: tuple) -> str:
    """词元的形状错在哪里。"""
    if len(shape) != 3:
        return "词元的形状有三维：(组数, 个数, 宽)。"
    if shape[0] != 7:
        return "词元的第一维是提示的组数。"
    if shape[2] != 256:
        return "词元的宽不对：vit_b 的解码器处处是 256。"
    hints = {
        4: "只数了提示词元，忘了输出词元。",
        5: "只数了输出词元，忘了提示词元。",
        7: "输出词元只数了三个：还有 IoU 词元和第 0 个掩码词元。",
        8: "少了一个词元：IoU 词元、四个掩码词元、框的两个角，都数了吗？",
        10: "多数了填充词元：有框的时候不补。",
    }
    return hints.get(shape[1], "词元的个数不对：输出词元和提示词元分开数。")


def upscaled_hint(shape: tuple) -> str:
    """放大之后的形状错在哪里。"""
    if len(shape) != 4:
        return "放大之后的图像有四维：(组数, 通道, 高, 宽)。"
    if shape[0] == 1:
        return "图像要照提示的组数复制，连稠密嵌入也是每组一份。"
    hints = {
        (256, 256, 256): "放大之后的通道没有变少：每层转置卷积都减通道。",
        (64, 128, 128): "只过了一层转置卷积，要过两层。",
        (64, 256, 256): "通道是第一层之后的，边长是第二层之后的。",
        (32, 128, 128): "边长只放大了两倍，两层一共是四倍。",
        (256, 256, 32): "通道在第二维，不在最后。",
    }
    return hints.get(shape[1:], "放大之后的形状不对：通道除以 8，边长乘 4。")


def mask_hint(shape: tuple) -> str:
    """掩码的形状错在哪里。"""
    hints = {
        (7, 4, 256, 256): "四张都算了，可是 multimask_output=True 只交出一部分。",
        (7, 1, 256, 256): "一张是 multimask_output=False 的时候。",
        (1, 3, 256, 256): "每组提示各有自己的掩码。",
        (7, 3, 1024, 1024): "解码器交出的是低分辨率的掩码，放大到照片是后处理的事。",
        (7, 3, 64, 64): "点积是在放大之后的图像上做的。",
        (7, 32, 256, 256): "32 个通道已经加成一张掩码了。",
    }
    return hints.get(shape, "掩码的形状不对：(组数, 交出几张, 高, 宽)。")


def ex_08_2(answer) -> None:
    """与矩阵乘相同，并且 conv2d 只调用一次。"""
    for B, M, c, H, W in ((2, 3, 5, 4, 6), (3, 2, 4, 5, 3), (1, 4, 6, 3, 5)):
        vectors, upscaled = torch.randn(B, M, c), torch.randn(B, c, H, W)
        with mock.patch.object(F, "conv2d", wraps=F.conv2d) as calls:
            got = answer(vectors, upscaled)
        case = f"B = {B}、M = {M}、c = {c}"
        got = must_be(got, (B, M, H, W), f"{case} 时，结果")
        right = (vectors @ upscaled.flatten(2)).reshape(B, M, H, W)
        expect(same(got, right), conv_hint(vectors, upscaled, got, case))
        count = calls.call_count
        expect(count > 0, "数值对了，可是没有用 F.conv2d：照题面调用它一次。")
        expect(count == 1, f"{case} 时调用了 {count} 次 F.conv2d：用 groups 一次做完。")


def conv_hint(vectors, upscaled, got, case: str) -> str:
    """一次卷积错在哪里：逐个拿常见的写法来比。"""
    B, M, c = vectors.shape
    H, W = upscaled.shape[2:]

    def grouped(kernels):
        flat = kernels.reshape(B * M, c, 1, 1)
        return F.conv2d(upscaled.reshape(1, B * c, H, W), flat, groups=B)

    first = F.conv2d(upscaled, vectors[0].reshape(M, c, 1, 1))
    if same(got, first):
        return f"每组都用了第 0 组的权重：{case}，B 组要各用各的。"
    if same(got, grouped(vectors.transpose(0, 1)).reshape(B, M, H, W)):
        return f"核的次序不对：{case}，前 M 个核要全是第 0 组的。"
    if same(got, grouped(vectors).reshape(M, B, H, W).transpose(0, 1)):
        return f"结果拆错了：{case}，B·M 里 B 在外、M 在内。"
    if same(got, (vectors @ upscaled.flatten(2)).sigmoid().reshape(B, M, H, W)):
        return "多了 sigmoid：要的是 logits。"
    return f"数值不同：{case}，和 vectors @ upscaled.flatten(2) 逐组比一比。"


def tail(decoder, hs, seen, h, w, early=False, flat=False, single=False):
    """解码器的后半截；三个开关各打开一处错误。"""
    B, _, C = seen.shape
    src = seen if flat else seen.transpose(1, 2)
    upscaled = decoder.output_upscaling(src.reshape(B, C, h, w))
    mlps = decoder.output_hypernetworks_mlps
    vectors = torch.stack(
        [mlps[0 if single else i](hs[:, i + (not early)]) for i in range(4)], dim=1
    )
    masks = torch.einsum("bmc,bchw->bmhw", vectors, upscaled)
    return masks, decoder.iou_prediction_head(hs[:, 0])


def ex_08_3(answer) -> None:
    """三处错误逐一比对，报出还剩哪几处。"""
    decoder = shake(
        MaskDecoder(transformer_dim=32, transformer=TwoWayTransformer(1, 32, 2, 8))
    )
    for B, N, h, w in ((2, 3, 4, 6), (1, 0, 5, 2)):
        hs, seen = torch.randn(B, 5 + N, 32), torch.randn(B, h * w, 32)
        with torch.no_grad():
            got = answered(answer(decoder, hs, seen, h, w))
            pair = isinstance(got, (tuple, list)) and len(got) == 2
            expect(pair, "要返回两样：掩码和预测的 IoU。")
            masks = must_be(got[0], (B, 4, 4 * h, 4 * w), "掩码")
            iou = must_be(got[1], (B, 4), "预测的 IoU")
            right, score = tail(decoder, hs, seen, h, w)
            if not same(masks, right):
                expect(False, tail_hint(decoder, hs, seen, h, w, masks))
        expect(same(iou, score), "打分那一行本来没有错：IoU 词元是 hs[:, 0]。")


def tail_hint(decoder, hs, seen, h: int, w: int, masks: torch.Tensor) -> str:
    """后半截还剩哪几处错误。"""
    words = (
        "第 0 个词元是 IoU 词元，掩码词元从第 1 个起",
        "还原成图之前要先把通道换到第二维",
        "四个掩码词元各有自己的 MLP，不能都用第 0 个",
    )
    for flags in itertools.product((False, True), repeat=3):
        if same(masks, tail(decoder, hs, seen, h, w, *flags)[0]):
            left = [word for word, flag in zip(words, flags) if flag]
            if len(left) > 1:  # 一处也没有改的，不把答案念出来
                return f"还剩 {len(left)} 处：逐行再问提示 1 的三个问题。"
            return f"还剩 1 处：{left[0]}。"
    if same(masks, tail(decoder, hs, seen, h, w)[0].sigmoid()):
        return "多了 sigmoid：要的是 logits。"
    return "掩码不对，也不是原来的三处错误之一：对照 8.5 节的 predict_masks。"


def ex_08_4(answer) -> None:
    """点一下的取第 1–3 张里最高的，点几下的取第 0 张。"""
    scores = torch.tensor(
        [
            [0.9, 0.2, 0.5, 0.4],  # 第 0 张最高，也不取它
            [0.1, 0.8, 0.3, 0.2],
            [0.3, 0.1, 0.2, 0.7],
            [0.4, 0.6, 0.9, 0.5],
            [0.2, 0.7, 0.6, 0.1],
        ]
    )
    for clicks in ([1, 3, 1, 2, 1], [2, 1, 1, 1, 5], [1], [2]):
        B = len(clicks)
        masks, iou = torch.randn(B, 4, 3, 5), scores[:B]
        got = answered(answer(masks, iou, torch.tensor(clicks)))
        pair = isinstance(got, (tuple, list)) and len(got) == 2
        expect(pair, "要返回两样：挑中的掩码和它的分数。")
        mask, score = answered(got[0]), answered(got[1])
        loose = isinstance(mask, torch.Tensor) and mask.dim() == 4
        expect(not loose, "每组只要一张：掩码是 (B, H, W)，没有“第几张”那一维。")
        mask = must_be(mask, (B, 3, 5), "掩码")
        score = must_be(score, (B,), "分数")
        right = choose(iou, torch.tensor(clicks))
        rows = torch.arange(B)
        good = same(mask, masks[rows, right])
        expect(good, pick_hint(masks, iou, clicks, mask))
        expect(same(score, iou[rows, right]), "掩码对了，分数不是这一张的。")


def choose(iou: torch.Tensor, clicks: torch.Tensor) -> torch.Tensor:
    """每组该取第几张。"""
    return torch.where(clicks > 1, 0, 1 + iou[:, 1:].argmax(1))


def pick_hint(masks, iou, clicks: list[int], mask: torch.Tensor) -> str:
    """挑错了：看是按哪一种规矩挑的。"""
    one = torch.tensor(clicks) == 1
    three = iou[:, 1:].argmax(1)
    zero = torch.zeros_like(three)
    rules = {
        "argmax 从 0 数，切掉了第 0 张以后要加 1": torch.where(one, three, zero),
        "点一下的也挑中了第 0 张：它不参加比较": torch.where(one, iou.argmax(1), zero),
        "点一下和点几下弄反了": torch.where(one, zero, three + 1),
        "点了几下的没有取第 0 张：每组各看各的 clicks": three + 1,
        "点一下的没有从第 1–3 张里挑：每组各看各的 clicks": zero,
        "整批用了同一张，要每组各挑各的": (three[:1] + 1).expand(len(clicks)),
        "四张一起比了，没有看 clicks": iou.argmax(1),
        "挑成分数最低的了": torch.where(one, iou[:, 1:].argmin(1) + 1, zero),
        "点两下就不算一下了：是 clicks > 1": choose(iou, torch.tensor(clicks) - 1),
    }
    rows = torch.arange(len(clicks))
    for words, index in rules.items():
        if same(mask, masks[rows, index]):
            return f"{words}（clicks = {clicks}）。"
    return f"挑的不对：clicks = {clicks}，逐组核对编号。"


CASES = [(seed, target) for seed in range(6) for target in (0.57, 0.83, 0.93, 1.0)]


def ex_08_5(answer) -> None:
    """许多随机的掩码，拿整列答案和几种常见的写法比。"""
    got, right = [], []
    wrong: dict[str, list[int]] = {}
    for seed, target in CASES:
        vector, upscaled = channels(seed)
        value = answered(answer(vector, upscaled, target))
        expect(is_whole(value), "要返回一个整数：用了几个通道。")
        got.append(int(value))
        parts = vector[:, None, None] * upscaled
        keys = {
            "": parts.abs().mean((1, 2)),
            "排序只看了权重的大小，没有看特征": vector.abs(),
            "忘了绝对值，负的贡献被排到了最后": parts.mean((1, 2)),
            "先平均、后取绝对值，正负抵消了": parts.mean((1, 2)).abs(),
            "从小到大排了，要从大到小": -parts.abs().mean((1, 2)),
            "没有排序": -torch.arange(len(vector)),
            "排序看的是特征，没有乘权重": upscaled.abs().mean((1, 2)),
        }
        for words, key in keys.items():
            wrong.setdefault(words, []).append(needed(parts, key, target))
    right = wrong.pop("")
    if got == right:
        return
    for words, list_ in wrong.items():
        expect(got != list_, f"{words}。")
    expect(got != [n - 1 for n in right], "少数了一个：第一个通道是 1，不是 0。")
    expect(got != [n + 1 for n in right], "多数了一个。")
    i = next(i for i, (a, b) in enumerate(zip(got, right)) if a != b)
    case = f"target = {CASES[i][1]} 时你给的是 {got[i]}"
    expect(False, f"{case}。交并比有升有降，要第一个不低于 target 的部分和。")


def channels(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """一组权重和特征：各通道特征的大小相差很多，正负都有。"""
    noise = torch.Generator().manual_seed(seed)
    size = torch.rand(12, generator=noise) ** 2 * 3 + 0.05
    upscaled = torch.randn(12, 5, 9, generator=noise) + torch.randn(
        12, 1, 1, generator=noise
    )
    vector = torch.randn(12, generator=noise)
    return vector, upscaled * size[:, None, None]


def needed(parts: torch.Tensor, key: torch.Tensor, target: float) -> int:
    """按 key 从大到小相加，第一个达到 target 的个数。"""
    sums = parts[key.argsort(descending=True)].cumsum(0) > 0  # (c, H, W)
    final = parts.sum(0) > 0
    overlap = (sums & final).sum((1, 2))
    union = (sums | final).sum((1, 2))
    good = overlap >= target * union
    return 1 + int(good.int().argmax())


def is_whole(value) -> bool:
    """整数，或只有一个数的整数张量、数组。"""
    try:
        return int(value) == value and not isinstance(value, bool)
    except (TypeError, ValueError, RuntimeError):
        return False
