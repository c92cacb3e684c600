"""自动掩码：四道筛子、结果的形式、多出来的功能。与官方逐条相同见 parity/。"""

import warnings

import numpy as np
import pytest
import torch

from sam_lite import SamLiteError, SamLiteWarning
from sam_lite.auto_mask import SamAutomaticMaskGenerator
from sam_lite.decoding.batches import largest_batch
from sam_lite.decoding.fast import ImageDecoder
from sam_lite.masks.label_map import masks_to_label_map
from sam_lite.masks.rle import coco_decode_rle, rle_to_mask

# 什么也不筛，也不去重复
OPEN = {
    "points_per_side": 3,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
}
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def generate(sam, image=IMAGE, **options) -> list[dict]:
    return SamAutomaticMaskGenerator(sam, **OPEN | options).generate(image)


# ---- 结果的形式 ------------------------------------------------------------------


def test_records(small_sam):
    records = generate(small_sam)
    assert records
    for record in records:
        mask = record["segmentation"]
        assert mask.shape == IMAGE.shape[:2] and mask.dtype == bool
        assert record["area"] == mask.sum()
        x, y, width, height = record["bbox"]
        if mask.any():
            rows, columns = np.nonzero(mask)
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns), np.ptp(rows))
        assert record["crop_box"] == [0, 0, 56, 40]
        ((px, py),) = record["point_coords"]
        assert 0 < px < 56 and 0 < py < 40
        assert all(np.isfinite(record[k]) for k in ("predicted_iou", "stability_score"))
    scores = [record["predicted_iou"] for record in records]
    assert scores == sorted(scores, reverse=True)


def test_three_output_modes_are_the_same_masks(small_sam):
    binary = [r["segmentation"] for r in generate(small_sam)]
    plain = [
        r["segmentation"] for r in generate(small_sam, output_mode="uncompressed_rle")
    ]
    coco = [r["segmentation"] for r in generate(small_sam, output_mode="coco_rle")]
    for mask, counts, text in zip(binary, plain, coco, strict=True):
        np.testing.assert_array_equal(rle_to_mask(counts), mask)
        assert isinstance(text["counts"], str)
        assert coco_decode_rle(text) == counts


def by_point(records) -> list[list[float]]:
    """每个点的三个预测的 IoU。"""
    scores = {}
    for record in records:
        point = tuple(record["point_coords"][0])
        scores.setdefault(point, []).append(record["predicted_iou"])
    return list(scores.values())


def test_exactly_at_the_thresholds(small_sam):
    """预测的 IoU 要大于阈值，稳定性分数等于阈值就够；官方也是这样一严一宽。"""
    narrow = {"stability_score_offset": 0.05}  # 随机权重的坡太缓，挪 1 全是 0
    records = generate(small_sam, **narrow)
    scores = [r["predicted_iou"] for r in records]
    middle = sorted(by_point(records)[0])[1]  # 同一个点还有更高的，不会整个不解码
    assert 0 < middle < max(scores)
    kept = generate(small_sam, pred_iou_thresh=middle)
    assert len(kept) == sum(score > middle for score in scores) < len(records)
    scores = sorted(r["stability_score"] for r in records)
    middle = scores[len(scores) // 2]
    kept = generate(small_sam, stability_score_thresh=middle, **narrow)
    assert len(kept) == sum(score >= middle for score in scores) < len(records)


def test_a_threshold_of_zero_lets_negative_scores_through(small_sam):
    with torch.no_grad():
        small_sam.mask_decoder.iou_prediction_head.layers[-1].bias.sub_(100)
    records = generate(small_sam)
    assert len(records) == 27 and all(r["predicted_iou"] < 0 for r in records)


def test_poor_candidates_are_dropped_before_upscaling(small_sam, monkeypatch):
    """三张都不够格的点不做上采样，不够格的掩码不放大到原图。"""
    all_scores = [r["predicted_iou"] for r in generate(small_sam)]
    best = sorted(max(three) for three in by_point(generate(small_sam)))
    least = best[5]  # 要大于它：九个点里，三个有够格的
    upscaled, resized = [], []
    real_masks, real_resize = ImageDecoder.masks, small_sam.postprocess_masks

    def masks(self, tokens, *rest):
        upscaled.append(len(tokens))
        return real_masks(self, tokens, *rest)

    def resize(low_res, *rest):
        resized.append(len(low_res))
        return real_resize(low_res, *rest)

    monkeypatch.setattr(ImageDecoder, "masks", masks)
    monkeypatch.setattr(small_sam, "postprocess_masks", resize)
    kept = generate(small_sam, pred_iou_thresh=least)
    assert sum(upscaled) == 3
    assert sum(resized) == len(kept) == sum(score > least for score in all_scores)


@pytest.mark.parametrize("layers", [0, 1])
def test_no_masks_give_an_empty_list(small_sam, layers):
    nothing = {"pred_iou_thresh": 99.0, "crop_n_layers": layers}
    assert generate(small_sam, **nothing) == []
    assert generate(small_sam, **nothing, min_mask_region_area=5, min_mask_area=5) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 200), (64, 64)])
