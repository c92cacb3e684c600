"""线性层的两种算法：F.linear，与（MKL 慢的机器上）1×1 卷积。"""

import platform

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sam_lite import ops
from sam_lite.ops import linear_layer


@pytest.fixture
def convolutions(monkeypatch) -> list:
    """让 linear 在任何机器上都可以走卷积，并记下走了几次。"""
    monkeypatch.setattr(linear_layer, "BY_CONVOLUTION", True)
    calls, conv2d = [], F.conv2d
    spy = lambda *args: calls.append(1) or conv2d(*args)  # noqa: E731
    monkeypatch.setattr(linear_layer.F, "conv2d", spy)
    return calls


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5), (2, 3, 4, 5), (1, 1, 5)])
def test_linear_by_convolution_equals_linear(shape, has_bias, convolutions):
    x, weight = torch.randn(shape), torch.randn(9, 5)
    bias = torch.randn(9) if has_bias else None
    found = ops.linear(x, weight, bias)
    assert convolutions and found.is_contiguous()
    torch.testing.assert_close(found, F.linear(x, weight, bias))


def test_not_contiguous(convolutions):
    """转置过的输入和权重。"""
    x, weight = torch.randn(3, 5, 7).transpose(1, 2), torch.randn(5, 9).t()
    torch.testing.assert_close(ops.linear(x, weight), F.linear(x, weight))


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
def test_nothing_in_nothing_out(shape, convolutions):
    assert ops.linear(torch.randn(shape), torch.randn(9, 5)).shape == (*shape[:-1], 9)


def test_training_and_other_types_use_the_ordinary_one(convolutions):
    layer, x = ops.Linear(5, 9), torch.randn(4, 5)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and not convolutions
    with torch.no_grad():
        layer.double()(x.double())
        layer.bfloat16()(x.bfloat16())
        assert not convolutions
        layer.float()(x)
    assert convolutions


def test_turned_off_it_is_the_ordinary_one(convolutions, monkeypatch):
    monkeypatch.setattr(linear_layer, "BY_CONVOLUTION", False)
    x, weight = torch.randn(4, 5), torch.randn(9, 5)
    assert torch.equal(ops.linear(x, weight), F.linear(x, weight))
    assert not convolutions


def test_traced_it_is_a_linear_layer(convolutions):
    """导出 ONNX 的图里该是矩阵乘法，与在什么机器上导出无关。"""
    with torch.no_grad():
        torch.jit.trace(ops.Linear(5, 9), torch.randn(2, 5), check_trace=False)
    assert not convolutions


@torch.no_grad()
def test_compiled_it_is_a_linear_layer(convolutions):
    layer, x = ops.Linear(5, 9), torch.randn(4, 5)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias))
    torch.compiler.reset()
    assert not convolutions
    layer(x)
    assert convolutions  # 编译完，平常照旧绕道


def test_a_linear_layer_like_any_other(convolutions):
    """是 nn.Linear，权重同名，钩子照样触发。"""
    layer, seen = ops.Linear(5, 9), []
    assert isinstance(layer, nn.Linear)
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.register_forward_hook(lambda *args: seen.append(1))
    with torch.no_grad():
        layer(torch.randn(2, 5))
    assert seen


@pytest.mark.parametrize(
    "vendor, capability, expected",
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
    ],
)
def test_which_machines(vendor, capability, expected, monkeypatch):
    cpu = torch.backends.cpu
    monkeypatch.setattr(cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(linear_layer.Path, "is_file", lambda self: False)
    monkeypatch.setattr(platform, "processor", lambda: f"Family 25, {vendor}")
    assert linear_layer.amd_with_avx512() is expected
