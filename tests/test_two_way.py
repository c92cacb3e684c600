"""第 7 章：双向 Transformer。"""

import pytest
import torch
from parity.small import randomize

from sam_lite.attention import set_fused
from sam_lite.two_way import Attention, TwoWayAttentionBlock, TwoWayTransformer


@pytest.mark.parametrize("fused", [False, True])
def test_attention_by_hand(fused: bool) -> None:
    """每个查询逐头打分、加权求和，与整层相同；内部宽度减半。"""
    layer = set_fused(randomize(Attention(8, 2, downsample_rate=2)), fused)
    assert layer.internal_dim == 4
    q, k, v = torch.randn(1, 3, 8), torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    Q, K, V = layer.q_proj(q)[0], layer.k_proj(k)[0], layer.v_proj(v)[0]
    out = torch.zeros(3, 4)
    for head in (slice(0, 2), slice(2, 4)):
        for i in range(3):
            scores = K[:, head] @ Q[i, head] / 2**0.5
            out[i, head] = scores.softmax(0) @ V[:, head]
    torch.testing.assert_close(layer(q, k, v)[0], layer.out_proj(out))


def test_attention_rejects_bad_heads() -> None:
    """头数不能整除内部宽度时报错。"""
    with pytest.raises((AssertionError, ValueError), match="num_heads"):
        Attention(8, 3)


def test_first_layer_has_no_residual() -> None:
    """第一层的自注意力不加位置编码，也没有残差：注意力置零后词元只剩偏置。"""
    tokens, image = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    for skip in (True, False):
        block = TwoWayAttentionBlock(8, 2, 10, skip_first_layer_pe=skip)
        for part in (
            block.self_attn.out_proj,
            block.cross_attn_token_to_image.out_proj,
            block.mlp.lin2,
        ):
            torch.nn.init.zeros_(part.weight)
            torch.nn.init.zeros_(part.bias)
        queries, _ = block(tokens, image, torch.randn(1, 3, 8), torch.randn(1, 5, 8))
        assert (queries.abs().max() < 1e-6) == skip


@pytest.fixture
def transformer() -> TwoWayTransformer:
    return randomize(TwoWayTransformer(2, 16, 4, 20)).eval()


def inputs(batch: int = 2, tokens: int = 3) -> tuple:
    image, pe = torch.randn(batch, 16, 4, 6), torch.randn(batch, 16, 4, 6)
    return image, pe, torch.randn(batch, tokens, 16)


def test_shapes(transformer: TwoWayTransformer) -> None:
    """词元的形状不变，图像从 (B, C, h, w) 变成 (B, h·w, C)。"""
    tokens, image = transformer(*inputs())
    assert tokens.shape == (2, 3, 16) and image.shape == (2, 24, 16)
    assert [layer.skip_first_layer_pe for layer in transformer.layers] == [True, False]


def test_both_directions(transformer: TwoWayTransformer) -> None:
    """改一个词元，图像处处变；改一格图像，词元个个变。"""
    image, pe, tokens = inputs(1)
    before = transformer(image, pe, tokens)
    other = tokens.clone()
    other[0, 0] += torch.randn(16)
    _, moved = transformer(image, pe, other)
    assert ((moved - before[1]).abs().amax(-1) > 1e-6).all()
    other = image.clone()
    other[0, :, 1, 2] += torch.randn(16)
    moved, _ = transformer(other, pe, tokens)
    assert ((moved - before[0]).abs().amax(-1) > 1e-6).all()


def test_token_order_does_not_matter(transformer: TwoWayTransformer) -> None:
    """词元换个次序，输出跟着换，图像不变。"""
    image, pe, tokens = inputs()
    out, grid = transformer(image, pe, tokens)
    order = torch.tensor([2, 0, 1])
    shuffled, same_grid = transformer(image, pe, tokens[:, order])
    torch.testing.assert_close(shuffled, out[:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same_grid, grid, atol=1e-5, rtol=1e-5)


def test_eager_equals_fused(transformer: TwoWayTransformer) -> None:
    """两条路相差不超过 1e-5。"""
    values = inputs()
    fused = transformer(*values)
    eager = set_fused(transformer, False)(*values)
    for a, b in zip(fused, eager, strict=True):
        assert (a - b).abs().max() / b.abs().max() <= 1e-5


def test_gradients(transformer: TwoWayTransformer) -> None:
    """两路输出的梯度传到每个参数。"""
    tokens, image = transformer(*inputs())
    loss = (tokens * torch.randn_like(tokens)).sum()
    (loss + (image * torch.randn_like(image)).sum()).backward()
    for name, parameter in transformer.named_parameters():
        assert parameter.grad is not None, name
        # 注意力里 k 的偏置给每个键加同一个分数，softmax 之后没有影响
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().sum() > 0, name
