"""进门检查：不对的输入一律是点名参数、有改法的中文错误，预测器不受影响。"""

import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sam_lite import viz
from sam_lite.errors import SamLiteError, SamLiteWarning
from sam_lite.inputs.prompts import pad_points
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor

H, W = 50, 80
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
POINTS, LABELS = np.array([[10.0, 20.0], [70.0, 33.0]]), np.array([1, 0])
BOX = np.array([5.0, 8.0, 60.0, 41.0])
LOW_RES = RNG.normal(0, 4, (1, 32, 32)).astype(np.float32)
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def predictor(small_sam: Sam) -> SamPredictor:
    predictor = SamPredictor(small_sam)
    predictor.set_image(PICTURE)
    return predictor


def reference(predictor: SamPredictor) -> list[np.ndarray]:
    """一个固定的提示；前后两次逐位相同，说明状态没有变。"""
    return list(predictor.predict(POINTS, LABELS, BOX, LOW_RES, return_logits=True))


def refuses(predictor: SamPredictor, name: str, words: str, call) -> None:
    """call 抛 SamLiteError：点名 name，说了收到什么、应为什么，含 words；状态不变。"""
    before = reference(predictor)
    state = dict(vars(predictor))
    with pytest.raises(SamLiteError) as caught:
        call()
    text = str(caught.value)
    assert name in text and words in text, text
    assert "收到" in text and "，应为" in text, text
    assert vars(predictor) == state
    for a, b in zip(reference(predictor), before, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- 图像 --------------------------------------------------------------------


def pil(mode: str, **info) -> Image.Image:
    image = Image.new(mode, (W, H))
    image.info.update(info)
    return image


def turned() -> Image.Image:
    image = Image.fromarray(PICTURE)
    image.getexif()[0x0112] = 6  # 顺时针转 90 度才是正的
    return image


def broken_file() -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "png")
    return Image.open(io.BytesIO(buffer.getvalue()[:2000]))


def closed_file() -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "png")
    image = Image.open(buffer)
    image.close()
    return image


