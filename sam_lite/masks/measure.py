"""量一张掩码：外面的框，稳定性分数。对应官方 ``utils/amg.py`` 里同名的函数。"""

import torch

from .. import ops


def batched_mask_to_box(masks: torch.Tensor) -> torch.Tensor:
    """贴着掩码的框；空掩码是 ``[0, 0, 0, 0]``。

    形状：布尔 ``(..., H, W) -> (..., 4)``，整数；右、下是最后一个像素的坐标。
    """
    edges = []
    for axis in (-1, -2):  # 先看每一行有没有，再看每一列
        filled = masks.any(dim=axis)
        n = filled.shape[-1]
        ones = filled.to(torch.uint8)
        first = ones.argmax(dim=-1)  # 有好几个最大值时取第一个
        last = n - 1 - ones.flip(-1).argmax(dim=-1)
        edges.append((first, last))
    (top, bottom), (left, right) = edges
    boxes = torch.stack([left, top, right, bottom], dim=-1)
    return boxes * masks.flatten(-2).any(dim=-1, keepdim=True)


def calculate_stability_score(
    masks: torch.Tensor, mask_threshold: float, threshold_offset: float
) -> torch.Tensor:
    """阈值抬高、放低 ``threshold_offset``，前后两张掩码的交并比。

    高的那张总在低的那张里面，所以交是高的面积，并是低的面积。两张都空时官方得 NaN，
    这里是 0。形状：logits ``(..., H, W) -> (...)``。
    """
    high = ops.count_true(masks > mask_threshold + threshold_offset)
    low = ops.count_true(masks > mask_threshold - threshold_offset)
    return high / low.clamp(min=1)
