"""像显微镜下的细胞：与 ``scenes`` 很不一样的一类图，给微调当新领域。

对比低、照明不匀、有噪声；细胞挤在一起，边上一圈膜，里面的质地与背景差不多，还有一个不算
物体的核。由种子画出，掩码在作画时就已知。
"""

import math

import numpy as np
from PIL import Image, ImageFilter

from ..errors import problem
from .random import clouds

LEAST = 0.0015  # 可见面积不到画面这么多的细胞丢掉


def make_cells(seed: int, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """从种子画一张：照片 ``(size, size, 3)`` uint8 和掩码 ``(N, size, size)`` 布尔。

    同样的参数总给出逐字节相同的结果。size 小于 32 时抛 SamLiteError。
    """
    if size < 32:
        raise problem("size", size, "不小于 32 的整数")
    rng = np.random.default_rng([int(seed), 512])
    y, x = np.mgrid[:size, :size].astype(np.float32) / size  # 0 到 1
    nearest = np.full((size, size), 1.0, np.float32)  # 离最近的细胞边多深，1 是在外面
    labels = np.zeros((size, size), np.int32)
    nuclei: np.ndarray = np.zeros((size, size), bool)
    radius = rng.uniform(0.07, 0.13)
    for k in range(1, int(rng.integers(12, 30))):
        depth, nucleus = cell(rng, x, y, radius)
        mine = (depth < nearest) & (depth < 1)  # 挤在一起时，交界在两边一样深的地方
        nearest[mine], labels[mine] = depth[mine], k
        nuclei = np.where(mine, nucleus, nuclei)
    picture = photograph(rng, nearest, labels, nuclei)
    ids, areas = np.unique(labels, return_counts=True)
    kept = ids[(ids > 0) & (areas >= LEAST * size * size)]
    return picture, labels[None] == kept[:, None, None]


def cell(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """一个细胞：每个像素有多深（0 在中心，1 在边上），和哪些像素是核。"""
    cx, cy = rng.uniform(0, 1, 2).astype(np.float32)
    angle, stretch = rng.uniform(0, math.pi), rng.uniform(1, 1.6)
    u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
    v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
    u, v = u / stretch, v * stretch**0.5
    around, wobble = np.arctan2(v, u), np.ones_like(u)
    for turns in (2, 3, 5):  # 边缘的起伏
        strength = rng.uniform(0, 0.2) / turns**0.5
        wobble += strength * np.sin(turns * around + rng.uniform(0, 2 * math.pi))
    wobble *= np.float32(radius * rng.uniform(0.7, 1.3))
    depth = np.hypot(u, v) / wobble
    shift = rng.uniform(-0.3, 0.3, 2) * radius
    nucleus = np.hypot(u - shift[0], v - shift[1]) < 0.32 * wobble
    return depth.astype(np.float32), nucleus


def photograph(
    rng: np.random.Generator,
    depth: np.ndarray,
    labels: np.ndarray,
    nuclei: np.ndarray,
) -> np.ndarray:
    """上色：照明、质地、膜、核、模糊、噪声；返回 ``(H, W, 3)`` uint8。"""
    size = len(depth)
    inside = labels > 0
    seam = np.zeros_like(inside)  # 相邻两个细胞的交界
    seam[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    seam[1:] |= labels[1:] != labels[:-1]
    wide = Image.fromarray(seam).filter(ImageFilter.MaxFilter(3))
    membrane = np.asarray(wide, bool) | (inside & (depth > 0.93))

    sign = 1 if rng.uniform() < 0.5 else -1  # 膜比周围亮，或比周围暗
    grey = 0.06 * (clouds(rng, size, 4, 0.6) - 0.5)  # 背景的脏
    grey += 0.10 * (clouds(rng, size, max(4, size // 8), 0.9) - 0.5) * inside
    grey += rng.uniform(-0.03, 0.03) * inside
    grey += sign * rng.uniform(0.06, 0.12) * membrane
    grey += rng.choice([-1, 1]) * rng.uniform(0.03, 0.1) * (nuclei & inside)
    light = 0.75 + 0.5 * clouds(rng, size, 4, 0.25)  # 照明不匀
    image = np.clip((rng.uniform(0.35, 0.55) + grey) * light * 255, 0, 255)
    picture = Image.fromarray(image.astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(0.8 * size / 256))
    noise = rng.standard_normal((size, size)) * rng.uniform(3, 9)
    image = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    tint = np.array([1.0, 1.0, 1.0]) - rng.uniform(0, 0.12, 3)
    return (image[..., None] * tint).astype(np.uint8)


class CellScenes:
    """``count`` 张细胞图组成的数据集，样子同 ``learn.datasets``。

    参数：
        count: 几张。
        seed: 第 i 张的种子是 ``seed + i``。
        size: 边长，像素。
    """

    def __init__(self, count: int, seed: int = 0, size: int = 256) -> None:
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        """返回张数。"""
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """画第 index 张：照片 ``(H, W, 3)``，掩码 ``(N, H, W)``。"""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return make_cells(self.seed + index, self.size)
