"""提示进门：numpy 或列表的点、框、掩码，查过之后排成一批。

形状里的 B 是几组提示，N 是每组几个点，``(4h, 4w)`` 是低分辨率掩码的大小。
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import SamLiteWarning, problem
from .checks import LARGEST_LOGIT, describe, is_tensor, numbers

if TYPE_CHECKING:
    from ..preprocess import ResizeLongestSide

BATCH_NAMES = (
    "point_coords_batch",
    "point_labels_batch",
    "box_batch",
    "mask_input_batch",
)


def pad_points(
    list_of_coords: Sequence[Any], list_of_labels: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """个数不同的 B 组点，短的补到一样长：``(B, N, 2)`` 与 ``(B, N)``，N 是最多的个数。

    补上的点坐标 (0, 0)、标签 -1。SAM 没有注意力掩码：标签 -1 的填充词元照样参加注意力，
    所以补过的一组，结果和单独问不同，补得越多差得越多；要一模一样，就一组一组问。随包的
    小权重、随机的点上，补 1、3、8 个点的掩码与不补的相比，IoU 的中位数约是 0.96、0.91、
    0.83。

    错误：两个列表不等长，或某一组的点和标签对不上，抛 SamLiteError。
    """
    groups = as_list("list_of_coords", list_of_coords, None)
    kinds_by_group = as_list("list_of_labels", list_of_labels, len(groups))
    coords, labels = [], []
    for i, pair in enumerate(zip(groups, kinds_by_group, strict=True)):
        points = numbers(f"point_coords[{i}]", pair[0])
        kinds = numbers(f"point_labels[{i}]", pair[1], "biuf")
        points = points.reshape(0, 2) if points.shape == (0,) else points  # 空列表
        if points.ndim != 2 or points.shape[1] != 2:
            wanted = "形状 (N, 2)，每行 (x, y)"
            raise problem(f"point_coords[{i}]", f"形状 {points.shape}", wanted)
        if kinds.shape != (len(points),):
            wanted = f"{len(points)} 个标签，每个点一个"
            raise problem(f"point_labels[{i}]", f"形状 {kinds.shape}", wanted)
        coords.append(points)
        labels.append(kinds)
    N = max(map(len, coords), default=0)
    if N == 0:
        raise problem("list_of_coords", "全是空的", "至少一个点", "没有点就不传。")
    padding = [((0, N - len(points)), (0, 0)) for points in coords]
    return (
        np.stack([np.pad(x, width) for x, width in zip(coords, padding)]),
        np.stack([np.pad(k, (0, N - len(k)), constant_values=-1) for k in labels]),
    )


class Prompts(NamedTuple):
    """查过的 B 组提示，坐标在原图上；没有给的是 None。"""

    points: np.ndarray | None  # (B, N, 2)
    labels: np.ndarray | None  # (B, N)
    boxes: np.ndarray | None  # (B, 4)
    masks: np.ndarray | None  # (B 或 1, 1, 4h, 4w)
    batched: bool  # 结果要不要 B 那一维；单独一组提示不要

    def move(
        self, transform: ResizeLongestSide, size: tuple[int, int]
    ) -> list[np.ndarray | None]:
        """坐标搬到缩放后的图上，类型换成模型收的 float32 和 int32，次序不变。

        size 是原图的大小。
        """
        points, boxes = self.points, self.boxes
        if points is not None:
            points = transform.apply_coords(points, size)
        if boxes is not None:
            boxes = transform.apply_boxes(boxes, size)
        arrays = (points, self.labels, boxes, self.masks)
        kinds = (np.float32, np.int32, np.float32, np.float32)
        return [
            None if array is None else array.astype(kind)
            for array, kind in zip(arrays, kinds, strict=True)
        ]


def check_prompts(
    given: Sequence[Any], size: tuple[int, int], mask_size: tuple[int, int]
) -> Prompts:
    """查一次 predict 的四项提示，彼此的组数要对得上；size 是原图的 ``(高, 宽)``。"""
    coords, labels, box, mask_input = given
    if (coords is None) != (labels is None):
        missing = "point_coords" if coords is None else "point_labels"
        mend = "点和标签一一对应，1 是正点，0 是负点。"
        raise problem(missing, "None", "成对的 point_coords 和 point_labels", mend)
    if isinstance(coords, (list, tuple)) and depth(coords) == 3:
        coords, labels = pad_points(coords, labels)
    points = kinds = boxes = masks = None
    if coords is not None:
        points, kinds = check_points(coords, labels, size)
    if box is not None:
        boxes = check_boxes(box, size)
    if mask_input is not None:
        masks = check_mask_input(mask_input, mask_size)
    several = [
        points is not None and points.ndim == 3,
        boxes is not None and boxes.ndim == 2 and len(boxes) != 1,
        masks is not None and masks.ndim == 4,
    ]
    if any(several):
        check_counts(points, boxes, masks)
    else:  # 单独一组：补上 B = 1 那一维；(1, 4) 的框照官方当作一个框
        points = None if points is None else points[None]
        kinds = None if kinds is None else kinds[None]
        boxes = None if boxes is None else boxes.reshape(1, 4)
    if masks is not None and masks.ndim == 3:
        masks = masks[None]  # (1, 1, 4h, 4w)：几组提示共用一张
    return Prompts(points, kinds, boxes, masks, any(several))


def check_counts(
    points: np.ndarray | None, boxes: np.ndarray | None, masks: np.ndarray | None
) -> None:
    """几组提示一起问时：点要三维、框要二维，组数相同；掩码可以只有一张。"""
    if points is not None and points.ndim == 2:
        raise problem(
            "point_coords",
            f"形状 {points.shape}",
            "每组提示各有自己的点，形状 (B, N, 2)",
            "同一些点给每一组：np.repeat(points[None], B, axis=0)，标签也是。",
        )
    if boxes is not None and boxes.ndim == 1:
        wanted = "每组提示各有一个框，形状 (B, 4)"
        raise problem("box", f"形状 {boxes.shape}", wanted)
    counts = [len(x) for x in (points, boxes) if x is not None]
    if len(counts) == 2 and counts[0] != counts[1]:
        raise problem("box", f"{counts[1]} 个框", f"{counts[0]} 个，每组点一个")
    several = masks is not None and masks.ndim == 4
    if counts and several and masks is not None and len(masks) not in (1, counts[0]):
        wanted = f"{counts[0]} 张，每组提示一张，或共用的一张"
        raise problem("mask_input", f"{len(masks)} 张", wanted)


def check_points(
    coords: Any, labels: Any, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """点和标签一一对应，点在图内。返回 ``(..., N, 2)`` 与 ``(..., N)``，B 组点多一维。

    标签 -1 是填充，位置不起作用，一律改成 (0, 0)。
    """
    points = numbers("point_coords", coords)
    if points.ndim not in (2, 3) or points.shape[-1] != 2 or points.shape[-2] == 0:
        raise problem(
            "point_coords",
            f"形状 {points.shape}",
            "形状 (N, 2)，每行 (x, y)；几组点是 (B, N, 2)",
            "只有一个点也要两层括号：np.array([[x, y]])；没有点就不传。",
        )
    wanted = f"形状 {points.shape[:-1]}，每个点一个标签"
    kinds = numbers("point_labels", labels, "biuf")
    if kinds.shape != points.shape[:-1]:
        raise problem("point_labels", f"形状 {kinds.shape}", wanted)
    if not np.isin(kinds, (-1, 0, 1)).all():
        raise problem(
            "point_labels",
            sorted(set(kinds.ravel().tolist()))[:5],
            "1（正点）、0（负点）或 -1（填充）",
            "框不要写成标签 2、3 的点，用 box 参数。",
        )
    points = np.where(kinds[..., None] == -1, 0.0, points)
    height, width = size
    outside = ((points < 0) | (points > (width, height))).any(axis=-1)
    if outside.any():
        x, y = points[outside][0]
        raise problem(
            "point_coords",
            f"点 ({x:g}, {y:g})",
            f"图内的点：0 ≤ x ≤ {width}、0 ≤ y ≤ {height}",
            "坐标是原图的像素，x 在前、y 在后。",
        )
    return points, kinds


def check_boxes(box: Any, size: tuple[int, int]) -> np.ndarray:
    """一个或 N 个框 ``(x0, y0, x1, y1)``。返回 ``(4,)`` 或 ``(N, 4)``，裁到图内。

    整个在图外、左上角不在前的，抛 SamLiteError；伸出去一部分的，裁掉并发出
    SamLiteWarning。
    """
    corners = numbers("box", box)
    if corners.ndim not in (1, 2) or corners.shape[-1] != 4:
        raise problem(
            "box",
            f"形状 {corners.shape}",
            "(x0, y0, x1, y1) 四个数；几个框是 (N, 4)",
            "一个框也没有时，不传，或给 np.zeros((0, 4))。",
        )
    low, high = corners[..., :2], corners[..., 2:]
    wrong = (low > high).any(axis=-1)
    if wrong.any():
        wanted = "左上角在前：x0 ≤ x1、y0 ≤ y1"
        mend = "(x, y, 宽, 高) 的框先换成 (x, y, x + 宽, y + 高)。"
        raise problem("box", corners[wrong].reshape(-1, 4)[0].tolist(), wanted, mend)
    height, width = size
    edge = np.array([width, height], dtype=float)
    away = ((high < 0) | (low > edge)).any(axis=-1)
    if away.any():
        got = corners[away].reshape(-1, 4)[0].tolist()
        wanted = f"与图像（宽 {width}、高 {height}）相交的框"
        raise problem("box", got, wanted, "坐标是原图的像素，x 在前、y 在后。")
    clipped = np.concatenate([low.clip(0, edge), high.clip(0, edge)], axis=-1)
    cut = (clipped != corners).any(axis=-1).sum()
    if cut:
        text = f"{cut} 个 box 伸出了图像（宽 {width}、高 {height}），已裁到图内。"
        warnings.warn(text, SamLiteWarning, stacklevel=5)  # 指到调用 predict 的那一行
    return clipped


def check_mask_input(mask_input: Any, size: tuple[int, int]) -> np.ndarray:
    """上一次的低分辨率 logits。返回 ``(1, 4h, 4w)``，或 B 组的 ``(B, 1, 4h, 4w)``。"""
    mend = "用上一次 predict 返回的第三项，选一张：low_res[i][None]。"
    kind = str(getattr(mask_input, "dtype", "float"))
    if "float" not in kind:  # 多半是 0/1 或 0/255 的掩码，当成 logits 意思就变了
        make = "从掩码造 logits：np.where(mask, 10.0, -10.0)[None]。"
        raise problem("mask_input", kind, "浮点的 logits，正的是物体", make)
    mask = numbers("mask_input", mask_input)
    if mask.ndim not in (3, 4) or mask.shape[-3:] != (1, *size):
        if mask.shape == size:
            mend = "少了一维：mask_input[None]。"
        wanted = f"形状 {(1, *size)} 的 logits，几组是 {('B', 1, *size)}"
        raise problem("mask_input", f"形状 {mask.shape}", wanted, mend)
    if np.abs(mask).max(initial=0) > LARGEST_LOGIT:
        wanted = f"绝对值不超过 {LARGEST_LOGIT:g} 的 logits"
        raise problem("mask_input", f"{np.abs(mask).max():g}", wanted, mend)
    return mask


def as_list(name: str, value: Any, count: int | None) -> list[Any]:
    """列表、元组、数组拆成 count 项的列表，否则抛 SamLiteError；None 不限几项。"""
    good = isinstance(value, (list, tuple, np.ndarray)) or is_tensor(value)
    if not good or getattr(value, "ndim", None) == 0:
        raise problem(name, describe(value), "列表")
    if count is not None and len(value) != count:
        raise problem(name, f"{len(value)} 项", f"{count} 项，一一对应")
    return list(value)


def depth(value: Any) -> int:
    """嵌套几层：一个数 0，``(N, 2)`` 的数组或列表 2，点的列表的列表 3。"""
    if isinstance(value, (list, tuple)):
        return 1 + max((depth(item) for item in value), default=0)
    return getattr(value, "ndim", 0)


def split_batches(batches: Sequence[Any], count: int) -> list[tuple[Any, ...]]:
    """predict_batch 的四列提示 -> 每张图一份 (点, 标签, 框, 掩码)，共 count 份。"""
    columns = []
    for name, batch in zip(BATCH_NAMES, batches, strict=True):
        missing = [None] * count
        columns.append(missing if batch is None else as_list(name, batch, count))
    return list(zip(*columns, strict=True))
