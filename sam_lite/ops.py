"""少数几个算子：PyTorch 与 OneFlow 写法不同，或有易读、快速两条路。

模型的各章模块只管讲清楚计算；后端之间的差别都收在这里，读模型时可以跳过本文件。
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import ops_oneflow

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


def attention_rel_pos(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel_h: torch.Tensor,
    rel_w: torch.Tensor,
    fused: bool = True,
) -> torch.Tensor:
    """加了相对位置的注意力；加项是两个方向各一份，相加之后才和分数表一样大。

    形状：q、k、v ``(B, n, H·W, d)``，rel_h ``(B, n, H, W, H)``，rel_w
    ``(B, n, H, W, W)`` -> ``(B, n, H·W, d)``。
    """
    if fused and ONEFLOW:
        return ops_oneflow.attention_folded(q, k, v, scale, rel_h, rel_w)
    bias = rel_h[..., None] + rel_w[..., None, :]  # (B, n, H, W, H, W)
    attend = attention_fused if fused else attention_eager
    return attend(q, k, v, scale, bias.flatten(4).flatten(2, 3))


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
