"""几个小运算，OneFlow 没有、或者与 PyTorch 不一样。"""

import numpy as np
import torch

from . import oneflow


def argsort_descending(scores: torch.Tensor) -> torch.Tensor:
    """从高到低的次序，同分的按原来的先后。形状：``(N,) -> (N,)``。

    OneFlow 的 argsort 不管同分的先后，遇到空张量还会中止进程，改用 NumPy 的。
    """
    if oneflow.ACTIVE:
        return torch.from_numpy(np.argsort(-scores.numpy(), kind="stable"))
    return torch.argsort(scores, descending=True, stable=True)


def detach(tensor: torch.Tensor) -> torch.Tensor:
    """不带梯度的同一个张量。

    OneFlow 0.9 的 detach 会弄丢视图的起点（``x[1:].detach()[0]`` 给的是 ``x[0]``），先
    复制一份。
    """
    return tensor.clone().detach() if oneflow.ACTIVE else tensor.detach()


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """CPU 上的张量在内存里的字节，按元素的次序。OneFlow 的 view 不能换类型。"""
    flat = detach(tensor).contiguous().flatten()
    if not oneflow.ACTIVE:
        flat = flat.view(torch.uint8)  # numpy 没有 bfloat16，换成字节
    return flat.numpy().tobytes()


def count_true(masks: torch.Tensor) -> torch.Tensor:
    """每张掩码有几个像素。形状：布尔 ``(..., H, W) -> (...)``，整数。

    用 int32 累加快一倍；OneFlow 的 sum 没有 dtype。
    """
    flat = masks.flatten(-2)
    return flat.sum(dim=-1) if oneflow.ACTIVE else flat.sum(dim=-1, dtype=torch.int32)


def lowest_highest(value: torch.Tensor) -> tuple[float, float]:
    """最小、最大值；有 NaN 时两个都是 NaN。OneFlow 求最值会漏掉 NaN，另查一遍。"""
    if oneflow.ACTIVE and bool((value != value).any()):
        return float("nan"), float("nan")
    return float(value.min()), float(value.max())


def is_dense(tensor: torch.Tensor) -> bool:
    """是不是普通的（不是稀疏的）张量；OneFlow 只有普通的。"""
    return oneflow.ACTIVE or tensor.layout == torch.strided
