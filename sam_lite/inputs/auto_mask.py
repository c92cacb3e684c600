"""SamAutomaticMaskGenerator 的参数进门：不合理的当场说清楚。不要 PyTorch。"""

from typing import Any

import numpy as np

from ..errors import problem, require
from .checks import check_positive, describe, is_whole

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
NUMBERS = (
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_nms_thresh",
    "crop_overlap_ratio",
    "crop_n_points_downscale_factor",
)
WHOLE_NUMBERS = ("crop_n_layers", "min_mask_region_area", "min_mask_area")


def check_options(options: Any) -> None:
    """查各个参数；options 的属性名就是参数名。不合理的抛 SamLiteError。"""
    for name in NUMBERS:
        check_number(name, getattr(options, name))
    for name in WHOLE_NUMBERS:
        value = getattr(options, name)
        if not is_whole(value) or value < 0:
            raise problem(name, describe(value), "0 或正整数")
    ratio, factor = options.crop_overlap_ratio, options.crop_n_points_downscale_factor
    if not 0 <= ratio < 1:
        raise problem("crop_overlap_ratio", ratio, "0–1 之间")
    if factor <= 0:
        raise problem("crop_n_points_downscale_factor", factor, "正数")
    check_positive("memory_limit_mb", options.memory_limit_mb)
    if options.points_per_batch != "auto":
        check_positive("points_per_batch", options.points_per_batch)
    if options.output_mode not in OUTPUT_MODES:
        wanted = "、".join(f'"{mode}"' for mode in OUTPUT_MODES)
        raise problem("output_mode", describe(options.output_mode), wanted)
    if options.min_mask_region_area > 0:
        require("skimage.measure", "min_mask_region_area")


def check_grids(side: Any, grids: Any, layers: int, factor: float) -> None:
    """points_per_side 和 point_grids 正好给一个；layers 层裁图，每层都要有点。"""
    if (side is None) == (grids is None):
        got = "两个都没有给" if side is None else "两个都给了"
        mend = "用自己的点时写 points_per_side=None, point_grids=[…]。"
        raise problem("points_per_side 和 point_grids", got, "正好给一个", mend)
    if side is not None:
        check_positive("points_per_side", side)
        deepest = factor ** (layers - 1)
        if side < deepest:
            got = f"{side}，最深一层要除以 {deepest:g}，一个点也不剩"
            raise problem("points_per_side", got, f"至少 {deepest:g}")
        return
    if not isinstance(grids, (list, tuple)) or len(grids) < layers:
        got = (
            f"{len(grids)} 层" if isinstance(grids, (list, tuple)) else describe(grids)
        )
        wanted = f"{layers} 层的列表：整张图一层，crop_n_layers 又有 {layers - 1} 层"
        raise problem("point_grids", got, wanted)
    for i, grid in enumerate(grids):
        array = np.asarray(grid)
        fits = array.ndim == 2 and array.shape[1:] == (2,) and array.dtype.kind in "iuf"
        if not fits or not ((array >= 0) & (array <= 1)).all():
            got = describe(array) + ("" if not fits else "，有 0–1 以外的数")
            raise problem(f"point_grids[{i}]", got, "(N, 2) 的 (x, y)，都在 0–1 之间")


def check_number(name: str, value: Any) -> None:
    """一个有限的数；阈值照官方可以小于 0（等于不筛）或大于 1。"""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value):
        raise problem(name, describe(value), "一个有限的数")
