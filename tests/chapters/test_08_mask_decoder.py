"""第 8 章：笔记本里的类与 sam_lite 一致。"""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chapters.common import course, load, shake
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


TOKENS, UP, MASKS = (7, 9, 256), (7, 32, 256, 256), (7, 3, 256, 256)


@pytest.mark.parametrize("answer", [list, torch.Size, tuple])
def test_shapes_may_be_lists(answer, capsys) -> None:
    """形状写成列表、torch.Size 都算对。"""
    course.check("ex-08-1", [answer(s) for s in (TOKENS, UP, MASKS)])
    assert "通过" in capsys.readouterr().out
