"""第 5 章：图像编码器。"""

import pytest
import torch
from parity.small import randomize
from torch import nn

from sam_lite.image_encoder import Block, ImageEncoderViT, LayerNorm2d, MLPBlock


def test_layer_norm_2d() -> None:
    """每个像素在自己的通道上均值为 0、方差为 1，再乘 weight 加 bias。"""
    layer = LayerNorm2d(6)
    x = torch.randn(2, 6, 4, 5) * 3 + 7
    y = layer(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        y.var(1, unbiased=False), torch.ones(2, 4, 5), atol=1e-4, rtol=0
    )
    randomize(layer)
    expected = layer.weight[:, None, None] * y + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)


def test_mlp_block() -> None:
    """先放宽、激活、再收窄。"""
    mlp = MLPBlock(4, 9, nn.ReLU)
    x = torch.randn(2, 3, 4)
    expected = mlp.lin2(mlp.lin1(x).clamp(min=0))
    torch.testing.assert_close(mlp(x), expected)
    assert isinstance(MLPBlock(4, 9).act, nn.GELU)


def test_block_is_residual() -> None:
    """注意力和 MLP 的末层置零后，一层什么也不改。"""
    block = randomize(Block(8, 2, use_rel_pos=True, window_size=3))
    for layer in (block.attn.proj, block.mlp.lin2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(2, 4, 6, 8)
    torch.testing.assert_close(block(x), x)


def test_window_block_sees_one_window() -> None:
    """窗口层里改动一格，只影响同一窗口；全局层里处处都变。"""
    x = torch.randn(1, 4, 6, 8)
    changed = x.clone()
    changed[0, 0, 1] += torch.randn(8)
    for window_size, cells in ((3, 9), (0, 24)):
        block = randomize(
            Block(8, 2, use_rel_pos=True, window_size=window_size, input_size=(4, 6))
        )
        moved = (block(changed) - block(x)).abs().amax(-1)[0] > 1e-6
        assert moved.sum() == cells
        if window_size:
            assert moved[:3, :3].all()


def encoder(**kwargs) -> ImageEncoderViT:
    options = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "out_chans": 10,
        "use_rel_pos": True,
        "window_size": 3,
        "global_attn_indexes": (1,),
    }
    return randomize(ImageEncoderViT(**{**options, **kwargs})).eval()


def test_shapes_and_positions() -> None:
    """32×32 的图得到 8×8 的嵌入；全局层的表长 15，窗口层的表长 5。"""
    model = encoder()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10, 8, 8)
    assert model.pos_embed.shape == (1, 8, 8, 24)
    assert model.blocks[0].attn.rel_pos_h.shape == (5, 8)
    assert model.blocks[1].attn.rel_pos_h.shape == (15, 8)
    assert [block.window_size for block in model.blocks] == [3, 0]
    assert encoder(use_abs_pos=False).pos_embed is None


def test_absolute_position_matters() -> None:
    """一张纯色图，加了绝对位置，各格的嵌入才不同。"""
    plain = torch.ones(1, 3, 32, 32)
    flat = encoder(use_abs_pos=False, use_rel_pos=False, window_size=4)
    inner = flat(plain)[0, :, 2:-2, 2:-2].flatten(1)  # 颈部 3×3 卷积会碰到边缘
    assert (inner - inner[:, :1]).abs().max() < 1e-4
    inner = encoder()(plain)[0, :, 2:-2, 2:-2].flatten(1)
    assert (inner - inner[:, :1]).abs().max() > 0.1


def test_pictures_do_not_mix() -> None:
    """一批两张图，与各自单独编码的结果相同。"""
    model = encoder()
    pictures = torch.randn(2, 3, 32, 32)
    together = model(pictures)
    for i in range(2):
        torch.testing.assert_close(
            together[i : i + 1], model(pictures[i : i + 1]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float16, 0.01), (torch.bfloat16, 0.08)]
)
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    """半精度在 CPU 上也能跑，与 float32 相差不大。"""
    model, picture = encoder(), torch.randn(1, 3, 32, 32)
    expected = model(picture)
    result = model.to(dtype)(picture.to(dtype))
    assert result.dtype == dtype
    assert (result.float() - expected).abs().max() / expected.abs().max() < tolerance


def test_gradients_reach_every_parameter() -> None:
    """梯度传到每一个参数，相对位置表也在内。"""
    model = encoder()
    (model(torch.randn(1, 3, 32, 32)) * torch.randn(1, 10, 8, 8)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
