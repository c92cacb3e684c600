"""第 11 章：一张图编码一次，提示随便换。"""

import numpy as np
import pytest
import torch

from sam_lite.errors import SamLiteError
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor

POINTS, LABELS = np.array([[10.0, 20.0], [70.0, 33.0]]), np.array([1, 0])


def picture(height: int = 50, width: int = 80) -> np.ndarray:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return coarse.repeat(40, 0).repeat(40, 1)[:height, :width]


@pytest.fixture
def predictor(small_sam: Sam) -> SamPredictor:
    predictor = SamPredictor(small_sam)
    predictor.set_image(picture())
    return predictor


@pytest.mark.parametrize("multimask, count", [(True, 3), (False, 1)])
def test_outputs(predictor: SamPredictor, multimask: bool, count: int) -> None:
    """返回 numpy：原图大小的布尔掩码、分数、低分辨率 logit。"""
    masks, scores, low_res = predictor.predict(
        POINTS, LABELS, multimask_output=multimask
    )
    assert masks.shape == (count, 50, 80) and masks.dtype == bool
    assert scores.shape == (count,) and scores.dtype == np.float32
    assert low_res.shape == (count, 32, 32) and low_res.dtype == np.float32
    logits, *_ = predictor.predict(POINTS, LABELS, None, None, multimask, True)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits > 0, masks)


def test_encodes_once(small_sam: Sam) -> None:
    """设图时编码一次，之后换多少提示都不再编码。"""
    calls = []
    small_sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    predictor = SamPredictor(small_sam)
    predictor.set_image(picture())
    for x in (5.0, 30.0, 70.0):
        predictor.predict(np.array([[x, 20.0]]), np.array([1]))
    assert len(calls) == 1


def test_bgr_is_flipped_rgb(predictor: SamPredictor) -> None:
    """BGR 的图翻转通道后与 RGB 相同。"""
    expected = predictor.get_image_embedding().clone()
    predictor.set_image(np.ascontiguousarray(picture()[..., ::-1]), "BGR")
    assert torch.equal(predictor.get_image_embedding(), expected)


def test_torch_and_numpy_agree(predictor: SamPredictor) -> None:
    """numpy 接口等于先换算坐标、再用张量接口。"""
    box = np.array([5.0, 8.0, 60.0, 41.0])
    masks, scores, low_res = predictor.predict(box=box)
    scaled = predictor.transform.apply_boxes(box, (50, 80))
    result = predictor.predict_torch(None, None, torch.from_numpy(scaled).float())
    for a, b in zip(result, (masks, scores, low_res), strict=True):
        np.testing.assert_allclose(a[0].numpy(), b, rtol=1e-5, atol=1e-5)


def test_mask_feedback(predictor: SamPredictor) -> None:
    """上一轮的 logit 可以原样送回，而且确实影响结果。"""
    _, scores, low_res = predictor.predict(POINTS[:1], LABELS[:1])
    best = int(scores.argmax())
    again = predictor.predict(POINTS, LABELS, mask_input=low_res[best][None])
    plain = predictor.predict(POINTS, LABELS)
    assert np.abs(again[2] - plain[2]).max() > 1e-3


def test_reset_forgets_everything(predictor: SamPredictor) -> None:
    """重置后与新建的一样，尺寸也不留下；再预测就报错。"""
    predictor.reset_image()
    assert predictor.is_image_set is False
    sizes = ("orig_h", "orig_w", "input_h", "input_w")
    for name in ("features", "original_size", "input_size", *sizes):
        assert getattr(predictor, name) is None, name
    assert vars(predictor).keys() == vars(SamPredictor(predictor.model)).keys()


@pytest.mark.parametrize("prepare", ["新建", "重置"])
def test_needs_image(predictor: SamPredictor, prepare: str) -> None:
    """没有设图就预测或取嵌入，与官方一样抛 RuntimeError。"""
    if prepare == "新建":
        predictor = SamPredictor(predictor.model)
    else:
        predictor.reset_image()
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(POINTS, LABELS)
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict_torch(None, None)
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.get_image_embedding()


