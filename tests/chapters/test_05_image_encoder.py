"""第 5 章：笔记本里的类与 sam_lite 一致。"""

from functools import partial

import pytest
import torch
from torch import nn

from chapters.common import course, load, shake
from sam_lite import image_encoder
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config

STEM = "05_image_encoder"
NORM = partial(nn.LayerNorm, eps=1e-6)


def part(name: str):
    return course.from_chapter(STEM, name)


def test_mlp_block() -> None:
    theirs = shake(image_encoder.MLPBlock(6, 15))
    mine = load(part("MLPBlock")(6, 15), theirs)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(mine(x), theirs(x))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_layer_norm_2d(scale: float) -> None:
    """数值很小时 eps 也看得见。"""
    theirs = shake(image_encoder.LayerNorm2d(7))
    mine = load(part("LayerNorm2d")(7), theirs)
    x = scale * torch.randn(2, 7, 3, 5)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-5, rtol=1e-4)
    loop = part("norm_by_loop")(x, theirs.weight, theirs.bias)
    torch.testing.assert_close(loop, theirs(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ratio", [4.0, 2.5])
@pytest.mark.parametrize("window", [0, 2, 3, 5])
@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
def test_block(grid: tuple[int, int], window: int, ratio: float) -> None:
    options = {"window_size": window, "input_size": grid}
    theirs = image_encoder.Block(
        12, 3, ratio, norm_layer=NORM, use_rel_pos=True, **options
    )
    mine = load(part("Block")(12, 3, ratio, **options), shake(theirs))
    x = torch.randn(2, *grid, 12)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)
    if window == 0:
        mine = load(part("GlobalBlock")(12, 3, ratio, grid), theirs)
        torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "size, patch, window, indexes, channels",
    [(48, 8, 4, (1,), 3), (40, 8, 2, (), 1), (32, 4, 0, (0, 1), 3)],
)
def test_encoder(size, patch, window, indexes, channels) -> None:
    """窗口整除、不整除、全是全局，和不同的输入通道。"""
    options = {
        "img_size": size,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": 12,
        "depth": 3,
        "num_heads": 3,
        "mlp_ratio": 2.0,
        "out_chans": 5,
        "window_size": window,
        "global_attn_indexes": indexes,
    }
    theirs = image_encoder.ImageEncoderViT(**options, norm_layer=NORM, use_rel_pos=True)
    mine = load(part("ImageEncoderViT")(**options), shake(theirs))
    x = torch.randn(2, channels, size, size)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)
    assert mine(x).is_contiguous() and mine.img_size == size


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_the_same_keys_and_shapes(name: str) -> None:
    """四个型号都装得进 encoder_like 造出的编码器；缺省值就是 vit_b。"""
    with torch.device("meta"):
        theirs = sam_from_config(PRESETS[name]).image_encoder
        mine = part("encoder_like")(theirs)
        expected = {k: v.shape for k, v in theirs.state_dict().items()}
        assert {k: v.shape for k, v in mine.state_dict().items()} == expected
        assert [b.window_size for b in mine.blocks] == [
            b.window_size for b in theirs.blocks
        ]
        if name == "vit_b":
            default = part("ImageEncoderViT")().state_dict()
            assert {k: v.shape for k, v in default.items()} == expected


def test_stream_is_the_sum_of_its_parts() -> None:
    """walk 的起点加全部贡献，过颈部就是编码器的输出。"""
    encoder = shake(
        image_encoder.ImageEncoderViT(
            32, 8, 3, 12, 3, 3, use_rel_pos=True, window_size=3, norm_layer=NORM
        )
    )
    image = torch.randn(1, 3, 32, 32)
    start, parts, stream = part("walk")(encoder, image)
    total = start + sum(a + m for a, m in parts)
    torch.testing.assert_close(total, stream[-1], atol=1e-3, rtol=1e-4)
    out = encoder.neck(stream[-1].permute(0, 3, 1, 2))
    torch.testing.assert_close(out, encoder(image), atol=1e-4, rtol=1e-4)
