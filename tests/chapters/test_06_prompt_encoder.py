"""第 6 章：笔记本里的类与 sam_lite 一致。"""

import itertools

import pytest
import torch
from torch import nn

from chapters.common import course, load, shake
from sam_lite import prompt_encoder
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config

STEM = "06_prompt_encoder"


def part(name: str):
    return course.from_chapter(STEM, name)


@pytest.mark.parametrize("grid, size", [((4, 6), (32, 48)), ((5, 3), (70, 30))])
def test_position_encoding(grid, size) -> None:
    theirs = prompt_encoder.PositionEmbeddingRandom(7)
    mine = load(part("PositionEmbeddingRandom")(7), theirs)
    torch.testing.assert_close(mine(grid), theirs(grid), atol=1e-4, rtol=0)
    coords = torch.rand(2, 3, 2) * 30
    torch.testing.assert_close(
        mine.forward_with_coords(coords, size),
        theirs.forward_with_coords(coords, size),
        atol=1e-4,
        rtol=0,
    )
    matrix = theirs.positional_encoding_gaussian_matrix
    loop = part("code_by_loop")(0.2, 0.9, matrix)
    expected = theirs._pe_encoding(torch.tensor([0.2, 0.9]))
    torch.testing.assert_close(loop, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [None, 0.0, -2.0, 3.0])
def test_scale(scale) -> None:
    """None、零、负数都当作 1；矩阵是 buffer，不是参数。"""
    layer = part("PositionEmbeddingRandom")(4000, scale)
    std = layer.positional_encoding_gaussian_matrix.std()
    assert float(std) == pytest.approx(scale if scale == 3.0 else 1.0, rel=0.1)
    assert not list(layer.parameters()) and layer.state_dict()


@pytest.mark.parametrize("grid, size", [((4, 6), (32, 48)), ((5, 3), (70, 30))])
@pytest.mark.parametrize("given", list(itertools.product((True, False), repeat=3)))
def test_prompt_encoder(grid, size, given) -> None:
    """点、框、掩码有和没有的八种组合，批量 2。"""
    theirs = shake(prompt_encoder.PromptEncoder(12, grid, size, 8))
    mine = load(part("PromptEncoder")(12, grid, size, 8), theirs)
    points = torch.rand(2, 3, 2) * 30, torch.tensor([[1, 0, -1], [-1, 1, 0]])
    boxes, masks = torch.rand(2, 4) * 30, torch.randn(2, 1, 4 * grid[0], 4 * grid[1])
    prompts = [x if on else None for x, on in zip((points, boxes, masks), given)]
    kept = [points[0].clone(), points[1].clone(), boxes.clone()]
    for a, b in zip(mine(*prompts), theirs(*prompts), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for a, b in zip((*points, boxes), kept, strict=True):
        assert torch.equal(a, b), "传进去的提示被改动了"
    dense_pe = theirs.get_dense_pe()
    torch.testing.assert_close(mine.get_dense_pe(), dense_pe, atol=1e-4, rtol=0)
    assert mine.mask_input_size == theirs.mask_input_size
    assert mine.input_image_size == theirs.input_image_size


def test_activation_is_used() -> None:
    theirs = shake(prompt_encoder.PromptEncoder(8, (2, 3), (16, 24), 8, nn.ReLU))
    mine = load(part("PromptEncoder")(8, (2, 3), (16, 24), 8, nn.ReLU), theirs)
    mask = torch.randn(1, 1, 8, 12)
    expected = theirs(None, None, mask)[1]
    torch.testing.assert_close(
        mine(None, None, mask)[1], expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_fits(name: str) -> None:
    """四个型号的权重都装得进 encoder_like 造出的编码器。"""
    theirs = sam_from_config(PRESETS[name]).prompt_encoder if name == "tiny" else None
    if theirs is None:
        with torch.device("meta"):
            shapes = sam_from_config(PRESETS[name]).prompt_encoder
        sizes = shapes.image_embedding_size, shapes.input_image_size
        channels = shapes.mask_downscaling[3].out_channels
        theirs = prompt_encoder.PromptEncoder(shapes.embed_dim, *sizes, channels)
    mine = part("encoder_like")(theirs)
    for key, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[key], value)


DICT = {
    "一组 4 个点": (1, 5, 256),
    "5 个框，一起问": (5, 2, 256),
    "一组 2 个点和 1 个框": (1, 4, 256),
    "三组点，各 1、4、2 个，用 pad_points 补齐": (3, 5, 256),
    "一张掩码和 1 个点": (1, 2, 256),
}


def shapes(**changes) -> str:
    """正确的字典，换掉一项：第几项 = 形状。"""
    names = list(DICT)
    return f"shapes = {DICT | {names[int(k[1:])]: v for k, v in changes.items()}}"
