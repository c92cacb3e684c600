"""自动掩码写成文件：标号图、叠加图、COCO 的 JSON。"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import viz
from ..errors import SamLiteError
from ..files.atomic import atomic_file
from ..masks.records import Record


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


def coco(
    name: str, size: tuple[int, int], records: list[Record], info: dict[str, Any]
) -> dict[str, Any]:
    """一张照片的 COCO：images 一项，每张掩码一条 annotations，第 i 条对应标号 i。"""
    height, width = size
    return {
        "info": info,
        "images": [{"id": 1, "file_name": name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0} | record
            for i, record in enumerate(records, start=1)
        ],
    }


def write_json(file: Path, data: dict[str, Any]) -> None:
    """要么完整写好，要么一点不动。"""
    with atomic_file(file) as stream:
        stream.write(json.dumps(data).encode("ascii"))
