"""第 1 章：把任意大小的照片变成模型要的正方形，并把点和框一起搬过去。

收张量的几处用到 torch 才导入它：没有装它的环境里，OnnxSamPredictor 也用这里的
ResizeLongestSide。
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .errors import problem
from .inputs.checks import check_size, describe

if TYPE_CHECKING:
    import torch

# ImageNet 的通道均值与标准差，单位是 0–255 的像素值，顺序 RGB
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class ResizeLongestSide:
    """按最长边缩放图像、点和框；numpy 与 torch 各有一套。

    对应官方 ``utils/transforms.py``。坐标是像素，顺序 ``(x, y)``；尺寸的顺序是
    ``(高, 宽)``。

    参数：
        target_length: 缩放后最长边的像素数，也就是模型的输入边长。
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """缩放一张图像。形状：``(H, W, 3) -> (H', W', 3)``，``(H, W)`` 也行。

        错误：Pillow 认不得这个数组时抛 SamLiteError。
        """
        try:
            picture = Image.fromarray(image)
            if 0 in picture.size:
                raise ValueError("一个像素也没有")
        except (TypeError, AttributeError, ValueError) as error:
            raise problem(
                "image",
                describe(image),
                "形状 (高, 宽, 3) 的 uint8 数组",
                "浮点的彩色图像先乘 255，再 .astype(np.uint8)。",
            ) from error
        old_h, old_w = image.shape[:2]
        height, width = self.get_preprocess_shape(old_h, old_w, self.target_length)
        bilinear = Image.Resampling.BILINEAR  # Pillow 缩小时自带低通，等于抗锯齿
        return np.array(picture.resize((width, height), bilinear))

    def apply_coords(
        self, coords: np.ndarray, original_size: tuple[int, ...]
    ) -> np.ndarray:
        """把原图上的点搬到缩放后的图上。形状：``(..., 2) -> (..., 2)``。"""
        return coords.astype(float) * self._scales(original_size)

    def apply_boxes(
        self, boxes: np.ndarray, original_size: tuple[int, ...]
    ) -> np.ndarray:
        """把原图上的框 ``(x0, y0, x1, y1)`` 搬过去。形状：``(..., 4) -> (B, 4)``。"""
        corners = self.apply_coords(boxes.reshape(-1, 2, 2), original_size)
        return corners.reshape(-1, 4)

    def apply_image_torch(self, image: torch.Tensor) -> torch.Tensor:
        """缩放一批浮点张量。形状：``(B, C, H, W) -> (B, C, H', W')``。

        像素与 apply_image 略有出入：那边的结果取整成 uint8。模型认的是 apply_image。
        """
        from . import ops

        old_h, old_w = image.shape[-2:]
        size = self.get_preprocess_shape(old_h, old_w, self.target_length)
        return ops.resize_antialiased(image, size)

    def apply_coords_torch(
        self, coords: torch.Tensor, original_size: tuple[int, ...]
    ) -> torch.Tensor:
        """apply_coords 的张量版。形状：``(..., 2) -> (..., 2)``，结果是浮点数。"""
        import torch

        scales = self._scales(original_size)
        factor = torch.tensor(scales, dtype=torch.float, device=coords.device)  # (2,)
        return coords.to(torch.float) * factor

    def apply_boxes_torch(
        self, boxes: torch.Tensor, original_size: tuple[int, ...]
    ) -> torch.Tensor:
        """apply_boxes 的张量版。形状：``(..., 4) -> (B, 4)``。"""
        corners = self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size)
        return corners.reshape(-1, 4)

    def _scales(self, original_size: tuple[int, ...]) -> tuple[float, float]:
        """x、y 两个方向各放大多少倍；新尺寸取整之后，两者会有一点点不同。"""
        old_h, old_w = original_size
        new_h, new_w = self.get_preprocess_shape(old_h, old_w, self.target_length)
        return new_w / old_w, new_h / old_h

    @staticmethod
    def get_preprocess_shape(
        oldh: int, oldw: int, long_side_length: int
    ) -> tuple[int, int]:
        """最长边等于 long_side_length 时的 ``(高, 宽)``，四舍五入到整数。"""
        scale = long_side_length / max(oldh, oldw)
        # 官方没有 max：极细长的图，短边会被舍成 0
        return max(1, int(oldh * scale + 0.5)), max(1, int(oldw * scale + 0.5))


def check_original_size(
    name: str, original_size: Any, input_size: tuple[int, ...], side: int
) -> tuple[int, int]:
    """原图的 ``(高, 宽)`` 要能按最长边缩放成 input_size，否则抛 SamLiteError。

    两边各容许差一个像素：自己缩放的人可能用别的取整办法。返回普通的元组。
    """
    size = check_size(name, original_size)
    expected = ResizeLongestSide.get_preprocess_shape(*size, side)
    if any(abs(a - b) > 1 for a, b in zip(expected, input_size, strict=True)):
        wanted = f"能缩放成 {tuple(input_size)} 的 (高, 宽)"
        raise problem(name, size, wanted, f"这个大小会缩放成 {expected}；高在前。")
    return size


def normalize_and_pad(
    x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, size: int
) -> torch.Tensor:
    """减均值、除标准差，再在右边和下边补零到正方形。

    形状：``(..., 3, H, W) -> (..., 3, size, size)``。先规范化再补零，所以补上的是
    “平均颜色”而不是黑色。对应官方 ``Sam.preprocess``。
    """
    import torch.nn.functional as F

    x = (x - mean) / std
    height, width = x.shape[-2:]
    if height > size or width > size:
        raise problem(
            "图像张量",
            f"高 {height}、宽 {width}",
            f"最长边不超过 {size} 的图像",
            f"先用 ResizeLongestSide({size}) 缩放。",
        )
    return F.pad(x, (0, size - width, 0, size - height))