BAD_PICTURES = {
    "浮点": picture() / 255.0,
    "灰度": picture()[..., 0],
    "RGBA": np.zeros((50, 80, 4), dtype=np.uint8),
    "不是数组": [[0, 1], [2, 3]],
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_picture(small_sam: Sam, kind: str) -> None:
    """不合适的图得到点名 image 的中文错误，而不是底层的报错。"""
    with pytest.raises(SamLiteError, match="image"):
        SamPredictor(small_sam).set_image(BAD_PICTURES[kind])


def test_bad_picture_keeps_state_clean(predictor: SamPredictor) -> None:
    """设图失败不会留下一半新一半旧的状态。"""
    before = predictor.get_image_embedding().clone()
    with pytest.raises(SamLiteError):
        predictor.set_image(picture() / 255.0)
    if predictor.is_image_set:
        assert torch.equal(predictor.get_image_embedding(), before)
        assert tuple(predictor.original_size) == (50, 80)


def test_bad_format_and_tensor(predictor: SamPredictor) -> None:
    """图像格式写错、张量的最长边或维数不对，都有明确的错误。"""
    with pytest.raises((SamLiteError, AssertionError), match="image_format"):
        predictor.set_image(picture(), "HSV")
    for shape in ((1, 3, 40, 60), (3, 40, 64), (1, 4, 40, 64)):
        with pytest.raises((SamLiteError, AssertionError), match="64"):
            predictor.set_torch_image(torch.zeros(shape), (40, 64))


LOW_RES = np.zeros((1, 32, 32), dtype=np.float32)
BAD_PROMPTS = {
    "有点无标签": ({"point_coords": POINTS}, "point_labels"),
    "有标签无点": ({"point_labels": LABELS}, "point_coords"),
    "个数不同": ({"point_coords": POINTS, "point_labels": LABELS[:1]}, "point_labels"),
    "坐标形状": ({"point_coords": POINTS[0], "point_labels": LABELS}, "point_coords"),
    "标签是 2": ({"point_coords": POINTS, "point_labels": LABELS + 2}, "point_labels"),
    "框不是四个数": ({"box": np.array([1.0, 2.0, 3.0])}, "box"),
    "两个框": ({"box": np.array([[1.0, 2.0, 30.0, 40.0]] * 2)}, "box"),
    "掩码只有两维": ({"mask_input": LOW_RES[0]}, "mask_input"),
    "掩码尺寸不对": ({"mask_input": LOW_RES[:, :16]}, "mask_input"),
}


@pytest.mark.parametrize("kind", BAD_PROMPTS)
def test_bad_prompt(predictor: SamPredictor, kind: str) -> None:
    """不合适的提示得到点名参数的中文错误。"""
    prompt, name = BAD_PROMPTS[kind]
    with pytest.raises(SamLiteError, match=name):
        predictor.predict(**prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        {"box": [5.0, 8.0, 60.0, 41.0]},
        {"point_coords": POINTS.tolist(), "point_labels": LABELS.tolist()},
    ],
    ids=["box", "point"],
)
def test_lists(predictor: SamPredictor, prompt: dict) -> None:
    """给列表而不是数组：要么照数组算，要么报出参数名，不会冒出底层的错。"""
    arrays = {name: np.array(value) for name, value in prompt.items()}
    try:
        result = predictor.predict(**prompt)
    except SamLiteError as error:
        assert any(name in str(error) for name in prompt)
    else:
        for a, b in zip(result, predictor.predict(**arrays), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(small_sam: Sam, dtype: torch.dtype) -> None:
    """半精度模型用起来不变：输入照旧，numpy 输出是 float32。"""
    predictor = SamPredictor(small_sam)
    predictor.set_image(picture())
    expected = predictor.predict(POINTS, LABELS)
    small_sam.to(dtype)
    predictor.set_image(picture())
    assert predictor.get_image_embedding().dtype == dtype
    masks, scores, low_res = predictor.predict(POINTS, LABELS, mask_input=None)
    assert masks.dtype == bool and (masks == expected[0]).mean() > 0.8
    assert scores.dtype == low_res.dtype == np.float32
    predictor.predict(box=np.array([1.0, 2.0, 60.0, 40.0]), mask_input=low_res[:1])


def test_no_gradients(predictor: SamPredictor) -> None:
    """预测器不记梯度。"""
    coords = torch.rand(2, 1, 2) * 40
    assert not predictor.get_image_embedding().requires_grad
    for item in predictor.predict_torch(coords, torch.ones(2, 1)):
        assert not item.requires_grad


def test_device(predictor: SamPredictor) -> None:
    """`device` 与模型相同，`transform` 的边长是模型的输入边长。"""
    assert predictor.device == predictor.model.device == torch.device("cpu")
    assert predictor.transform.target_length == 64
