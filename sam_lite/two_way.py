"""第 7 章：双向 Transformer，提示词元看图像，图像也回头看提示词元。"""

import torch
from torch import nn

from . import ops
from .image_encoder import MLPBlock


class Attention(nn.Module):
    """解码器用的注意力：查询、键、值分别给出，内部宽度可以缩小。

    对应官方 ``transformer.py`` 的 ``Attention``。

    参数：
        embedding_dim: 输入和输出的宽度。
        num_heads: 头数。
        downsample_rate: 内部宽度是 embedding_dim 的几分之一。
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, downsample_rate: int = 1
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.internal_dim = embedding_dim // downsample_rate
        self.num_heads = num_heads
        assert self.internal_dim % num_heads == 0, "num_heads 要整除内部宽度"
        self.scale = (self.internal_dim // num_heads) ** -0.5
        self.fused = True

        self.q_proj = ops.Linear(embedding_dim, self.internal_dim)
        self.k_proj = ops.Linear(embedding_dim, self.internal_dim)
        self.v_proj = ops.Linear(embedding_dim, self.internal_dim)
        self.out_proj = ops.Linear(self.internal_dim, embedding_dim)

    def _separate_heads(self, x: torch.Tensor) -> torch.Tensor:
        """拆成多个头。形状：``(B, N, C) -> (B, n, N, C/n)``。"""
        B, N, C = x.shape
        n = self.num_heads
        return x.reshape(B, N, n, C // n).transpose(1, 2)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """形状：q ``(B, N, C)``，k、v ``(B, M, C)`` -> ``(B, N, C)``。"""
        q = self._separate_heads(self.q_proj(q))  # (B, n, N, d)
        k = self._separate_heads(self.k_proj(k))  # (B, n, M, d)
        v = self._separate_heads(self.v_proj(v))  # (B, n, M, d)
        out = ops.attend(q, k, v, self.scale, fused=self.fused)  # (B, n, N, d)
        out = out.transpose(1, 2).flatten(2)  # (B, N, 内部宽度)
        return self.out_proj(out)


class TwoWayAttentionBlock(nn.Module):
    """双向 Transformer 的一层，四步：词元自注意力、词元看图像、MLP、图像看词元。

    对应论文图 14 与附录 A “Lightweight mask decoder”，官方 ``transformer.py``。

    参数：
        embedding_dim、num_heads、mlp_dim、activation: 宽度、头数、MLP 隐藏宽度、激活。
        attention_downsample_rate: 两个交叉注意力内部缩小几倍。
        skip_first_layer_pe: 自注意力不加 query_pe，也没有残差；只有第一层为真，那里
            queries 就是 query_pe，再加一次只是翻倍。
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int = 2048,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLPBlock(embedding_dim, mlp_dim, activation)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        query_pe: torch.Tensor,
        key_pe: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """更新词元和图像。

        形状：queries、query_pe ``(B, N, C)``，keys ``(B, HW, C)``，key_pe
        ``(B 或 1, HW, C)`` -> 更新后的 queries ``(B, N, C)``、keys ``(B, HW, C)``。
        """
        # 位置编码只加在查询和键上，管“看哪里”；值不加，取回的只是内容。每次注意力都
        # 重新加一遍，位置和提示的身份才不会一层层淡掉
        if self.skip_first_layer_pe:
            queries = self.self_attn(queries, queries, queries)  # 官方此处没有残差
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)

        q, k = queries + query_pe, keys + key_pe
        queries = queries + self.cross_attn_token_to_image(q, k, keys)
        queries = self.norm2(queries)

        queries = self.norm3(queries + self.mlp(queries))

        q = queries + query_pe
        keys = keys + self.cross_attn_image_to_token(k, q, queries)  # 图像问，词元答
        return queries, self.norm4(keys)


class TwoWayTransformer(nn.Module):
    """掩码解码器的主体：若干双向层，最后词元再看一次图像。

    对应官方 ``transformer.py`` 的 ``TwoWayTransformer``。

    参数：
        depth: 层数；其余见 TwoWayAttentionBlock。
    """

    def __init__(
        self,
        depth: int,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.embedding_dim = embedding_dim
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                mlp_dim,
                activation,
                attention_downsample_rate,
                skip_first_layer_pe=(i == 0),
            )
            for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(
        self,
        image_embedding: torch.Tensor,
        image_pe: torch.Tensor,
        point_embedding: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """词元和图像互相看过之后的样子。

        形状：image_embedding ``(B, C, h, w)``，image_pe ``(B 或 1, C, h, w)``，
        point_embedding ``(B, N, C)``（全部词元：输出词元和提示词元，不只是点）
        -> 词元 ``(B, N, C)``、图像 ``(B, h·w, C)``。
        """
        keys = image_embedding.flatten(2).permute(0, 2, 1)  # (B, hw, C)
        key_pe = image_pe.flatten(2).permute(0, 2, 1)  # (B 或 1, hw, C)
        queries = point_embedding
        for layer in self.layers:
            queries, keys = layer(queries, keys, point_embedding, key_pe)

        q, k = queries + point_embedding, keys + key_pe
        queries = queries + self.final_attn_token_to_image(q, k, keys)
        return self.norm_final_attn(queries), keys
