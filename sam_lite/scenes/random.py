"""场景用到的随机抽取和云纹噪声。"""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """在 low 和 high 之间随机取一个数，取对数后均匀。"""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def pick(rng: np.random.Generator, choices: Sequence, p: Sequence = ()) -> Any:
    """随机取一项；``p`` 是各项的权重，不给就一样大。

    不用 ``rng.choice``：它慢，给的又是 float64，会把 float32 的数组一路升格。
    """
    if not p:
        return choices[int(rng.integers(len(choices)))]
    # 恰好在边界上时舍入可能多走一步，最后一项接住
    place = bisect.bisect(list(itertools.accumulate(p)), rng.random() * sum(p))
    return choices[min(place, len(p) - 1)]


def clouds(rng: np.random.Generator, size: int, start: int, rough: float) -> np.ndarray:
    """从粗到细逐层放大并加噪，得到 1/f 样的云纹，形状 (size, size)，值域 [0, 1]。"""
    n, gain = start, 1.0
    out = rng.standard_normal((n, n), np.float32)
    while n < size:
        n, gain = min(2 * n, size), gain * rough
        out = np.asarray(Image.fromarray(out).resize((n, n), Image.Resampling.BICUBIC))
        if n < size or start > 4:  # 云纹不必细到像素，省下最贵的一层随机数
            out = out + gain * rng.standard_normal((n, n), np.float32)
    out = out - out.min()
    return out / out.max()
