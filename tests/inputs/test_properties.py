"""性质测试：随便什么图像、提示，要么给出对的结果，要么是点名参数的中文错误。

别的异常一概不许；出错之后，预测器对同一个提示的回答一位不差。例子是定死的
（derandomize），每次跑都一样。
"""

import re
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis.extra import numpy as hnp
from parity.small import SMALL, randomize
from PIL import Image

from sam_lite.errors import SamLiteError, SamLiteWarning
from sam_lite.inputs.prompts import pad_points
from sam_lite.model import Sam, sam_from_config
from sam_lite.predictor import SamPredictor
from sam_lite.preprocess import ResizeLongestSide

settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)
STEADY = settings.get_profile("steady")
H, W = 21, 33
PICTURE = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
SAM: Sam = randomize(sam_from_config(SMALL)).eval()
READY = SamPredictor(SAM)
READY.set_image(PICTURE)
NAN, INF = float("nan"), float("inf")


def answer(predictor: SamPredictor) -> list[np.ndarray]:
    return list(predictor.predict([[3, 4]], [1], [1, 2, 3, 4], return_logits=True))


EXPECTED = answer(READY)


def outcome(name: str, call: Callable[[], Any]) -> Any:
    """call 的结果；抛 SamLiteError 时返回 None。错误要是中文、点名 name 之一。"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SamLiteWarning)
        try:
            result = call()
        except SamLiteError as error:
            assert re.search(name, str(error)), str(error)
            assert len(re.findall("[一-鿿]", str(error))) >= 4, str(error)
            event("拒绝")
            return None
        finally:
            for a, b in zip(answer(READY), EXPECTED, strict=True):
                np.testing.assert_array_equal(a, b)
    event("接受")
    return result


def official(predictor: SamPredictor, points, labels, box, mask) -> list[np.ndarray]:
    """照官方 predict 的写法直接算一组提示：换算坐标、编码、解码、放大。"""
    move, size = predictor.transform, predictor.original_size
    coords = kinds = boxes = masks = None
    if points is not None:
        scaled = move.apply_coords(np.asarray(points, float), size)
        coords = torch.as_tensor(scaled, dtype=torch.float)[None]
        kinds = torch.as_tensor(np.asarray(labels), dtype=torch.int)[None]
    if box is not None:
        scaled = move.apply_boxes(np.asarray(box, float), size)
        boxes = torch.as_tensor(scaled, dtype=torch.float)
    if mask is not None:
        masks = torch.as_tensor(mask, dtype=torch.float)[None]
    with torch.no_grad():
        both = None if coords is None else (coords, kinds)
        sparse, dense = SAM.prompt_encoder(points=both, boxes=boxes, masks=masks)
        pe = SAM.prompt_encoder.get_dense_pe()
        low, iou = SAM.mask_decoder(predictor.features, pe, sparse, dense, True)
        full = SAM.postprocess_masks(low, predictor.input_size, size)
    return [full[0].numpy(), iou[0].numpy(), low[0].numpy()]


def check_result(result, expected=None, lead=(), size=(H, W), count: int = 3) -> None:
    """形状、类型都对，分数有限；给了 expected 就逐个数比较（掩码比 logits）。"""
    masks, scores, low_res = result
    assert masks.shape == (*lead, count, *size)
    assert masks.dtype in (bool, np.float32)
    assert scores.shape == (*lead, count) and low_res.shape == (*lead, count, 32, 32)
    for values in (masks, scores, low_res):
        assert np.isfinite(values).all()
    for a, b in zip(result, expected or result, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


# ---- 图像 --------------------------------------------------------------------

side = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 63, 64, 65, 700, 3000]))
dtypes = st.sampled_from(["u1"] * 5 + list("bHiqefd?FO") + ["U3"])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """各种形状和类型的数组，一半以上是合格的图像。"""
    h, w = draw(side), draw(side)
    assume(h * w <= 6000)
    odd = [(h, w), (h, w, 1), (h, w, 4), (3, h, w), (1, h, w, 3), (h, 0, 3), (h * w,)]
    shape = draw(st.sampled_from([(h, w, 3)] * 9 + odd + [(), (0, 0, 3)]))
    value = draw(st.integers(0, 127))
    image = np.full(shape, value).astype(draw(dtypes))
    if image.ndim == 3 and draw(st.booleans()):
        image = image[::-1, ::-1]
    return image


@settings(STEADY, max_examples=120)
@given(arrays(), st.sampled_from(["RGB"] * 3 + ["BGR", "rgb", None]))
@example(np.zeros((1, 1, 3), np.uint8), "RGB")
@example(np.zeros((1, 3000, 3), np.uint8), "BGR")
@example(np.zeros((3000, 1, 3), np.uint8), "RGB")
def test_any_array_as_image(image: np.ndarray, image_format: Any) -> None:
    """合格的图像能编码、能问；不合格的点名 image 或 image_format，没有图像留下。"""
    predictor = SamPredictor(SAM)
    call = lambda: predictor.set_image(image, image_format) or True  # noqa: E731
    done = outcome("image 不对|image_format 不对", call)
    good = image.dtype == np.uint8 and image.ndim == 3 and image.size > 0
    good = good and image.shape[2] == 3 and image_format in ("RGB", "BGR")
    assert bool(done) == good == predictor.is_image_set
    if done:
        size = image.shape[:2]
        assert predictor.original_size == size and max(predictor.input_size) == 64
        result = predictor.predict([[size[1], size[0]]], [1], return_logits=True)
        expected = official(predictor, [[size[1], size[0]]], [1], None, None)
        check_result(result, expected, (), size)
        assert np.array_equal(predictor.predict(box=[0, 0, 1, 1])[0].shape[1:], size)


@settings(STEADY, max_examples=40)
@given(
    st.sampled_from(
        ["RGB", "RGB", "L", "1", "P", "RGBA", "LA", "PA", "RGBX"]
        + ["CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"]
    ),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([None, None, None, 0, 1, 3, 8, 9]),
)
def test_any_pil_picture(mode: str, w: int, h: int, orientation: int | None) -> None:
    picture = Image.new(mode, (w, h))
    if orientation is not None:
        picture.getexif()[0x0112] = orientation
    predictor = SamPredictor(SAM)
    done = outcome("image 不对", lambda: predictor.set_image(picture) or True)
    plain = mode in ("RGB", "L", "1", "P") and orientation not in (3, 8)
    assert bool(done) == (plain and w > 0 and h > 0) == predictor.is_image_set
    if done:
        expected = SamPredictor(SAM)
        expected.set_image(np.array(picture.convert("RGB")))
        assert torch.equal(predictor.features, expected.features)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
) | st.sampled_from([b"x", {}, {1}, object(), Ellipsis, 1j, np.float64(3), range(4)])


@settings(STEADY, max_examples=60)
@given(anything)
def test_anything_as_image(image: Any) -> None:
    assert outcome("image 不对", lambda: READY.set_image(image) or True) is None
    call = lambda: READY.set_images(image) or True  # noqa: E731
    assert outcome("images? 不对", call) is None


# ---- 提示 --------------------------------------------------------------------

inside = st.tuples(st.floats(0, W), st.floats(0, H))
wild = st.floats() | st.sampled_from([NAN, INF, -1.0, -0.0, W + 0.01, 1e300, H, W])
labels = st.sampled_from([1, 1, 0, 0, -1])
point = st.one_of(inside, inside, inside, inside, inside, st.tuples(wild, wild))


@settings(STEADY, max_examples=100)
@given(st.lists(st.tuples(point, st.one_of(*[labels] * 9, wild)), max_size=4))
@example([((0, 0), 1)])
@example([((W, H), 0)])
@example([((1e300, -1e300), -1)])
def test_any_points(pairs: list) -> None:
    """点：图内的与官方算法相同；图外的、NaN、标签不对的被拒绝。"""
    coords, kinds = [p for p, _ in pairs], [k for _, k in pairs]
    name = "point_coords 不对|point_labels 不对"
    call = lambda: READY.predict(coords, kinds, return_logits=True)  # noqa: E731
    result = outcome(name, call)

    def fine(p, k) -> bool:
        return bool(
            np.isfinite(p).all()
            and k in (-1, 0, 1)
            and (k == -1 or (0 <= p[0] <= W and 0 <= p[1] <= H))
        )

    assert (result is not None) == (bool(pairs) and all(fine(*pair) for pair in pairs))
    if result is not None:
        moved = [(0, 0) if k == -1 else p for p, k in pairs]
        check_result(result, official(READY, moved, kinds, None, None))


corner = st.floats(-20, 60) | st.integers(-20, 60) | st.sampled_from([0, H, W])
box = st.tuples(corner, corner, corner, corner)
upright = box.map(lambda b: (*np.minimum(b[:2], b[2:]), *np.maximum(b[:2], b[2:])))


@settings(STEADY, max_examples=100)
@given(st.one_of(upright, upright, upright, box, st.tuples(wild, wild, wild, wild)))
@example((0, 0, W, H))
@example((0, 3, 0, 9))
@example((W, H, W + 1, H + 1))
@example((-1e300, -1e300, 1e300, 1e300))
def test_any_box(box: tuple) -> None:
    """框：裁到图内再按官方算法算；颠倒、整个在外、NaN 被拒绝。"""
    result = outcome("box 不对", lambda: READY.predict(box=box, return_logits=True))
    x0, y0, x1, y1 = box
    right = np.isfinite(box).all() and x0 <= x1 and y0 <= y1
    assert (result is not None) == bool(
        right and x1 >= 0 and y1 >= 0 and x0 <= W and y0 <= H
    )
    if result is not None:
        clipped = np.clip(np.array(box, float), 0, [W, H, W, H])
        check_result(result, official(READY, None, None, clipped, None))


@settings(STEADY, max_examples=25)
@given(st.lists(upright, max_size=5), st.booleans())
def test_any_number_of_boxes(boxes: list, multimask: bool) -> None:
    """N 个框等于 N 次单问；有一个不行就整个拒绝。"""
    given_boxes = np.array(boxes, float).reshape(-1, 4)
    options = {"multimask_output": multimask, "return_logits": True}
    result = outcome("box 不对", lambda: READY.predict(box=given_boxes, **options))
    singles = [
        outcome("box 不对", lambda b=b: READY.predict(box=b, **options)) for b in boxes
    ]
    assert (result is None) == any(single is None for single in singles)
    if result is None:
        return
    count = 3 if multimask else 1
    if len(boxes) == 1:  # (1, 4) 照官方没有 N 那一维
        check_result(result, singles[0], count=count)
        return
    expected = [np.stack(column) for column in zip(*singles)] if boxes else None
    check_result(result, expected, (len(boxes),), count=count)


logits = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from([(1, 32, 32)] * 6 + [(32, 32), (3, 32, 32), (1, 32, 31), (0,), ()]),
    elements=st.floats(-30, 30, width=16),
    fill=st.sampled_from([0.0, -10.0, 7.5]),
)
other_masks = hnp.arrays(
    st.sampled_from([bool, np.uint8, np.int64, np.complex64, np.float32]),
    (1, 32, 32),
    fill=st.sampled_from([0, 1]),
).filter(lambda mask: mask.dtype != np.float32 or not np.isfinite(mask).all())


@settings(STEADY, max_examples=60)
@given(st.one_of(logits, logits, other_masks))
@example(np.full((1, 32, 32), 1e4, np.float32))
@example(np.full((1, 32, 32), 1.1e4, np.float32))
@example(np.full((1, 32, 32), -1e300))
@example(np.full((1, 32, 32), NAN))
def test_any_mask_input(mask: np.ndarray) -> None:
    """掩码提示：浮点 logits 与官方算法相同；别的形状、类型、数值被拒绝。"""
    call = lambda: READY.predict(mask_input=mask, return_logits=True)  # noqa: E731
    result = outcome("mask_input 不对", call)
    good = mask.dtype.kind == "f" and mask.shape == (1, 32, 32)
    assert (result is not None) == bool(good and (np.abs(mask) <= 1e4).all())
    if result is not None:
        check_result(result, official(READY, None, None, None, mask))


NAMES = ("point_coords", "point_labels", "box", "mask_input")
COMMON = "|".join([*NAMES, "list_of_labels", "list_of_coords"])
small_arrays = st.builds(
    lambda shape, kind: np.ones(shape, int).astype(kind),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, bool, "U2", object]),
)


@settings(STEADY, max_examples=150)
@given(
    st.sampled_from(NAMES),
    anything | small_arrays,
    st.booleans(),
)
def test_anything_as_prompt(name: str, value: Any, with_rest: bool) -> None:
    """提示的某一项是任何东西：不是结果就是点名某个提示的错误。"""
    rest = {"point_coords": [[1, 2]], "point_labels": [1], "box": [1, 2, 3, 4]}
    prompt = (rest if with_rest else {}) | {name: value}
    result = outcome(COMMON, lambda: READY.predict(**prompt))
    if result is not None:
        check_result(result, lead=result[0].shape[:-3])


@settings(STEADY, max_examples=60)
@given(st.sampled_from(["multimask_output", "return_logits", "image_format"]), anything)
def test_anything_as_option(name: str, value: Any) -> None:
    if name == "image_format":
        assume(value not in ("RGB", "BGR"))
        call = lambda: READY.set_image(PICTURE, value) or True  # noqa: E731
        assert outcome("image_format 不对", call) is None
        return
    result = outcome(f"{name} 不对", lambda: READY.predict(**{name: value}))
    kind = isinstance(value, int) and value in (0, 1)
    assert (result is not None) == kind


# ---- 批量与张量 ----------------------------------------------------------------

group = st.lists(st.tuples(inside, st.sampled_from([0, 1])), min_size=1, max_size=3)


@settings(STEADY, max_examples=25)
@given(st.lists(group, min_size=1, max_size=4))
def test_padding_keeps_every_point(groups: list) -> None:
    """补齐之后，去掉标签 -1 的就是原来的；最长的几组与单独问相同。"""
    coords = [[p for p, _ in pairs] for pairs in groups]
    kinds = [[k for _, k in pairs] for pairs in groups]
    padded, flags = pad_points(coords, kinds)
    N = max(map(len, groups))
    assert padded.shape == (len(groups), N, 2) and flags.shape == (len(groups), N)
    masks, scores, low_res = READY.predict(coords, kinds, return_logits=True)
    for i, pairs in enumerate(groups):
        kept = flags[i] != -1
        np.testing.assert_array_equal(padded[i][kept], coords[i])
        np.testing.assert_array_equal(flags[i][kept], kinds[i])
        if len(pairs) == N:
            single = READY.predict(coords[i], kinds[i], return_logits=True)
            check_result((masks[i], scores[i], low_res[i]), single)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(STEADY, max_examples=15)
@given(st.lists(sizes, min_size=1, max_size=4), st.integers(1, 5))
def test_images_together_equal_one_by_one(many: list, batch_size: int) -> None:
    images = [PICTURE.repeat(2, 0).repeat(2, 1)[:h, :w] for h, w in many]
    boxes = [[0, 0, w / 2, h] for h, w in many]
    together = SamPredictor(SAM)
    together.set_images(images, batch_size=batch_size)
    results = together.predict_batch(box_batch=boxes, return_logits=True)
    for i, image in enumerate(images):
        alone = SamPredictor(SAM)
        alone.set_image(image)
        expected = alone.predict(box=boxes[i], return_logits=True)
        check_result([column[i] for column in results], expected, (), many[i])


tensors = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, bool]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4),
    elements=st.sampled_from([0, 1]),
).map(torch.from_numpy)
maybe = st.none() | tensors | anything


@st.composite
def torch_prompts(draw: st.DrawFn) -> tuple:
    """B 组张量提示，多半对得上；再把其中一项换成任意东西。"""
    B, N = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    prompts: list[Any] = [
        torch.full((B, N, 2), draw(st.sampled_from([3.0, 3.0, 3.0, NAN]))),
        torch.full((B, N), draw(st.sampled_from([1, 0, -1, 2]))),
        torch.tensor([[1.0, 2, 30, 20]]).repeat(B, 1),
        torch.zeros(draw(st.sampled_from([1, B, B + 1])), 1, 32, 32),
    ]
    if draw(st.booleans()):
        prompts[:2] = None, None
    for i in (2, 3):
        if draw(st.booleans()):
            prompts[i] = None
    if draw(st.integers(0, 2)) == 0:
        prompts[draw(st.integers(0, 3))] = draw(maybe)
    return tuple(prompts)


@settings(STEADY, max_examples=120)
@given(torch_prompts())
def test_any_tensors(prompts: tuple) -> None:
    """predict_torch 与 Sam.forward 收同样的提示：同样地接受或拒绝，结果相同。"""
    names = "point_coords|point_labels|boxes|mask_input"
    result = outcome(names, lambda: READY.predict_torch(*prompts))
    keys = ("point_coords", "point_labels", "boxes", "mask_inputs")
    image = READY.transform.apply_image(PICTURE).transpose(2, 0, 1).copy()
    record = {"image": torch.from_numpy(image), "original_size": (H, W)}
    record |= dict(zip(keys, prompts, strict=True))
    with torch.no_grad():
        whole = outcome(r"batched_input\[0\]", lambda: SAM([record], True))
    assert (result is None) == (whole is None)
    if result is not None and whole is not None:
        assert result[0].shape[1:] == (3, H, W) and result[0].dtype == torch.bool
        assert torch.isfinite(result[1]).all()
        torch.testing.assert_close(
            result[2], whole[0]["low_res_logits"], atol=1e-4, rtol=1e-4
        )


@settings(STEADY, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), maybe | st.tuples(*[st.integers()] * 2))
def test_any_tensor_image(h: int, w: int, other: Any) -> None:
    """set_torch_image：大小合适的收下；任意的图像、任意的原图大小被拒绝。"""
    resized = ResizeLongestSide.get_preprocess_shape(h, w, 64)
    image = torch.full((1, 3, *resized), 99.0)
    predictor = SamPredictor(SAM)
    predictor.set_torch_image(image, (h, w))
    assert predictor.original_size == (h, w) and predictor.input_size == resized
    put = READY.set_torch_image
    name = "transformed_image 不对"
    assert outcome(name, lambda: put(other, (h, w)) or True) is None
    fits = False
    if isinstance(other, (tuple, list)) and len(other) == 2:
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in other)
        fits = whole and min(other) > 0
    if not fits:
        name = "original_image_size 不对"
        assert outcome(name, lambda: put(image, other) or True) is None


def test_reference_answer_is_alive() -> None:
    """比较用的回答不是常数：换一个提示就变，免得上面的比较空转。"""
    other = READY.predict([[30, 2]], [0], return_logits=True)
    assert np.abs(other[0] - EXPECTED[0]).max() > 1e-2
    assert np.ptp(EXPECTED[0]) > 1e-2
