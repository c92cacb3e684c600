"""第 8 章：笔记本里的类与 sam_lite 一致，练习的检查说得出错在哪里。"""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chapters.common import assert_verdicts, course, load, shake
from sam_lite import mask_decoder
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config
from sam_lite.two_way import TwoWayTransformer

STEM = "08_mask_decoder"


def part(name: str):
    return course.from_chapter(STEM, name)


def pair(masks: int = 3, **options) -> tuple[nn.Module, nn.Module]:
    """同样尺寸、同样权重的两个解码器：笔记本的和 sam_lite 的。"""
    options |= {"transformer_dim": 32, "num_multimask_outputs": masks}
    theirs = mask_decoder.MaskDecoder(
        transformer=TwoWayTransformer(2, 32, 4, 40), **options
    )
    transformer = TwoWayTransformer(2, 32, 4, 40)
    mine = part("MaskDecoder")(transformer=transformer, **options)
    return load(mine, shake(theirs)), theirs


def inputs(prompts: int, tokens: int, images: int = 1) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(6)
    return (
        torch.randn(images, 32, 4, 6),
        torch.randn(1, 32, 4, 6),
        torch.randn(prompts, tokens, 32),
        torch.randn(prompts, 32, 4, 6),
    )


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp(layers: int, sigmoid: bool) -> None:
    theirs = shake(mask_decoder.MLP(5, 7, 3, layers, sigmoid))
    mine = load(part("MLP")(5, 7, 3, layers, sigmoid), theirs)
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(mine(x), theirs(x))
    assert mine.num_layers == theirs.num_layers == layers


@pytest.mark.parametrize(
    "prompts, tokens, images", [(2, 3, 1), (1, 0, 1), (5, 2, 1), (6, 2, 2), (2, 1, 2)]
)
def test_decoder(prompts: int, tokens: int, images: int) -> None:
    """一张图、一批图，没有提示词元，一张和几张掩码。"""
    mine, theirs = pair()
    values = inputs(prompts, tokens, images)
    with torch.no_grad():
        expected = theirs.predict_masks(*values)
        torch.testing.assert_close(mine.predict_masks(*values), expected)
        for several in (True, False):
            torch.testing.assert_close(
                mine(*values, multimask_output=several),
                theirs(*values, multimask_output=several),
            )


def test_decoder_with_other_sizes() -> None:
    """掩码的张数、激活函数、IoU 头的层数和宽度都跟着参数变。"""
    options = {"activation": nn.ReLU, "iou_head_depth": 2, "iou_head_hidden_dim": 9}
    mine, theirs = pair(masks=5, **options)
    values = inputs(3, 2)
    torch.testing.assert_close(
        mine(*values, multimask_output=True), theirs(*values, multimask_output=True)
    )
    assert mine.num_multimask_outputs == 5 and mine.num_mask_tokens == 6


@pytest.mark.parametrize("name", ["MLP", "MaskDecoder"])
def test_signatures_are_official(name: str) -> None:
    mine, theirs = part(name), getattr(mask_decoder, name)
    for method in ("__init__", "forward"):
        a = inspect.signature(getattr(mine, method)).parameters
        b = inspect.signature(getattr(theirs, method)).parameters
        assert [(p.name, p.kind, p.default) for p in a.values()] == [
            (p.name, p.kind, p.default) for p in b.values()
        ]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_the_same_keys_and_shapes(name: str) -> None:
    """四个型号的解码器，decoder_like 都造得出来。"""
    with torch.device("meta"):
        theirs = sam_from_config(PRESETS[name]).mask_decoder
        mine = part("decoder_like")(theirs)
    expected = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in mine.state_dict().items()} == expected


def test_loops_are_right() -> None:
    """两个笨办法是标准答案，自己也要对。"""
    vector, features = torch.randn(3), torch.randn(3, 4, 6)
    expected = torch.einsum("c,chw->hw", vector, features)
    torch.testing.assert_close(part("mask_by_loop")(vector, features), expected)
    x, weight, bias = torch.randn(3, 4, 6), torch.randn(3, 5, 2, 2), torch.randn(5)
    expected = F.conv_transpose2d(x[None], weight, bias, stride=2)[0]
    torch.testing.assert_close(part("paint_by_loop")(x, weight, bias), expected)