BAD_IMAGES = {
    "灰度": (PICTURE[..., 0], "np.dstack"),
    "灰度带通道": (PICTURE[..., :1], "np.dstack"),
    "RGBA": (np.zeros((H, W, 4), np.uint8), "image[..., :3]"),
    "两个通道": (np.zeros((H, W, 2), np.uint8), "(高, 宽, 3)"),
    "通道在前": (PICTURE.transpose(2, 0, 1), "transpose(1, 2, 0)"),
    "一批": (PICTURE[None], "set_images"),
    "一维": (PICTURE.ravel(), "(高, 宽, 3)"),
    "空的": (PICTURE[:0], "空的"),
    "零宽": (PICTURE[:, :0], "空的"),
    "浮点": (PICTURE / 255, "乘 255"),
    "浮点且通道在前": (PICTURE.transpose(2, 0, 1) / 255, "transpose(1, 2, 0)"),
    "布尔": (PICTURE > 99, "* 255"),
    "int64": (PICTURE.astype(np.int64), ".astype(np.uint8)"),
    "uint16": (PICTURE.astype(np.uint16), ".astype(np.uint8)"),
    "int8": (PICTURE.astype(np.int8), ".astype(np.uint8)"),
    "复数": (PICTURE.astype(complex), "uint8"),
    "对象数组": (PICTURE.astype(object), "uint8"),
    "列表": ([[0, 1], [2, 3]], "read_photo"),
    "None": (None, "read_photo"),
    "一个数": (3, "收到 3"),
    "路径字符串": ("photo.jpg", "read_photo"),
    "Path": (Path("photo.jpg"), "read_photo"),
    "字节": (b"\xff\xd8", "read_photo"),
    "张量": (torch.from_numpy(PICTURE.copy()).permute(2, 0, 1), "permute(1, 2, 0)"),
    "PIL RGBA": (pil("RGBA"), "to_rgb"),
    "PIL LA": (pil("LA"), "to_rgb"),
    "PIL 带透明的 P": (pil("P", transparency=0), "to_rgb"),
    "PIL 带透明色的 RGB": (pil("RGB", transparency=(0, 0, 0)), "to_rgb"),
    "PIL CMYK": (pil("CMYK"), "to_rgb"),
    "PIL 16 位": (pil("I;16"), "to_rgb"),
    "PIL 浮点": (pil("F"), "to_rgb"),
    "PIL HSV": (pil("HSV"), "to_rgb"),
    "PIL 要旋转": (turned(), "exif_transpose"),
    "PIL 零宽": (Image.new("RGB", (0, 5)), "空的"),
    "PIL 文件残缺": (broken_file(), "完好的图片"),
    "PIL 文件已关闭": (closed_file(), "完好的图片"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image(predictor: SamPredictor, kind: str) -> None:
    image, words = BAD_IMAGES[kind]
    refuses(predictor, "image 不对", words, lambda: predictor.set_image(image))


@pytest.mark.parametrize("kind", ["浮点", "路径字符串", "PIL 要旋转"])
def test_bad_image_in_a_batch_is_named(predictor: SamPredictor, kind: str) -> None:
    image, words = BAD_IMAGES[kind]
    images = [PICTURE, PICTURE, image]
    refuses(predictor, "第 2 张图", words, lambda: predictor.set_images(images))


@pytest.mark.parametrize(
    "value", ["HSV", "rgb", "", None, 3, np.array(["RGB"]), ["RGB"], ("RGB", "BGR")]
)
def test_bad_image_format(predictor: SamPredictor, value) -> None:
    refuses(
        predictor,
        "image_format 不对",
        '"RGB" 或 "BGR"',
        lambda: predictor.set_image(PICTURE, value),
    )


def test_bgr_pil_is_refused(predictor: SamPredictor) -> None:
    """PIL 的图总是 RGB；说它是 BGR 就有两种意思。"""
    image = Image.fromarray(PICTURE)
    words = "np.array(image)"
    refuses(predictor, "image_format", words, lambda: predictor.set_image(image, "BGR"))


MENDS = {
    "灰度": lambda image: np.dstack([image] * 3),
    "灰度带通道": lambda image: np.dstack([image] * 3),
    "RGBA": lambda image: image[..., :3],
    "通道在前": lambda image: image.transpose(1, 2, 0),
    "一批": lambda image: image[0],
    "浮点": lambda image: (image * 255).astype(np.uint8),
    "布尔": lambda image: image.astype(np.uint8) * 255,
    "int64": lambda image: image.astype(np.uint8),
    "张量": lambda image: image.permute(1, 2, 0).cpu().numpy(),
    "PIL RGBA": lambda image: np.array(viz.to_rgb(image)),
    "PIL LA": lambda image: np.array(image.convert("RGBA"))[..., :3],
    "PIL 带透明的 P": lambda image: np.array(viz.to_rgb(image)),
    "PIL CMYK": lambda image: np.array(viz.to_rgb(image)),
    "PIL 16 位": lambda image: np.array(viz.to_rgb(image)),
    "PIL 要旋转": ImageOps.exif_transpose,
}


@pytest.mark.parametrize("kind", MENDS)
def test_advice_works(predictor: SamPredictor, kind: str) -> None:
    """照错误里说的改，就收得下。"""
    predictor.set_image(MENDS[kind](BAD_IMAGES[kind][0]))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_plain_pil_equals_its_array(predictor: SamPredictor, mode: str) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    predictor.set_image(np.array(image.convert("RGB")))
    expected = predictor.get_image_embedding()
    predictor.set_image(image)
    assert torch.equal(predictor.get_image_embedding(), expected)
    assert predictor.original_size == (H, W)


def test_upright_exif_is_accepted(predictor: SamPredictor) -> None:
    before = predictor.get_image_embedding()
    for orientation in (0, 1, 9):  # 0 和 9 没有定义，看图软件也不转
        image = Image.fromarray(PICTURE)
        image.getexif()[0x0112] = orientation
        predictor.set_image(image)
        assert torch.equal(predictor.get_image_embedding(), before)


def test_readonly_strided_and_reversed_arrays_are_accepted(predictor) -> None:
    before = predictor.get_image_embedding()
    wide = np.zeros((2 * H, 2 * W, 3), np.uint8)
    wide[::2, ::2] = PICTURE
    frozen = PICTURE[::-1].copy()[::-1]
    frozen.flags.writeable = False
    for image in (wide[::2, ::2], frozen):
        predictor.set_image(image)
        assert torch.equal(predictor.get_image_embedding(), before)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 1999), (64, 64)])
