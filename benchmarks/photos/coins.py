"""由阈值和标号得出硬币的掩码，写进 drawn/coins.png。

用法：``python -m benchmarks.photos.coins``。暗处（< 30）一定是底，亮处（> 150）一定是
硬币，中间的由分水岭沿着亮度变化最大的地方分开；补上洞、磨去毛刺，再一枚一枚标号。
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_fill_holes
from skimage.filters import sobel
from skimage.measure import label
from skimage.morphology import disk, opening
from skimage.segmentation import watershed

from .truth import HERE, photo_path

BACKGROUND, COIN = 30, 150  # 亮度


def label_coins(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """灰度照片 ``(H, W)`` -> 标号图 ``(H, W)``：0 是底，每枚硬币一个编号。"""
    markers = np.zeros(grey.shape, dtype=int)
    markers[grey < BACKGROUND], markers[grey > COIN] = 1, 2
    coins = binary_fill_holes(watershed(sobel(grey), markers) == 2)
    return label(opening(coins, disk(4))).astype(np.uint8)


if __name__ == "__main__":
    labels = label_coins(np.asarray(Image.open(photo_path("coins")).convert("L")))
    Image.fromarray(labels).save(HERE / "drawn" / "coins.png", optimize=True)
    print(f"{labels.max()} 枚硬币")
