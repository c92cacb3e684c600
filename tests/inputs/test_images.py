"""图像进门：不对的一律是点名参数、有改法的中文错误，预测器不受影响。"""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from inputs.common import PICTURE, H, W, refuses
from sam_lite import viz
from sam_lite.predictor import SamPredictor


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
