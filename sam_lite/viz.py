"""读照片、画掩码、存图片：只用 NumPy 和 Pillow。

图片一律是 ``(高, 宽, 3)`` 的 uint8 RGB 数组，掩码是 ``(高, 宽)`` 的 bool 数组，
坐标是 ``(x, y)`` 像素，``(0, 0)`` 是左上角那个像素。
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms, ImageDraw, ImageOps, UnidentifiedImageError

from .errors import SamLiteError
from .files.atomic import atomic_file, check_writable

Picture = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)

# Okabe–Ito 调色板：色觉异常的人也分得开。第 i 张掩码用第 i 种颜色，用完从头来
PALETTE: Picture = np.array(
    [
        (86, 180, 233),  # 天蓝
        (230, 159, 0),  # 橙
        (204, 121, 167),  # 紫红
        (240, 228, 66),  # 黄
        (0, 114, 178),  # 深蓝
        (0, 158, 115),  # 蓝绿
        (213, 94, 0),  # 朱红
    ],
    dtype=np.uint8,
)
POSITIVE, NEGATIVE = (0, 158, 115), (213, 94, 0)  # 正点绿、负点红，也分得开
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")  # 掩码只存成这些：JPEG 会改像素值
LOSSY = (".jpg", ".jpeg", ".webp")  # 叠加图还可以存成这些


# ---- 读 ----------------------------------------------------------------------


def read_photo(path: str | os.PathLike[str]) -> Picture:
    """读一张照片，转成 ``(H, W, 3)`` 的 uint8 RGB 数组。

    Pillow 能读的模式都收：灰度、调色板、16 位、CMYK、透明（垫白底）……
    EXIF 里记的旋转会先转正。文件没有、是文件夹或读不出来时抛 ``SamLiteError``。
    """
    path = Path(path)
    if path.is_dir():
        raise SamLiteError(f"要一张照片，{path} 却是文件夹")
    return decode_photo(path, str(path))


def decode_photo(file: Path | io.BytesIO, name: str) -> Picture:
    """同 read_photo，也收内存里的文件；``name`` 是报错时说的文件名。"""
    try:
        with Image.open(file) as image:
            return np.array(to_rgb(ImageOps.exif_transpose(image)))
    except FileNotFoundError:
        raise SamLiteError(f"找不到照片：{name}") from None
    except UnidentifiedImageError:
        raise SamLiteError(f"{name} 不是图片，或是 Pillow 不认识的格式") from None
    except Image.DecompressionBombError as error:
        raise SamLiteError(f"照片 {name} 太大，Pillow 拒绝打开：{error}") from error
    except SamLiteError as error:
        raise SamLiteError(f"照片 {name}：{error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise SamLiteError(f"照片 {name} 已损坏，或没有权限读：{error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """把任意模式的 Pillow 图片转成 RGB：透明处垫白底，16 位缩到 8 位。"""
    if image.mode.startswith(("I", "F")):  # I;16、I;16B、I、F：一个通道，超过 8 位
        return Image.fromarray(_to_8bit(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert turned is not None  # 只有 inPlace=True 时才是 None
        return turned
    if image.getbands()[-1] in ("A", "a") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _to_8bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """超过 8 位的灰度缩到 0–255：16 位除以 257，别的按最小、最大值拉开。"""
    grey = values.astype(np.float64)
    if not np.isfinite(grey).all():
        raise SamLiteError("像素里有 NaN 或无穷大")
    low, high = grey.min(), grey.max()
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (grey - low) / max(high - low, 1e-12) * 255
    return np.rint(scaled).astype(np.uint8)


# ---- 存 ----------------------------------------------------------------------


def check_output(path: str | os.PathLike[str], lossless: bool = False) -> str:
    """先看图片能不能写到 ``path``，返回 Pillow 的格式名；不能写就抛 ``SamLiteError``。

    ``lossless=True`` 时只许不改像素值的格式。跑模型之前先调用，免得白算一场。
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*LOSSLESS, *LOSSY):
        raise SamLiteError(f"{path} 的扩展名 {suffix!r} 不是能写的图片格式，用 .png")
    if lossless and suffix not in LOSSLESS:
        raise SamLiteError(f"掩码不能写成 {suffix}：像素值会被改动，用 .png")
    check_writable(path)
    return Image.registered_extensions()[suffix]


