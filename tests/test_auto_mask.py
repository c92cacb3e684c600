"""自动掩码：参数的报错、结果的形式、多出来的功能。与官方逐条相同见 parity/。"""

import sys
import warnings

import numpy as np
import pytest
import torch

from sam_lite import SamLiteError, SamLiteWarning
from sam_lite.auto_mask import SamAutomaticMaskGenerator
from sam_lite.decoding.batches import largest_batch, prompts_at_once
from sam_lite.decoding.fast import ImageDecoder
from sam_lite.masks.crops import (
    build_point_grid,
    generate_crop_boxes,
    is_box_near_crop_edge,
)
from sam_lite.masks.label_map import masks_to_label_map
from sam_lite.masks.measure import batched_mask_to_box, calculate_stability_score
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


# ---- 几何 ---------------------------------------------------------------------


def test_grid_points_are_the_centres_of_their_cells():
    grid = build_point_grid(4)
    assert grid.shape == (16, 2)
    np.testing.assert_allclose(grid[0], [0.125, 0.125])
    np.testing.assert_allclose(grid[1], [0.375, 0.125])  # x 先走
    np.testing.assert_allclose(grid[-1], [0.875, 0.875])


@pytest.mark.parametrize("size", [(100, 160), (77, 33), (2, 90)])
def test_crops_cover_the_picture_and_overlap(size):
    boxes, layers = generate_crop_boxes(size, 2, 0.3)
    assert [layers.count(i) for i in range(3)] == [1, 4, 16]
    for layer in (1, 2):
        seen = np.zeros(size, int)
        for (x0, y0, x1, y1), at in zip(boxes, layers, strict=True):
            assert x0 >= 0 and x1 <= size[1] and y0 >= 0 and y1 <= size[0]
            if at == layer:
                seen[y0:y1, x0:x1] += 1
        assert (seen >= 1).all()
    assert generate_crop_boxes((100, 160), 1, 0.0)[0][1:3] == [
        [0, 0, 80, 50],
        [0, 50, 80, 100],
    ]


def test_boxes_of_masks():
    masks = torch.zeros(2, 3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2, 3] = True
    masks[1, 0, 1:4, 2:6] = True
    boxes = batched_mask_to_box(masks)
    assert boxes.shape == (2, 3, 4) and boxes.dtype == torch.int64
    assert boxes[0, 1].tolist() == [3, 2, 3, 2]
    assert boxes[1, 0].tolist() == [2, 1, 5, 3]
    assert boxes[0, 0].tolist() == [0, 0, 0, 0]  # 空的


def test_stability_score():
    logits = torch.tensor([[[-3.0, -0.5, 0.5, 3.0]], [[-9.0, -9.0, -9.0, -9.0]]])
    # 高阈值只剩 1 个像素，低阈值有 3 个；全空时是 0，不是 NaN
    scores = calculate_stability_score(logits, 0.0, 1.0)
    assert scores.tolist() == pytest.approx([1 / 3, 0.0])
    assert calculate_stability_score(torch.tensor([[5.0, -5.0]]), 0.0, 1.0) == 1
    edges = torch.tensor([[1.0, 2.0, 0.0, -1.0]])  # 正好在两个阈值上的，都不算
    assert calculate_stability_score(edges, 0.0, 1.0) == pytest.approx(1 / 3)


def test_boxes_cut_by_a_crop_are_found_but_not_at_the_picture_edge():
    crop, image = [100, 0, 200, 100], [0, 0, 300, 100]
    boxes = torch.tensor([[10, 30, 60, 70], [30, 0, 60, 100], [40, 40, 70, 70]])
    # 第一个贴着裁图的左边；第二个贴着的上、下也是原图的边；第三个在中间
    assert is_box_near_crop_edge(boxes, crop, image).tolist() == [True, False, False]


