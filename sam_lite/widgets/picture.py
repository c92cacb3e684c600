"""画布要的几种图片：浏览器里显示的、一张张掩码、静态网页上的。"""

import io
import os
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from .. import viz
from ..inputs.checks import check_image

SHOWN = 1024  # 浏览器里的照片最长边的像素；再大，传起来慢，看不出差别
FILL, RIM = 150, 255  # 掩码里面和轮廓的不透明度，0–255


def open_photo(photo: Any) -> viz.Picture:
    """照片的路径、Pillow 图片或数组，变成 ``(H, W, 3)`` 的 uint8 RGB 数组。

    灰度、带透明、16 位的数组和图片都收，EXIF 里记的旋转先转正。别的抛 SamLiteError。
    """
    if isinstance(photo, str | os.PathLike):
        return viz.read_photo(photo)
    if isinstance(photo, bytes):
        return viz.decode_photo(io.BytesIO(photo), "收到的文件")
    if isinstance(photo, Image.Image):
        return np.array(viz.to_rgb(ImageOps.exif_transpose(photo)))
    if isinstance(photo, np.ndarray) and photo.size:
        flat = photo[..., 0] if photo.shape[2:] == (1,) else photo
        grey = flat.ndim == 2 and flat.dtype in (np.uint8, np.uint16, bool)
        if grey or (flat.shape[2:] == (4,) and flat.dtype == np.uint8):
            return np.array(viz.to_rgb(Image.fromarray(flat)))
    return check_image(photo)


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """按比例缩到最长边不超过 longest：``(高, 宽)`` -> ``(高, 宽)``，不放大。"""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(photo: viz.Picture, longest: int) -> viz.Picture:
    """照片缩到最长边不超过 longest，已经够小就原样返回。"""
    height, width = fit((photo.shape[0], photo.shape[1]), longest)
    if (height, width) == photo.shape[:2]:
        return photo
    small = Image.fromarray(photo).resize((width, height), Image.Resampling.BOX)
    return np.array(small)


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """图片文件的字节；kind 和 options 同 Pillow 的 save。"""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def mask_png(mask: viz.Mask, colour: int = 0) -> bytes:
    """一张掩码变成三色的 PNG：外面透明，里面半透明，轮廓不透明；只有几 KB。"""
    indices = mask.astype(np.uint8)
    indices[viz.contour(mask, 2)] = 2
    picture = Image.fromarray(indices, mode="P")
    rgb = viz.PALETTE[colour % len(viz.PALETTE)].tolist()
    picture.putpalette([0, 0, 0, *rgb, *rgb])
    return encode(picture, "PNG", transparency=bytes((0, FILL, RIM)), bits=2)


def static_png(picture: viz.Picture) -> bytes:
    """静态网页上的图：256 色的 PNG。"""
    small = Image.fromarray(picture).quantize(256, Image.Quantize.MEDIANCUT)
    return encode(small, "PNG", optimize=True)
