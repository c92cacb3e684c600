"""图像缩放，与官方用的 Pillow 一致。"""

import torch
import torch.nn.functional as F

from . import oneflow


def resize_antialiased(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """双线性缩放，缩小时先做低通（抗锯齿），与 Pillow 的做法一致。

    形状：``(B, C, H, W) -> (B, C, size[0], size[1])``。
    """
    if oneflow.ACTIVE:
        return oneflow.resize_antialiased(image, size)
    return F.interpolate(
        image, size, mode="bilinear", align_corners=False, antialias=True
    )
