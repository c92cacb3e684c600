"""`Sam.forward` 与 `SamPredictor`：和官方端到端对照（小配置）。"""

import numpy as np
import pytest
import torch

from parity.official import (
    assert_near,
    assert_same_masks,
    ours,
    sam_pair,
    theirs,
)
from sam_lite.attention import set_fused


def record(size, original, **prompts) -> dict:
    return {"image": torch.rand(3, *size) * 255, "original_size": original, **prompts}


def points(batch: int, labels: list[int], dtype=torch.int64) -> dict:
    return {
        "point_coords": torch.rand(batch, len(labels), 2) * 40,
        "point_labels": torch.tensor(labels, dtype=dtype).repeat(batch, 1),
    }


def boxes(count: int) -> dict:
    corner = torch.rand(count, 2) * 20
    return {"boxes": torch.cat([corner, corner + 5 + torch.rand(count, 2) * 15], 1)}


def masks(batch: int) -> dict:
    return {"mask_inputs": torch.randn(batch, 1, 32, 32) * 4}


def batch() -> list[dict]:
    """八张图，尺寸和提示各不相同。"""
    return [
        record((48, 64), (96, 128), **points(1, [1])),
        record((64, 40), (200, 125), **points(3, [1, 0, -1, 1], torch.int32)),
        record((64, 64), (50, 50), **boxes(1)),
        record((37, 64), (37, 64), **boxes(4)),
        record((64, 21), (63, 21), **points(2, [0, 1]), **boxes(2)),
        record((64, 64), (90, 90), **masks(2)),
        record((30, 50), (77, 111), **points(2, [1]), **boxes(2), **masks(2)),
        record((64, 60), (128, 120)),
    ]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("changes", [{}, {"patch_size": 16, "window_size": 2}])
@pytest.mark.parametrize("multimask", [False, True])
def test_sam_forward(multimask: bool, changes: dict, fused: bool) -> None:
    """一批混合尺寸与提示：掩码相同，IoU 与低分辨率 logit 在误差之内。"""
    our, their = sam_pair(**changes)
    set_fused(our, fused)
    records = batch()
    if changes:
        for item in records:
            item.pop("mask_inputs", None)
    with torch.no_grad():
        results, expected = our(records, multimask), their(records, multimask)
    assert isinstance(results, list) and len(results) == len(records)
    for item, result, reference in zip(records, results, expected, strict=True):
        assert list(result) == list(reference)
        for key in ("iou_predictions", "low_res_logits"):
            assert_near(result[key], reference[key])
        logits = their.postprocess_masks(
            reference["low_res_logits"], item["image"].shape[-2:], item["original_size"]
        )
        assert_same_masks(result["masks"], reference["masks"], logits)


def test_sam_forward_leaves_input_alone() -> None:
    """传入的字典和张量不被改动。"""
    our, _ = sam_pair()
    records = batch()
    copies = [
        {k: v.clone() if torch.is_tensor(v) else v for k, v in item.items()}
        for item in records
    ]
    our(records, True)
    for item, copy in zip(records, copies, strict=True):
        assert list(item) == list(copy)
        for key, value in item.items():
            same = torch.equal(value, copy[key]) if torch.is_tensor(value) else None
            assert same or value == copy[key], key


def test_attributes() -> None:
    """`mask_threshold`、`image_format`、`device`、均值与方差都与官方相同。"""
    our, their = sam_pair()
    for name in ("mask_threshold", "image_format", "device"):
        assert getattr(our, name) == getattr(their, name), name
    assert type(our).mask_threshold == 0.0 and type(our).image_format == "RGB"
    for name in ("pixel_mean", "pixel_std"):
        assert_near(getattr(our, name), getattr(their, name), 0)
        assert name not in our.state_dict()
    assert our.image_encoder.img_size == their.image_encoder.img_size
    assert our.mask_decoder.mask_tokens.weight.shape == (4, 32)
    for args in ((), ([0, 0, 0], [255, 255, 255]), ([1.0], [2.0])):
        our_bare, bare = (
            ours.Sam(None, None, None, *args),
            theirs.Sam(*[None] * 3, *args),
        )
        assert our_bare.pixel_mean.dtype == bare.pixel_mean.dtype
        assert torch.equal(our_bare.pixel_mean, bare.pixel_mean)
        assert_near(our_bare.pixel_std, bare.pixel_std, 0)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 6, 3)).repeat(40, 0).repeat(40, 1)
    return coarse[:height, :width].astype(np.uint8)


