"""图像编码器与官方逐层对照，每个分支都走到。"""

from functools import partial

import pytest
import torch
from torch import nn

from parity.official import assert_near, ours, pair, theirs
from sam_lite.attention import set_fused


@pytest.mark.parametrize("size", [3, 4, 7, 20])
@pytest.mark.parametrize("grid", [(8, 8), (7, 14), (5, 12)])
def test_windows(grid: tuple[int, int], size: int) -> None:
    """切窗与还原：窗口整除、不整除、比网格还大，都与官方相同。"""
    x = torch.randn(2, *grid, 5)
    result, our_padded = ours.window_partition(x, size)
    expected, padded = theirs.window_partition(x, size)
    assert_near(result, expected, 0)
    assert our_padded == padded
    noise = torch.randn_like(expected)
    assert_near(
        ours.window_unpartition(noise, size, padded, grid),
        theirs.window_unpartition(noise, size, padded, grid),
        0,
    )


@pytest.mark.parametrize("q_size, k_size", [(5, 5), (8, 8), (4, 8), (8, 4), (3, 9)])
@pytest.mark.parametrize("length", [9, 15, 6])
def test_get_rel_pos(q_size: int, k_size: int, length: int) -> None:
    """取相对位置向量：长度合适、要插值、查询与键不等长，都与官方相同。"""
    table = torch.randn(length, 6)
    expected = theirs.get_rel_pos(q_size, k_size, table)
    assert_near(ours.get_rel_pos(q_size, k_size, table), expected)


@pytest.mark.parametrize("q_size, k_size", [((4, 6), (4, 6)), ((4, 6), (8, 3))])
def test_add_decomposed_rel_pos(q_size: tuple[int, int], k_size: tuple) -> None:
    """分解相对位置加到注意力分数上，长宽不同、查询与键的网格不同也对。"""
    heads, queries, keys = 5, q_size[0] * q_size[1], k_size[0] * k_size[1]
    scores, q = torch.randn(heads, queries, keys), torch.randn(heads, queries, 7)
    tables = torch.randn(2 * 8 - 1, 7), torch.randn(2 * 6 - 1, 7)
    expected = theirs.add_decomposed_rel_pos(scores, q, *tables, q_size, k_size)
    result = ours.add_decomposed_rel_pos(scores, q, *tables, q_size, k_size)
    assert_near(result, expected)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("use_rel_pos", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("grid, trained", [((4, 6), (4, 6)), ((5, 3), (4, 6))])
def test_attention(grid, trained, qkv_bias, use_rel_pos, fused) -> None:
    """多头注意力的每个开关、两条路，包括网格与训练时不同、要插值的情形。"""
    our, their = pair("Attention", 24, 3, qkv_bias, use_rel_pos, input_size=trained)
    set_fused(our, fused)
    x = torch.randn(2, *grid, 24)
    with torch.no_grad():
        assert_near(our(x), their(x))


@pytest.mark.parametrize("window_size", [0, 2, 3, 8])
@pytest.mark.parametrize("use_rel_pos", [False, True])
def test_block(window_size: int, use_rel_pos: bool) -> None:
    """一个 Transformer 块：全局、整除、不整除、窗口大于网格，长方形网格。"""
    our, their = pair(
        "Block",
        24,
        num_heads=3,
        mlp_ratio=2.5,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        act_layer=nn.ReLU,
        use_rel_pos=use_rel_pos,
        window_size=window_size,
        input_size=(4, 6),
    )
    x = torch.randn(2, 4, 6, 24)
    with torch.no_grad():
        assert_near(our(x), their(x))


def test_small_parts() -> None:
    """图像块嵌入（含填充与重叠步幅）、MLPBlock、LayerNorm2d。"""
    picture = torch.randn(2, 4, 20, 31)
    for args in [((5, 5), (5, 5), (0, 0), 4, 7), ((4, 3), (2, 3), (1, 2), 4, 7)]:
        our, their = pair("PatchEmbed", *args)
        assert_near(our(picture), their(picture))
    for act in (nn.GELU, nn.ReLU):
        our, their = pair("MLPBlock", 6, 10, act)
        tokens = torch.randn(2, 3, 6)
        assert_near(our(tokens), their(tokens))
    for eps in ({}, {"eps": 0.1}):
        our, their = pair("LayerNorm2d", 4, **eps)
        assert_near(our(picture), their(picture))


BASE = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "out_chans": 20,
}
BRANCHES = {
    "默认值": {},
    "相对位置": {"use_rel_pos": True},
    "相对位置且不置零": {"use_rel_pos": True, "rel_pos_zero_init": False},
    "无绝对位置": {"use_abs_pos": False},
    "两种位置都没有": {"use_abs_pos": False, "use_rel_pos": False, "window_size": 3},
    "窗口整除网格": {"use_rel_pos": True, "window_size": 4},
    "窗口不整除网格": {"use_rel_pos": True, "window_size": 3},
    "窗口大于网格": {"use_rel_pos": True, "window_size": 14},
    "窗口加一个全局块": {
        "use_rel_pos": True,
        "window_size": 3,
        "global_attn_indexes": (1,),
    },
    "全部全局": {"window_size": 5, "global_attn_indexes": [0, 1, 2]},
    "无 qkv 偏置": {"qkv_bias": False, "use_rel_pos": True, "window_size": 3},
    "图像块 4": {"patch_size": 4, "use_rel_pos": True, "window_size": 7},
    "图像块 16": {"patch_size": 16, "use_rel_pos": True, "window_size": 3},
    "边长不是图像块的整数倍": {"img_size": 61, "use_abs_pos": False},
    "一个通道": {"in_chans": 1, "use_rel_pos": True},
    "eps、激活与 mlp_ratio": {
        "norm_layer": partial(nn.LayerNorm, eps=1e-3),
        "act_layer": nn.SiLU,
        "mlp_ratio": 2.0,
    },
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_image_encoder(branch: str) -> None:
    """整个图像编码器，一批两张图，输出与官方相同。"""
    kwargs = {**BASE, **BRANCHES[branch]}
    our, their = pair("ImageEncoderViT", **kwargs)
    size = kwargs["img_size"]
    picture = torch.randn(2, kwargs.get("in_chans", 3), size, size)
    with torch.no_grad():
        assert_near(our(picture), their(picture))


@pytest.mark.parametrize("size", [(64, 40), (24, 48), (96, 80)])
def test_image_encoder_rectangular(size: tuple[int, int]) -> None:
    """没有绝对位置时官方也接受长方形和别的尺寸，相对位置靠插值。"""
    our, their = pair(
        "ImageEncoderViT",
        **BASE,
        use_abs_pos=False,
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    picture = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert_near(our(picture), their(picture))
