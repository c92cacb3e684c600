"""几章的检查共用的：打乱参数、比两个张量、查形状。"""

import torch
from course import answered, expect
from torch import nn


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """每个参数都换成不为零的随机数：零会把错误藏起来。"""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=noise))
    return module.eval()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """形状相同，值只差舍入。"""
    return a.shape == b.shape and torch.allclose(a, b.to(a), atol=1e-4, rtol=1e-4)


def must_be(value, shape: tuple[int, ...], what: str) -> torch.Tensor:
    """答案要是这个形状的张量；what 是它的名字，写在提示里。"""
    value = answered(value)
    expect(isinstance(value, torch.Tensor), f"{what}要是一个张量。")
    got = tuple(value.shape)
    expect(got == shape, f"{what}的形状是 {got}，应该是 {shape}。")
    return value.detach()
