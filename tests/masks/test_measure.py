import pytest
import torch

from sam_lite.masks.measure import batched_mask_to_box, calculate_stability_score


def test_boxes_of_masks():
    masks = torch.zeros(2, 3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2, 3] = True
    masks[1, 0, 1:4, 2:6] = True
    boxes = batched_mask_to_box(masks)
    assert boxes.shape == (2, 3, 4) and boxes.dtype == torch.int64
    assert boxes[0, 1].tolist() == [3, 2, 3, 2]
    assert boxes[1, 0].tolist() == [2, 1, 5, 3]
    assert boxes[0, 0].tolist() == [0, 0, 0, 0]  # 空的


def test_stability_score():
    logits = torch.tensor([[[-3.0, -0.5, 0.5, 3.0]], [[-9.0, -9.0, -9.0, -9.0]]])
    # 高阈值只剩 1 个像素，低阈值有 3 个；全空时是 0，不是 NaN
    scores = calculate_stability_score(logits, 0.0, 1.0)
    assert scores.tolist() == pytest.approx([1 / 3, 0.0])
    assert calculate_stability_score(torch.tensor([[5.0, -5.0]]), 0.0, 1.0) == 1
    edges = torch.tensor([[1.0, 2.0, 0.0, -1.0]])  # 正好在两个阈值上的，都不算
    assert calculate_stability_score(edges, 0.0, 1.0) == pytest.approx(1 / 3)
