"""第 7 章：笔记本里的类与 sam_lite 一致。"""

import pytest
import torch
from torch import nn

from chapters.common import course, load, shake
from sam_lite import two_way
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config

STEM = "07_two_way"


def part(name: str):
    return course.from_chapter(STEM, name)


def agree(mine: nn.Module, theirs: nn.Module, *inputs: torch.Tensor) -> None:
    for a, b in zip(mine(*inputs), theirs(*inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("heads, rate", [(1, 1), (4, 1), (3, 2), (2, 3)])
def test_attention(heads: int, rate: int) -> None:
    theirs = shake(two_way.Attention(12, heads, rate))
    mine = load(part("Attention")(12, heads, rate), theirs)
    q, k, v = (torch.randn(2, n, 12) for n in (5, 8, 8))
    torch.testing.assert_close(mine(q, k, v), theirs(q, k, v), atol=1e-4, rtol=1e-4)
    table = mine.table(q, k)
    assert table.shape == (2, heads, 5, 8)
    torch.testing.assert_close(table.sum(-1), torch.ones(2, heads, 5))
    assert mine.internal_dim == theirs.internal_dim
    with pytest.raises(AssertionError, match="num_heads"):
        part("Attention")(12, 5)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_block(skip: bool, rate: int, activation: type[nn.Module]) -> None:
    options = (12, 3, 20, activation, rate, skip)
    theirs = shake(two_way.TwoWayAttentionBlock(*options))
    mine = load(part("TwoWayAttentionBlock")(*options), theirs)
    assert [m.eps for m in mine.modules() if isinstance(m, nn.LayerNorm)] == [1e-5] * 4
    image_pe = torch.randn(1, 8, 12)  # 位置编码对一批共用
    shapes = ((2, 5, 12), (2, 8, 12), (2, 5, 12))
    agree(mine, theirs, *(torch.randn(shape) for shape in shapes), image_pe)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_transformer(depth: int) -> None:
    options = (depth, 12, 3, 20)
    theirs = shake(two_way.TwoWayTransformer(*options))
    mine = load(part("TwoWayTransformer")(*options), theirs)
    image, pe = torch.randn(2, 12, 3, 4), torch.randn(1, 12, 3, 4)
    agree(mine, theirs, image, pe, torch.randn(2, 5, 12))
    copied = part("transformer_like")(theirs)
    agree(copied, theirs, image, pe, torch.randn(2, 5, 12))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_the_same_keys_and_shapes(name: str) -> None:
    """四个型号的 Transformer 都装得进 transformer_like 造出的那个。"""
    with torch.device("meta"):
        theirs = sam_from_config(PRESETS[name]).mask_decoder.transformer
        mine = part("transformer_like")(theirs)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in mine.state_dict().items()} == expected
    heads = [m.num_heads for m in mine.modules() if hasattr(m, "num_heads")]
    assert set(heads) == {theirs.num_heads}


def test_walk_with_the_tokens_as_query_pe_is_the_forward() -> None:
    """动手改坏用的 walk，开关都不动时就是原样。"""
    mine = shake(part("TwoWayTransformer")(2, 12, 3, 20))
    image, pe = torch.randn(2, 12, 3, 4), torch.randn(1, 12, 3, 4)
    tokens = torch.randn(2, 5, 12)
    for a, b in zip(
        part("walk")(mine, image, pe, tokens, tokens),
        mine(image, pe, tokens),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_decoder_inputs_are_those_of_the_predictor() -> None:
    """与 sam_lite 交给 Transformer 的三样相同，正点、负点都有。"""
    import numpy as np

    import sam_lite

    torch.manual_seed(0)
    predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
    predictor.set_image(course.photo("coins")[:100, :160])
    seen = []
    predictor.model.mask_decoder.transformer.register_forward_pre_hook(
        lambda module, args: seen.extend(args)
    )
    prompt = np.array([[20.0, 30.0], [120.0, 60.0]]), np.array([1, 0])
    predictor.predict(*prompt)
    inputs = part("decoder_inputs")(predictor, *prompt)
    for a, b in zip(inputs, seen, strict=True):
        torch.testing.assert_close(a, b)
