"""第 3 章：多头注意力，以及按高、宽分解的相对位置编码。"""

import torch
import torch.nn.functional as F
from torch import nn

from . import ops


class Attention(nn.Module):
    """图像编码器的多头自注意力，可加相对位置编码。

    对应官方 ``image_encoder.py`` 的 ``Attention``；相对位置的分解见 MViTv2 论文
    4.1 节。``fused`` 为真（默认）时走快路，为假时走逐步写出的易读写法，两者相差不超过
    1e-5。

    参数：
        dim: 输入和输出的宽度。
        num_heads: 头数，要整除 dim。
        qkv_bias: q、k、v 的线性层有没有偏置。
        use_rel_pos: 用不用相对位置编码。
        rel_pos_zero_init: 相对位置表从零开始；为假时用小的随机数。
        input_size: 词元网格的 ``(高, 宽)``，用相对位置编码时必须给出。
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.fused = True

        self.qkv = ops.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = ops.Linear(dim, dim)

        self.use_rel_pos = use_rel_pos
        if self.use_rel_pos:
            assert input_size is not None, "用相对位置编码时要给出 input_size"
            height, width = input_size
            # 两格之间的距离从 -(H-1) 到 H-1，共 2H-1 种，每种一个向量
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, head_dim))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(B, H, W, C) -> (B, H, W, C)``；下面 n 是头数，d = C / n。"""
        B, H, W, C = x.shape
        n = self.num_heads
        qkv = self.qkv(x).reshape(B, H * W, 3, n, C // n)  # (B, HW, 3, n, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 各 (B, n, HW, d)

        rel = None
        if self.use_rel_pos:
            rel = rel_pos_by_axis(q, self.rel_pos_h, self.rel_pos_w, (H, W), (H, W))
        x = ops.attend(q, k, v, self.scale, rel, self.fused)  # (B, n, HW, d)
        x = x.permute(0, 2, 1, 3).reshape(B, H, W, C)  # (B, H, W, C)，各头拼回去
        return self.proj(x)


def get_rel_pos(q_size: int, k_size: int, rel_pos: torch.Tensor) -> torch.Tensor:
    """取出每一对 (查询格, 键格) 的相对位置向量，一个方向。

    表的长度与需要的不同时（换了输入尺寸），先线性插值到 ``2 * max(q, k) - 1``。

    形状：rel_pos ``(L, d) -> (q_size, k_size, d)``。对应官方 ``get_rel_pos``。
    """
    max_rel_dist = 2 * max(q_size, k_size) - 1
    if rel_pos.shape[0] != max_rel_dist:
        table = rel_pos.t()[None]  # (1, d, L)，interpolate 只认最后一维
        table = F.interpolate(table, size=max_rel_dist, mode="linear")
        rel_pos = table[0].t()  # (2·max-1, d)

    # q、k 边长不等时，按比例放到同一把尺子上再相减；SAM 里两者相等，比例都是 1
    q_scale, k_scale = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    device = rel_pos.device
    q_coords = torch.arange(q_size, device=device)[:, None] * q_scale  # (q_size, 1)
    k_coords = torch.arange(k_size, device=device)[None, :] * k_scale  # (1, k_size)
    # 距离最小是 -(k_size-1)，整体挪到从 0 起，才能当表的下标
    index = q_coords - k_coords + (k_size - 1) * k_scale  # (q_size, k_size)
    return rel_pos[index.long()]  # (q_size, k_size, d)


def rel_pos_by_axis(
    q: torch.Tensor,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """相对位置给分数的加项，还没有相加：只看隔几行的一份，只看隔几列的一份。

    形状：q ``(..., qH·qW, d)`` -> ``(..., qH, qW, kH)``、``(..., qH, qW, kW)``。
    """
    (q_h, q_w), (k_h, k_w) = q_size, k_size
    *lead, _, d = q.shape  # 前面是批量，或批量和头数
    r_q = q.reshape(-1, q_h, q_w, d)  # (B, qH, qW, d)
    R_h = get_rel_pos(q_h, k_h, rel_pos_h)  # (qH, kH, d)
    R_w = get_rel_pos(q_w, k_w, rel_pos_w)  # (qW, kW, d)
    # einsum 的结果在内存里不按这个次序放；趁还小先理顺，不然末尾的 reshape 要把整张
    # 分数表复制一遍
    rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, R_h).contiguous()  # (B, qH, qW, kH)
    rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, R_w).contiguous()  # (B, qH, qW, kW)
    return rel_h.reshape(*lead, q_h, q_w, k_h), rel_w.reshape(*lead, q_h, q_w, k_w)


def add_decomposed_rel_pos(
    attn: torch.Tensor,
    q: torch.Tensor,
    rel_pos_h: torch.Tensor,
    rel_pos_w: torch.Tensor,
    q_size: tuple[int, int],
    k_size: tuple[int, int],
) -> torch.Tensor:
    """在分数表上加相对位置（官方的同名函数，供照官方写法的代码使用）。

    形状：attn ``(B, qH·qW, kH·kW)``，q ``(B, qH·qW, d)`` -> 与 attn 相同。
    """
    rel = rel_pos_by_axis(q, rel_pos_h, rel_pos_w, q_size, k_size)
    return attn + ops.sum_rel_pos(*rel)


def set_fused(module: nn.Module, fused: bool) -> nn.Module:
    """让模型里的注意力层都走快路，或都走易读写法；返回同一个模型。"""
    for layer in module.modules():
        if hasattr(layer, "fused"):
            setattr(layer, "fused", fused)  # noqa: B010
    return module
