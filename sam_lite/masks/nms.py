"""非极大值抑制（NMS）：重叠太多的框，只留分数最高的。"""

import torch

from .. import ops


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """框的面积，像素。形状：``(N, 4) -> (N,)``，框是 (x0, y0, x1, y1)。"""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms(
    boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """按分数从高到低，逐个留下没有被更高分的框压住的。

    形状：boxes ``(N, 4)``，scores ``(N,)`` -> 留下的下标，按分数从高到低；同分的按原来
    的先后。与 ``torchvision.ops.nms`` 相同：交并比大于阈值才算压住。

    每留下一个框，一次算出它与后面全部框的交并比；不存 N×N 的大表。
    """
    order = ops.argsort_descending(scores)
    boxes, area = boxes[order].float(), box_area(boxes[order].float())
    device = boxes.device
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    keep = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        keep.append(i)
        rest = boxes[i + 1 :]
        top_left = torch.maximum(boxes[i, :2], rest[:, :2])
        bottom_right = torch.minimum(boxes[i, 2:], rest[:, 2:])
        inter = (bottom_right - top_left).clamp(min=0).prod(dim=1)  # (N-i-1,)
        union = area[i] + area[i + 1 :] - inter
        # 与双精度的阈值比，torchvision 也是；正好等于阈值时结果才相同。
        # 两个空框的并是 0，0/0 得 NaN，比较为假，谁也不压谁，与 torchvision 相同
        alive[i + 1 :] &= ~((inter / union).cpu().double() > iou_threshold).to(device)
    return order[torch.tensor(keep, dtype=torch.int64, device=boxes.device)]