def save_image(path: str | os.PathLike[str], image: ArrayLike) -> None:
    """把图片或掩码存成文件：要么完整写好，要么一点不动。

    ``image`` 是 ``(H, W, 3)`` 或 ``(H, W)`` 的 uint8，或 ``(H, W)`` 的 bool（存成
    0 和 255）。格式看扩展名。写不了时抛 ``SamLiteError``。
    """
    image_format = check_output(path)
    array = np.asarray(image)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    _as_picture(array)  # 只为核对形状和类型
    buffer = io.BytesIO()
    try:
        Image.fromarray(array).save(buffer, format=image_format)
    except (OSError, ValueError, SystemError) as error:
        raise SamLiteError(f"{path}：{image_format} 存不下，用 .png") from error
    with atomic_file(path) as file:
        file.write(buffer.getvalue())


# ---- 画 ----------------------------------------------------------------------


def overlay(
    image: ArrayLike,
    masks: ArrayLike,
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
) -> Picture:
    """把掩码、点和框画在照片上，返回一张新的 ``(H, W, 3)`` uint8 图片。

    ``masks``：``(H, W)`` 或 ``(N, H, W)`` 的 bool，每张一种颜色，大的先画。
    ``points``：``(M, 2)`` 的 xy；``labels``：``(M,)``，1 正点（绿、加号）、
    0 负点（红、减号），不给就全是正点。``box``：``(4,)`` 或 ``(N, 4)`` 的
    x0, y0, x1, y1。形状对不上时抛 ``SamLiteError``。
    """
    photo = _as_picture(image)
    stack = _as_masks(masks, *photo.shape[:2])  # (N, H, W)
    line = max(1, round(min(photo.shape[:2]) / 250))  # 线宽随图片大小变
    picture = Image.fromarray(_paint_masks(photo, stack, line))
    if box is not None:
        _draw_boxes(picture, np.asarray(box, dtype=float), line)
    if points is not None:
        xy = np.asarray(points, dtype=float).reshape(-1, 2)  # (M, 2)
        flags = np.ones(len(xy)) if labels is None else np.ravel(np.asarray(labels))
        if len(flags) != len(xy):
            raise SamLiteError(f"points 有 {len(xy)} 个，labels 却有 {len(flags)} 个")
        _draw_points(picture, xy, flags == 1)
    return np.array(picture)


def _paint_masks(
    photo: Picture, stack: NDArray[np.bool_], line: int, alpha: float = 0.45
) -> Picture:
    """给每张掩码填半透明的颜色，沿边描线。"""
    canvas = photo.astype(np.float32)
    areas = stack.sum(axis=(1, 2))
    for i in np.argsort(-areas, kind="stable"):  # 大的先画，小的不被盖住
        mask, colour = stack[i], PALETTE[i % len(PALETTE)]
        canvas[mask] = (1 - alpha) * canvas[mask] + alpha * colour
        rim = contour(mask, 2 * line)
        canvas[rim] = 255  # 先描一道白边，里面再描颜色，亮处暗处都看得清
        canvas[contour(mask, line)] = colour
    return np.rint(canvas).astype(np.uint8)


def contour(mask: ArrayLike, line: int = 1) -> Mask:
    """掩码里面沿边的一圈像素，``line`` 像素宽；``(H, W)`` bool -> ``(H, W)`` bool。

    图片之外算背景：掩码碰到图片边缘的地方，轮廓沿着图片边缘闭合。
    """
    mask = np.asarray(mask, dtype=bool)
    inner = mask
    for _ in range(line):  # 每次削掉一层：上下左右有一个不在里面就去掉
        p = np.pad(inner, 1)  # (H + 2, W + 2)，外面补一圈背景
        across = p[1:-1, :-2] & p[1:-1, 2:]
        inner = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & across
    return mask & ~inner


def _draw_boxes(picture: Image.Image, boxes: NDArray[np.float64], line: int) -> None:
    """画框：白边衬底，颜色和同号的掩码一致。"""
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise SamLiteError(f"box 要 (4,) 或 (N, 4)，来的是 {boxes.shape}")
    draw = ImageDraw.Draw(picture)
    for i, (x0, y0, x1, y1) in enumerate(boxes.reshape(-1, 4)):
        inside = (x0 + line, y0 + line, x1 - line, y1 - line)
        draw.rectangle((x0, y0, x1, y1), outline="white", width=3 * line)
        if inside[0] < inside[2] and inside[1] < inside[3]:
            colour = tuple(int(c) for c in PALETTE[i % len(PALETTE)])
            draw.rectangle(inside, outline=colour, width=line)


