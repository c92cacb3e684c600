"""到哪里去问：网格的点，裁图的框，裁图与原图之间搬来搬去。

对应官方 ``utils/amg.py`` 里同名的函数。框都是 (x0, y0, x1, y1)，像素。
"""

import math
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F


def build_point_grid(n_per_side: int) -> np.ndarray:
    """单位正方形里均匀的网格点，``(n², 2)``，(x, y)；每点在它那一格的正中。"""
    side = (np.arange(n_per_side) + 0.5) / n_per_side
    x, y = np.meshgrid(side, side)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def build_all_layer_point_grids(
    n_per_side: int, n_layers: int, scale_per_layer: int
) -> list[np.ndarray]:
    """每一层裁图用的网格：第 i 层每边 ``n_per_side / scale_per_layer**i`` 个点。"""
    return [
        build_point_grid(int(n_per_side / scale_per_layer**i))
        for i in range(n_layers + 1)
    ]


def generate_crop_boxes(
    im_size: tuple[int, int], n_layers: int, overlap_ratio: float
) -> tuple[list[list[int]], list[int]]:
    """整张图和各层裁图的框，以及每个框在第几层。

    第 i 层（i 从 1 起）每边切 ``2**i`` 块，相邻的块重叠：第 1 层重叠短边的
    ``overlap_ratio``，往后每层减半。``im_size`` 是 (高, 宽)。
    """
    im_h, im_w = im_size
    boxes, layers = [[0, 0, im_w, im_h]], [0]
    for layer in range(1, n_layers + 1):
        n = 2**layer
        overlap = int(overlap_ratio * min(im_h, im_w) * (2 / n))
        # n 块、n-1 处重叠，合起来要盖住整条边
        crop_w = math.ceil((overlap * (n - 1) + im_w) / n)
        crop_h = math.ceil((overlap * (n - 1) + im_h) / n)
        for i, j in product(range(n), range(n)):
            x0, y0 = (crop_w - overlap) * i, (crop_h - overlap) * j
            boxes.append([x0, y0, min(x0 + crop_w, im_w), min(y0 + crop_h, im_h)])
            layers.append(layer)
    return boxes, layers


def is_box_near_crop_edge(
    boxes: torch.Tensor, crop_box: list[int], orig_box: list[int], atol: float = 20.0
) -> torch.Tensor:
    """哪些框贴着裁图的边、又不贴着原图的边：多半是被切断的半个物体。

    形状：boxes ``(N, 4)``，坐标在裁图里 -> 布尔 ``(N,)``。
    """
    boxes = uncrop_boxes_xyxy(boxes, crop_box).float()
    crop = torch.tensor(crop_box, dtype=torch.float32, device=boxes.device)
    image = torch.tensor(orig_box, dtype=torch.float32, device=boxes.device)
    near_crop = (boxes - crop).abs() <= atol
    near_image = (boxes - image).abs() <= atol
    return (near_crop & ~near_image).any(dim=1)


def uncrop_boxes_xyxy(boxes: torch.Tensor, crop_box: list[int]) -> torch.Tensor:
    """裁图里的框搬回原图。形状：``(N, 4) -> (N, 4)``。"""
    x0, y0 = crop_box[:2]
    return boxes + torch.tensor([x0, y0, x0, y0], device=boxes.device)


def uncrop_points(points: torch.Tensor, crop_box: list[int]) -> torch.Tensor:
    """裁图里的点搬回原图。形状：``(N, 2) -> (N, 2)``。"""
    return points + torch.tensor(crop_box[:2], device=points.device)


def uncrop_masks(
    masks: torch.Tensor, crop_box: list[int], orig_h: int, orig_w: int
) -> torch.Tensor:
    """裁图里的掩码放回原图，外面是 0。形状：``(N, h, w) -> (N, orig_h, orig_w)``。"""
    x0, y0, x1, y1 = crop_box
    if (x0, y0, x1, y1) == (0, 0, orig_w, orig_h):
        return masks
    return F.pad(masks, (x0, orig_w - x1, y0, orig_h - y1), value=0)
