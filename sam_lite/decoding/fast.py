"""第 8 章的快路：与 MaskDecoder 同样的结果，一张图问很多次时乘法少一大半。

省在三处，都不改变数学，只换计算的次序：

1. 只和图像有关的，一张图只算一次：第一层的图像还没有被任何提示改过，它的键、值、查询
   对每个提示都一样；位置编码过投影层的那一份，后面各层也都一样。
2. 乘法的结合律：词元只有 T 个（十个上下），图像有 P = h·w 格。``q·(W_k K)ᵀ`` 要先把 P
   格图像都投影一遍，写成 ``(q W_k)·Kᵀ`` 就只投影 T 个词元。值也一样：先按份额把图像
   加权求和，再投影。
3. 转置卷积的步幅等于核边长，各格互不重叠，就是一次矩阵乘法；中间的大张量不必摆成
   网格，到最后几个通道的掩码才摆。

只在推理时用，不带梯度。慢而易读的写法在 ``two_way.py`` 与 ``mask_decoder.py``，测试把
两者对到浮点舍入。
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .. import ops
from ..mask_decoder import MaskDecoder
from ..two_way import Attention, TwoWayAttentionBlock
from .batches import prompts_in_cache

# 是第几组 (b,)、掩码 logits (b, 3 或 1, 4h, 4w)、预测的 IoU (b, 3 或 1)
Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class ImageDecoder:
    """固定在一张图像上的掩码解码器，没有掩码提示时用。

    参数：
        decoder: 已装好权重的 MaskDecoder。
        image_embedding: 图像嵌入，``(1, C, h, w)``。
        image_pe: 稠密的位置编码，``(1, C, h, w)``。
        dense: 没有掩码提示时的稠密嵌入，``(1, C, h, w)``，能广播即可。
    """

    @torch.no_grad()
    def __init__(
        self,
        decoder: MaskDecoder,
        image_embedding: torch.Tensor,
        image_pe: torch.Tensor,
        dense: torch.Tensor,
    ) -> None:
        self.decoder = decoder
        self.size = image_embedding.shape[-2:]
        self.keys = (image_embedding + dense).flatten(2).transpose(1, 2).contiguous()
        pe = image_pe.flatten(2).transpose(1, 2)  # (1, P, C)
        transformer: Any = decoder.transformer
        first, *later = list(transformer.layers)
        # 第一层：图像一侧的键、值、查询，各 (1, n, P, d)
        reads, answers = (
            first.cross_attn_token_to_image,
            first.cross_attn_image_to_token,
        )
        self.first_k = split_heads(reads, reads.k_proj(self.keys + pe))
        self.first_v = split_heads(reads, reads.v_proj(self.keys))
        self.first_q = split_heads(answers, answers.q_proj(self.keys + pe))
        # 以后各层：位置编码的投影，连偏置
        final = transformer.final_attn_token_to_image
        self.pe_k = [
            split_heads(attn, attn.k_proj(pe))
            for attn in [*(layer.cross_attn_token_to_image for layer in later), final]
        ]
        self.pe_q = [
            split_heads(attn, attn.q_proj(pe))
            for attn in (layer.cross_attn_image_to_token for layer in later)
        ]

    @torch.no_grad()
    def transform(self, sparse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """双向 Transformer。

        形状：稀疏嵌入 ``(B, N, C)`` -> 词元 ``(B, 5+N, C)``、图像 ``(B, P, C)``。
        """
        decoder = self.decoder
        transformer: Any = decoder.transformer  # 每次现取：可能整个换过
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        output = output.expand(len(sparse), -1, -1)  # (B, 5, C)
        point_embedding = torch.cat([output, sparse], dim=1)  # (B, T, C)
        queries, keys = point_embedding, self.keys
        for i, layer in enumerate(transformer.layers):
            queries, keys = self._layer(i, layer, queries, point_embedding, keys)
        final = transformer.final_attn_token_to_image
        q = queries + point_embedding
        queries = queries + tokens_read_image(final, q, keys, self.pe_k[-1])
        return transformer.norm_final_attn(queries), keys

    def _layer(
        self,
        i: int,
        layer: TwoWayAttentionBlock,
        queries: torch.Tensor,
        query_pe: torch.Tensor,
        keys: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """一层，四步同 TwoWayAttentionBlock；第一层的图像一侧用算好的。"""
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + layer.self_attn(q, q, queries)
        queries = layer.norm1(queries)

        reads, q = layer.cross_attn_token_to_image, queries + query_pe
        if i == 0:
            seen = tokens_read_shared(reads, q, self.first_k, self.first_v)
        else:
            seen = tokens_read_image(reads, q, keys, self.pe_k[i - 1])
        queries = layer.norm2(queries + seen)
        queries = layer.norm3(queries + layer.mlp(queries))

        answers, k = layer.cross_attn_image_to_token, queries + query_pe
        k = split_heads(answers, answers.k_proj(k)) * answers.scale  # (B, n, T, d)
        if i == 0:
            scores = score_shared(k, self.first_q)  # (B, n, T, P)
        else:
            scores = project_back(k, answers.q_proj.weight, keys)
            scores = scores + score_shared(k, self.pe_q[i - 1])
        shares = scores.softmax(dim=2).flatten(1, 2)  # 每格在 T 个词元上分份额
        brought = values_out(answers, queries)  # (B, nT, C)
        keys = keys.expand(len(queries), -1, -1)
        keys = torch.baddbmm(keys, shares.transpose(1, 2), brought)  # (B, P, C)
        return queries, layer.norm4(keys)

    @torch.no_grad()
    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """预测的 IoU。形状：``(B, 5+N, C) -> (B, 4)``。"""
        return self.decoder.iou_prediction_head(tokens[:, 0])

    @torch.no_grad()
    def masks(
        self, tokens: torch.Tensor, keys: torch.Tensor, chosen: slice
    ) -> torch.Tensor:
        """上采样与超网络，只算 chosen 里的那几张。

        形状：词元 ``(B, 5+N, C)``，图像 ``(B, P, C)`` -> ``(B, 几张, 4h, 4w)``。
        """
        decoder, (h, w) = self.decoder, self.size
        parts: Any = decoder.output_upscaling
        up1, norm, act1, up2, act2 = parts
        B, P, C = keys.shape
        mlps = list(decoder.output_hypernetworks_mlps)[chosen]
        mask_tokens = tokens[:, 1 : 1 + decoder.num_mask_tokens][:, chosen]
        hyper = [mlp(mask_tokens[:, i]) for i, mlp in enumerate(mlps)]
        hyper_in = torch.stack(hyper, dim=1)  # (B, 张数, C/8)
        # 一格变 2×2 格，再变 4×4 格。行的一侧分开算（i、j 是第几行），列的一侧排在通道
        # 前面，于是每段算完就是完整的一行行，拼起来不必逐个像素搬
        rows = []
        for i in range(2):
            x = ops.linear(keys, *row_kernel(up1, i)).reshape(B, P * 2, C // 4)
            x = act1(F.layer_norm(x, (C // 4,), norm.weight, norm.bias, norm.eps))
            for j in range(2):
                y = act2(ops.linear(x, *row_kernel(up2, j))).reshape(B, P * 4, C // 8)
                rows.append(hyper_in @ y.transpose(1, 2))  # (B, 张数, h·4w)
        masks = torch.stack(rows, dim=2).reshape(B, len(mlps), 4, h, 4 * w)
        return masks.transpose(2, 3).reshape(B, len(mlps), 4 * h, 4 * w)

    def decode(self, sparse: torch.Tensor, multimask_output: bool) -> Iterator[Part]:
        """一小批一小批地解码。形状：稀疏嵌入 ``(B, N, C)`` -> 每次一个 Part。"""
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        for rows, part in self._batches(sparse):
            tokens, keys = self.transform(part)
            iou = self.scores(tokens)[:, chosen]
            yield rows, self.masks(tokens, keys, chosen), iou

    def candidates(self, sparse: torch.Tensor, min_iou: float | None) -> Iterator[Part]:
        """三张里只要预测的 IoU 大于 min_iou 的；None 是全要。

        一组里一张也不够的，连上采样都不做。形状：每次给出 n 张，是第几组 ``(n,)``、掩码
        logits ``(n, 4h, 4w)``、预测的 IoU ``(n,)``。
        """
        chosen = slice(1, None)
        for rows, part in self._batches(sparse):
            tokens, keys = self.transform(part)
            iou = self.scores(tokens)[:, chosen]  # (b, 3)
            good = above(iou, min_iou)
            some = good.any(dim=1)
            if not some.any():  # OneFlow 乘空矩阵会中止进程，别往下走
                continue
            if not some.all():
                tokens, keys, iou, good = (x[some] for x in (tokens, keys, iou, good))
                rows = rows[some.cpu()]
            yield pick(rows, self.masks(tokens, keys, chosen), iou, good)

    def _batches(
        self, sparse: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """拆成几小批：是第几组 ``(b,)``、稀疏嵌入 ``(b, N, C)``。"""
        size = max(1, len(sparse))
        if self.keys.device.type == "cpu":
            size = prompts_in_cache(self.keys.shape[1], self.keys.shape[2])
        rows = torch.arange(len(sparse))
        yield from zip(rows.split(size), sparse.split(size))


def above(iou: torch.Tensor, min_iou: float | None) -> torch.Tensor:
    """哪些预测的 IoU 大于 min_iou，None 是全部。形状：``(...) -> (...)``，布尔。"""
    if min_iou is None:
        return torch.ones_like(iou).bool()
    return iou.float() > min_iou


def pick(
    rows: torch.Tensor, low_res: torch.Tensor, iou: torch.Tensor, good: torch.Tensor
) -> Part:
    """几组里挑出 good 的那些掩码，排成一列。

    形状：``(b,)``、``(b, C, 4h, 4w)``、``(b, C)``、布尔 ``(b, C)`` -> ``(n,)``、
    ``(n, 4h, 4w)``、``(n,)``。
    """
    kept = good.flatten().nonzero()[:, 0]
    owner = rows.repeat_interleave(iou.shape[1])[kept.cpu()]
    return owner, low_res.flatten(0, 1)[kept], iou.flatten()[kept]


def split_heads(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    """拆成多个头。形状：``(B, N, I) -> (B, n, N, I/n)``。"""
    B, N, width = x.shape
    n = attn.num_heads
    return x.reshape(B, N, n, width // n).transpose(1, 2)


def project_back(
    q: torch.Tensor, weight: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """``q · (W K)ᵀ``，按 ``(q W) · Kᵀ`` 的次序算。

    形状：q ``(B, n, T, d)``，weight ``(n·d, C)``，keys ``(B, P, C)``
    -> ``(B, n, T, P)``。
    """
    B, n, T, d = q.shape
    back = q @ weight.reshape(n, d, -1)  # (B, n, T, C)
    scores = back.flatten(1, 2) @ keys.transpose(1, 2)  # (B, nT, P)
    return scores.reshape(B, n, T, keys.shape[1])


def score_shared(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """``q·kᵀ``，各组提示共用一份 k：把 B 组并到词元一轴，免得 k 被复制 B 份。

    形状：q ``(B, n, T, d)``，k ``(1, n, P, d)`` -> ``(B, n, T, P)``。
    """
    B, n, T, d = q.shape
    scores = q.transpose(0, 1).reshape(n, B * T, d) @ k[0].transpose(1, 2)
    return scores.reshape(n, B, T, k.shape[2]).transpose(0, 1)


def tokens_read_shared(
    attn: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """词元看图像，各组提示共用一份键和值。

    形状：q ``(B, T, C)``，k、v ``(1, n, P, d)`` -> ``(B, T, C)``。
    """
    B, T, _ = q.shape
    q = split_heads(attn, attn.q_proj(q).flatten(0, 1)[None])  # (1, n, B·T, d)
    weights = (q * attn.scale @ k.transpose(2, 3)).softmax(dim=-1)
    out = weights @ v  # (1, n, B·T, d)
    return attn.out_proj(out.transpose(1, 2).reshape(B, T, attn.internal_dim))


def tokens_read_image(
    attn: Attention, q: torch.Tensor, keys: torch.Tensor, pe_k: torch.Tensor
) -> torch.Tensor:
    """词元看图像，图像一侧不投影。

    形状：q ``(B, T, C)``，keys ``(B, P, C)``，pe_k ``(1, n, P, d)`` -> ``(B, T, C)``。
    """
    B, T, C = q.shape
    n = attn.num_heads
    q = split_heads(attn, attn.q_proj(q)) * attn.scale  # (B, n, T, d)
    scores = project_back(q, attn.k_proj.weight, keys)
    scores = scores + score_shared(q, pe_k)  # (B, n, T, P)
    weights = scores.softmax(dim=-1).flatten(1, 2)  # (B, nT, P)
    mixed = (weights @ keys).reshape(B, n, T, C)  # 先加权求和
    W_v = attn.v_proj.weight.reshape(n, -1, C)  # (n, d, C)
    out = (mixed @ W_v.transpose(1, 2)).transpose(1, 2).flatten(2)  # 再投影
    return attn.out_proj(out + attn.v_proj.bias)  # 份额加起来是 1，偏置原样加


def values_out(attn: Attention, queries: torch.Tensor) -> torch.Tensor:
    """每个头、每个词元交给图像的向量，已经过 out_proj。

    形状：``(B, T, C) -> (B, n·T, C)``；out_proj 的偏置平分给 n 个头（每个头的份额加起来
    是 1，合起来正好一份）。
    """
    n = attn.num_heads
    v = split_heads(attn, attn.v_proj(queries))  # (B, n, T, d)
    W_o = attn.out_proj.weight.T.reshape(n, v.shape[-1], -1)  # (n, d, C)
    return (v @ W_o + attn.out_proj.bias / n).flatten(1, 2)


def row_kernel(up: nn.ConvTranspose2d, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """2×2、步幅 2 的转置卷积里管第 row 行的两列，写成线性层的权重和偏置。

    形状：-> ``(2·C_out, C_in)``、``(2·C_out,)``。
    """
    assert up.bias is not None
    return up.weight[:, :, row].permute(2, 1, 0).flatten(0, 1), up.bias.repeat(2)
