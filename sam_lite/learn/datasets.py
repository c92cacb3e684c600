"""自己的照片和掩码：一个文件夹的照片配标号图，或一份 COCO 的 JSON。

两种数据集的样子相同，也是 ``training.fit`` 要的样子：``len(dataset)`` 是几张照片，
``dataset[i]`` 是照片 ``(H, W, 3)`` uint8 和掩码 ``(N, H, W)`` 布尔，N 可以是 0。自己写
一个类，给出这两样就行。
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, UnidentifiedImageError
from torch.utils.data import Subset, random_split

from .. import viz
from ..errors import SamLiteError, problem
from ..inputs.checks import check_image, describe, is_whole
from ..masks.rle import coco_decode_rle, rle_to_mask

MOST_OBJECTS = 10_000  # 一张标号图里的编号更多，多半不是标号图
PIXELS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # 照片

Sample = tuple[np.ndarray, np.ndarray]  # 照片 (H, W, 3)，掩码 (N, H, W)


class MaskDataset(Protocol):
    """一份照片和掩码：能数有几张，能取第 i 张。"""

    def __len__(self) -> int:
        """返回照片的张数。"""
        ...

    def __getitem__(self, index: int) -> Sample:
        """返回照片 ``(H, W, 3)`` uint8 与掩码 ``(N, H, W)`` 布尔。"""
        ...


def check_sample(sample: Any) -> Sample:
    """照片和掩码的类型、形状都对，就原样返回；不对抛 SamLiteError。"""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise problem("dataset", describe(sample), "(照片, 掩码) 两项")
    picture, masks = check_image(sample[0]), sample[1]
    if not isinstance(masks, np.ndarray) or masks.dtype != bool or masks.ndim != 3:
        mend = "标号图这样变：labels[None] == np.unique(labels)[1:, None, None]。"
        raise problem("掩码", describe(masks), "布尔数组、形状 (N, 高, 宽)", mend)
    if masks.shape[1:] != picture.shape[:2]:
        raise sizes_differ("掩码的大小", masks.shape[1:], picture.shape[:2])
    return picture, masks


def sizes_differ(
    what: str, got: tuple[int, ...], picture: tuple[int, ...]
) -> SamLiteError:
    """拼出“大小和照片不一样”的错误。"""
    mend = ""
    if tuple(got) == tuple(picture)[::-1]:
        mend = "高和宽正好对调：照片的 EXIF 里记着旋转，这里读照片时已经转正。标注是照"
        mend += "没有转的画的，就去掉照片的 EXIF。"
    sizes = f"高 {got[0]}、宽 {got[1]}", f"和照片一样的高 {picture[0]}、宽 {picture[1]}"
    return problem(what, *sizes, mend)


def split_dataset(
    dataset: Any, share: float, seed: int = 0
) -> tuple[Subset[Sample], Subset[Sample]]:
    """按种子随机分成两份：训练的一份，和占 ``share`` 的验证的一份；每份至少一张。

    错误：照片不到两张、share 不在 0 和 1 之间时抛 SamLiteError。
    """
    if not 0 < share < 1:
        raise problem("validation", share, "大于 0、小于 1 的数，验证占几成")
    if len(dataset) < 2:
        raise problem(
            "dataset",
            f"{len(dataset)} 张照片",
            "至少两张，一张训练、一张验证",
            "只有一张时，验证用的另给：fit(..., validation=另一份)。",
        )
    count = min(max(1, round(share * len(dataset))), len(dataset) - 1)
    g = torch.Generator().manual_seed(seed)
    teach, judge = random_split(dataset, [len(dataset) - count, count], generator=g)
    return teach, judge


# ---- 文件夹：照片和标号图 -------------------------------------------------------


class LabelMapFolder:
    """一个文件夹的照片，另一个文件夹的标号图，按文件名配对。

    标号图是一个通道的 PNG、TIFF 或 BMP，8 或 16 位：0 是背景，每个别的数是一个物体，
    不必连续；只有 0 和 255 的就是一个物体。``a.jpg`` 配 ``a.png`` 或 ``a.jpg.png``
    （``sam-lite auto`` 写出来的名字）；没有照片的标号图不管。

    参数：
        pictures: 照片的文件夹，只看这一层。
        label_maps: 标号图的文件夹。
        ignore: 不算物体的编号；Pascal VOC 用 255 描物体的边，写 ``ignore=255``。

    错误：文件夹不在、没有照片、照片没有标号图、配得出两张时，抛 SamLiteError；取一张时
    才发现的（读不了、不是一个通道、大小不同、编号不对）也是。
    """

    def __init__(
        self,
        pictures: str | os.PathLike[str],
        label_maps: str | os.PathLike[str],
        *,
        ignore: int | None = None,
    ) -> None:
        if ignore is not None and not is_whole(ignore):
            raise problem("ignore", describe(ignore), "一个整数，或不写")
        self.ignore = ignore
        photos = find_pictures(Path(pictures))
        known: dict[str, list[Path]] = {}
        for path in list_folder(Path(label_maps)):
            if path.suffix.lower() in viz.LOSSLESS:
                known.setdefault(path.stem, []).append(path)
        stems = [photo.stem for photo in photos]
        self.pairs: list[tuple[Path, Path]] = []
        for photo in photos:
            found = known.get(photo.name) or known.get(photo.stem, [])
            alike = len(found) and stems.count(photo.stem) > 1
            if len(found) != 1 or (alike and found[0].stem != photo.name):
                got = "、".join(path.name for path in found) or "一张也没有"
                wanted = f"{label_maps} 里正好一张，名叫 {photo.name}.png"
                wanted += "" if alike else f" 或 {photo.stem}.png"
                mend = "没有物体的照片，给一张全 0 的标号图，或者拿走。"
                raise problem(f"照片 {photo.name} 的标号图", got, wanted, mend)
            self.pairs.append((photo, found[0]))

    def __len__(self) -> int:
        """返回照片的张数。"""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """读第 index 张：照片 ``(H, W, 3)``，掩码 ``(N, H, W)``。"""
        photo, label_map = self.pairs[index]
        picture, labels = viz.read_photo(photo), read_label_map(label_map)
        if labels.shape != picture.shape[:2]:
            what = f"标号图 {label_map} 的大小"
            raise sizes_differ(what, labels.shape, picture.shape[:2])
        ids = np.unique(labels)
        if ids[0] < 0 or len(ids) > MOST_OBJECTS:
            wanted = f"0 是背景、正数是物体，最多 {MOST_OBJECTS} 个"
            raise problem(
                f"{label_map} 里的编号", f"{len(ids)} 种，最小 {ids[0]}", wanted
            )
        ids = ids[(ids > 0) & (ids != self.ignore)]
        return picture, labels[None] == ids[:, None, None]


def list_folder(folder: Path) -> list[Path]:
    """文件夹里的文件，按名字排序，隐藏的不算；没有这个文件夹就抛 SamLiteError。"""
    if not folder.is_dir():
        raise SamLiteError(f"找不到文件夹 {folder}")
    paths = sorted(folder.iterdir())
    return [p for p in paths if p.is_file() and not p.name.startswith(".")]


def find_pictures(folder: Path) -> list[Path]:
    """文件夹里的照片；一张也没有就抛 SamLiteError。"""
    photos = [path for path in list_folder(folder) if path.suffix.lower() in PIXELS]
    if not photos:
        raise SamLiteError(f"{folder} 里没有照片（只看这一层，认 {'、'.join(PIXELS)}）")
    return photos


def read_label_map(path: Path) -> np.ndarray:
    """读一张标号图，``(H, W)`` 整数；读不了、不是一个通道的整数时抛 SamLiteError。"""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
                return np.asarray(image).astype(np.int32)
            mode = image.mode
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise SamLiteError(f"标号图 {path} 读不了：{error}") from error
    mend = "每个像素存的是物体的编号，不是颜色。"
    raise problem(f"标号图 {path}", f"模式 {mode}", "一个通道的 8 或 16 位整数", mend)


# ---- COCO ----------------------------------------------------------------------


class CocoDataset:
    """COCO 格式的标注：多边形、两种 RLE 都收，``iscrowd`` 的跳过，类别不管。

    参数：
        annotations: JSON 文件，要有 ``images`` 和 ``annotations``。
        folder: 照片的文件夹，``file_name`` 相对于它。

    错误：JSON 读不懂、照片不在、编号重复或对不上时，抛 SamLiteError；取一张时才发现的
    （照片和 images 里写的大小不同、RLE 的总数不对、多边形不成形）也是，说出是哪一条。
    """

    def __init__(
        self, annotations: str | os.PathLike[str], folder: str | os.PathLike[str]
    ) -> None:
        try:
            # utf-8-sig：Windows 的记事本会在开头加一个 BOM
            content = json.loads(Path(annotations).read_text(encoding="utf-8-sig"))
            images = {image["id"]: image for image in content["images"]}
            self.photos = [Path(folder) / i["file_name"] for i in images.values()]
            self.sizes = [(i.get("height"), i.get("width")) for i in images.values()]
            marks: dict[Any, list[dict[str, Any]]] = {key: [] for key in images}
            for mark in content["annotations"]:
                if mark["image_id"] not in marks:
                    got, wanted = repr(mark["image_id"]), "images 里有的编号"
                    raise problem(f"标注 {mark.get('id')} 的 image_id", got, wanted)
                if not mark.get("iscrowd", 0):
                    marks[mark["image_id"]].append(mark)
        except OSError as error:
            raise SamLiteError(f"打不开 {annotations}（{error.strerror}）") from error
        except (LookupError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise not_coco(annotations, error) from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise not_coco(annotations, error) from error
        if len(images) < len(content["images"]) or not images:
            got = f"{len(content['images'])} 张照片、{len(images)} 个编号"
            raise problem("images", got, "至少一张，编号不重复")
        missing = [path for path in self.photos if not path.is_file()]
        if missing:
            raise SamLiteError(f"{len(missing)} 张照片不在，头一张是 {missing[0]}")
        self.marks = list(marks.values())

    def __len__(self) -> int:
        """返回照片的张数。"""
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        """读第 index 张：照片 ``(H, W, 3)``，掩码 ``(N, H, W)``。"""
        picture, size = viz.read_photo(self.photos[index]), self.sizes[index]
        if all(size) and size != picture.shape[:2]:  # 多边形的坐标是照那个大小画的
            what = f"images 里 {self.photos[index].name} 的大小"
            raise sizes_differ(what, size, picture.shape[:2])
        masks = np.zeros((len(self.marks[index]), *picture.shape[:2]), dtype=bool)
        for mask, mark in zip(masks, self.marks[index], strict=True):
            try:
                mask[:] = decode(mark["segmentation"], mask.shape)
            except SamLiteError as error:
                raise SamLiteError(f"标注 {mark.get('id')}：{error}") from error
            except (LookupError, TypeError, ValueError, OverflowError) as error:
                got = f"读不懂的 segmentation（{type(error).__name__}）"
                raise problem(f"标注 {mark.get('id')}", got, "多边形或 RLE") from error
        return picture, masks


def not_coco(path: str | os.PathLike[str], error: Exception) -> SamLiteError:
    """拼出“不是 COCO 的 JSON”的错误。"""
    wanted = "有 images（id、file_name）和 annotations（image_id、segmentation）的 JSON"
    return problem(str(path), f"{type(error).__name__}（{error}）", wanted)


def decode(segmentation: Any, size: tuple[int, ...]) -> np.ndarray:
    """一条标注的掩码，布尔 ``(H, W)``；大小和照片不同时抛 SamLiteError。"""
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != tuple(size):
            raise sizes_differ("RLE 的大小", segmentation["size"], size)
        packed = isinstance(segmentation["counts"], str)
        return rle_to_mask(coco_decode_rle(segmentation) if packed else segmentation)
    return draw_polygons(segmentation, size)


def draw_polygons(polygons: list[list[float]], size: tuple[int, ...]) -> np.ndarray:
    """几个多边形的并，布尔 ``(H, W)``；边上的像素与 pycocotools 可能差一圈。

    多边形写成 ``[x0, y0, x1, y1, …]``，坐标在像素的角上，所以画的时候挪半格。
    """
    canvas = Image.new("1", (size[1], size[0]))
    pen = ImageDraw.Draw(canvas)
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=float).reshape(-1, 2) - 0.5
        if len(corners) < 3 or not np.isfinite(corners).all():
            raise problem("多边形", f"{len(corners)} 个角", "至少三个角，坐标有限")
        pen.polygon([(x, y) for x, y in corners.tolist()], fill=1)
    return np.asarray(canvas)