def test_any_picture_size(small_sam, size):
    image = np.full((*size, 3), 120, np.uint8)
    for record in generate(small_sam, image, crop_n_layers=2):
        assert record["segmentation"].shape == size


def test_the_predictor_is_left_clean(small_sam):
    generator = SamAutomaticMaskGenerator(small_sam, **OPEN)
    first = generator.generate(IMAGE)
    assert (
        not generator.predictor.is_image_set
        and generator.predictor.decoder.fast is None
    )
    again = generator.generate(IMAGE)
    assert [r["area"] for r in first] == [r["area"] for r in again]


# ---- 多出来的 --------------------------------------------------------------------


def test_min_mask_area_drops_whole_masks(small_sam):
    areas = [record["area"] for record in generate(small_sam)]
    least = sorted(areas)[len(areas) // 2]  # 正好这么大的要留
    kept = [record["area"] for record in generate(small_sam, min_mask_area=least)]
    assert kept == [area for area in areas if area >= least]
    assert 0 < len(kept) < len(areas)


def test_a_logit_at_the_mask_threshold_is_outside(small_sam, monkeypatch):
    """掩码是大于阈值的地方；全空的掩码，min_mask_area=1 就不要。"""
    monkeypatch.setattr(
        small_sam,
        "postprocess_masks",
        lambda low_res, _, size: torch.zeros(len(low_res), 1, *size),
    )
    assert {record["area"] for record in generate(small_sam)} == {0}
    assert generate(small_sam, min_mask_area=1) == []


@pytest.mark.parametrize("batch", [1, 5, "auto"])
def test_batches_do_not_change_the_result(small_sam, batch):
    right = generate(small_sam)
    for mine, record in zip(
        generate(small_sam, points_per_batch=batch), right, strict=True
    ):
        assert mine["bbox"] == record["bbox"]
        np.testing.assert_array_equal(mine["segmentation"], record["segmentation"])


def test_a_batch_that_is_lowered_is_said(small_sam):
    """比默认的 64 还大、缓存又放不下的，说一声；默认的减小了不说。"""
    fit = largest_batch(small_sam)
    with pytest.warns(SamLiteWarning, match=f"{fit + 1} 用不上.*最多 {fit} 个") as said:
        SamAutomaticMaskGenerator(small_sam, points_per_batch=fit + 1)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SamAutomaticMaskGenerator(small_sam, points_per_batch=fit)
        SamAutomaticMaskGenerator(small_sam, points_per_batch="auto")
        small_sam.prompt_encoder.image_embedding_size = (640, 640)
        assert largest_batch(small_sam) == 1
        SamAutomaticMaskGenerator(small_sam)


def test_the_asked_batch_is_the_one_used(small_sam, monkeypatch):
    lengths = []
    real = SamAutomaticMaskGenerator._process_batch

    def spy(self, points, *rest):
        lengths.append(len(points))
        return real(self, points, *rest)

    monkeypatch.setattr(SamAutomaticMaskGenerator, "_process_batch", spy)
    generate(small_sam, points_per_batch=4)
    assert lengths == [4, 4, 1]


def test_the_deepest_layer_may_have_a_single_point(small_sam):
    options = {"crop_n_layers": 1, "crop_n_points_downscale_factor": 3}
    generator = SamAutomaticMaskGenerator(small_sam, **OPEN | options)
    assert [len(grid) for grid in generator.point_grids] == [9, 1]


def test_progress_counts_every_point(small_sam, monkeypatch):
    import tqdm

    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    generator = SamAutomaticMaskGenerator(small_sam, **OPEN, crop_n_layers=1)
    generator.generate(IMAGE, progress=True)
    assert [(bar.n, bar.total) for bar in bars] == [(45, 45)]  # 9 个点 × (1 + 4) 块


def test_label_map_takes_every_output_mode(small_sam):
    maps = [
        masks_to_label_map(generate(small_sam, output_mode=mode))
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    ]
    assert maps[0].any()
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


# ---- 报错 ---------------------------------------------------------------------


@pytest.mark.parametrize("image", [IMAGE[..., 0], IMAGE / 255, "a.jpg", IMAGE[:0]])
def test_bad_pictures(small_sam, image):
    with pytest.raises(SamLiteError, match="image"):
        generate(small_sam, image)