def predictors(height: int = 50, width: int = 80, **kwargs) -> tuple:
    our, their = sam_pair()
    pair = ours.SamPredictor(our), theirs.SamPredictor(their)
    for predictor in pair:
        predictor.set_image(picture(height, width), **kwargs)
    return pair


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("size", [(50, 80), (130, 75), (64, 64), (240, 31)])
def test_set_image(size: tuple[int, int], image_format: str) -> None:
    """设图后的特征、尺寸、状态与官方相同；RGB 与 BGR 结果不同。"""
    our, their = predictors(*size, image_format=image_format)
    expected = their.get_image_embedding()
    assert_near(our.get_image_embedding(), expected)
    assert_near(our.features, expected)
    assert our.is_image_set is True and our.device == their.device
    assert tuple(our.original_size) == tuple(their.original_size)
    assert tuple(our.input_size) == tuple(their.input_size)
    assert our.transform.target_length == their.transform.target_length == 64
    other = {"RGB": "BGR", "BGR": "RGB"}[image_format]
    our.set_image(picture(*size), other)
    assert (our.features - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    "shape, size", [((1, 3, 40, 64), (100, 160)), ((1, 3, 64, 33), (160, 83))]
)
def test_set_torch_image(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """直接给缩放好的张量（浮点或 uint8），特征与官方相同。"""
    for image in (
        torch.rand(shape) * 255,
        torch.randint(0, 256, shape, dtype=torch.uint8),
    ):
        our, their = predictors()
        for predictor in (our, their):
            predictor.set_torch_image(image, size)
        assert_near(our.get_image_embedding(), their.get_image_embedding())
        assert tuple(our.original_size) == size
        assert tuple(our.input_size) == tuple(their.input_size) == shape[-2:]


POINTS = np.array([[10.0, 20.5], [70.0, 33.0], [41.0, 2.0]])
LABELS = np.array([1, 0, 1])
BOX = np.array([5.0, 8.0, 60.0, 41.0])
LOW_RES = np.random.default_rng(1).normal(0, 4, (1, 32, 32)).astype(np.float32)
PROMPTS = {
    "一个点": {"point_coords": POINTS[:1], "point_labels": LABELS[:1]},
    "几个点": {"point_coords": POINTS, "point_labels": LABELS},
    "整数坐标": {"point_coords": POINTS.astype(int), "point_labels": LABELS},
    "背景点": {"point_coords": POINTS[:1], "point_labels": LABELS[1:2]},
    "框": {"box": BOX},
    "二维的框": {"box": BOX[None]},
    "点加框": {"point_coords": POINTS, "point_labels": LABELS, "box": BOX},
    "只有掩码": {"mask_input": LOW_RES},
    "点加掩码": {
        "point_coords": POINTS,
        "point_labels": LABELS,
        "mask_input": LOW_RES,
    },
    "点、框、掩码": {
        "point_coords": POINTS,
        "point_labels": LABELS,
        "box": BOX,
        "mask_input": LOW_RES,
    },
    "无提示": {},
}


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
def test_predict(kind: str, multimask: bool) -> None:
    """每种提示：掩码、分数、低分辨率 logit 以及未取阈值的掩码都与官方相同。"""
    our, their = predictors()
    prompts = PROMPTS[kind]
    before = {key: value.copy() for key, value in prompts.items()}
    kwargs = {**prompts, "multimask_output": multimask}
    logits = their.predict(**kwargs, return_logits=True)
    assert_near(our.predict(**kwargs, return_logits=True), logits)
    result, expected = our.predict(**kwargs), their.predict(**kwargs)
    assert_near(result[1:], expected[1:])
    assert_same_masks(result[0], expected[0], logits[0])
    assert result[0].shape == (3 if multimask else 1, 50, 80)
    for key, value in prompts.items():
        np.testing.assert_array_equal(value, before[key])


def test_predict_defaults_and_positions() -> None:
    """不写关键字、全用默认值也与官方相同（默认三张掩码）。"""
    our, their = predictors(130, 75)
    expected = their.predict(POINTS, LABELS, BOX, None, True, True)
    assert_near(our.predict(POINTS, LABELS, BOX, None, True, True), expected)
    result, reference = our.predict(POINTS, LABELS), their.predict(POINTS, LABELS)
    assert_near(result[1:], reference[1:])
    assert result[0].shape == reference[0].shape == (3, 130, 75)


def test_mask_feedback() -> None:
    """把最好的低分辨率 logit 送回去再分割一次，三轮都与官方相同。"""
    our, their = predictors()
    feedback = None
    for count in (1, 2, 3):
        prompts = (POINTS[:count], LABELS[:count], None, feedback)
        expected = their.predict(*prompts, return_logits=True)
        result = our.predict(*prompts, return_logits=True)
        assert_near(result, expected)
        best = int(expected[1].argmax())
        feedback = expected[2][best : best + 1]


TORCH_PROMPTS = {
    "一批点": lambda: {
        "point_coords": torch.rand(4, 3, 2) * 60,
        "point_labels": torch.tensor([[1, 0, -1]] * 4),
    },
    "一批框": lambda: {
        "point_coords": None,
        "point_labels": None,
        **boxes(5),
    },
    "一批点、框与掩码": lambda: {
        "point_coords": torch.rand(2, 1, 2) * 60,
        "point_labels": torch.ones(2, 1),
        **boxes(2),
        "mask_input": torch.randn(2, 1, 32, 32),
    },
    "一批点共用一张掩码": lambda: {
        "point_coords": torch.rand(3, 2, 2) * 60,
        "point_labels": torch.ones(3, 2),
        "mask_input": torch.randn(1, 1, 32, 32),
    },
    "一个点配三张掩码": lambda: {
        "point_coords": torch.rand(1, 2, 2) * 60,
        "point_labels": torch.ones(1, 2),
        "mask_input": torch.randn(3, 1, 32, 32),
    },
    "无提示": lambda: {"point_coords": None, "point_labels": None},
}


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", TORCH_PROMPTS)
def test_predict_torch(kind: str, multimask: bool) -> None:
    """张量接口：一批提示一次算完，三项输出都与官方相同。"""
    our, their = predictors()
    kwargs = {**TORCH_PROMPTS[kind](), "multimask_output": multimask}
    logits = their.predict_torch(**kwargs, return_logits=True)
    assert_near(our.predict_torch(**kwargs, return_logits=True), logits)
    result, expected = our.predict_torch(**kwargs), their.predict_torch(**kwargs)
    assert_near(result[1:], expected[1:])
    assert_same_masks(result[0], expected[0], logits[0])
    assert not any(item.requires_grad for item in result)
