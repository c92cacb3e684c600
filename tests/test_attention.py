"""第 3 章：多头注意力与相对位置。"""

import pytest
import torch
from parity.small import randomize
from torch import nn

from sam_lite.attention import (
    Attention,
    add_decomposed_rel_pos,
    get_rel_pos,
    rel_pos_by_axis,
    set_fused,
)


@pytest.mark.parametrize("use_rel_pos", [False, True])
@pytest.mark.parametrize("batch, grid", [(1, (8, 8)), (9, (3, 3)), (2, (4, 6))])
def test_eager_equals_fused(batch: int, grid: tuple, use_rel_pos: bool) -> None:
    """易读写法与融合算子相差不超过 1e-5：全局、窗口、长方形，有无相对位置。"""
    layer = Attention(24, 3, use_rel_pos=use_rel_pos, input_size=grid)
    randomize(layer)
    assert layer.fused
    x = torch.randn(batch, *grid, 24)
    fused = layer(x)
    eager = set_fused(layer, False)(x)
    assert not layer.fused
    assert (fused - eager).abs().max() / eager.abs().max() <= 1e-5


@pytest.mark.parametrize("fused", [False, True])
def test_by_hand(fused: bool) -> None:
    """一个头一个词元地用循环算，结果与整层相同（2×3 的网格，两个头）。"""
    H, W, n, d = 2, 3, 2, 4
    layer = Attention(n * d, n, use_rel_pos=True, input_size=(H, W))
    set_fused(randomize(layer), fused)
    x = torch.randn(1, H, W, n * d)
    q, k, v = layer.qkv(x).reshape(H, W, 3, n, d).unbind(2)
    out = torch.zeros(H, W, n, d)
    for head in range(n):
        for y in range(H):
            for z in range(W):
                me = q[y, z, head]
                scores = torch.stack(
                    [
                        me @ k[i, j, head] / d**0.5
                        + me @ layer.rel_pos_h[y - i + H - 1]
                        + me @ layer.rel_pos_w[z - j + W - 1]
                        for i in range(H)
                        for j in range(W)
                    ]
                )
                values = v[:, :, head].reshape(-1, d)
                out[y, z, head] = scores.softmax(0) @ values
    expected = layer.proj(out.reshape(1, H, W, n * d))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_get_rel_pos_index() -> None:
    """查询格 i、键格 j 取的是表里第 i − j + 边长 − 1 行。"""
    table = torch.arange(7.0)[:, None]
    found = get_rel_pos(4, 4, table)[..., 0]
    for i in range(4):
        for j in range(4):
            assert found[i, j] == i - j + 3


def test_get_rel_pos_interpolates() -> None:
    """表的长度不合时线性插值：线性的表插值后仍是单调的，两端不变样。"""
    table = torch.linspace(-3, 3, 7)[:, None]
    found = get_rel_pos(6, 6, table)[..., 0]
    assert found.shape == (6, 6)
    torch.testing.assert_close(found, -found.T)
    assert (found[:, 0].diff() > 0).all()


def test_add_sums_both_axes() -> None:
    """官方名字的函数：每个分数加上它那一行、那一列的加项。"""
    q, scores = torch.randn(2, 12, 5), torch.randn(2, 12, 12)
    tables = torch.randn(5, 5), torch.randn(7, 5)
    rel_h, rel_w = rel_pos_by_axis(q, *tables, (3, 4), (3, 4))
    assert rel_h.shape == (2, 3, 4, 3) and rel_w.shape == (2, 3, 4, 4)
    result = add_decomposed_rel_pos(scores, q, *tables, (3, 4), (3, 4))
    for i in range(12):
        for j in range(12):
            added = rel_h[:, i // 4, i % 4, j // 4] + rel_w[:, i // 4, i % 4, j % 4]
            torch.testing.assert_close(result[:, i, j], scores[:, i, j] + added)


def test_rel_pos_keeps_leading_dimensions() -> None:
    """批量和头数放在前面几维，与合成一维时相同。"""
    q, tables = torch.randn(2, 3, 12, 5), (torch.randn(5, 5), torch.randn(7, 5))
    merged = rel_pos_by_axis(q.flatten(0, 1), *tables, (3, 4), (3, 4))
    for found, wanted in zip(
        rel_pos_by_axis(q, *tables, (3, 4), (3, 4)), merged, strict=True
    ):
        assert torch.equal(found.flatten(0, 1), wanted)


def test_without_position_is_permutable() -> None:
    """没有位置编码时，打乱格子只会打乱输出；有相对位置时就不是了。"""
    x = torch.randn(1, 2, 6, 8)
    order = torch.randperm(12)
    shuffled = x.reshape(1, 12, 8)[:, order].reshape(x.shape)
    for use_rel_pos in (False, True):
        layer = Attention(8, 2, use_rel_pos=use_rel_pos, input_size=(2, 6))
        randomize(layer)
        expected = layer(x).reshape(12, 8)[order]
        difference = (layer(shuffled).reshape(12, 8) - expected).abs().max()
        assert difference > 0.1 if use_rel_pos else difference < 1e-5


def test_rel_pos_options() -> None:
    """相对位置表默认从零开始；没给网格大小会报错。"""
    assert Attention(8, 2, True, True, True, (4, 6)).rel_pos_w.shape == (11, 4)
    assert Attention(8, 2, True, True, True, (4, 6)).rel_pos_h.abs().max() == 0
    with pytest.raises((AssertionError, ValueError), match="input_size"):
        Attention(8, 2, use_rel_pos=True)


def test_set_fused_reaches_every_layer(small_sam: nn.Module) -> None:
    """一个开关切换整个模型（编码器 3 层、解码器 7 层）。"""
    layers = [m for m in small_sam.modules() if hasattr(m, "fused")]
    assert len(layers) == 3 + 7 and all(m.fused for m in layers)
    assert set_fused(small_sam, False) is small_sam
    assert not any(m.fused for m in layers)
