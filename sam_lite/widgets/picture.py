"""画布要的几种图片：浏览器里显示的、一张张掩码、静态网页上的。"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from .. import viz
from ..files import ASSETS
from ..inputs.checks import check_image

SHOWN = 1024  # 浏览器里的照片最长边的像素；再大，传起来慢，看不出差别
STATIC = 560  # 静态图的最长边
FILL, RIM = 150, 255  # 掩码里面和轮廓的不透明度，0–255
Picture = viz.Picture


def open_photo(photo: Any) -> Picture:
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
        grey = photo[..., 0] if photo.ndim == 3 and photo.shape[2] == 1 else photo
        if grey.dtype in (np.uint8, np.uint16, bool) and grey.ndim == 2:
            return np.array(viz.to_rgb(Image.fromarray(grey)))
        if photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 4:
            return np.array(viz.to_rgb(Image.fromarray(photo)))
    return check_image(photo)


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """按比例缩到最长边不超过 longest：``(高, 宽)`` -> ``(高, 宽)``，不放大。"""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(photo: Picture, longest: int) -> Picture:
    """照片缩到最长边不超过 longest，已经够小就原样返回。"""
    height, width = fit((photo.shape[0], photo.shape[1]), longest)
    if (height, width) == photo.shape[:2]:
        return photo
    small = Image.fromarray(photo).resize((width, height), Image.Resampling.BOX)
    return np.array(small)


def jpeg(photo: Picture) -> bytes:
    """浏览器里显示的照片，JPEG 的字节。"""
    buffer = io.BytesIO()
    Image.fromarray(shrink(photo, SHOWN)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def mask_png(mask: viz.Mask, colour: int = 0) -> bytes:
    """一张掩码变成三色的 PNG：外面透明，里面半透明，轮廓不透明；只有几 KB。"""
    indices = mask.astype(np.uint8)
    indices[viz.contour(mask, 2)] = 2
    picture = Image.fromarray(indices, mode="P")
    rgb = viz.PALETTE[colour % len(viz.PALETTE)].tolist()
    picture.putpalette([0, 0, 0, *rgb, *rgb])
    buffer = io.BytesIO()
    transparency = bytes((0, FILL, RIM))
    picture.save(buffer, "PNG", transparency=transparency, bits=2)
    return buffer.getvalue()


def static_png(picture: Picture) -> bytes:
    """静态网页上的图：256 色的 PNG。"""
    buffer = io.BytesIO()
    small = Image.fromarray(picture).quantize(256, Image.Quantize.MEDIANCUT)
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def mask_file(mask: viz.Mask) -> bytes:
    """掩码存成黑白 PNG 的字节，照片原来的大小，0 和 255。"""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def asset(name: str) -> Path:
    """随包的画布文件的路径。"""
    return ASSETS / name
