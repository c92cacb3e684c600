"""第 11 章：一张图编码一次，提示随便换。"""

import numpy as np
import pytest
import torch

from sam_lite.errors import NoImageError, SamLiteError
from sam_lite.inputs.prompts import pad_points
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
    assert predictor.images == []
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
    with pytest.raises(RuntimeError, match="set_images"):
        predictor.predict_batch()


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


def test_failing_encoder_keeps_the_old_image(predictor: SamPredictor) -> None:
    """编码到一半出错（例如内存不够），原来的图像还在。"""
    before = predictor.predict(POINTS, LABELS)

    def fail(*_) -> None:
        raise MemoryError

    handle = predictor.model.image_encoder.register_forward_hook(fail)
    for put in (predictor.set_image, lambda image: predictor.set_images([image])):
        with pytest.raises(MemoryError):
            put(picture(30, 30))
    handle.remove()
    assert_same(predictor.predict(POINTS, LABELS), before)


def test_moved_model_wants_the_image_again(predictor: SamPredictor) -> None:
    """模型搬到别的设备，旧嵌入就不能用了。"""
    predictor.model.to("meta")
    with pytest.raises(SamLiteError, match="重新 set_image"):
        predictor.predict(POINTS, LABELS)


# ---- 几组提示一起问 ------------------------------------------------------------

SEVERAL = np.stack([POINTS, POINTS[::-1], POINTS / 2])  # (3, 2, 2)
KINDS = np.array([[1, 0], [1, 1], [0, 1]])
BOXES = np.array([[5.0, 8, 60, 41], [0, 0, 80, 50], [30, 3, 31, 4]])
LOW_RES = np.random.default_rng(1).normal(0, 4, (3, 1, 32, 32)).astype(np.float32)


def assert_close(results, expected) -> None:
    for a, b in zip(results, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def assert_same(results, expected) -> None:
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b)


BATCHES = {
    "框": {"box": BOXES},
    "点": {"point_coords": SEVERAL, "point_labels": KINDS},
    "点加框": {"point_coords": SEVERAL, "point_labels": KINDS, "box": BOXES},
    "框加掩码": {"box": BOXES, "mask_input": LOW_RES},
    "只有掩码": {"mask_input": LOW_RES},
    "都有": {
        "point_coords": SEVERAL,
        "point_labels": KINDS,
        "box": BOXES,
        "mask_input": LOW_RES,
    },
    "一组点": {"point_coords": SEVERAL[:1], "point_labels": KINDS[:1]},
    "一组点、一个框": {
        "point_coords": SEVERAL[:1],
        "point_labels": KINDS[:1],
        "box": BOXES[:1],
    },
    "一张四维的掩码": {"box": BOXES[:1], "mask_input": LOW_RES[:1]},
}


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", BATCHES)
def test_batch_equals_single_calls(
    predictor: SamPredictor, kind: str, multimask: bool
) -> None:
    """B 组一起问：每一项前面多一维 B，和一组一组问相同。"""
    batch = BATCHES[kind]
    options = {"multimask_output": multimask, "return_logits": True}
    results = predictor.predict(**batch, **options)
    B, C = len(next(iter(batch.values()))), 3 if multimask else 1
    assert [r.shape for r in results] == [(B, C, 50, 80), (B, C), (B, C, 32, 32)]
    for i in range(B):
        single = {name: value[i] for name, value in batch.items()}
        expected = predictor.predict(**single, **options)
        assert_close([r[i] for r in results], expected)
    masks, *_ = predictor.predict(**batch, multimask_output=multimask)
    np.testing.assert_array_equal(masks, results[0] > 0)


@pytest.mark.parametrize("shared", [LOW_RES[0], LOW_RES[:1]], ids=["三维", "四维"])
def test_one_mask_is_shared(predictor: SamPredictor, shared: np.ndarray) -> None:
    """几个框共用一张掩码提示。"""
    result = predictor.predict(box=BOXES, mask_input=shared)
    repeated = LOW_RES[:1].repeat(3, axis=0)
    assert_close(result, predictor.predict(box=BOXES, mask_input=repeated))