def _draw_points(
    picture: Image.Image, xy: NDArray[np.float64], positive: NDArray[np.bool_]
) -> None:
    """画点：圆心在点上，白边；正点加号，负点减号，不靠颜色也认得出。"""
    radius = max(5, round(min(picture.size) / 50))
    for (x, y), is_positive in zip(xy, positive, strict=True):
        marker = _marker(radius, bool(is_positive))
        corner = (round(x) - radius, round(y) - radius)
        picture.paste(marker, corner, marker)  # 超出图片的部分自动裁掉


def _marker(radius: int, positive: bool) -> Image.Image:
    """一个圆点，``(2r+1, 2r+1)`` RGBA；先画大八倍再缩小，边缘才平滑。"""
    side = 2 * radius + 1
    big = Image.new("RGBA", (8 * side, 8 * side), (255, 255, 255, 0))
    draw = ImageDraw.Draw(big)
    last, rim, middle, bar = 8 * side - 1, 1.2 * side, 4 * side, 0.5 * side
    draw.ellipse((0, 0, last, last), fill="white")
    colour = POSITIVE if positive else NEGATIVE
    draw.ellipse((rim, rim, last - rim, last - rim), fill=colour)
    ends = (2.2 * side, 5.8 * side)
    draw.rectangle((ends[0], middle - bar, ends[1], middle + bar), fill="white")
    if positive:
        draw.rectangle((middle - bar, ends[0], middle + bar, ends[1]), fill="white")
    return big.resize((side, side), Image.Resampling.LANCZOS)


# ---- 拼 ----------------------------------------------------------------------


def side_by_side(
    *images: ArrayLike, height: int | None = None, gap: int = 8
) -> Picture:
    """把几张图片从左到右拼成一张，中间留 ``gap`` 像素白缝。

    高度不同的按比例缩放到 ``height``（不给就用最矮的一张）。
    """
    if not images:
        raise SamLiteError("side_by_side 至少要一张图片")
    pictures = [_as_picture(image) for image in images]
    target = height or min(p.shape[0] for p in pictures)
    parts: list[Picture] = []
    for p in pictures:
        if p.shape[0] != target:
            size = (max(1, round(p.shape[1] * target / p.shape[0])), target)
            p = np.array(Image.fromarray(p).resize(size, Image.Resampling.LANCZOS))
        parts += [p, np.full((target, gap, 3), 255, dtype=np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def stack_rows(rows: Sequence[ArrayLike], gap: int = 8) -> Picture:
    """把几行图片从上到下叠成一张，窄的在右边补白。"""
    pictures = [_as_picture(row) for row in rows]
    if not pictures:
        raise SamLiteError("stack_rows 至少要一行图片")
    width = max(p.shape[1] for p in pictures)
    borders = [((0, gap), (0, width - p.shape[1]), (0, 0)) for p in pictures]
    padded = [np.pad(p, b, constant_values=255) for p, b in zip(pictures, borders)]
    return np.concatenate(padded)[: -gap or None]  # 最后一行下面不留缝


def _as_picture(image: ArrayLike) -> Picture:
    """核对图片：uint8 的 ``(H, W, 3)``；灰度 ``(H, W)`` 复制成三个通道。"""
    array = np.asarray(image)
    if array.dtype == np.uint8 and array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)  # (H, W, 3)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise SamLiteError(
            f"image 要 uint8 的 (H, W, 3) 或 (H, W)，"
            f"来的是 {array.dtype} 的 {array.shape}"
        )
    return array


def _as_masks(masks: ArrayLike, height: int, width: int) -> NDArray[np.bool_]:
    """核对掩码：变成 ``(N, H, W)`` bool，高宽要和图片一样。"""
    array = np.asarray(masks)
    array = array[None] if array.ndim == 2 else array  # (N, H, W)
    if array.ndim != 3 or array.shape[1:] != (height, width):
        raise SamLiteError(
            f"masks 要 (H, W) 或 (N, H, W)，图片是 {height}×{width}，"
            f"来的是 {np.asarray(masks).shape}"
        )
    if array.dtype != np.bool_:
        raise SamLiteError(f"masks 要 bool，来的是 {array.dtype}：logits 先和 0 比")
    return array
