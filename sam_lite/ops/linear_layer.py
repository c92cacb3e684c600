"""线性层的两种算法：``F.linear``，与（MKL 慢的机器上推理时）1×1 卷积。"""

import platform
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def amd_with_avx512() -> bool:
    """处理器是不是 AMD 的，而且有 AVX-512。"""
    # OneFlow 的 mock_torch 下取不存在的名字会抛错，hasattr 也不例外，所以用 suppress
    with suppress(AttributeError, NotImplementedError, ImportError):
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            cpuinfo = Path("/proc/cpuinfo")
            name = cpuinfo.read_text() if cpuinfo.is_file() else platform.processor()
            return "AuthenticAMD" in name
    return False


# PyTorch 的线性层在 x86 上用 MKL，而 MKL 在 AMD 的处理器上只用 AVX2；卷积用 oneDNN，
# AVX-512 也用得上，同样的乘法快一倍。所以在这种机器上把线性层写成 1×1 卷积。
BY_CONVOLUTION = amd_with_avx512()


def plain_inference(*tensors: torch.Tensor | None) -> bool:
    """是不是平常的推理：不在描图、不在编译，也没有张量要梯度。

    描图（``torch.jit.trace``）和编译（``torch.compile``）时，分块的循环会展开成几百份，
    绕的道也会写进图里；所以卷积和分块两条捷径都只在平常推理时走。
    """
    is_compiling = getattr(torch.compiler, "is_compiling", lambda: False)
    if torch.jit.is_tracing() or is_compiling():
        return False
    return not torch.is_grad_enabled() or not any(
        t is not None and t.requires_grad for t in tensors
    )


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """线性层。形状：x ``(..., C)``，weight ``(N, C)``，bias ``(N,)`` -> ``(..., N)``。

    就是 ``F.linear``；在 MKL 慢的机器上推理时改走 1×1 卷积，结果只差浮点舍入。
    """
    by_convolution = (
        BY_CONVOLUTION
        and plain_inference(x, weight, bias)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
    )
    if not by_convolution:
        return F.linear(x, weight, bias)
    C = x.shape[-1]
    cells = x.reshape(1, -1, 1, C).permute(0, 3, 1, 2)  # (1, C, 个数, 1)
    out = F.conv2d(cells, weight[:, :, None, None], bias)  # (1, N, 个数, 1)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """与 ``nn.Linear`` 相同，只是用上面的 linear 计算。"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(..., C) -> (..., N)``。"""
        return linear(x, self.weight, self.bias)
