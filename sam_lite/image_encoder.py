"""第 5 章：图像编码器，一个 ViT 主干加一个卷积颈部。"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from . import ops
from .attention import Attention
from .patch_embed import PatchEmbed
from .windows import window_partition, window_unpartition


class MLPBlock(nn.Module):
    """两层全连接，中间一个激活函数。对应官方 ``common.py``。"""

    def __init__(
        self, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.lin1 = ops.Linear(embedding_dim, mlp_dim)
        self.lin2 = ops.Linear(mlp_dim, embedding_dim)
        self.act = act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(..., C) -> (..., C)``。"""
        return self.lin2(self.act(self.lin1(x)))


class LayerNorm2d(nn.Module):
    """通道在第二维的层规范化：每个位置各算各的，在全部通道上求均值和方差。

    对应官方 ``common.py``。
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(B, C, H, W) -> (B, C, H, W)``。"""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)，通道挪到最后，才能用现成的层规范化
        x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)


class Block(nn.Module):
    """Transformer 的一层：注意力和 MLP，各有一条残差；先规范化，后计算。

    ``window_size`` 为 0 时做全局注意力，大于 0 时只在窗口里做。对应官方
    ``image_encoder.py`` 的 ``Block``。

    参数：
        dim、num_heads、qkv_bias、use_rel_pos、rel_pos_zero_init: 见 Attention。
        mlp_ratio: MLP 的隐藏宽度是 dim 的几倍。
        norm_layer、act_layer: 规范化层与激活函数的类。
        window_size: 窗口边长，单位是词元；0 表示全局。
        input_size: 词元网格的 ``(高, 宽)``，全局层的相对位置表由它定长。
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        act_layer: type[nn.Module] = nn.GELU,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(
            dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=input_size if window_size == 0 else (window_size, window_size),
        )
        self.norm2 = norm_layer(dim)
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio), act_layer)
        self.window_size = window_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(B, H, W, C) -> (B, H, W, C)``。"""
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """在窗口里或全局做注意力。形状：``(B, H, W, C) -> (B, H, W, C)``。"""
        if self.window_size == 0:
            return self.attn(x)
        H, W = x.shape[1], x.shape[2]
        windows, pad_hw = window_partition(x, self.window_size)  # (B·窗口数, w, w, C)
        windows = self.attn(windows)
        return window_unpartition(windows, self.window_size, pad_hw, (H, W))


class ImageEncoderViT(nn.Module):
    """SAM 的图像编码器：图像块嵌入、若干 Block、颈部。

    签名与参数名同官方 ``image_encoder.py`` 的 ``ImageEncoderViT``；结构出自
    ViTDet 论文，SAM 论文附录 A。

    参数：
        img_size、patch_size: 输入边长与图像块边长，像素。
        embed_dim、depth、num_heads、mlp_ratio: 主干的宽度、层数、头数、MLP 倍数。
        out_chans: 颈部输出的通道数，即图像嵌入的宽度。
        use_abs_pos、use_rel_pos: 用不用绝对、相对位置编码。
        window_size: 窗口边长，单位是图像块；0 表示每层都是全局注意力。
        global_attn_indexes: 哪几层不用窗口。
        in_chans: 输入通道数；其余见 Block。
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        qkv_bias: bool = True,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        act_layer: type[nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        global_attn_indexes: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.img_size = img_size
        grid = img_size // patch_size
        patch = (patch_size, patch_size)
        self.patch_embed = PatchEmbed(patch, patch, (0, 0), in_chans, embed_dim)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos:
            self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, embed_dim))

        self.blocks = nn.ModuleList(
            Block(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                norm_layer=norm_layer,
                act_layer=act_layer,
                use_rel_pos=use_rel_pos,
                rel_pos_zero_init=rel_pos_zero_init,
                window_size=0 if i in global_attn_indexes else window_size,
                input_size=(grid, grid),
            )
            for i in range(depth)
        )
        # 1×1 卷积把通道减到解码器用的宽度，3×3 卷积让相邻的格子互通
        self.neck = nn.Sequential(
            nn.Conv2d(embed_dim, out_chans, kernel_size=1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(B, 3, img_size, img_size) -> (B, out_chans, 网格, 网格)``。"""
        x = self.patch_embed(x)  # (B, 网格, 网格, C)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = x.permute(0, 3, 1, 2)  # (B, C, 网格, 网格)，卷积要通道在第二维
        x = self.neck(x)  # (B, out_chans, 网格, 网格)
        return x.contiguous()  # 与官方一样连续存放，照官方写的 .view 才能用