def test_what_is_said_about_vit_b() -> None:
    """正文写的数：406 万参数、120 个键，新东西不到 77 万，输出词元 1280 个数。"""
    with torch.device("meta"):
        decoder = sam_from_config(PRESETS["vit_b"]).mask_decoder
    sizes = {
        k: sum(p.numel() for p in m.parameters()) for k, m in decoder.named_children()
    }
    total = sum(sizes.values())
    assert total == 4_058_340 and len(decoder.state_dict()) == 120
    assert 760_000 < total - sizes["transformer"] < 770_000
    assert sizes["iou_token"] + sizes["mask_tokens"] == 1280
    assert round(256 * 256 * 256 / 1e4) == 1678  # 一层线性层的权重，以万计


SHAPES = "shapes = {}, {}, {}"
TOKENS, UP, MASKS = (7, 9, 256), (7, 32, 256, 256), (7, 3, 256, 256)


def shapes(tokens=TOKENS, up=UP, masks=MASKS) -> str:
    return SHAPES.format(tokens, up, masks)


def conv(kernels="vectors", groups=", groups=B", out="out.reshape(B, M, H, W)") -> str:
    return f"""
def masks_by_conv(vectors, upscaled):
    B, M, c = vectors.shape
    H, W = upscaled.shape[2:]
    kernels = {kernels}.reshape(B * M, c, 1, 1)
    out = F.conv2d(upscaled.reshape(1, B * c, H, W), kernels{groups})
    return {out}
"""


LOOP = """
def masks_by_conv(vectors, upscaled):
    pairs = zip(vectors, upscaled)
    out = [F.conv2d(u[None], v[:, :, None, None]) for v, u in pairs]
    return torch.cat(out)
"""
SHARED = """
def masks_by_conv(vectors, upscaled):
    return F.conv2d(upscaled, vectors[0][:, :, None, None])
"""
PRODUCT = """
def masks_by_conv(vectors, upscaled):
    masks = vectors @ upscaled.flatten(2)
    return masks.unflatten(2, upscaled.shape[2:])
"""


def tail(start="1 + i", turn=".transpose(1, 2)", mlp="mlps[i]", score="0") -> str:
    return f"""
def mended_tail(decoder, hs, seen, h, w):
    B, _, C = seen.shape
    src = seen{turn}.reshape(B, C, h, w)
    upscaled = decoder.output_upscaling(src)
    mlps = decoder.output_hypernetworks_mlps
    vectors = torch.stack([{mlp}(hs[:, {start}]) for i in range(4)], dim=1)
    masks = torch.einsum("bmc,bchw->bmhw", vectors, upscaled)
    return masks, decoder.iou_prediction_head(hs[:, {score}])
"""


def pick(index: str, out="masks[rows, index], iou[rows, index]") -> str:
    return f"""
def pick(masks, iou, clicks):
    rows = torch.arange(len(masks))
    index = {index}
    return {out}
"""


BEST = "1 + iou[:, 1:].argmax(1)"
RULE = f"torch.where(clicks > 1, 0, {BEST})"


def channels(
    key="parts.abs().mean((1, 2))", down="True", out="1 + int(good.argmax())"
) -> str:
    return f"""
def channels_needed(vector, upscaled, target):
    parts = vector[:, None, None] * upscaled
    order = ({key}).argsort(descending={down})
    sums, final = parts[order].cumsum(0) > 0, parts.sum(0) > 0
    iou = (sums & final).sum((1, 2)) / (sums | final).sum((1, 2))
    good = (iou >= target).int()
    return {out}
"""


