import numpy as np
import pytest
import torch

from sam_lite.masks.nms import box_area, nms


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    width = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])))
    height = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    inter = width * height
    union = float(box_area(a[None]) + box_area(b[None])) - inter
    # torchvision 算的是单精度的商，再与双精度的阈值比
    return float(np.float32(inter) / np.float32(union)) if union else 0.0


def nms_by_loop(boxes, scores, threshold) -> list[int]:
    """笨办法：从高到低，和每个留下的比一遍。"""
    keep = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in keep):
            keep.append(i)
    return keep


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_same_as_the_loop(threshold):
    corners = torch.randint(0, 30, (60, 2))
    boxes = torch.cat([corners, corners + torch.randint(1, 20, (60, 2))], dim=1)
    scores = torch.randint(0, 9, (60,)).float()  # 有同分的：先来的在前
    kept = nms(boxes, scores, threshold).tolist()
    assert kept == nms_by_loop(boxes, scores, threshold)


def test_exactly_at_the_threshold_stays():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 5]])  # 交并比正好 0.5
    scores = torch.tensor([1.0, 0.5])
    assert nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, 0.49).tolist() == [0]


def test_empty_boxes_and_no_boxes():
    boxes = torch.zeros(2, 4, dtype=torch.int64)  # 空掩码的框，面积 0
    assert nms(boxes, torch.tensor([0.1, 0.2]), 0.7).tolist() == [1, 0]
    assert nms(boxes[:0], torch.zeros(0), 0.7).tolist() == []
