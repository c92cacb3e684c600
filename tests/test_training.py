"""training：每一项损失都手算一遍。"""

import numpy as np
import pytest
import torch

from sam_lite import training
from sam_lite.config import TrainConfig
from sam_lite.learn.data import Batch


def test_mask_losses_by_hand():
    """全 0 的 logits、占四分之一的目标：focal 和 dice 都能手算。"""
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2, :2] = 1
    loss = training.mask_losses(torch.zeros(1, 4, 4, 4), target, balanced=0.0)
    focal = 0.5 * np.log(2) * 0.25
    dice = 1 - (2 * 2 + 1) / (8 + 4 + 1)
    torch.testing.assert_close(loss, torch.full((1, 4), 20 * focal + dice))
    good = training.mask_losses(40 * target - 20, target, balanced=0.0)
    assert good.item() < 1e-4


def test_true_iou_by_hand():
    """预测两格、真值两格、重合一格：IoU 是三分之一。"""
    target = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    logits = torch.tensor([[[[-1.0, 1.0, 1.0, -1.0]]]])
    inside = torch.ones_like(target, dtype=torch.bool)
    assert training.true_iou(logits, target, inside).item() == pytest.approx(1 / 3)
    inside[..., 2] = False  # 多出来的那一格在填充里：不算
    assert training.true_iou(logits, target, inside).item() == pytest.approx(1 / 2)


def test_round_loss_by_hand():
    """框：第 0 张加三张里最小的；纠正的那一轮只有第 0 张；IoU 头总在学。"""
    losses = torch.tensor([[1.0, 4.0, 2.0, 6.0]])
    iou, truth = (
        torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        torch.tensor([[0.5, 0.5, 0.5, 0.9]]),
    )
    head = 0.4**2 / 4
    yes, no = torch.ones(1), torch.zeros(1)
    box = training.round_loss(losses, iou, truth, yes, True)
    click = training.round_loss(losses, iou, truth, no, True)
    more = training.round_loss(losses, iou, truth, yes, False)
    assert box.item() == pytest.approx(1 + 2 + 0.05 * 4 + head)
    assert click.item() == pytest.approx(2 + 0.05 * 4 + head)
    assert more.item() == pytest.approx(1 + head)


def test_every_picture_has_its_own_random_numbers(small_sam, monkeypatch):
    """轮数只由步数决定，各进程相同；补点的随机数每张图不同，与谁来算无关。"""
    seen = []

    def note(sam, embeddings, targets, config, generators, rounds, balanced):
        seen.append((rounds, [g.initial_seed() for g in generators], balanced))

    monkeypatch.setattr(training, "prompt_loss", note)
    config = TrainConfig(batch=3, rounds=9, balanced_steps=20)
    empty = torch.zeros(1, 2)
    batch = Batch(torch.zeros(1, 3, 64, 64), empty, empty, empty)
    for step in range(8):
        for slots in ([0, 1, 2], [1], [0, 2]):
            training.sam_loss(small_sam, batch, None, config, step, slots)
    found = [seen[i : i + 3] for i in range(0, 24, 3)]
    for step, (whole, one, two) in enumerate(found):
        assert whole[0] == one[0] == two[0]
        assert len(set(whole[1])) == 3
        assert whole[1] == [two[1][0], one[1][0], two[1][1]]
        assert whole[2] == pytest.approx(1 - step / 20)
    assert len({whole[0] for whole, _, _ in found}) > 2
