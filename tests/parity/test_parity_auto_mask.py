"""SamAutomaticMaskGenerator 与官方逐条记录相同：张数、框、面积、RLE、分数。"""

import sys
from dataclasses import asdict
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import measure

import sam_lite
from parity.official import assemble, sam_pair, theirs
from sam_lite import scenes
from sam_lite.auto_mask import SamAutomaticMaskGenerator
from sam_lite.config import TINY

OFFICIAL = sys.modules["segment_anything"].SamAutomaticMaskGenerator
# 阈值全关：每个点的三张掩码都留下，只去重复
OPEN = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 5}


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """几块颜色拼成的图，随机权重在上面也有大小不同的掩码。"""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    big = noise.repeat(-(-height // 4), axis=0).repeat(-(-width // 5), axis=1)
    return np.ascontiguousarray(big[:height, :width])


def connected_components(mask: np.ndarray, connectivity: int) -> tuple:
    """代替 OpenCV 的 connectedComponentsWithStats，官方的去小岛要它。"""
    assert connectivity == 8
    regions, n = measure.label(mask, connectivity=2, return_num=True)
    sizes = np.bincount(regions.ravel(), minlength=n + 1)
    return n + 1, regions, sizes[:, None], None


@pytest.fixture(autouse=True)
def _opencv(monkeypatch) -> None:
    stub = ModuleType("cv2")
    stub.connectedComponentsWithStats = connected_components
    monkeypatch.setitem(sys.modules, "cv2", stub)


def assert_same_records(actual: list, expected: list, least: int = 1) -> None:
    """逐条相同；浮点舍入最多让一张掩码边上的几个像素翻面。"""
    assert len(actual) == len(expected) >= least
    flipped = 0
    for mine, right in zip(actual, expected, strict=True):
        assert mine.keys() == right.keys()
        assert mine["predicted_iou"] == pytest.approx(right["predicted_iou"], abs=1e-4)
        pixels = 2 / max(right["area"], 1)  # 稳定性是像素数之比，容许两个像素翻面
        stability = pytest.approx(right["stability_score"], abs=1e-4 + pixels)
        assert mine["stability_score"] == stability
        assert mine["crop_box"] == right["crop_box"]
        np.testing.assert_allclose(mine["point_coords"], right["point_coords"])
        a, b = mine["segmentation"], right["segmentation"]
        assert a.dtype == b.dtype == bool and a.shape == b.shape
        assert mine["area"] == a.sum()
        flipped += (a != b).sum()
        if (a == b).all():
            assert mine["area"] == right["area"] and mine["bbox"] == right["bbox"]
    assert flipped <= 1e-5 * len(expected) * expected[0]["segmentation"].size


@pytest.fixture(scope="module")
def shipped() -> tuple:
    """自带的权重，装在我们的和官方的类里。"""
    mine = sam_lite.load("tiny")
    changes = {name: value for name, value in asdict(TINY).items() if name != "name"}
    official = assemble(theirs, **changes)
    official.load_state_dict(mine.state_dict(), strict=True)
    return mine, official


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """一个程序画的场景，放大到 (480, 600)：裁成四块，每块也比 20 像素的边宽得多。"""
    small = Image.fromarray(scenes.make_scene(3).image)
    return np.array(small.resize((600, 480), Image.Resampling.BICUBIC))


LOW = {"points_per_side": 6, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.2}
CROPS = {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2}
CASES = {
    "plain": {},
    "stricter scores": {"pred_iou_thresh": 0.35, "stability_score_thresh": 0.4},
    "score only": {"stability_score_thresh": 0.0, "pred_iou_thresh": 0.3},
    "stability only": {"pred_iou_thresh": 0.0, "stability_score_offset": 0.5},
    "negative thresholds": {"pred_iou_thresh": -1.0, "stability_score_thresh": -1.0},
    "no nms": {"box_nms_thresh": 1.0},
    "hard nms": {"box_nms_thresh": 0.3},
    "odd batches": {"points_per_batch": 7},
    "one crop layer": CROPS,
    "crops, other nms": CROPS | {"crop_nms_thresh": 0.3, "box_nms_thresh": 0.9},
    "two crop layers": {
        "crop_n_layers": 2,
        "crop_n_points_downscale_factor": 2,
        "crop_overlap_ratio": 0.2,
    },
    "own grid": {
        "points_per_side": None,
        "point_grids": [np.random.default_rng(0).random((30, 2))],
    },
    "small regions": {"min_mask_region_area": 300},
    "small regions in crops": CROPS
    | {"min_mask_region_area": 200, "crop_nms_thresh": 0.9, "box_nms_thresh": 0.4},
}


@pytest.mark.parametrize("case", CASES)
def test_shipped_weights_in_the_official_classes(case, shipped, scene):
    options = LOW | CASES[case]
    ours, official = (
        kind(sam, **options).generate(scene)
        for kind, sam in zip((SamAutomaticMaskGenerator, OFFICIAL), shipped)
    )
    assert_same_records(ours, official, least=8)
    cropped = [r for r in ours if r["crop_box"] != [0, 0, 600, 480]]
    assert bool(cropped) == ("crop_n_layers" in options)


def test_another_mask_threshold(shipped, scene, monkeypatch):
    for sam in shipped:
        monkeypatch.setattr(sam, "mask_threshold", 0.5, raising=False)
    ours, official = (
        kind(sam, **LOW).generate(scene)
        for kind, sam in zip((SamAutomaticMaskGenerator, OFFICIAL), shipped)
    )
    assert_same_records(ours, official, least=8)


@pytest.mark.parametrize("size", [(60, 84), (150, 90)], ids=str)
@pytest.mark.parametrize("nms", [0.7, 1.0])
def test_random_weights(nms, size):
    ours_sam, their_sam = sam_pair(seed=3)
    options = OPEN | {"box_nms_thresh": nms}
    image = picture(*size)
    mine = SamAutomaticMaskGenerator(ours_sam, **options).generate(image)
    assert_same_records(mine, OFFICIAL(their_sam, **options).generate(image))


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle"])
def test_output_modes(mode):
    ours_sam, their_sam = sam_pair(seed=1)
    options = OPEN | {"output_mode": mode}
    image = picture(60, 84)
    mine = SamAutomaticMaskGenerator(ours_sam, **options).generate(image)
    right = OFFICIAL(their_sam, **options).generate(image)
    assert len(mine) == len(right)
    for a, b in zip(mine, right, strict=True):
        if mode == "uncompressed_rle":
            assert a["segmentation"] == b["segmentation"]
        else:
            np.testing.assert_array_equal(a["segmentation"], b["segmentation"])


def test_signature():
    """参数的名字、次序和默认值同官方；多出来的都只能写名字。"""
    import inspect

    right = inspect.signature(OFFICIAL).parameters
    mine = inspect.signature(SamAutomaticMaskGenerator).parameters
    shared = [p for p in mine.values() if p.kind is not p.KEYWORD_ONLY]
    assert [(p.name, p.default) for p in shared] == [
        (p.name, p.default) for p in right.values()
    ]
    assert {p.name for p in mine.values()} > set(right)


@pytest.mark.parametrize("name", ["generate", "postprocess_small_regions"])
def test_official_methods_are_there(name):
    assert callable(getattr(SamAutomaticMaskGenerator, name))


def test_official_fails_where_we_do_not():
    """类的文档里列的几处，官方真的会出错；修好了就该从那里删掉。"""
    ours_sam, their_sam = sam_pair(seed=0)
    image = picture(60, 84)
    nothing = OPEN | {"pred_iou_thresh": 99.0, "crop_n_layers": 1}
    with pytest.raises((IndexError, KeyError, RuntimeError)):
        OFFICIAL(their_sam, **nothing).generate(image)
    assert SamAutomaticMaskGenerator(ours_sam, **nothing).generate(image) == []
    grids = OPEN | {
        "points_per_side": None,
        "point_grids": [np.full((1, 2), 0.5)],
        "crop_n_layers": 1,
    }
    with pytest.raises(IndexError):
        OFFICIAL(their_sam, **grids).generate(image)
    with pytest.raises(sam_lite.SamLiteError, match="point_grids"):
        SamAutomaticMaskGenerator(ours_sam, **grids)
    stability = sys.modules["segment_anything.utils.amg"].calculate_stability_score
    assert stability(torch.full((1, 2, 2), -9.0), 0.0, 1.0).isnan().all()