def test_single_box_keeps_the_official_shapes(predictor: SamPredictor) -> None:
    """(4,) 和官方也收的 (1, 4) 都没有 B 那一维，点可以照旧是二维的。"""
    for box in (BOXES[0], BOXES[:1]):
        result = predictor.predict(POINTS, LABELS, box)
        assert [r.shape for r in result] == [(3, 50, 80), (3,), (3, 32, 32)]


@pytest.mark.parametrize("multimask, count", [(True, 3), (False, 1)])
def test_no_boxes_give_empty_arrays(
    predictor: SamPredictor, multimask: bool, count: int
) -> None:
    """检测器一个框也没有找到：结果是空的，不是错误。"""
    masks, scores, low_res = predictor.predict(
        box=np.zeros((0, 4)), multimask_output=multimask
    )
    assert masks.shape == (0, count, 50, 80) and masks.dtype == bool
    assert scores.shape == (0, count) and low_res.shape == (0, count, 32, 32)


# ---- 个数不同的点 --------------------------------------------------------------

RAGGED = [[[10, 20]], [[70, 33], [5, 6], [40, 40]], [[1, 2], [3, 4]]]
RAGGED_LABELS = [[1], [1, 0, 1], [0, 1]]


def test_pad_points() -> None:
    coords, labels = pad_points(RAGGED, RAGGED_LABELS)
    assert coords.shape == (3, 3, 2) and labels.shape == (3, 3)
    assert labels.tolist() == [[1, -1, -1], [1, 0, 1], [0, 1, -1]]
    assert coords[0].tolist() == [[10, 20], [0, 0], [0, 0]]
    assert coords[1].tolist() == RAGGED[1]
    coords, labels = pad_points([[], RAGGED[0]], [[], [1]])  # 有一组没有点
    assert labels.tolist() == [[-1], [1]] and coords[0].tolist() == [[0, 0]]


@pytest.mark.parametrize("turn", [list, np.array, torch.tensor])
def test_ragged_points_are_padded(predictor: SamPredictor, turn) -> None:
    """predict 收个数不同的点：等于先用 pad_points 补齐；最长的一组与单独问相同。"""
    coords = [turn(group) for group in RAGGED]
    labels = [turn(group) for group in RAGGED_LABELS]
    result = predictor.predict(coords, labels)
    assert_same(result, predictor.predict(*pad_points(RAGGED, RAGGED_LABELS)))
    alone = predictor.predict(RAGGED[1], RAGGED_LABELS[1])
    assert_close([r[1] for r in result[1:]], alone[1:])
    short = predictor.predict(RAGGED[0], RAGGED_LABELS[0])
    assert np.abs(result[2][0] - short[2]).max() > 1e-3  # 填充词元参加了注意力


def test_ragged_points_go_with_boxes(predictor: SamPredictor) -> None:
    result = predictor.predict([[], *RAGGED[1:]], [[], *RAGGED_LABELS[1:]], BOXES)
    assert result[0].shape == (3, 3, 50, 80)


# ---- 几张图一起 ----------------------------------------------------------------

PICTURES = [picture(), picture(33, 40), picture(64, 10), picture(50, 80)[::-1]]


@pytest.mark.parametrize("batch_size", [1, 3, 4, np.int64(9)])
def test_set_images_equals_one_by_one(predictor, batch_size: int) -> None:
    predictor.set_images(PICTURES, batch_size=batch_size)
    prompts = {
        "point_coords_batch": [[[9, 9]], None, None, SEVERAL],
        "point_labels_batch": [[1], None, None, KINDS],
        "box_batch": [None, [3, 3, 30, 20], None, None],
        "mask_input_batch": [None, LOW_RES[0], None, None],
    }
    options = {"multimask_output": False, "return_logits": True}
    columns = predictor.predict_batch(**prompts, **options)
    assert all(type(column) is list and len(column) == 4 for column in columns)
    for i, image in enumerate(PICTURES):
        predictor.set_image(image)
        single = {name[:-6]: batch[i] for name, batch in prompts.items()}
        expected = predictor.predict(**single, **options)
        assert_close([column[i] for column in columns], expected)
    assert columns[0][3].shape == (3, 1, 50, 80) and columns[0][3].dtype == np.float32