def test_odd_sizes_work(predictor: SamPredictor, size: tuple[int, int]) -> None:
    height, width = size
    predictor.set_image(np.full((height, width, 3), 90, np.uint8))
    box = [0, 0, width, height]
    masks, scores, _ = predictor.predict([[width, height]], [1], box)
    assert masks.shape == (3, height, width) and np.isfinite(scores).all()


# ---- 提示 --------------------------------------------------------------------


def points(coords, labels=LABELS, **more) -> dict:
    return {"point_coords": coords, "point_labels": labels, **more}


def at(x: float, y: float, label: int = 1) -> dict:
    return points([[x, y]], [label])


SEVERAL = np.stack([POINTS, POINTS + 1, POINTS + 2])  # (3, 2, 2)
BOXES = np.stack([BOX, BOX + 1, BOX - 1])  # (3, 4)
BAD_PROMPTS = {
    "有点无标签": (points(POINTS, None), "point_labels", "成对"),
    "有标签无点": (points(None), "point_coords", "成对"),
    "标签少一个": (points(POINTS, LABELS[:1]), "point_labels", "(2,)"),
    "标签多一维": (points(POINTS, LABELS[None]), "point_labels", "(2,)"),
    "标签 2": (points(POINTS, [1, 2]), "point_labels", "box"),
    "标签 -2": (points(POINTS, [1, -2]), "point_labels", "填充"),
    "标签 0.5": (points(POINTS, [1, 0.5]), "point_labels", "填充"),
    "标签 NaN": (points(POINTS, [1, NAN]), "point_labels", "有限"),
    "标签是字": (points(POINTS, ["1", "0"]), "point_labels", "一组实数"),
    "标签含 None": (points(POINTS, [1, None]), "point_labels", "一组实数"),
    "点只有一层括号": (points(POINTS[0], [1]), "point_coords", "两层括号"),
    "点有三个数": (points(np.ones((2, 3))), "point_coords", "(N, 2)"),
    "点是四维": (points(np.ones((1, 1, 2, 2)), [[[1, 1]]]), "point_coords", "(N, 2)"),
    "一个点也没有": (points(np.zeros((0, 2)), []), "point_coords", "不传"),
    "空列表": (points([], []), "point_coords", "不传"),
    "行长不一": (points([[1, 2], [3]]), "point_coords", "个数要一样"),
    "点是字": (points([["1", "2"]], [1]), "point_coords", "一组实数"),
    "点是一句话": (points("10,20", [1]), "point_coords", "一组实数"),
    "点是复数": (points(POINTS + 0j), "point_coords", "一组实数"),
    "点是布尔": (points(POINTS > 20), "point_coords", "一组实数"),
    "点是字典": (points({"x": 1}), "point_coords", "一组实数"),
    "点是 NaN": (at(NAN, 3), "point_coords", "有限"),
    "点是无穷": (at(3, INF), "point_coords", "有限"),
    "填充点是 NaN": (at(NAN, 3, -1), "point_coords", "有限"),
    "点在左边外": (at(-0.5, 3), "point_coords", "0 ≤ x ≤ 80"),
    "点在右边外": (at(80.01, 3), "point_coords", "(80.01, 3)"),
    "点在上边外": (at(3, -1), "point_coords", "0 ≤ y ≤ 50"),
    "点在下边外": (at(3, 51), "point_coords", "x 在前"),
    "负点在外": (at(81, 3, 0), "point_coords", "(81, 3)"),
    "第二组点在外": (points(SEVERAL + 12, [[1, 0]] * 3), "point_coords", "(82, 45)"),
    "框不是四个数": ({"box": BOX[:3]}, "box", "四个数"),
    "框是两行两列": ({"box": BOX.reshape(2, 2)}, "box", "四个数"),
    "框是三维": ({"box": BOXES[None]}, "box", "(N, 4)"),
    "框是空列表": ({"box": []}, "box", "np.zeros((0, 4))"),
    "框左右颠倒": ({"box": BOX[[2, 1, 0, 3]]}, "box", "左上角在前"),
    "框上下颠倒": ({"box": BOX[[0, 3, 2, 1]]}, "box", "左上角在前"),
    "第三个框颠倒": ({"box": [*BOXES[:2], BOX[::-1]]}, "box", "[41.0, 60.0, 8.0, 5.0]"),
    "框是 NaN": ({"box": [1, 2, NAN, 4]}, "box", "有限"),
    "框是无穷": ({"box": [0, 0, INF, INF]}, "box", "有限"),
    "框是字": ({"box": "1,2,3,4"}, "box", "一组实数"),
    "框在右边外": ({"box": [81, 0, 99, 9]}, "box", "宽 80、高 50"),
    "框在左边外": ({"box": [-9, 0, -1, 9]}, "box", "相交"),
    "框在下边外": ({"box": [0, 51, 9, 60]}, "box", "相交"),
    "框在上边外": ({"box": [0, -9, 9, -1]}, "box", "相交"),
    "第二个框在外": ({"box": [BOX, BOX + 100]}, "box", "[105.0, 108.0, 160.0, 141.0]"),
    "几个框配一组点": (points(POINTS, box=BOXES), "point_coords", "np.repeat"),
    "几组点配一个框": (points(SEVERAL, [[1, 0]] * 3, box=BOX), "box", "(B, 4)"),
    "点和框组数不同": (points(SEVERAL, [[1, 0]] * 3, box=BOXES[:2]), "box", "3 个"),
    "几组点的标签一组": (points(SEVERAL), "point_labels", "(3, 2)"),
    "不等长而标签少一组": (
        points([[[1, 2]], [[3, 4], [5, 6]]], [[1]]),
        "list_of_labels",
        "2 项",
    ),
    "不等长而标签少一个": (
        points([[[1, 2]], [[3, 4], [5, 6]]], [[1], [1]]),
        "point_labels[1]",
        "2 个标签",
    ),
    "不等长而有三个数": (
        points([[[1, 2]], [[3, 4, 5], [5, 6, 7]]], [[1], [1, 1]]),
        "point_coords[1]",
        "(N, 2)",
    ),
    "掩码只有两维": ({"mask_input": LOW_RES[0]}, "mask_input", "mask_input[None]"),
    "掩码尺寸不对": ({"mask_input": LOW_RES[:, :16]}, "mask_input", "low_res[i]"),
    "掩码是三张": ({"mask_input": LOW_RES.repeat(3, 0)}, "mask_input", "low_res[i]"),
    "掩码是五维": ({"mask_input": LOW_RES[None, None]}, "mask_input", "(1, 32, 32)"),
    "掩码是布尔": ({"mask_input": LOW_RES > 0}, "mask_input", "np.where"),
    "掩码是 uint8": (
        {"mask_input": (LOW_RES > 0).astype("uint8")},
        "mask_input",
        "np.",
    ),
    "掩码有 NaN": ({"mask_input": LOW_RES * NAN}, "mask_input", "有限"),
    "掩码大得出奇": ({"mask_input": LOW_RES * 1e30}, "mask_input", "10000"),
    "掩码是一句话": ({"mask_input": "mask.png"}, "mask_input", "一组实数"),
    "掩码张数不对": (
        {"box": BOXES, "mask_input": LOW_RES[None].repeat(2, 0)},
        "mask_input",
        "3 张",
    ),
    "一组点配两张掩码": (
        points(POINTS, mask_input=LOW_RES[None].repeat(2, 0)),
        "point_coords",
        "(B, N, 2)",
    ),
    "multimask_output 是字": (
        {"multimask_output": "False"},
        "multimask_output",
        "True",
    ),
    "multimask_output 是 None": (
        {"multimask_output": None},
        "multimask_output",
        "True",
    ),
    "multimask_output 是 3": ({"multimask_output": 3}, "multimask_output", "True"),
    "return_logits 是字": ({"return_logits": "no"}, "return_logits", "True"),
    "return_logits 是数组": ({"return_logits": np.ones(2)}, "return_logits", "True"),
}


