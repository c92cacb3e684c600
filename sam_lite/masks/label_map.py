"""标号图：互相重叠的掩码变成每个像素一个整数；叠加图，存成 PNG。"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import viz
from ..errors import SamLiteError, problem
from ..files.atomic import atomic_file
from .records import Record
from .rle import coco_decode_rle, rle_to_mask


def masks_to_label_map(
    records: Iterable[Record], shape: tuple[int, int] | None = None
) -> np.ndarray:
    """把互相重叠的掩码变成一张标号图：每个像素属于一张掩码，0 是哪张都不属于。

    大的先画、小的后画，小东西不会被大的盖住。第 i 个记录的标号是 i + 1。

    参数：
        records: generate 的返回，三种 output_mode 都行。
        shape: (高, 宽)；没有记录时要给出。

    返回：int32，``(H, W)``。

    错误：没有记录又没有 shape 时抛 SamLiteError。
    """
    records = list(records)
    if shape is None:
        if not records:
            raise problem("shape", "None", "(高, 宽)：没有掩码，看不出图有多大")
        shape = to_mask(records[0]["segmentation"]).shape
    labels = np.zeros(shape, dtype=np.int32)
    # 一次只还原一张：几百张大图的掩码放不进内存
    areas = [int(to_mask(record["segmentation"]).sum()) for record in records]
    for i in sorted(range(len(records)), key=lambda i: -areas[i]):
        mask = to_mask(records[i]["segmentation"])
        if mask.shape != labels.shape:
            raise problem("shape", labels.shape, f"掩码的大小 {mask.shape}")
        labels[mask] = i + 1
    return labels


def to_mask(segmentation: Any) -> np.ndarray:
    """记录里的 segmentation，三种写法都变成布尔 ``(H, W)``。"""
    if isinstance(segmentation, np.ndarray):
        return segmentation.astype(bool, copy=False)
    if isinstance(segmentation["counts"], str):
        segmentation = coco_decode_rle(segmentation)
    return rle_to_mask(segmentation)


def overview(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """每个标号一种颜色盖在照片上，交界处描白线。形状：``(H, W, 3)``。

    只看标号图，掩码再多也一样快、一样省内存。
    """
    colours = viz.PALETTE[(labels - 1) % len(viz.PALETTE)].astype(np.float32)
    inside = (labels > 0)[..., None]
    picture = np.where(inside, 0.55 * image + 0.45 * colours, image)
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    picture[edge] = 255
    return np.rint(picture).astype(np.uint8)


def save_labels(file: Path, labels: np.ndarray) -> None:
    """标号图存成 16 位的 PNG。"""
    if labels.max() > 65535:
        raise SamLiteError(f"{file}：{labels.max()} 张掩码，16 位的 PNG 放不下")
    buffer = io.BytesIO()
    Image.fromarray(labels.astype(np.uint16)).save(buffer, format="PNG")
    with atomic_file(file) as stream:
        stream.write(buffer.getvalue())
