"""第 6 章：提示编码器。"""

import math

import pytest
import torch
from parity.small import randomize

from sam_lite.prompt_encoder import PositionEmbeddingRandom, PromptEncoder

GRID, SIZE = (4, 6), (32, 48)  # 高、宽；每格 8 像素


@pytest.fixture
def encoder() -> PromptEncoder:
    return randomize(PromptEncoder(16, GRID, SIZE, 8)).eval()


def test_position_encoding_by_hand() -> None:
    """坐标挪到 [−1, 1]，乘随机矩阵和 2π，先正弦后余弦。"""
    layer = PositionEmbeddingRandom(5)
    x, y = 12.0, 20.0
    found = layer.forward_with_coords(torch.tensor([[[x, y]]]), SIZE)[0, 0]
    matrix = layer.positional_encoding_gaussian_matrix
    for i in range(5):
        angle = (2 * x / 48 - 1) * matrix[0, i] + (2 * y / 32 - 1) * matrix[1, i]
        angle = float(2 * math.pi * angle)
        assert found[i] == pytest.approx(math.sin(angle), abs=1e-5)
        assert found[5 + i] == pytest.approx(math.cos(angle), abs=1e-5)


def test_grid_and_points_agree() -> None:
    """网格第 (行, 列) 格的编码，等于格子中心那个像素坐标的编码。"""
    layer = PositionEmbeddingRandom(5)
    grid = layer(GRID)
    assert grid.shape == (10, 4, 6)
    for row, col in [(0, 0), (1, 4), (3, 5)]:
        centre = torch.tensor([[[8 * col + 4.0, 8 * row + 4.0]]])
        point = layer.forward_with_coords(centre, SIZE)[0, 0]
        torch.testing.assert_close(grid[:, row, col], point, atol=1e-5, rtol=1e-5)


def test_matrix_is_saved_not_trained() -> None:
    """随机矩阵存进权重，但不训练；scale 放大频率。"""
    layer = PositionEmbeddingRandom(2000, scale=3.0)
    assert list(layer.state_dict()) == ["positional_encoding_gaussian_matrix"]
    assert list(layer.parameters()) == []
    matrix = layer.positional_encoding_gaussian_matrix
    assert matrix.std() == pytest.approx(3.0, rel=0.1)


def point(label: float, x: float = 10.0, y: float = 20.0) -> tuple:
    return torch.tensor([[[x, y]]]), torch.tensor([[label]])


def test_point_tokens(encoder: PromptEncoder) -> None:
    """一个点得到两个词元：它自己（位置编码加正负标记）和一个填充点。"""
    code = encoder.pe_layer.forward_with_coords(torch.tensor([[[10.5, 20.5]]]), SIZE)
    for label in (0, 1):
        sparse, dense = encoder(point(label), None, None)
        assert sparse.shape == (1, 2, 16) and dense.shape == (1, 16, 4, 6)
        expected = code[0, 0] + encoder.point_embeddings[label].weight[0]
        torch.testing.assert_close(sparse[0, 0], expected)
        padding = encoder.not_a_point_embed.weight[0]
        torch.testing.assert_close(sparse[0, 1], padding)


def test_ignored_point(encoder: PromptEncoder) -> None:
    """标签 −1 的点不论在哪里，都是同一个填充词元。"""
    first, _ = encoder(point(-1, 3, 4), None, None)
    second, _ = encoder(point(-1, 40, 30), None, None)
    assert torch.equal(first, second)
    assert torch.equal(first[0, 0], encoder.not_a_point_embed.weight[0])


def test_box_tokens(encoder: PromptEncoder) -> None:
    """一个框得到左上、右下两个词元；有框时不再补填充点。"""
    box = torch.tensor([[4.0, 5.0, 40.0, 30.0], [1.0, 2.0, 3.0, 4.0]])
    sparse, _ = encoder(None, box, None)
    assert sparse.shape == (2, 2, 16)
    for corner in (0, 1):
        xy = box[:, 2 * corner : 2 * corner + 2][:, None] + 0.5
        code = encoder.pe_layer.forward_with_coords(xy, SIZE)[:, 0]
        expected = code + encoder.point_embeddings[2 + corner].weight
        torch.testing.assert_close(sparse[:, corner], expected)
    both, _ = encoder(point(1), box[:1], None)
    assert both.shape == (1, 3, 16)
    assert torch.equal(both[:, 1:], sparse[:1])


def test_mask_is_dense(encoder: PromptEncoder) -> None:
    """掩码变成一张特征图；没有掩码时处处是同一个“无掩码”向量。"""
    sparse, dense = encoder(None, None, torch.randn(3, 1, 16, 24))
    assert sparse.shape == (3, 0, 16) and dense.shape == (3, 16, 4, 6)
    assert dense.flatten(2).std(-1).min() > 0
    sparse, dense = encoder(None, None, None)
    assert sparse.shape == (1, 0, 16)
    expected = encoder.no_mask_embed.weight[0, :, None, None].expand(16, 4, 6)
    assert torch.equal(dense[0], expected)


def test_inputs_are_not_changed(encoder: PromptEncoder) -> None:
    """编码时不改动传入的坐标、标签和框。"""
    coords, labels = torch.rand(2, 3, 2) * 30, torch.tensor([[1, 0, -1]] * 2)
    box = torch.rand(2, 4) * 30
    copies = coords.clone(), labels.clone(), box.clone()
    encoder((coords, labels), box, None)
    for value, copy in zip((coords, labels, box), copies, strict=True):
        assert torch.equal(value, copy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(encoder: PromptEncoder, dtype: torch.dtype) -> None:
    """半精度下输出也是半精度，角度仍用 float32 算，与 float32 的结果接近。"""
    prompts = point(1), torch.tensor([[4.0, 5.0, 40.0, 30.0]]), None
    # 随机矩阵也会变成半精度：先舍入，再比较
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    matrix.copy_(matrix.to(dtype).float())
    expected = encoder(*prompts)
    result = encoder.to(dtype)(*prompts)
    for a, b in zip(result, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, atol=0.03, rtol=0.02)
    assert encoder.get_dense_pe().dtype == dtype


def test_gradients(encoder: PromptEncoder) -> None:
    """点、填充点、框、掩码的嵌入都能得到梯度。"""
    points = torch.rand(1, 2, 2) * 30, torch.tensor([[0, 1]])
    box, mask = torch.tensor([[1.0, 2.0, 30.0, 20.0]]), torch.randn(1, 1, 16, 24)
    total = sum(
        (part * torch.randn_like(part)).sum()
        for prompts in [(points, None, None), (None, box, mask)]
        for part in encoder(*prompts)
    )
    total.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
