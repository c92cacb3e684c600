"""第 2 章：把图像切成图像块，每块变成一个向量。"""

import torch
from torch import nn


class PatchEmbed(nn.Module):
    """图像块嵌入：卷积的步幅和核一样大，就是“切块、摊平、乘矩阵、加偏置”。

    输出把通道放在最后，保持二维网格，不摊成一串，后面切窗口要用。绝对位置编码在
    ``image_encoder.py`` 里加。对应官方 ``image_encoder.py`` 的 ``PatchEmbed``。

    参数：
        kernel_size、stride、padding: 卷积的核、步幅、填充，像素，顺序 ``(高, 宽)``。
        in_chans: 输入通道数。
        embed_dim: 每个图像块变成多宽的向量。
    """

    def __init__(
        self,
        kernel_size: tuple[int, int] = (16, 16),
        stride: tuple[int, int] = (16, 16),
        padding: tuple[int, int] = (0, 0),
        in_chans: int = 3,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(B, 3, H, W) -> (B, H/16, W/16, C)``。"""
        x = self.proj(x)  # (B, C, H/16, W/16)
        return x.permute(0, 2, 3, 1)  # (B, H/16, W/16, C)