@pytest.mark.parametrize("kind", BAD_PROMPTS)
def test_bad_prompt(predictor: SamPredictor, kind: str) -> None:
    prompt, name, words = BAD_PROMPTS[kind]
    refuses(predictor, f"{name} 不对", words, lambda: predictor.predict(**prompt))


def same(predictor: SamPredictor, prompt: dict, other: dict) -> None:
    for a, b in zip(predictor.predict(**prompt), predictor.predict(**other)):
        np.testing.assert_array_equal(a, b)


EQUAL_PROMPTS = {
    "列表": points(POINTS.tolist(), LABELS.tolist(), box=BOX.tolist()),
    "元组": points(((10, 20), (70, 33)), (1, 0), box=(5, 8, 60, 41)),
    "整数": points(POINTS.astype(np.int16), LABELS.astype("i1"), box=BOX.astype(int)),
    "布尔标签": points(POINTS, [True, False], box=BOX),
    "张量": points(torch.tensor(POINTS), torch.tensor(LABELS), box=torch.tensor(BOX)),
    "bfloat16 张量": points(
        torch.tensor(POINTS).bfloat16(), torch.tensor(LABELS), box=torch.tensor(BOX)
    ),
    "要梯度的张量": points(
        torch.tensor(POINTS, requires_grad=True), LABELS, box=torch.tensor(BOX)
    ),
    "只读、跳着取": points(np.repeat(POINTS, 2, 0)[::2], LABELS, box=BOX[::-1][::-1]),
    "多一维的框": points(POINTS, LABELS, box=BOX[None]),
    "numpy 的开关": points(
        POINTS, box=BOX, multimask_output=np.True_, return_logits=np.False_
    ),
    "0 和 1 的开关": points(POINTS, box=BOX, multimask_output=1, return_logits=0),
}


