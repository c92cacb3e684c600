"""第 3 章的注意力，三种写法，结果只差浮点舍入：易读、融合、分块；``attend`` 选一种。

一张 1024 的图在 vit_b 的一个全局层里有 12 头 × 4096 × 4096 个分数，float32 是 805 MB。
慢的不是算，是一遍遍向系统要这么大的内存、写出去又读回来。分块就是一次只算一小块：几行
查询的分数加上相对位置、做完 softmax、乘上值，始终留在处理器的缓存里。
"""

import torch
import torch.nn.functional as F

from . import oneflow
from .linear_layer import linear, plain_inference

TILE = 2**21  # 一块里有多少个分数：float32 是 8 MB
BIG = 512  # 词元不到这么多（例如一个窗口），融合算子更快


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel: tuple[torch.Tensor, torch.Tensor] | None = None,
    fused: bool = True,
) -> torch.Tensor:
    """多头注意力；rel 是相对位置的加项，高、宽各一份。

    fused 为假时走易读写法；为真时挑快的：表大、又在 CPU 上推理时分块，别的时候（训练、
    描图、编译、窗口里的小表）用融合算子。OneFlow 两样都没有，把加项折进矩阵乘法。

    形状：q ``(B, n, N, d)``，k、v ``(B, n, M, d)`` -> ``(B, n, N, d)``；有 rel 时
    N = M = H·W，rel 是 ``(B, n, H, W, H)`` 和 ``(B, n, H, W, W)``。
    """
    if fused and oneflow.ACTIVE:
        return oneflow.attention_folded(q, k, v, scale, rel)
    if fused and rel is not None and tiling_pays(q, k, v, *rel):
        return attention_tiled(q, k, v, scale, *rel)
    bias = None if rel is None else sum_rel_pos(*rel)
    return (attention_fused if fused else attention_eager)(q, k, v, scale, bias)


def attention_eager(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """易读写法：打分、加偏置、softmax、加权求和。

    形状：q ``(..., N, d)``，k、v ``(..., M, d)``，bias 能广播到 ``(..., N, M)``
    -> ``(..., N, d)``。公式见 "Attention Is All You Need" 3.2.1 节。
    """
    scores = (q * scale) @ k.transpose(-2, -1)  # (..., N, M)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1) @ v  # (..., N, d)


def attention_fused(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """与 attention_eager 同样的计算，交给一个融合算子。

    不必另存整张分数表；不过 bias 不为 None 时，它自己就有分数表那么大。
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def tiling_pays(q: torch.Tensor, *others: torch.Tensor) -> bool:
    """分块是不是更快：在 CPU 上推理，而且分数表大。"""
    on_cpu = q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16)
    return on_cpu and q.shape[2] >= BIG and plain_inference(q, *others)


def attention_tiled(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel_h: torch.Tensor,
    rel_w: torch.Tensor,
) -> torch.Tensor:
    """分块的写法：一次一个头、查询网格的几行。形状同 attend，不带梯度。"""
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
                scores = linear(q[b, i, cell] * scale, k[b, i])  # (rows·W, HW)
                grid = scores.view(-1, W, H, W)  # 同一块内存，按键的行、列来看
                grid += rel_h[b, i, row, :, :, None]
                grid += rel_w[b, i, row, :, None, :]
                out[b, i, cell] = linear(scores.softmax(dim=-1), v_t)
    return out


def sum_rel_pos(rel_h: torch.Tensor, rel_w: torch.Tensor) -> torch.Tensor:
    """相对位置的两份广播相加，成为整张分数表的加项。

    形状：``(..., qH, qW, kH)``、``(..., qH, qW, kW)`` -> ``(..., qH·qW, kH·kW)``。
    """
    bias = rel_h[..., :, None] + rel_w[..., None, :]  # (..., qH, qW, kH, kW)
    return bias.flatten(-2).flatten(-3, -2)
