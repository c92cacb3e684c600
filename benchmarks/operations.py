"""编码器要做多少次浮点运算，这台机器做矩阵乘法有多快：两个数相除，就是时间的下限。

只数矩阵乘法和卷积，一次乘加算两次运算；softmax、规范化、激活函数、搬动内存都不算，
实际的时间因此总要长一些。
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sam_lite.config import SamConfig

SIDE = 2048  # 量速度用的方阵的边长
REPEATS = 3


def product(rows: int, inner: int, columns: int) -> int:
    """``(rows, inner) @ (inner, columns)`` 的运算次数。"""
    return 2 * rows * inner * columns


def attention_operations(config: SamConfig, windows: int, side: int) -> int:
    """一层注意力：windows 个边长 side 的窗口（全局就是一个窗口，边长是网格）。"""
    C, cells = config.embed_dim, windows * side**2
    total = product(cells, C, 3 * C)  # q、k、v
    total += 2 * product(cells, C, side**2)  # 打分，加权求和；各头合起来宽 C
    total += 2 * product(cells, C, side)  # 相对位置，高一份、宽一份
    return total + product(cells, C, C)  # 输出的线性层


def encoder_operations(config: SamConfig) -> dict[str, int]:
    """编码一张图的运算次数，按部件分开：名字到次数，加起来是总数。"""
    c, grid, C = config, config.grid_size, config.embed_dim
    whole = len(c.global_attn_indexes)
    per_side = -(-grid // c.window_size)  # 除不尽就多一个，补零的词元也要算
    out = c.prompt_embed_dim
    return {
        "图像块嵌入": product(grid**2, 3 * c.patch_size**2, C),
        "窗口注意力": (c.depth - whole)
        * attention_operations(c, per_side**2, c.window_size),
        "全局注意力": whole * attention_operations(c, 1, grid),
        "MLP": c.depth * 2 * product(grid**2, C, 4 * C),
        "颈部": product(grid**2, C, out) + product(grid**2, 9 * out, out),
    }


def total_operations(config: SamConfig) -> int:
    """编码一张图总共的运算次数。"""
    return sum(encoder_operations(config).values())


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
    return {name: product(side, side, side) / timed(f) for name, f in ways.items()}


def timed(run: Callable[[], torch.Tensor]) -> float:
    """热身一次，再计时几次，返回中位数，秒。"""
    run()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