@pytest.mark.parametrize("kind", EQUAL_PROMPTS)
def test_other_spellings_mean_the_same(predictor: SamPredictor, kind: str) -> None:
    same(predictor, EQUAL_PROMPTS[kind], points(POINTS, LABELS, box=BOX))


def test_border_belongs_to_the_picture(predictor: SamPredictor) -> None:
    corners = [[0, 0], [W, 0], [0, H], [W, H]]
    masks, scores, _ = predictor.predict(corners, [1, 1, 0, 0], [0, 0, W, H])
    assert masks.shape == (3, H, W) and np.isfinite(scores).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(box=[0, 3, 0, 9])  # 只有一列像素宽的物体，框就没有宽


def test_padding_point_may_lie_anywhere(predictor: SamPredictor) -> None:
    """标签 -1 的点：坐标不起作用，但这个词元本身起作用。"""
    far = points([[10, 20], [1e300, -1e9]], [1, -1])
    near = points([[10, 20], [0, 0]], [1, -1])
    same(predictor, far, near)
    alone = predictor.predict([[10, 20]], [1])
    assert np.abs(alone[2] - predictor.predict(**near)[2]).max() > 1e-3


def test_box_over_the_border_is_clipped_with_a_warning(predictor) -> None:
    with pytest.warns(SamLiteWarning, match="1 个 box 伸出了图像（宽 80、高 50）") as w:
        clipped = predictor.predict(box=[-5, 8, 60, 77])
    assert w[0].filename == __file__  # 警告指着调用的那一行
    for a, b in zip(clipped, predictor.predict(box=[0, 8, 60, H]), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(SamLiteWarning, match="2 个 box"):
        predictor.predict(box=[BOX, BOX + 30, BOX - 30])


def test_warning_can_be_made_an_error(predictor: SamPredictor) -> None:
    before = reference(predictor)
    with warnings.catch_warnings(), pytest.raises(SamLiteWarning):
        warnings.simplefilter("error", SamLiteWarning)
        predictor.predict(box=BOX + 30)
    for a, b in zip(reference(predictor), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("coords", "labels", "words"),
    [
        (3, [[1]], "list_of_coords"),
        ([[[1, 2]]], "1", "list_of_labels"),
        ([[[1, 2]]], np.array(1), "list_of_labels"),
        ([[[1, 2]]], [[1], [1]], "list_of_labels"),
        ([[1, 2]], [[1]], r"point_coords\[0\]"),
        ([[[1, 2]], [[1, NAN]]], [[1], [1]], r"point_coords\[1\]"),
        ([[[1, 2]], [[1, 2]]], [[1], ["a"]], r"point_labels\[1\]"),
        ([], [], "至少一个点"),
        ([[], []], [[], []], "至少一个点"),
    ],
)
def test_pad_points_refuses(coords, labels, words: str) -> None:
    with pytest.raises(SamLiteError, match=words):
        pad_points(coords, labels)


# ---- 张量 --------------------------------------------------------------------

IMAGE = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(0)) * 255
BAD_TENSOR_IMAGES = {
    "三维": ((IMAGE[0], (H, W)), "transformed_image", "(1, 3, 高, 宽)"),
    "两张": ((IMAGE.repeat(2, 1, 1, 1), (H, W)), "transformed_image", "(1, 3"),
    "四个通道": ((torch.zeros(1, 4, 40, 64), (H, W)), "transformed_image", "(1, 3"),
    "通道在后": ((IMAGE.permute(0, 2, 3, 1), (H, W)), "transformed_image", "通道在前"),
    "没有缩放": ((torch.zeros(1, 3, H, W), (H, W)), "transformed_image", "缩放"),
    "缩得太小": ((torch.zeros(1, 3, 20, 32), (H, W)), "transformed_image", "缩放"),
    "零宽": ((torch.zeros(1, 3, 64, 0), (H, W)), "transformed_image", "(1, 3"),
    "numpy 数组": ((IMAGE.numpy(), (H, W)), "transformed_image", "as_tensor"),
    "int64": ((IMAGE.long(), (H, W)), "transformed_image", ".float()"),
    "布尔": ((IMAGE > 99, (H, W)), "transformed_image", ".float()"),
    "复数": ((IMAGE + 0j, (H, W)), "transformed_image", ".float()"),
    "有 NaN": ((IMAGE * NAN, (H, W)), "transformed_image", "有限"),
    "有无穷": ((IMAGE / 0, (H, W)), "transformed_image", "有限"),
    "别的设备": ((IMAGE.to("meta"), (H, W)), "transformed_image", ".to('cpu')"),
    "高宽颠倒": ((IMAGE, (W, H)), "original_image_size", "高在前"),
    "别的长宽比": ((IMAGE, (H, W + 20)), "original_image_size", "(40, 64)"),
    "大小是负数": ((IMAGE, (-H, -W)), "original_image_size", "正整数"),
    "大小是零": ((IMAGE, (0, 0)), "original_image_size", "正整数"),
    "大小三个数": ((IMAGE, (H, W, 3)), "original_image_size", "image.shape[:2]"),
    "大小是小数": ((IMAGE, (50.5, 80.0)), "original_image_size", "正整数"),
    "大小是 None": ((IMAGE, None), "original_image_size", "正整数"),
    "大小是字": ((IMAGE, "50x80"), "original_image_size", "正整数"),
    "大小是 NaN": ((IMAGE, (NAN, 80)), "original_image_size", "正整数"),
}