def test_set_images_takes_bgr_and_encodes_in_chunks(predictor: SamPredictor) -> None:
    sizes: list[int] = []
    encoder = predictor.model.image_encoder
    encoder.register_forward_hook(lambda _, given, out: sizes.append(len(given[0])))
    predictor.set_images([image[..., ::-1] for image in PICTURES], "BGR", 3)
    assert sizes == [3, 1]
    bgr = predictor.predict_batch(box_batch=[[1, 1, 9, 9]] * 4)
    predictor.set_images(tuple(PICTURES))
    rgb = predictor.predict_batch(box_batch=[[1, 1, 9, 9]] * 4)
    for ours, theirs in zip(bgr, rgb, strict=True):
        assert_close(ours, theirs)


def test_one_image_and_a_batch_do_not_mix(predictor: SamPredictor) -> None:
    """一张和一批各问各的；换一种就忘掉另一种，reset_image 都忘掉。"""
    with pytest.raises(NoImageError, match="set_images"):
        predictor.predict_batch()
    predictor.set_images(PICTURES)
    assert predictor.is_image_set is False and predictor.features is None
    for ask in (predictor.predict, predictor.get_image_embedding):
        with pytest.raises(NoImageError, match="predict_batch"):
            ask()
    with pytest.raises(NoImageError, match="predict_batch"):
        predictor.predict_torch(None, None)
    predictor.set_image(PICTURES[0])
    predictor.predict()
    with pytest.raises(NoImageError, match="set_images"):
        predictor.predict_batch()
    predictor.set_images(PICTURES)
    predictor.reset_image()
    for ask in (predictor.predict, predictor.predict_batch):
        with pytest.raises(NoImageError, match="还没有"):
            ask()


BAD_BATCHES = {
    "少一项": ({"box_batch": [None] * 3}, "box_batch", "4 项"),
    "不是列表": ({"box_batch": "abcd"}, "box_batch", "列表"),
    "是字典": ({"mask_input_batch": {}}, "mask_input_batch", "列表"),
    "零维": ({"point_labels_batch": np.array(1)}, "point_labels_batch", "列表"),
    "点出界": (
        {"point_coords_batch": [None, [[41, 1]], None, None]}
        | {"point_labels_batch": [None, [1], None, None]},
        "第 1 张图（从 0 数起）：point_coords",
        "0 ≤ x ≤ 40",
    ),
    "框颠倒": (
        {"box_batch": [None, None, None, [9, 9, 1, 1]]},
        "第 3 张图（从 0 数起）：box",
        "左上角",
    ),
    "点无标签": (
        {"point_coords_batch": [None, None, [[1, 1]], None]},
        "第 2 张图（从 0 数起）：point_labels",
        "成对",
    ),
    "开关": ({"multimask_output": "no"}, "multimask_output", "True"),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_bad_batch(predictor: SamPredictor, kind: str) -> None:
    """点名参数、说明第几张图；之后照样能问。"""
    given, name, words = BAD_BATCHES[kind]
    predictor.set_images(PICTURES)
    before = predictor.predict_batch()
    with pytest.raises(SamLiteError) as caught:
        predictor.predict_batch(**given)
    assert name in str(caught.value) and words in str(caught.value), caught.value
    for a, b in zip(predictor.predict_batch(), before, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ([], {}, "images"),
        (picture(), {}, "set_image"),
        (None, {}, "images"),
        ({"a": picture()}, {}, "images"),
        ([picture()], {"batch_size": 0}, "batch_size"),
        ([picture()], {"batch_size": 1.5}, "batch_size"),
        ([picture()], {"batch_size": True}, "batch_size"),
        ([picture()], {"batch_size": "4"}, "batch_size"),
        ([picture()], {"image_format": "HSV"}, "image_format"),
    ],
)
def test_bad_images(predictor: SamPredictor, images, options, words: str) -> None:
    before = predictor.predict(POINTS, LABELS)
    with pytest.raises(SamLiteError, match=words):
        predictor.set_images(images, **options)
    assert_same(predictor.predict(POINTS, LABELS), before)
