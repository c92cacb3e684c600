"""编码器要做多少次浮点运算，这台机器做矩阵乘法有多快：两个数相除，就是时间的下限。

只数矩阵乘法和卷积，一次乘加算两次运算；softmax、规范化、激活函数、搬动内存都不算，
实际的时间因此总要长一些。
"""

import functools
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sam_lite import ops
from sam_lite.attention import set_fused
from sam_lite.config import SamConfig
from sam_lite.model import sam_from_config

SIDE = 2048  # 量速度用的方阵的边长
REPEATS = 3


@functools.cache
def total_operations(config: SamConfig) -> int:
    """编码一张图总共的运算次数：没有数的模型照逐步的写法走一遍，让 torch 数。"""
    with ops.shapes_only():
        encoder = set_fused(sam_from_config(config), False).image_encoder
        x = torch.empty(1, 3, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(x)
    return counter.get_total_flops()


def product_rates(dtype: torch.dtype, side: int = SIDE) -> dict[str, float]:
    """边长 side 的方阵相乘，每秒多少次运算：``mm``、``linear``、``conv`` 三种写法。

    ``mm`` 和 ``linear`` 通常由 MKL 算，``conv`` 是写成 1×1 卷积、由 oneDNN 算的同一个
    乘法；有的机器上后者快一倍。
    """
    noise = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=noise).to(dtype) for _ in range(2))
    picture = a[None, :, None].permute(0, 3, 1, 2)  # (1, 边长, 1, 边长)
    ways = {
        "mm": lambda: torch.mm(a, b),
        "linear": lambda: F.linear(a, b),
        "conv": lambda: F.conv2d(picture, b[:, :, None, None]),
    }
    return {name: 2 * side**3 / timed(f) for name, f in ways.items()}


def timed(run: Callable[[], torch.Tensor]) -> float:
    """热身一次，再计时几次，返回中位数，秒。"""
    run()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