WRONG = {
    "ex-08-1": [
        (shapes(tokens=(7, 10, 256)), "填充词元"),
        (shapes(tokens=(7, 8, 256)), "少了一个词元"),
        (shapes(tokens=(7, 4, 256)), "忘了输出词元"),
        (shapes(tokens=(7, 5, 256)), "忘了提示词元"),
        (shapes(tokens=(7, 7, 256)), "输出词元只数了三个"),
        (shapes(tokens=(1, 9, 256)), "提示的组数"),
        (shapes(tokens=(7, 9, 768)), "宽不对"),
        (shapes(tokens=(7, 9)), "三维"),
        (shapes(up=(1, 32, 256, 256)), "复制"),
        (shapes(up=(7, 256, 256, 256)), "没有变少"),
        (shapes(up=(7, 64, 128, 128)), "只过了一层"),
        (shapes(up=(7, 256, 256, 32)), "不在最后"),
        (shapes(masks=(7, 4, 256, 256)), "只交出一部分"),
        (shapes(masks=(7, 1, 256, 256)), "False"),
        (shapes(masks=(7, 3, 1024, 1024)), "低分辨率"),
        ("shapes = (7, 9, 256)", "写成元组"),
        ("shapes = (7, 9)", "三个形状"),
    ],
    "ex-08-2": [
        (LOOP, "次 F.conv2d"),
        (SHARED, "第 0 组的权重"),
        (PRODUCT, "没有用 F.conv2d"),
        (conv(kernels="vectors.transpose(0, 1)"), "核的次序"),
        (conv(out="out.reshape(M, B, H, W).transpose(0, 1)"), "拆错了"),
        (conv(out="out"), "形状"),
        (conv(out="out.reshape(B, M, H, W).sigmoid()"), "sigmoid"),
        (conv(out="out.reshape(B, M, H, W) + 1"), "数值不同"),
    ],
    "ex-08-3": [
        (tail(start="i"), "还剩 1 处：第 0 个词元"),
        (tail(turn=""), "还剩 1 处：还原成图"),
        (tail(mlp="mlps[0]"), "还剩 1 处：四个掩码词元"),
        (tail(start="i", turn="", mlp="mlps[0]"), "还剩 3 处：逐行"),
        (tail(start="i", mlp="mlps[0]"), "还剩 2 处：逐行"),
        (tail(score="1"), "本来没有错"),
        (tail(start="-1 - i"), "predict_masks"),
        (tail().replace("return masks, ", "return "), "两样"),
        (tail().replace("return masks", "return masks.sigmoid()"), "多了 sigmoid"),
    ],
    "ex-08-4": [
        (pick("torch.where(clicks > 1, 0, iou[:, 1:].argmax(1))"), "加 1"),
        (pick("torch.where(clicks > 1, 0, iou.argmax(1))"), "不参加比较"),
        (pick(f"torch.where(clicks > 1, {BEST}, 0)"), "弄反了"),
        (pick(BEST), "没有取第 0 张"),
        (pick("torch.zeros_like(clicks)"), "没有从第 1–3 张里挑"),
        (pick(f"{BEST} if clicks[0] == 1 else 0 * clicks"), "各看各的"),
        (pick(f"({BEST})[:1].expand(len(clicks))"), "整批用了同一张"),
        (pick("iou.argmax(1)"), "四张一起比"),
        (pick("torch.where(clicks > 1, 0, 1 + iou[:, 1:].argmin(1))"), "最低"),
        (pick(f"torch.where(clicks > 2, 0, {BEST})"), "clicks > 1"),
        (pick(RULE, "masks[rows, index], iou.amax(1)"), "分数不是这一张"),
        (pick(RULE, "masks[rows, index][:, None], iou[rows, index]"), "每组只要一张"),
        (pick(RULE, "masks[rows, index]"), "两样"),
    ],
    "ex-08-5": [
        (channels("vector.abs()"), "只看了权重"),
        (channels("parts.mean((1, 2))"), "忘了绝对值"),
        (channels("parts.mean((1, 2)).abs()"), "正负抵消"),
        (channels(down="False"), "从大到小"),
        (channels("-torch.arange(len(vector))"), "没有排序"),
        (channels("upscaled.abs().mean((1, 2))"), "没有乘权重"),
        (channels(out="int(good.argmax())"), "少数了一个"),
        (channels(out="2 + int(good.argmax())"), "多数了一个"),
        (channels(out="int(good.sum())"), "有升有降"),
        (channels(out="1 + int((1 - good).sum())"), "有升有降"),
        (channels(out="iou"), "一个整数"),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)


@pytest.mark.parametrize("answer", [list, torch.Size, tuple])
def test_shapes_may_be_lists(answer, capsys) -> None:
    """形状写成列表、torch.Size 都算对。"""
    course.check("ex-08-1", [answer(s) for s in (TOKENS, UP, MASKS)])
    assert "通过" in capsys.readouterr().out
