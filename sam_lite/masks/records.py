"""自动掩码的记录：计算途中的一批掩码，和给出去的字典、COCO 的 JSON。"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .measure import batched_mask_to_box
from .regions import remove_small_regions
from .rle import area_from_rle, coco_encode_rle, mask_to_rle_pytorch, rle_to_mask

Record = dict[str, Any]


class MaskData(dict[str, Any]):
    """一批掩码的各项，每项一个张量、数组或列表，长度相同。"""

    def filter(self, keep: torch.Tensor) -> None:
        """只留 keep 里的：布尔张量，或下标（次序也照它）。"""
        rows = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        rows = rows.cpu()
        indices = rows.tolist()
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value[rows.to(value.device)]
            elif isinstance(value, np.ndarray):
                self[name] = value[rows.numpy()]
            else:
                self[name] = [value[i] for i in indices]

    @staticmethod
    def join(parts: Sequence["MaskData"]) -> "MaskData":
        """首尾相接。"""
        whole = MaskData()
        for name, first in parts[0].items():
            columns = [part[name] for part in parts]
            if isinstance(first, torch.Tensor):
                whole[name] = torch.cat(columns)
            else:
                whole[name] = [item for column in columns for item in column]
        return whole


def empty_data() -> MaskData:
    """一张掩码也没有，各列的类型都对，好与别的接起来。"""
    return MaskData(
        iou_preds=torch.zeros(0),
        points=torch.zeros(0, 2, dtype=torch.float64),
        stability_score=torch.zeros(0),
        boxes=torch.zeros(0, 4, dtype=torch.int64),
        rles=[],
    )


def write_record(data: MaskData, i: int, output_mode: str) -> Record:
    """第 i 张掩码的记录，一个字典，键照官方。"""
    size, counts = data["rles"][i]["size"], data["rles"][i]["counts"]
    rle = {"size": size, "counts": np.asarray(counts).tolist()}
    segmentation: Any = rle
    if output_mode == "binary_mask":
        segmentation = rle_to_mask(rle)
    elif output_mode == "coco_rle":
        segmentation = coco_encode_rle(rle)
    return {
        "segmentation": segmentation,
        "area": area_from_rle(rle),
        "bbox": corners_to_size(data["boxes"][i].tolist()),
        "predicted_iou": data["iou_preds"][i].item(),
        "point_coords": [data["points"][i].tolist()],
        "stability_score": data["stability_score"][i].item(),
        "crop_box": corners_to_size(data["crop_boxes"][i].tolist()),
    }


def clean_regions(data: MaskData, min_area: int) -> torch.Tensor:
    """每张掩码填小孔、去小岛，就地改 data 的 RLE 和框。返回哪些没有变，布尔。"""
    intact = []
    for i, rle in enumerate(data["rles"]):
        mask, filled = remove_small_regions(rle_to_mask(rle), min_area, "holes")
        mask, removed = remove_small_regions(mask, min_area, "islands")
        intact.append(not (filled or removed))
        if not intact[-1]:
            new = torch.from_numpy(np.ascontiguousarray(mask))[None]
            data["boxes"][i] = batched_mask_to_box(new)[0]
            data["rles"][i] = mask_to_rle_pytorch(new)[0]
    return torch.tensor(intact, dtype=torch.bool)


def corners_to_size(box: list[int]) -> list[int]:
    """(x0, y0, x1, y1) 改写成 (x, y, 宽, 高)。"""
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


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
