"""第 12 章：笔记本里的生成器与 sam_lite 一致。"""

import numpy as np
import pytest
import torch

import sam_lite
from chapters.common import course
from sam_lite.auto_mask import SamAutomaticMaskGenerator
from sam_lite.masks.crops import build_point_grid
from sam_lite.masks.measure import batched_mask_to_box, calculate_stability_score
from sam_lite.masks.nms import nms
from sam_lite.masks.rle import mask_to_rle_pytorch
from sam_lite.model import Sam

STEM = "12_auto_mask"


PHOTO = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture
def steep_sam(small_sam: Sam) -> Sam:
    """logits 放大几百倍的小模型：原来的不到 1，稳定性分数全是 0。"""
    with torch.no_grad():
        for mlp in small_sam.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 300
            mlp.layers[-1].bias *= 300
    return small_sam


def pool(small_sam: Sam) -> dict[str, torch.Tensor]:
    """6×6 个点的全部掩码，一张也不筛。"""
    asker = course.from_chapter(STEM, "FilteredAsker")
    return asker(small_sam, -np.inf, 0, points_per_side=6).keep(PHOTO)


def between(values: torch.Tensor) -> float:
    """正中间的两个数的平均：哪个数也不会正好落在阈值上。"""
    values = values.sort().values
    return values[len(values) // 2 - 1 : len(values) // 2 + 1].mean().item()


@pytest.mark.parametrize(("batch", "overlap"), [(64, 1.0), (5, 1.0), (64, 0.8)])
@pytest.mark.parametrize("filtered", [False, True])
def test_generator_agrees_with_package(
    steep_sam: Sam, batch: int, overlap: float, filtered: bool
) -> None:
    """每个参数都非零的小模型：筛与不筛，记录都逐条相同。"""
    everything = pool(steep_sam)
    least = between(everything["iou"]) if filtered else 0
    stable = 0.9 * between(everything["stability"]) if filtered else 0
    mine = course.from_chapter(STEM, "MyGenerator")(
        steep_sam,
        iou_thresh=least if filtered else -np.inf,
        stability_thresh=stable,
        nms_thresh=overlap,
        points_per_side=6,
        points_per_batch=batch,
    ).generate(PHOTO)
    theirs = SamAutomaticMaskGenerator(
        steep_sam,
        points_per_side=6,
        pred_iou_thresh=least,
        stability_score_thresh=stable,
        box_nms_thresh=overlap,
    ).generate(PHOTO)
    assert len(mine) == len(theirs) > (0 if overlap < 1 else 20)
    for a, b in zip(mine, theirs, strict=True):
        assert set(a) == set(b)
        np.testing.assert_array_equal(a["segmentation"], b["segmentation"])
        for key in ("area", "bbox", "point_coords", "crop_box"):
            assert a[key] == b[key]
        for key in ("predicted_iou", "stability_score"):
            assert a[key] == pytest.approx(b[key], abs=1e-4)


def test_records_on_a_photo_agree_with_package() -> None:
    """随包的权重、真照片：框不从 (0, 0) 开始，宽高不会和右下角混淆。"""
    sam = sam_lite.load("tiny")
    pool = course.from_chapter(STEM, "FilteredAsker")
    everything = pool(sam, -np.inf, 0, points_per_side=5).keep(course.photo("coins"))
    limits = between(everything["iou"]), between(everything["stability"])
    mine = course.from_chapter(STEM, "MyGenerator")(
        sam, iou_thresh=limits[0], stability_thresh=limits[1], points_per_side=5
    ).generate(course.photo("coins"))
    theirs = SamAutomaticMaskGenerator(sam, 5, 64, *limits)
    theirs = theirs.generate(course.photo("coins"))
    assert len(mine) == len(theirs) > 5
    assert any(record["bbox"][0] > 0 for record in mine)
    for a, b in zip(mine, theirs, strict=True):
        assert a["bbox"] == b["bbox"] and a["point_coords"] == b["point_coords"]
        assert (a["segmentation"] != b["segmentation"]).mean() < 1e-4


def test_nothing_left_is_an_empty_list(steep_sam: Sam) -> None:
    generator = course.from_chapter(STEM, "MyGenerator")
    assert generator(steep_sam, iou_thresh=99, points_per_side=3).generate(PHOTO) == []


def test_thresholds_do_filter(steep_sam: Sam) -> None:
    """两道筛子各自管用：留下的都过线，过线的都留下。"""
    everything = pool(steep_sam)
    least, stable = between(everything["iou"]), between(everything["stability"])
    asker = course.from_chapter(STEM, "FilteredAsker")
    kept = asker(steep_sam, least, stable, points_per_side=6).keep(PHOTO)
    good = (everything["iou"] > least) & (everything["stability"] >= stable)
    assert 0 < good.sum() < len(good) == 108
    for name, column in kept.items():
        torch.testing.assert_close(column, everything[name][good])


def test_grid_agrees_with_package() -> None:
    grid = course.from_chapter(STEM, "point_grid")
    for n in (1, 3, 8):
        np.testing.assert_array_equal(grid(n), build_point_grid(n))


def test_stability_agrees_with_package() -> None:
    score = course.from_chapter(STEM, "stability_score")
    logits = 3 * torch.randn(2, 5, 7, 9)
    logits[0, 0] = -9  # 空的
    for threshold, offset in ((0.0, 1.0), (0.5, 2.0)):
        expected = calculate_stability_score(logits, threshold, offset)
        torch.testing.assert_close(score(logits, threshold, offset), expected)


def test_both_nms_agree_with_package() -> None:
    fast = course.from_chapter(STEM, "my_nms")
    slow = course.from_chapter(STEM, "nms_by_loop")
    for n in (0, 1, 40):
        corners = torch.randint(0, 20, (n, 2))
        boxes = torch.cat([corners, corners + torch.randint(1, 20, (n, 2))], dim=1)
        scores = torch.randint(0, 4, (n,)) / 4
        for threshold in (0.0, 0.3, 0.7, 1.0):
            expected = nms(boxes, scores, threshold).tolist()
            assert fast(boxes, scores, threshold).tolist() == expected
            assert slow(boxes.tolist(), scores.tolist(), threshold) == expected


def test_boxes_and_rle_agree_with_package() -> None:
    box = course.from_chapter(STEM, "mask_to_box")
    encode = course.from_chapter(STEM, "to_rle")
    decode = course.from_chapter(STEM, "from_rle")
    masks = (
        torch.rand(6, 5, 8) < torch.tensor([0, 0.1, 0.3, 0.6, 0.9, 1])[:, None, None]
    )
    for mask, expected in zip(masks, mask_to_rle_pytorch(masks), strict=True):
        assert encode(mask.numpy()) == expected
        np.testing.assert_array_equal(decode(expected), mask.numpy())
    assert [box(mask) for mask in masks] == batched_mask_to_box(masks).tolist()
