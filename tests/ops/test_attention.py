"""注意力的三种写法相同；什么时候用哪一种。"""

import pytest
import torch
from parity.small import randomize

from sam_lite import ops
from sam_lite.attention import Attention, set_fused
from sam_lite.ops import attention
from sam_lite.ops.attention import attention_tiled, sum_rel_pos

SHAPES = [(1, 1, 4, 6, 5), (2, 3, 6, 4, 8), (3, 2, 5, 5, 4)]  # B、n、H、W、d


def arguments(B: int, n: int, H: int, W: int, d: int) -> tuple:
    """q、k、v 与整层里一样，是从一个张量里切出来的，不连续。"""
    q, k, v = torch.randn(B, H * W, 3, n, d).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v, d**-0.5, torch.randn(B, n, H, W, H), torch.randn(B, n, H, W, W)


@pytest.mark.parametrize("tile", [1, 100, 10**9])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_tiled_equals_eager(shape, tile, monkeypatch):
    """一行一块、几行一块（最后一块不满）、整个头一块，都与易读写法相同。"""
    monkeypatch.setattr(attention, "TILE", tile)
    q, k, v, scale, rel_h, rel_w = arguments(*shape)
    right = ops.attention_eager(q, k, v, scale, sum_rel_pos(rel_h, rel_w))
    found = attention_tiled(q, k, v, scale, rel_h, rel_w)
    assert found.shape == right.shape and found.is_contiguous()
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-4)


def test_sum_rel_pos_by_hand():
    rel_h, rel_w = torch.randn(2, 3, 4, 3), torch.randn(2, 3, 4, 4)
    bias = sum_rel_pos(rel_h, rel_w)
    assert bias.shape == (2, 12, 12)
    # 查询在第 1 行第 2 列，键在第 2 行第 3 列
    assert bias[0, 1 * 4 + 2, 2 * 4 + 3] == rel_h[0, 1, 2, 2] + rel_w[0, 1, 2, 3]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("grid, dtype", [(24, "float32"), (4, "float32"), (24, "half")])
def test_tiled_only_for_large_tables_and_inference(grid, dtype, grad, monkeypatch):
    """词元够多、推理、float32 或 bfloat16 才分块；训练和小窗口走融合算子。"""
    calls = []
    spy = lambda *args: calls.append(1) or attention_tiled(*args)  # noqa: E731
    monkeypatch.setattr(attention, "attention_tiled", spy)
    layer = randomize(Attention(8, 2, use_rel_pos=True, input_size=(grid, grid)))
    layer = layer.to(getattr(torch, dtype))
    with torch.set_grad_enabled(grad):
        layer(torch.randn(1, grid, grid, 8).to(getattr(torch, dtype)))
    assert bool(calls) == (grid == 24 and dtype == "float32" and not grad)


def compiled(layer, x):
    found = torch.compile(layer, backend="eager", fullgraph=True)(x)
    torch.compiler.reset()
    return found


def traced(layer, x):
    return torch.jit.trace(layer, x, check_trace=False)(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("capture", [compiled, traced])
@torch.no_grad()
def test_captured_it_is_not_tiled(capture, monkeypatch):
    """编译、描图时走融合算子：一整张图，里面没有展开的循环，结果相同。"""
    layer = randomize(Attention(8, 2, use_rel_pos=True, input_size=(24, 24)))
    x = torch.randn(1, 24, 24, 8)
    right = layer(x)  # 平常分块
    monkeypatch.setattr(attention, "attention_tiled", None)  # 叫到它就出错
    torch.testing.assert_close(capture(layer, x), right, atol=1e-5, rtol=1e-4)
    with pytest.raises(TypeError):
        layer(x)


@torch.no_grad()
def test_whole_layer_tiled_equals_eager():
    layer = randomize(Attention(12, 2, use_rel_pos=True, input_size=(22, 25)))
    x = torch.randn(2, 22, 25, 12)
    fused = layer(x)
    eager = set_fused(layer, False)(x)
    torch.testing.assert_close(fused, eager, atol=1e-5, rtol=1e-4)


def test_gradients_are_the_same():
    """大网格上训练：融合算子的梯度与易读写法相同。"""
    layer = randomize(Attention(8, 2, use_rel_pos=True, input_size=(23, 23)))
    x = torch.randn(1, 23, 23, 8)
    found = []
    for fused in (True, False):
        layer.zero_grad()
        set_fused(layer, fused)(x).square().sum().backward()
        found.append([p.grad.clone() for p in layer.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
