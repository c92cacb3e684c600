"""vit_b 在 1024 上端到端：与官方的相对误差不超过 2e-4。"""

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from parity.official import assert_near, assert_same_masks, ours, same_weights, theirs


@pytest.fixture
def _all_cores() -> Iterator[None]:
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_all_cores")
def test_vit_b_end_to_end() -> None:
    """同一组随机权重、一张非正方形的图，两边各编码一次，再试各种提示。"""
    our, their = same_weights(theirs.build_sam_vit_b(), ours.build_sam_vit_b())
    coarse = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    picture = coarse.repeat(50, 0).repeat(50, 1)  # 600×900
    our, their = ours.SamPredictor(our), theirs.SamPredictor(their)
    their.set_image(picture)
    their.model.image_encoder.blocks = None  # 用完即放，省内存
    our.set_image(picture)
    assert_near(our.get_image_embedding(), their.get_image_embedding(), 2e-4)

    points, labels = np.array([[450.0, 300.0], [100.0, 520.0]]), np.array([1, 0])
    box = np.array([120.0, 80.0, 700.0, 500.0])
    low_res = np.random.default_rng(1).normal(0, 4, (1, 256, 256)).astype(np.float32)
    for prompts in (
        {"point_coords": points[:1], "point_labels": labels[:1]},
        {"point_coords": points, "point_labels": labels, "mask_input": low_res},
        {"box": box, "multimask_output": False},
        {"point_coords": points, "point_labels": labels, "box": box},
    ):
        logits = their.predict(**prompts, return_logits=True)
        result = our.predict(**prompts, return_logits=True)
        assert_near(result, logits, 2e-4)
        assert_same_masks(result[0] > 0, logits[0] > 0, logits[0], 2e-4)

    boxes = torch.tensor([[100.0, 90.0, 500.0, 400.0], [300.0, 200.0, 900.0, 650.0]])
    expected = their.predict_torch(None, None, boxes, return_logits=True)
    result = our.predict_torch(None, None, boxes, return_logits=True)
    assert_near(result, expected, 2e-4)
