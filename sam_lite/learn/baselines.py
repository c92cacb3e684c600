"""给模型作比较的老办法：不学习，只看颜色或框。要装 scikit-image，它带着 scipy。"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 容差 tolerance（0–255）和 scale 是在另外 100 张场景上挑出的最好值；
# blur 是漫水填充之前的高斯模糊，像素：不然纹理和噪声让它寸步难行
FLOOD = {"blur": 1.0, "tolerance": 28.0}
FELZENSZWALB = {"scale": 100, "sigma": 0.8, "min_size": 50}

Mask = NDArray[np.bool_]


def baseline_masks(
    image: NDArray[np.uint8], clicks: NDArray[np.int64], boxes: NDArray[np.int64]
) -> dict[str, Mask]:
    """每种老办法给每个物体的掩码，每个键 ``(B, H, W)``。

    ``image`` ``(H, W, 3)``；``clicks`` ``(B, 2)``，xy；``boxes`` ``(B, 4)``。
    """
    segments, soft = felzenszwalb(image), smooth(image)
    shape = segments.shape
    guesses = {
        "flood_click": [flood_fill(soft, x, y) for x, y in clicks],
        "felzenszwalb_click": [segments == segments[y, x] for x, y in clicks],
        "fill_box": [fill_box(box, shape) for box in boxes],
        "ellipse_box": [ellipse_in_box(box, shape) for box in boxes],
        "felzenszwalb_box": [segments_in_box(segments, box) for box in boxes],
    }
    return {key: np.stack(masks) for key, masks in guesses.items()}


def fill_box(box: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """把框填满，``(H, W)`` bool。"""
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def ellipse_in_box(box: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """框里的内切椭圆，``(H, W)`` bool。"""
    x0, y0, x1, y1 = box
    y, x = np.ogrid[: shape[0], : shape[1]]
    across = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2)  # 框里从 -1 到 1
    down = (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    inside: Mask = across**2 + down**2 <= 1
    return inside


def smooth(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """漫水填充之前先模糊一下，``(H, W, 3)``，只在高、宽两个方向。"""
    from scipy.ndimage import gaussian_filter

    blur = FLOOD["blur"]
    blurred = gaussian_filter(image.astype(np.float32), (blur, blur, 0))
    return np.asarray(blurred)


def flood_fill(
    image: NDArray[np.float32], x: int, y: int, tolerance: float = FLOOD["tolerance"]
) -> Mask:
    """从 ``(x, y)`` 漫开：和起点每个通道都差不过 ``tolerance`` 的连通区域。"""
    from scipy.ndimage import label

    difference = np.abs(image - image[y, x]).max(axis=2)
    regions, _ = label(difference <= tolerance)  # 上下左右相连
    area: Mask = regions == regions[y, x]
    return area


def felzenszwalb(image: NDArray[np.uint8]) -> NDArray[Any]:
    """图割分块（Felzenszwalb & Huttenlocher 2004）：``(H, W)`` 的块号。"""
    from skimage.segmentation import felzenszwalb as segment

    return np.asarray(segment(image, channel_axis=2, **FELZENSZWALB))


def segments_in_box(segments: NDArray[Any], box: Sequence[int]) -> Mask:
    """一半以上的像素落在框里的块，合起来；不看答案。"""
    x0, y0, x1, y1 = box
    total = np.bincount(segments.ravel())
    window = segments[y0 : y1 + 1, x0 : x1 + 1].ravel()
    inside = np.bincount(window, minlength=len(total))
    return np.asarray((2 * inside > total)[segments])
