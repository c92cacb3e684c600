"""少数几个算子：PyTorch 与 OneFlow 写法不同，或有易读、快速两条路。

模型的各章模块只管讲清楚计算；后端之间的差别都收在这里，读模型时可以跳过本文件。
"""

import importlib
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..ops import oneflow as ops_oneflow

ONEFLOW = torch.__name__ == "oneflow"  # 真身是 OneFlow，由 mock_torch 换上
_sdpa: Any = None
TorchFunctionMode: Any = object
# OneFlow 的 mock_torch 下取不存在的名字会抛错，hasattr 也不例外，所以用 suppress
with suppress(AttributeError, NotImplementedError, ImportError):
    _sdpa = F.scaled_dot_product_attention
with suppress(NotImplementedError):
    TorchFunctionMode = importlib.import_module("torch.overrides").TorchFunctionMode


def has_fused_attention() -> bool:
    """当前后端的注意力有没有快路。"""
    return ONEFLOW or _sdpa is not None


def attention_eager(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """注意力的易读写法：打分、加偏置、softmax、加权求和。

    形状：q ``(..., N, D)``，k、v ``(..., M, D)``，bias 能广播到 ``(..., N, M)``
    -> ``(..., N, D)``。公式见 "Attention Is All You Need" 3.2.1 节。
    """
    scores = (q * scale) @ k.transpose(-2, -1)  # (..., N, M)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v  # (..., N, D)


def attention_fused(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """与 attention_eager 同样的计算，交给一个融合算子。

    不必另存整张分数表；不过 bias 不为 None 时，它自己就有分数表那么大。OneFlow 没有这个
    算子，照走易读写法。
    """
    if ONEFLOW:
        return attention_eager(q, k, v, scale, bias)
    return _sdpa(q, k, v, attn_mask=bias, scale=scale)


def _amd_with_avx512() -> bool:
    """处理器是不是 AMD 的，而且有 AVX-512。"""
    with suppress(AttributeError, NotImplementedError, ImportError):
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            cpuinfo = Path("/proc/cpuinfo")
            name = cpuinfo.read_text() if cpuinfo.is_file() else platform.processor()
            return "AuthenticAMD" in name
    return False


# PyTorch 的线性层在 x86 上用 MKL，而 MKL 在 AMD 的处理器上只用 AVX2；卷积用 oneDNN，
# AVX-512 也用得上，同样的乘法快一倍。所以在这种机器上把线性层写成 1×1 卷积。
LINEAR_BY_CONVOLUTION = _amd_with_avx512()


def capturing() -> bool:
    """是不是正在描图（``torch.jit.trace``）或编译（``torch.compile``）。

    那时分块的循环会展开成几百份，绕的道也会写进图里，所以两条捷径都不走。
    """
    is_compiling = getattr(torch.compiler, "is_compiling", lambda: False)
    return torch.jit.is_tracing() or is_compiling()


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """是不是在训练：要记梯度，而且有一个张量要梯度。"""
    return torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """线性层。形状：x ``(..., C)``，weight ``(N, C)``，bias ``(N,)`` -> ``(..., N)``。

    就是 ``F.linear``；在 MKL 慢的机器上推理时改走 1×1 卷积，结果只差浮点舍入。
    """
    by_convolution = (
        LINEAR_BY_CONVOLUTION
        and not capturing()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not needs_grad(x, weight, bias)
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


class NoInitialization(TorchFunctionMode):
    """跳过 ``nn.init`` 的初始化，张量原样交回。"""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """遇到初始化就什么也不做，别的照常。"""
        kwargs = kwargs or {}
        in_place = (torch.Tensor.normal_, torch.Tensor.uniform_)
        if getattr(func, "__module__", "") == "torch.nn.init" or func in in_place:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """在这段时间里造的模型只有形状，没有数：不占内存，也不花时间随机初始化。

    光在 meta 设备上造还不够：头一次在那里随机初始化，torch 要导入几百个模块，花一秒多。
    OneFlow 没有 meta 设备，照常造一个。
    """
    if ONEFLOW:
        yield
        return
    with torch.device("meta"), NoInitialization():
        yield


def layer_norm_channels_first(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """在通道维上做层规范化，通道在第二维。

    形状：``(B, C, H, W) -> (B, C, H, W)``。做法是把通道挪到最后，用现成的
    ``F.layer_norm``，再挪回来：与逐式书写的结果只差浮点舍入，且快得多。
    """
    x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    x = F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    return x.permute(0, 3, 1, 2)  # (B, C, H, W)


def resize_antialiased(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """双线性缩放，缩小时先做低通（抗锯齿），与 Pillow 的做法一致。

    形状：``(B, C, H, W) -> (B, C, size[0], size[1])``。
    """
    if ONEFLOW:
        return ops_oneflow.resize_antialiased(image, size)
    return F.interpolate(
        image, size, mode="bilinear", align_corners=False, antialias=True
    )


def argsort_descending(scores: torch.Tensor) -> torch.Tensor:
    """从高到低的次序，同分的按原来的先后。形状：``(N,) -> (N,)``。

    OneFlow 的 argsort 不管同分的先后，遇到空张量还会中止进程，改用 NumPy 的。
    """
    if ONEFLOW:
        return torch.from_numpy(np.argsort(-scores.numpy(), kind="stable"))
    return torch.argsort(scores, descending=True, stable=True)


def detach(tensor: torch.Tensor) -> torch.Tensor:
    """不带梯度的同一个张量。

    OneFlow 0.9 的 detach 会弄丢视图的起点（``x[1:].detach()[0]`` 给的是 ``x[0]``），先
    复制一份。
    """
    return tensor.clone().detach() if ONEFLOW else tensor.detach()


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """CPU 上的张量在内存里的字节，按元素的次序。OneFlow 的 view 不能换类型。"""
    flat = detach(tensor).contiguous().flatten()
    if not ONEFLOW:
        flat = flat.view(torch.uint8)  # numpy 没有 bfloat16，换成字节
    return flat.numpy().tobytes()


def count_true(masks: torch.Tensor) -> torch.Tensor:
    """每张掩码有几个像素。形状：布尔 ``(..., H, W) -> (...)``，整数。

    用 int32 累加快一倍；OneFlow 的 sum 没有 dtype。
    """
    flat = masks.flatten(-2)
    return flat.sum(dim=-1) if ONEFLOW else flat.sum(dim=-1, dtype=torch.int32)


def lowest_highest(value: torch.Tensor) -> tuple[float, float]:
    """最小、最大值；有 NaN 时两个都是 NaN。OneFlow 求最值会漏掉 NaN，另查一遍。"""
    if ONEFLOW and bool((value != value).any()):
        return float("nan"), float("nan")
    return float(value.min()), float(value.max())


def is_dense(tensor: torch.Tensor) -> bool:
    """是不是普通的（不是稀疏的）张量；OneFlow 只有普通的。"""
    return ONEFLOW or tensor.layout == torch.strided


def put_state(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """把 shapes_only 里造的模型装满；名字要全部对上。

    张量原样拿来作参数，不另占内存；OneFlow 不会这样做，它逐个复制。
    """
    if ONEFLOW:
        module.to(next(iter(state.values())).dtype).load_state_dict(state, strict=True)
    else:
        module.load_state_dict(state, strict=True, assign=True)


def lacks_half(dtype: torch.dtype | None, device: torch.device) -> bool:
    """这个后端在这个设备上算不了这种半精度：OneFlow 在 CPU 上。"""
    halves = torch.float16, torch.bfloat16
    return ONEFLOW and device.type == "cpu" and dtype in halves


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """读一个 safetensors 文件；``safetensors.torch`` 离不开真的 PyTorch。"""
    if ONEFLOW:
        return ops_oneflow.read_safetensors(path)
    from safetensors.torch import load_file

    return load_file(path)


def to_safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """写成 safetensors 的字节。"""
    if ONEFLOW:
        return ops_oneflow.to_safetensors(tensors, metadata)
    from safetensors.torch import save

    return save(tensors, metadata)