@pytest.mark.parametrize("kind", BAD_TENSOR_IMAGES)
def test_bad_tensor_image(predictor: SamPredictor, kind: str) -> None:
    given, name, words = BAD_TENSOR_IMAGES[kind]
    refuses(predictor, f"{name} 不对", words, lambda: predictor.set_torch_image(*given))


@pytest.mark.parametrize(
    "size", [(H, W), [H, W], np.array([H, W]), torch.Size([H, W]), (H + 1, W)]
)
def test_original_size_spellings(predictor: SamPredictor, size) -> None:
    """列表、数组、torch.Size 都行；取整差一个像素也行。"""
    predictor.set_torch_image(IMAGE, size)
    assert predictor.original_size == (int(size[0]), W)
    assert type(predictor.original_size) is tuple


@pytest.mark.parametrize("image", [IMAGE / 255, (IMAGE - 128) / 60])
def test_scaled_pixels_give_a_warning(predictor: SamPredictor, image) -> None:
    """0–1 的、规范化过的图：算得出来，多半不是本意。"""
    with pytest.warns(SamLiteWarning, match="0–255") as caught:
        predictor.set_torch_image(image, (H, W))
    assert caught[0].filename == __file__


def test_black_and_usual_tensors_give_no_warning(predictor: SamPredictor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in (IMAGE, IMAGE * 0, IMAGE.byte(), IMAGE.half(), IMAGE - 0.5):
            predictor.set_torch_image(image, (H, W))


POINT_T, LABEL_T = torch.tensor(SEVERAL), torch.tensor([[1, 0]] * 3)
BOX_T, MASK_T = torch.tensor(BOXES), torch.zeros(3, 1, 32, 32)
BAD_TENSORS = {
    "点无标签": ((POINT_T, None), "point_labels", "成对"),
    "标签无点": ((None, LABEL_T), "point_coords", "成对"),
    "numpy 点": ((SEVERAL, LABEL_T), "point_coords", "as_tensor"),
    "列表标签": ((POINT_T, [[1, 0]] * 3), "point_labels", "as_tensor"),
    "点少一维": ((POINT_T[0], LABEL_T[0]), "point_coords", "(B, N, 2)"),
    "点三个数": ((torch.zeros(3, 2, 3), LABEL_T), "point_coords", "(B, N, 2)"),
    "点是布尔": ((POINT_T > 9, LABEL_T), "point_coords", "浮点"),
    "点是复数": ((POINT_T + 0j, LABEL_T), "point_coords", "浮点"),
    "点有 NaN": ((POINT_T * NAN, LABEL_T), "point_coords", "有限"),
    "点有无穷": ((POINT_T / 0, LABEL_T), "point_coords", "有限"),
    "标签形状": ((POINT_T, LABEL_T[:, :1]), "point_labels", "(3, 2)"),
    "标签 2": ((POINT_T, LABEL_T + 1), "point_labels", "boxes"),
    "标签 0.5": ((POINT_T, LABEL_T / 2), "point_labels", "填充"),
    "标签 255": ((POINT_T, LABEL_T.byte() - 1), "point_labels", "填充"),
    "框少一维": ((None, None, BOX_T[0]), "boxes", "(B, 4)"),
    "框两角": ((None, None, BOX_T.reshape(3, 2, 2)), "boxes", "(B, 4)"),
    "框颠倒": ((None, None, BOX_T.flip(1)), "boxes", "左上角"),
    "框有 NaN": ((None, None, BOX_T * NAN), "boxes", "有限"),
    "numpy 框": ((None, None, BOXES), "boxes", "as_tensor"),
    "组数不同": ((POINT_T, LABEL_T, BOX_T[:2]), "boxes", "3 个"),
    "掩码少一维": ((None, None, None, MASK_T[0]), "mask_input", "(B, 1, 32, 32)"),
    "掩码尺寸": ((None, None, None, MASK_T[..., :9]), "mask_input", "32"),
    "掩码是布尔": ((None, None, None, MASK_T > 0), "mask_input", "浮点"),
    "掩码是整数": ((None, None, None, MASK_T.int()), "mask_input", "浮点"),
    "掩码有 NaN": ((None, None, None, MASK_T + NAN), "mask_input", "有限"),
    "掩码太大": ((None, None, None, MASK_T + 1e9), "mask_input", "10000"),
    "掩码张数": ((None, None, BOX_T, MASK_T[:2]), "mask_input", "3 张"),
    "点在别的设备": ((POINT_T.to("meta"), LABEL_T), "point_coords", ".to('cpu')"),
    "框在别的设备": ((None, None, BOX_T.to("meta")), "boxes", ".to('cpu')"),
    "开关是字": ((None, None, BOX_T, None, "yes"), "multimask_output", "True"),
    "另一个开关": ((None, None, BOX_T, None, True, "no"), "return_logits", "True"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_bad_tensor_prompt(predictor: SamPredictor, kind: str) -> None:
    given, name, words = BAD_TENSORS[kind]
    refuses(predictor, f"{name} 不对", words, lambda: predictor.predict_torch(*given))


def test_masks_of_tensors_may_be_shared(predictor: SamPredictor) -> None:
    """B 组提示共用一张掩码、一组提示配几张掩码，官方都收。"""
    assert predictor.predict_torch(None, None, BOX_T, MASK_T[:1])[1].shape == (3, 3)
    assert predictor.predict_torch(None, None, BOX_T[:1], MASK_T)[2].shape[0] == 3


RECORD = {"image": IMAGE[0], "original_size": (H, W)}
NAMES = ("point_coords", "point_labels", "boxes", "mask_inputs")
BAD_RECORDS = {
    "写错的键": ({"box": BOX_T}, "batched_input[1]", "多出 ['box']"),
    "认不得的键": ({3: BOX_T}, "batched_input[1]", "多出 ['3']"),
    "缺图": ({"image": None}, "['image']", "张量"),
    "图多一维": ({"image": IMAGE}, "['image']", "(3, 高, 宽)"),
    "图太大": ({"image": torch.zeros(3, 40, 65)}, "['image']", "ResizeLongestSide(64)"),
    "图有 NaN": ({"image": IMAGE[0] * NAN}, "['image']", "有限"),
    "图是 int64": ({"image": IMAGE[0].long()}, "['image']", "浮点"),
    "图是数组": ({"image": PICTURE}, "['image']", "as_tensor"),
    "图在别的设备": ({"image": IMAGE[0].to("meta")}, "['image']", ".to('cpu')"),
    "没有大小": ({"original_size": None}, "['original_size']", "正整数"),
    "大小是零": ({"original_size": (0, 9)}, "['original_size']", "正整数"),
    "点无标签": ({"point_coords": POINT_T}, "['point_labels']", "成对"),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_bad_record(predictor: SamPredictor, kind: str) -> None:
    change, name, words = BAD_RECORDS[kind]
    records = [RECORD, RECORD | change]
    refuses(predictor, name, words, lambda: predictor.model(records, True))


@pytest.mark.parametrize("kind", [k for k in BAD_TENSORS if "开关" not in k])
def test_bad_prompt_in_a_record(predictor: SamPredictor, kind: str) -> None:
    given, name, words = BAD_TENSORS[kind]
    record = RECORD | dict(zip(NAMES, given, strict=False))
    name = name.replace("mask_input", "mask_inputs")
    name = f"batched_input[0]['{name}'] 不对"
    refuses(predictor, name, words, lambda: predictor.model([record], True))


@pytest.mark.parametrize("given", [RECORD, [], (), None, [None], ["image"], 3, IMAGE])
def test_bad_batched_input(predictor: SamPredictor, given) -> None:
    refuses(predictor, "batched_input", "字典", lambda: predictor.model(given, True))
    words = "True 或 False"
    refuses(
        predictor, "multimask_output", words, lambda: predictor.model([RECORD], "yes")
    )


def test_record_may_hold_none(small_sam: Sam) -> None:
    """写成 None 的提示等于没有写；原图大小给张量也行。"""
    with torch.no_grad():
        bare = small_sam([RECORD | {"boxes": BOX_T}], True)[0]
        record = RECORD | dict.fromkeys(NAMES) | {"boxes": BOX_T}
        record["original_size"] = torch.tensor([H, W])
        full = small_sam([record], True)[0]
    for key, value in bare.items():
        assert torch.equal(value, full[key]), key


def test_errors_are_chinese_value_errors(predictor: SamPredictor) -> None:
    """旧代码 except ValueError 接得住；错误里的话是中文。"""
    with pytest.raises(ValueError) as caught:
        predictor.predict(box=[1, 2, 3])
    assert len(re.findall("[一-鿿]", str(caught.value))) > 10
