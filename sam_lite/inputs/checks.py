"""进门检查：图像和提示不对时，当场说清哪个参数、收到什么、应为什么、怎么改。

这里是通用的检查和图像；numpy 的提示在 ``prompts.py``，predict_torch、Sam.forward 收的
张量在 ``tensors.py``。这里不导入 torch：没装它的环境里 OnnxSamPredictor 也要用。
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import SamLiteError, problem

LARGEST_LOGIT = 1e4  # 掩码 logits 一般在 ±50 之内；再大，半精度里会溢出
READ_PHOTO = "先读成数组：from sam_lite import viz，再 viz.read_photo(路径)。"


def is_tensor(value: Any) -> bool:
    """是不是 torch 的张量；没有导入过 torch，就不会有张量。"""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def describe(value: Any) -> str:
    """用一句话描述收到的东西：数组说类型和形状，别的说它的 Python 类型。"""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} 数组、形状 {value.shape}"
    if is_tensor(value):
        return f"{value.dtype} 张量、形状 {tuple(value.shape)}、在 {value.device}"
    if isinstance(value, Image.Image):
        return f"模式 {value.mode}、宽 {value.width}、高 {value.height} 的 PIL 图片"
    if value is None or isinstance(value, (str, bool, int, float, np.generic)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"{len(value)} 项的 {type(value).__name__}"
    return f"{type(value).__name__} 对象"


def check_flag(name: str, value: Any) -> None:
    """开关只能是真或假（numpy 的布尔、0 和 1 也行），否则抛 SamLiteError。"""
    if not (isinstance(value, (int, np.bool_)) and value in (0, 1)):
        raise problem(name, describe(value), "True 或 False")


def check_path(path: Any) -> Path:
    """文件的路径，字符串或 Path；别的抛 SamLiteError。"""
    if not isinstance(path, (str, PathLike)) or not str(path) or "\0" in str(path):
        raise problem("path", describe(path), "文件的路径，字符串或 Path")
    return Path(path)


def numbers(name: str, value: Any, kinds: str = "iuf") -> np.ndarray:
    """把列表、元组、数组、张量变成 float64 数组；不是有限的实数就抛 SamLiteError。

    kinds 是收哪几类数（numpy 的 ``dtype.kind``）；字符串 ``"12"`` 一概不收。
    """
    try:
        if is_tensor(value):
            from .. import ops  # 用到才导入：没有 torch 的环境里走不到这里

            value = ops.detach(value).cpu()
            if str(value.dtype).endswith("bfloat16"):  # numpy 没有这个类型
                value = value.float()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        mend = "每一行的个数要一样；列表里装张量的，先 torch.stack。"
        raise problem(name, describe(value), "一组数", mend) from error
    if array.dtype.kind not in kinds:
        raise problem(name, describe(array), "一组实数")
    array = array.astype(float)
    if not np.isfinite(array).all():
        raise problem(name, "无穷大或 NaN", "有限的数")
    return array


@contextmanager
def naming_image(index: int) -> Iterator[None]:
    """一批图像里的错误，前面加上是第几张。"""
    try:
        yield
    except SamLiteError as error:
        raise SamLiteError(f"第 {index} 张图（从 0 数起）：{error}") from error


# ---- 图像 --------------------------------------------------------------------


def check_image(image: Any, image_format: Any = "RGB") -> np.ndarray:
    """一张图像：uint8 的 ``(H, W, 3)`` 数组，或意思不含糊的 PIL 图片。返回数组。"""
    if not isinstance(image_format, str) or image_format not in ("RGB", "BGR"):
        raise problem("image_format", describe(image_format), '"RGB" 或 "BGR"')
    if isinstance(image, Image.Image):
        if image_format != "RGB":
            mend = (
                '去掉 image_format；通道真是 BGR 的，先 np.array(image)，再传 "BGR"。'
            )
            raise problem("image_format", '"BGR" 配 PIL 图片', '"RGB"', mend)
        image = read_pil(image)
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if good and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    mend = image_mend(image)
    raise problem("image", describe(image), "uint8 数组、形状 (高, 宽, 3)", mend)


def image_mend(image: Any) -> str:
    """不能用的图像该怎么改：形状不对的说形状，类型不对的再说类型。"""
    if isinstance(image, (str, bytes, PathLike)):
        return READ_PHOTO
    if is_tensor(image):
        return (
            "(3, 高, 宽) 的张量先 image.permute(1, 2, 0).cpu().numpy()；"
            "已经缩放好的用 set_torch_image。"
        )
    if not isinstance(image, np.ndarray):
        return READ_PHOTO
    if not image.size:
        return "这个数组是空的，看看切片的起止。"
    shape, steps = image.shape, ""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        steps = "灰度图像复制成三个通道：np.dstack([image] * 3)。"
    elif len(shape) == 3 and shape[2] == 4:
        steps = "RGBA 的透明度没有用时取 image[..., :3]；有用的先垫上底色。"
    elif len(shape) == 3 and shape[0] in (1, 3, 4):
        steps = "通道要在最后：image.transpose(1, 2, 0)。"
    elif len(shape) == 4:
        steps = "一次一张：image[0]；几张一起用 set_images(list(image))。"
    if image.dtype.kind == "f":
        steps += "浮点图像先乘 255（如果在 0–1 之间），再 .astype(np.uint8)。"
    elif image.dtype == bool:
        steps += "布尔图像：image.astype(np.uint8) * 255。"
    elif image.dtype != np.uint8:
        steps += "值都在 0–255 之间的话：image.astype(np.uint8)。"
    return steps


def read_pil(image: Image.Image) -> np.ndarray:
    """意思只有一种的 PIL 图片 -> ``(H, W, 3)`` 的 uint8 RGB 数组。

    收 RGB、L、1、不透明的 P。透明的、别的模式、EXIF 里记着要旋转的，都有两种读法，抛
    SamLiteError 说出两种写法。文件损坏、已关闭也抛 SamLiteError。
    """
    try:
        image.load()
        turned = image.getexif().get(0x0112, 1)  # 0x0112 是 EXIF 的 Orientation
    except (OSError, SyntaxError, ValueError, EOFError, AttributeError) as error:
        raise problem(
            "image", f"读不出来的 PIL 图片（{error}）", "完好的图片"
        ) from error
    see_through = image.mode[-1] in "Aa" or "A" in getattr(image.palette, "mode", "")
    if turned in range(2, 9):
        got, wanted = f"EXIF 方向是 {turned} 的 PIL 图片", "不必旋转的图片"
        mend = (
            "要转正：ImageOps.exif_transpose(image)；就用现在的像素：np.array(image)。"
        )
    elif see_through or "transparency" in image.info:
        got, wanted = f"带透明的 PIL 图片，模式 {image.mode}", "不透明的图片"
        mend = (
            "垫白底：from sam_lite import viz，再 np.array(viz.to_rgb(image))；"
            "不管透明：np.array(image.convert('RGBA'))[..., :3]。"
        )
    elif image.mode not in ("RGB", "L", "1", "P"):
        got, wanted = f"模式 {image.mode} 的 PIL 图片", "模式 RGB、L、1 或 P"
        mend = "先变成 RGB：from sam_lite import viz，再 np.array(viz.to_rgb(image))。"
    else:
        return np.array(image.convert("RGB"))
    raise problem("image", got, wanted, mend)


def check_size(name: str, size: Any) -> tuple[int, int]:
    """``(高, 宽)`` 两个正整数。返回普通的元组。"""
    with_len = isinstance(size, (tuple, list, np.ndarray)) or is_tensor(size)
    pair = [int(n) if is_whole(n) else 0 for n in size] if with_len else []
    if len(pair) != 2 or min(pair) < 1:
        got = repr(tuple(size)) if with_len else describe(size)
        raise problem(name, got, "两个正整数 (高, 宽)", "例如 image.shape[:2]。")
    return pair[0], pair[1]


def check_image_or_size(image: Any) -> tuple[int, int]:
    """一张图像，或它的 ``(高, 宽)``。返回 ``(高, 宽)``。"""
    if isinstance(image, (tuple, list)):
        return check_size("image", image)
    height, width = check_image(image).shape[:2]
    return height, width


def check_positive(name: str, value: Any) -> int:
    """一个正整数，否则抛 SamLiteError。"""
    if not is_whole(value) or value < 1:
        raise problem(name, describe(value), "正整数")
    return int(value)


def is_whole(value: Any) -> bool:
    """是不是一个整数；numpy 的和 0 维整数张量也算，布尔不算。"""
    if isinstance(value, (bool, np.bool_)):
        return False
    try:
        return int(value) == value
    except (TypeError, ValueError, OverflowError):
        return False


def check_images(images: Any, image_format: Any) -> list[np.ndarray]:
    """一批图像的列表，每张同 check_image；错误里说明第几张。返回数组的列表。"""
    if not isinstance(images, (list, tuple)) or not len(images):
        mend = "一张图像用 set_image；(B, 高, 宽, 3) 的数组用 list(images)。"
        raise problem("images", describe(images), "图像的列表，至少一张", mend)
    pictures = []
    for i, image in enumerate(images):
        with naming_image(i):
            pictures.append(check_image(image, image_format))
    return pictures
