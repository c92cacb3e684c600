"""十张照片和每个物体的掩码：读手画的轮廓，画成像素。

轮廓在 ``drawn/名字.json``，坐标是照片的像素：``(0, 0)`` 是左上角像素的左上角，像素
``(x, y)`` 的中心在 ``(x + 0.5, y + 0.5)``。一个物体是几个多边形的并，再减去 ``minus``
里点名的、挡在它前面的物体。
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sam_lite
from sam_lite import viz
from sam_lite.errors import SamLiteError, problem, require
from sam_lite.learn.datasets import read_label_map

HERE = Path(__file__).parent
BUNDLED = Path(sam_lite.__file__).parent / "assets" / "photos"
# 名字 -> 画面；前五张随包附带，其余在 pictures/
TITLES = {
    "coins": "硬币",
    "coffee": "咖啡",
    "cat": "猫",
    "rocket": "火箭",
    "astronaut": "宇航员",
    "camera": "摄影师",
    "brick": "砖地",
    "gravel": "石子",
    "ihc": "腺体切片",
    "retina": "眼底",
}

Mask = NDArray[np.bool_]


class Photo(NamedTuple):
    """一张照片和上面的物体。"""

    name: str
    image: viz.Picture  # (H, W, 3)
    objects: list[str]  # N 个名字
    masks: Mask  # (N, H, W)


def photo_path(name: str) -> Path:
    """返回照片的路径：随包附带的，或 ``pictures/`` 里的。"""
    bundled = BUNDLED / f"{name}.jpg"
    return bundled if bundled.is_file() else HERE / "pictures" / f"{name}.jpg"


def read_truth(name: str) -> Photo:
    """读一张照片和它的全部掩码；轮廓不成形、名字重复时抛 SamLiteError。"""
    image = viz.read_photo(photo_path(name))
    shape = image.shape[:2]
    if name == "coins":
        labels = read_label_map(HERE / "drawn" / "coins.png")
        ids = np.unique(labels)[1:]
        names = [f"硬币 {i}" for i in ids]
        return Photo(name, image, names, labels[None] == ids[:, None, None])
    text = (HERE / "drawn" / f"{name}.json").read_text(encoding="utf-8")
    objects, masks = draw_objects(json.loads(text)["objects"], shape)
    return Photo(name, image, objects, masks)


def draw_objects(
    objects: list[dict[str, Any]], shape: tuple[int, ...]
) -> tuple[list[str], Mask]:
    """把一张照片的轮廓画成掩码：名字 N 个，掩码 ``(N, H, W)``。"""
    drawn = {one["name"]: fill_polygons(one["polygons"], shape) for one in objects}
    if len(drawn) < len(objects):
        raise SamLiteError("物体的名字有重复的")
    masks = []
    for one in objects:
        mask = drawn[one["name"]].copy()
        for front in one.get("minus", []):
            if front not in drawn:
                got = f"{one['name']} 减去 {front}"
                raise problem("minus", got, f"这些之一：{'、'.join(drawn)}")
            mask &= ~drawn[front]
        masks.append(mask)
    return list(drawn), np.stack(masks)


def fill_polygons(polygons: list[list[list[float]]], shape: tuple[int, ...]) -> Mask:
    """几个多边形的并，``(H, W)``：中心落在里面的像素。"""
    polygon2mask = require("skimage.draw", "画轮廓").polygon2mask
    mask = np.zeros(shape, dtype=bool)
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=float)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
            raise problem("多边形", corners.shape, "至少三个角，(角数, 2)")
        if (corners < 0).any() or (corners > shape[::-1]).any():
            raise problem("多边形", corners.max(axis=0), f"在 {shape[::-1]} 的照片里面")
        mask |= polygon2mask(shape, corners[:, ::-1] - 0.5)  # xy -> 行列
    return mask


class Photos:
    """十张照片，样子同 ``sam_lite.learn.datasets``：取一张得到照片和掩码。"""

    def __init__(self) -> None:
        self.photos = [read_truth(name) for name in TITLES]

    def __len__(self) -> int:
        """返回照片的张数。"""
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[viz.Picture, Mask]:
        """返回照片 ``(H, W, 3)`` 和掩码 ``(N, H, W)``。"""
        return self.photos[index].image, self.photos[index].masks
