"""自动掩码的参数：查得对不对，一批放得下几个点，进度条。"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..decoding.fast import prompts_in_cache
from ..errors import SamLiteWarning, problem, require
from ..inputs.checks import check_positive, describe, is_whole
from ..model import Sam

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
OFFICIAL_BATCH = 64  # points_per_batch 的默认值，照官方


def check_options(options: dict[str, Any], model: Sam) -> None:
    """查 SamAutomaticMaskGenerator 的全部参数，不合理的抛 SamLiteError。"""
    scores = "pred_iou_thresh", "stability_score_thresh", "stability_score_offset"
    for name in (*scores, "box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio"):
        check_number(name, options[name])
    if not 0 <= options["crop_overlap_ratio"] < 1:
        raise problem("crop_overlap_ratio", options["crop_overlap_ratio"], "0–1 之间")
    for name in ("crop_n_layers", "min_mask_region_area", "min_mask_area"):
        if not is_whole(options[name]) or options[name] < 0:
            raise problem(name, describe(options[name]), "0 或正整数")
    check_positive("memory_limit_mb", options["memory_limit_mb"])
    factor = "crop_n_points_downscale_factor"
    check_number(factor, options[factor])
    if options[factor] <= 0:
        raise problem(factor, options[factor], "正数")
    if options["points_per_batch"] != "auto":
        check_positive("points_per_batch", options["points_per_batch"])
    if options["output_mode"] not in OUTPUT_MODES:
        wanted = "、".join(f'"{mode}"' for mode in OUTPUT_MODES)
        raise problem("output_mode", describe(options["output_mode"]), wanted)
    if options["min_mask_region_area"] > 0:
        require("skimage.measure", "min_mask_region_area")
    check_points(options)
    warn_if_lowered(options["points_per_batch"], model)


def warn_if_lowered(asked: int | str, model: Sam) -> None:
    """点了名要一大批、CPU 上却用不上时，发出 SamLiteWarning。

    默认的 64 在 CPU 上几乎总要减小，那不是谁的本意，不必说。
    """
    if asked == "auto" or int(asked) <= OFFICIAL_BATCH:
        return
    fit = largest_batch(model)
    if int(asked) > fit:
        text = (
            f"points_per_batch={asked} 用不上：CPU 上一批最多 {fit} 个点，"
            "再多也不更快。结果不变。"
        )
        warnings.warn(text, SamLiteWarning, stacklevel=4)  # 指到造生成器的那一行


def check_points(options: dict[str, Any]) -> None:
    """points_per_side 和 point_grids 正好给一个；每层裁图都要有点。"""
    side, grids = options["points_per_side"], options["point_grids"]
    layers = int(options["crop_n_layers"]) + 1
    if (side is None) == (grids is None):
        got = "两个都没有给" if side is None else "两个都给了"
        mend = "用自己的点时写 points_per_side=None, point_grids=[…]。"
        raise problem("points_per_side 和 point_grids", got, "正好给一个", mend)
    if side is not None:
        check_positive("points_per_side", side)
        deepest = options["crop_n_points_downscale_factor"] ** (layers - 1)
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


def prompts_at_once(
    asked: int | str, limit_mb: int, model: Sam, size: tuple[int, int]
) -> int:
    """一批解码几个点。

    给了数就照它，只是不超过 largest_batch。``"auto"`` 按内存的上限算，至少 1 个。
    """
    h, w = model.prompt_encoder.image_embedding_size
    width = model.mask_decoder.transformer_dim
    fit = largest_batch(model)
    if asked == "auto":
        side = model.image_encoder.img_size
        # 每个点三张掩码：放大到输入边长、再到原图，各一份浮点；加上几份布尔的
        mask = 4 * (side**2 + size[0] * size[1]) + 3 * size[0] * size[1]
        decode = 4 * 6 * h * w * width  # 解码器里同时活着的几张表
        return min(fit, max(1, limit_mb * 10**6 // (3 * mask + decode)))
    return min(fit, int(asked))


def largest_batch(model: Sam) -> int:
    """一批最多几个点：CPU 上是缓存放得下的，别的设备不限。

    再多并不更快，内存却成倍地涨。
    """
    if model.device.type != "cpu":
        return 2**31
    h, w = model.prompt_encoder.image_embedding_size
    return prompts_in_cache(h * w, model.mask_decoder.transformer_dim)


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Any]:
    """进度条，单位是点；shown 为假时什么也不显示。"""
    if not shown:
        yield SimpleNamespace(update=lambda n: None)
        return
    with require("tqdm", "显示进度").tqdm(total=total, desc="撒点", unit="点") as bar:
        yield bar
