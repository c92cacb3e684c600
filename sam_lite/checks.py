"""进门检查：图像和提示不对时，当场说清哪个参数、收到什么、应为什么、怎么改。"""

from typing import Any

import numpy as np

from .errors import problem


def describe(value: Any) -> str:
    """用一句话描述收到的东西：数组说类型和形状，别的说它的 Python 类型。"""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} 数组、形状 {value.shape}"
    return "None" if value is None else f"{type(value).__name__} 对象"


def check_image(image: Any) -> None:
    """只接受 uint8 的 ``(H, W, 3)``，别的给出改法。"""
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if good and image.ndim == 3 and image.shape[2] == 3 and 0 not in image.shape:
        return
    mend = "用 Pillow 读图时：np.array(Image.open(路径).convert('RGB'))。"
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        mend = "浮点图像先乘 255（如果在 0–1 之间），再 .astype(np.uint8)。"
    elif isinstance(image, np.ndarray) and image.ndim == 2:
        mend = "灰度图像先复制成三个通道：np.stack([image] * 3, axis=-1)。"
    raise problem("image", describe(image), "uint8 数组、形状 (高, 宽, 3)", mend)


def numbers(name: str, value: Any) -> np.ndarray:
    """把列表、元组、数组变成浮点数组；不是数的抛 SamLiteError。"""
    if hasattr(value, "detach"):  # 张量
        value = value.detach().cpu()
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise problem(name, describe(value), "一组数") from error
    if not np.isfinite(array).all():
        raise problem(name, "无穷大或 NaN", "有限的数")
    return array


RECORD_KEYS = {
    "image",
    "original_size",
    "point_coords",
    "point_labels",
    "boxes",
    "mask_inputs",
}


def check_record(record: dict[str, Any]) -> None:
    """Sam.forward 的一条输入：必有的键都有，没有认不得的键，点和标签成对。"""
    missing = {"image", "original_size"} - set(record)
    extra = set(record) - RECORD_KEYS
    if missing or extra:
        raise problem(
            "batched_input",
            f"缺少 {sorted(missing)}、多出 {sorted(extra)} 的字典",
            "只含这些键的字典：" + "、".join(sorted(RECORD_KEYS)),
        )
    if ("point_coords" in record) != ("point_labels" in record):
        raise problem(
            "batched_input", sorted(record), "成对的 point_coords 和 point_labels"
        )


def check_points(coords: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """点和标签一一对应。返回 ``(N, 2)`` 与 ``(N,)`` 的数组。"""
    if coords is None:
        raise problem("point_coords", "None", "与 point_labels 等长的点，形状 (N, 2)")
    points = numbers("point_coords", coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise problem(
            "point_coords",
            f"形状 {points.shape}",
            "形状 (N, 2)，每行 (x, y)",
            "只有一个点也要两层括号：np.array([[x, y]])。",
        )
    wanted = f"{len(points)} 个标签，每个点一个"
    if labels is None:
        raise problem("point_labels", "None", wanted, "1 是正点，0 是负点。")
    kinds = numbers("point_labels", labels)
    if kinds.shape != (len(points),):
        raise problem("point_labels", f"形状 {kinds.shape}", wanted)
    if not np.isin(kinds, (-1, 0, 1)).all():
        raise problem(
            "point_labels",
            sorted(set(kinds.tolist())),
            "1（正点）、0（负点）或 -1（填充）",
            "框不要写成标签 2、3 的点，用 box 参数。",
        )
    return points, kinds


def check_box(box: Any) -> np.ndarray:
    """一个框 ``(x0, y0, x1, y1)``，左上角在前。返回 ``(4,)`` 的数组。"""
    corners = numbers("box", box)
    if corners.size != 4:
        raise problem(
            "box",
            f"形状 {corners.shape}",
            "四个数 (x0, y0, x1, y1)",
            "几个框一起问，用 predict_torch 的 boxes。",
        )
    x0, y0, x1, y1 = corners = corners.reshape(4)
    if x0 > x1 or y0 > y1:
        raise problem("box", corners.tolist(), "左上角在前：x0 ≤ x1、y0 ≤ y1")
    return corners


def check_mask_input(mask_input: Any, size: tuple[int, int]) -> np.ndarray:
    """上一次的低分辨率 logits。返回 ``(1, size[0], size[1])`` 的数组。"""
    mask = numbers("mask_input", mask_input)
    if mask.shape != (1, *size):
        raise problem(
            "mask_input",
            f"形状 {mask.shape}",
            f"形状 {(1, *size)} 的 logits",
            "用上一次 predict 返回的第三项，选一张：low_res[i][None]。",
        )
    return mask
