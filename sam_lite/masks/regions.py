"""掩码里的连通区域：去掉小孔、小岛。"""

import numpy as np

from ..errors import problem, require


def remove_small_regions(
    mask: np.ndarray, area_thresh: float, mode: str
) -> tuple[np.ndarray, bool]:
    """填掉小孔（``mode="holes"``），或去掉小岛（``mode="islands"``）。

    参数：
        mask: 布尔 ``(H, W)``。
        area_thresh: 面积小于它的才动，像素；八个方向相邻算连着。
        mode: ``"holes"`` 或 ``"islands"``；岛全都太小时，留下最大的一个。

    返回：新的掩码，和有没有改动。对应官方 ``utils/amg.py`` 的同名函数。

    错误：mode 不认得，或没装 scikit-image 时抛 SamLiteError。
    """
    if mode not in ("holes", "islands"):
        raise problem("mode", repr(mode), '"holes" 或 "islands"')
    measure = require("skimage.measure", "找连通区域")
    holes = mode == "holes"
    regions = measure.label(mask ^ holes, connectivity=2)  # 背景 0，区域从 1 起
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0  # 背景不算区域
    small = sizes < area_thresh
    small[0] = False
    if not small.any():
        return mask, False
    if holes:
        return mask | small[regions], True
    kept = ~small
    kept[0] = False
    if not kept.any():
        kept[np.argmax(sizes)] = True
    return kept[regions], True
