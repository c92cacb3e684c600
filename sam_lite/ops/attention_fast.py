"""第 3 章的快路：带相对位置的注意力，不让整张分数表出现在内存里。

一张 1024 的图在 vit_b 的一个全局层里有 12 头 × 4096 × 4096 个分数，float32 是 805 MB。
慢的不是算，是一遍遍向系统要这么大的内存、写出去又读回来。所以一次只算一小块：几行
查询的分数加上相对位置、做完 softmax、乘上值，始终留在处理器的缓存里。

慢而易读的写法是 ``ops.attention_eager`` 加 ``sum_rel_pos``，测试把两者对到浮点舍入。
"""

import torch

from .. import ops
from ..ops import oneflow as ops_oneflow

TILE = 2**21  # 一块里有多少个分数：float32 是 8 MB
BIG = 512  # 词元不到这么多（例如一个窗口），融合算子更快


def sum_rel_pos(rel_h: torch.Tensor, rel_w: torch.Tensor) -> torch.Tensor:
    """相对位置的两份广播相加，成为整张分数表的加项。

    形状：``(..., qH, qW, kH)``、``(..., qH, qW, kW)`` -> ``(..., qH·qW, kH·kW)``。
    """
    bias = rel_h[..., :, None] + rel_w[..., None, :]  # (..., qH, qW, kH, kW)
    return bias.flatten(-2).flatten(-3, -2)


def attention_rel_pos(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel_h: torch.Tensor,
    rel_w: torch.Tensor,
) -> torch.Tensor:
    """带相对位置的注意力：分数表大、又在 CPU 上推理时分块，别的时候交给融合算子。

    别的时候是训练、描图、编译，和窗口里的小表。OneFlow 里折进矩阵乘法，见
    ``ops_oneflow.py``。

    形状：q、k、v ``(B, n, HW, d)``，rel_h ``(B, n, H, W, H)``，rel_w
    ``(B, n, H, W, W)`` -> ``(B, n, HW, d)``。
    """
    if ops.ONEFLOW:
        return ops_oneflow.attention_folded(q, k, v, scale, rel_h, rel_w)
    on_cpu = q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16)
    plain = not ops.capturing() and not ops.needs_grad(q, k, v, rel_h, rel_w)
    if on_cpu and q.shape[2] >= BIG and plain:
        return attention_tiled(q, k, v, scale, rel_h, rel_w)
    return ops.attention_fused(q, k, v, scale, sum_rel_pos(rel_h, rel_w))


def attention_tiled(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel_h: torch.Tensor,
    rel_w: torch.Tensor,
) -> torch.Tensor:
    """分块的写法：一次一个头、查询网格的几行。形状同 attention_rel_pos，不带梯度。"""
    B, n, H, W, _ = rel_h.shape
    N = H * W
    rows = max(1, TILE // (W * N))  # 一块里有查询网格的几行
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    for b in range(B):
        for i in range(n):
            v_t = v[b, i].t().contiguous()  # (d, HW)
            for start in range(0, H, rows):
                row = slice(start, start + rows)
                cell = slice(start * W, (start + rows) * W)
                scores = ops.linear(q[b, i, cell] * scale, k[b, i])  # (rows·W, HW)
                grid = scores.view(-1, W, H, W)  # 同一块内存，按键的行、列来看
                grid += rel_h[b, i, row, :, :, None]
                grid += rel_w[b, i, row, :, None, :]
                out[b, i, cell] = ops.linear(scores.softmax(dim=-1), v_t)
    return out
