"""SamAutomaticMaskGenerator 的参数：不合理的当场点名。"""

import sys

import numpy as np
import pytest

from sam_lite import SamAutomaticMaskGenerator, SamLiteError

BAD = [
    ({"points_per_side": None}, "points_per_side 和 point_grids.*两个都没有给"),
    ({"point_grids": [np.zeros((1, 2))]}, "两个都给了"),
    ({"points_per_side": 0}, "points_per_side.*正整数"),
    ({"points_per_side": 3.5}, "points_per_side.*正整数"),
    ({"points_per_batch": 0}, "points_per_batch"),
    ({"points_per_batch": "many"}, "points_per_batch"),
    ({"pred_iou_thresh": "0.8"}, "pred_iou_thresh"),
    ({"stability_score_thresh": float("nan")}, "stability_score_thresh"),
    ({"stability_score_offset": None}, "stability_score_offset"),
    ({"box_nms_thresh": float("inf")}, "box_nms_thresh"),
    ({"crop_nms_thresh": True}, "crop_nms_thresh"),
    ({"crop_overlap_ratio": 1.0}, "crop_overlap_ratio"),
    ({"crop_n_layers": -1}, "crop_n_layers"),
    ({"crop_n_points_downscale_factor": 0}, "crop_n_points_downscale_factor"),
    ({"crop_n_layers": 2, "crop_n_points_downscale_factor": 2}, "一个点也不剩"),
    ({"min_mask_region_area": 1.5}, "min_mask_region_area"),
    ({"min_mask_area": -3}, "min_mask_area"),
    ({"memory_limit_mb": 0}, "memory_limit_mb"),
    ({"output_mode": "png"}, 'output_mode.*"coco_rle"'),
    (
        {
            "points_per_side": None,
            "point_grids": [np.zeros((1, 2))],
            "crop_n_layers": 1,
        },
        "point_grids.*收到 1 层.*2 层",
    ),
    ({"points_per_side": None, "point_grids": np.zeros((1, 2))}, "point_grids"),
    ({"points_per_side": None, "point_grids": [np.zeros(2)]}, r"point_grids\[0\]"),
    ({"points_per_side": None, "point_grids": [np.full((3, 2), 40.0)]}, "0–1 以外"),
    ({"points_per_side": None, "point_grids": [np.full((3, 2), np.nan)]}, "0–1 以外"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=lambda x: str(x)[:40])
def test_bad_options_are_named_at_once(small_sam, options, words):
    with pytest.raises(SamLiteError, match=words):
        SamAutomaticMaskGenerator(small_sam, **{"points_per_side": 3} | options)


def test_without_scikit_image_small_regions_say_how_to_install(small_sam, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(SamLiteError, match="skimage.*pip install"):
        SamAutomaticMaskGenerator(small_sam, min_mask_region_area=3)