@pytest.mark.parametrize("near", [20, 21])
def test_twenty_pixels_still_count_as_near(near):
    """裁图的四边、原图的四边，都是正好 20 像素还算贴着。"""
    image = [0, 0, 400, 400]
    for side, sign in ((0, 1), (1, 1), (2, -1), (3, -1)):
        box = torch.tensor([[60, 60, 140, 140]])
        crop = [100, 100, 300, 300]
        box[0, side] = (0 if sign == 1 else 200) + sign * near  # 坐标在裁图里
        assert is_box_near_crop_edge(box, crop, image).item() == (near == 20)
        # 同一条边又离原图的边这么近：贴着原图的不算切断
        crop[side] = image[side] + sign * 5
        place = image[side] + sign * near
        box[0, side] = place - crop[side % 2]
        assert is_box_near_crop_edge(box, crop, image).item() == (near == 21)


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


def test_auto_batches_follow_the_memory_limit(small_sam):
    size = (3000, 4000)  # 一个点的三张掩码，光 logits 就有 144 MB
    assert prompts_at_once("auto", 1, small_sam, size) == 1
    few = prompts_at_once("auto", 600, small_sam, size)
    assert 1 <= few < prompts_at_once("auto", 10**6, small_sam, size)
    assert prompts_at_once("auto", 600, small_sam, (30, 40)) > few
    assert prompts_at_once(3, 1, small_sam, size) == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_estimate_and_the_cap(small_sam, monkeypatch, device):
    """估计照注释里的账；缓存的上限只在 CPU 上有。"""
    monkeypatch.setattr(type(small_sam), "device", torch.device(device))
    cap = 2**24 // (4 * 64 * 32)  # 8×8 格，每格 32 个数
    mask = 4 * (64**2 + 8 * 9) + 3 * 8 * 9  # 一张掩码：输入边长 64，原图 (8, 9)
    one = 3 * mask + 4 * 6 * 64 * 32
    assert prompts_at_once("auto", 1, small_sam, (8, 9)) == 10**6 // one == 10
    most = 900 * 10**6 // one
    assert most > cap
    limited = device == "cpu"
    assert prompts_at_once("auto", 900, small_sam, (8, 9)) == (cap if limited else most)
    assert prompts_at_once(10**5, 1, small_sam, (8, 9)) == (cap if limited else 10**5)


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


def test_label_map_keeps_small_masks_on_top():
    big, small, none = (np.zeros((4, 5), bool) for _ in range(3))
    big[:, :4] = True
    small[1, 1:3] = True
    labels = masks_to_label_map(
        [{"segmentation": small}, {"segmentation": big}, {"segmentation": none}]
    )
    assert labels.dtype == np.int32 and labels.shape == (4, 5)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 1).sum() == 2 and labels[1, 1] == 1 and labels[0, 0] == 2
    assert (labels[:, 4] == 0).all()


def test_label_map_takes_every_output_mode(small_sam):
    maps = [
        masks_to_label_map(generate(small_sam, output_mode=mode))
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    ]
    assert maps[0].any()
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_label_map_of_nothing():
    assert masks_to_label_map([], shape=(3, 4)).tolist() == [[0] * 4] * 3
    with pytest.raises(SamLiteError, match="shape"):
        masks_to_label_map([])


# ---- 报错 ---------------------------------------------------------------------

ONE_POINT = {"points_per_side": None, "point_grids": [np.zeros((1, 2))]}
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
        SamAutomaticMaskGenerator(small_sam, **OPEN | options)


@pytest.mark.parametrize("image", [IMAGE[..., 0], IMAGE / 255, "a.jpg", IMAGE[:0]])
def test_bad_pictures(small_sam, image):
    with pytest.raises(SamLiteError, match="image"):
        generate(small_sam, image)


def test_without_scikit_image_small_regions_say_how_to_install(small_sam, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(SamLiteError, match="skimage.*pip install"):
        SamAutomaticMaskGenerator(small_sam, min_mask_region_area=3)
