"""training：每一项损失都手算一遍；模拟的点击和学习率。"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam_lite import training
from sam_lite.config import TrainConfig


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


def test_cosine_warms_up_then_falls_to_zero():
    config = TrainConfig(lr=1.0, warmup=10)
    assert training.learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert training.learning_rate(config, 100, 0.25) == pytest.approx(0.5 + 0.5**1.5)
    assert training.learning_rate(config, 100, 0.5) == pytest.approx(0.5)
    assert training.learning_rate(config, 100, 1.0) == pytest.approx(0.0)


@pytest.mark.parametrize("unit", ["steps", "minutes"])
def test_flat_stays_until_the_decay(unit):
    """总长 200，末尾 50 线性降：0.75 之前不变，0.875 时一半，到头是零。"""
    config = TrainConfig(lr=2.0, warmup=10, schedule="flat", **{unit: 200})
    for done in (0.0, 0.5, 1.0):
        assert training.learning_rate(config, 100, done) == 2.0
    assert training.learning_rate(config, 4, 0.5) == pytest.approx(1.0)
    config = replace(config, decay=50)
    for done, rate in ((0.2, 2.0), (0.75, 2.0), (0.875, 1.0), (1.0, 0.0)):
        assert training.learning_rate(config, 100, done) == pytest.approx(rate)


def test_rounds_are_one_half_of_the_time():
    g = torch.Generator().manual_seed(0)
    found = torch.tensor([training.draw_rounds(3, g) for _ in range(2000)])
    shares = [(found == n).float().mean().item() for n in (1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.04)


def corrected(logits, truth, inside=None, cell=16):
    """补的点和标签，抽一次签。"""
    inside = torch.ones_like(truth, dtype=torch.bool) if inside is None else inside
    luck = torch.rand(len(truth), 3, generator=torch.Generator().manual_seed(0))
    return training.corrective_points(logits, truth, inside, cell, luck)


def test_corrective_points_land_on_errors():
    """漏掉的地方给正点，多出的地方给负点；全对再点个正点，极细的随便点个负点。"""
    truth = torch.zeros(4, 1, 4, 4)
    truth[:3, :, 1, 2] = 1  # 物体是 (x=2, y=1) 这一格
    logits = torch.full((4, 1, 4, 4), -5.0)
    logits[1, 0, 1, 2] = logits[1, 0, 3, 0] = 5.0  # 第二组找对了，还多了一格
    logits[2, 0, 1, 2] = 5.0
    points, labels = corrected(logits, truth)
    assert labels.tolist() == [[1.0], [0.0], [1.0], [0.0]]
    assert (points[:3, 0] // 16).int().tolist() == [[2, 1], [0, 3], [2, 1]]
    assert points.shape == (4, 1, 2) and (points >= 0).all() and (points < 64).all()


def test_corrective_points_reach_every_error_alike():
    """六格里错了三格，各抽中三分之一；格子里的像素也均匀。"""
    truth = torch.zeros(900, 1, 2, 2)
    logits = torch.tensor([[[5.0, -5.0], [5.0, 5.0]]]).expand(900, 1, 2, 2)
    points, _ = corrected(logits, truth, cell=2)
    cells = (points[:, 0] // 2).int().tolist()
    counts = [cells.count(spot) for spot in ([0, 0], [0, 1], [1, 1])]
    assert sum(counts) == 900 and min(counts) > 240
    assert (points[:, 0] % 2).mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.06)


def test_prompts_stay_inside_the_photo():
    """右边一半是填充：框不伸进去，纠正的点也不落进去。"""
    g = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.0, 0.0, 31.0, 63.0]]).repeat(50, 1)
    moved = training.jitter_boxes(boxes, torch.tensor([[64.0, 32.0]] * 50), g)
    assert moved.min() >= 0 and moved[:, 2].max() <= 31 and moved[:, 3].max() <= 63
    truth = torch.zeros(50, 1, 4, 4)
    truth[:, :, 0, 0] = 1
    inside = training.inside_mask(torch.tensor([[4.0, 2.0]] * 50), 4)[:, None]
    points, labels = corrected(torch.full((50, 1, 4, 4), 5.0), truth, inside)
    assert points[..., 0].max() < 32 and (labels == 0).all()


def test_first_points_are_inside_and_boxes_are_tight():
    """两个物体、一个空的：点在里面，框贴着，空的 valid 是 0。"""
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, 2:4, 5:9] = masks[1, 10:15, 1] = True
    config = TrainConfig(rounds=2, box_share=1.0)
    g = torch.Generator().manual_seed(0)
    targets = training.make_targets(masks, (16, 12), 8, config, g)
    assert targets.valid.tolist() == [1, 1, 0] and targets.use_box.all()
    for mask, (x, y) in zip(masks[:2], targets.points[:2, 0].int().tolist()):
        assert mask[y, x]
    pooled = torch.nn.functional.avg_pool2d(masks[:, None].float(), 2)
    assert torch.equal(targets.masks, pooled)
    tight = torch.tensor([[5.0, 2, 8, 3], [1, 10, 1, 14]])
    assert ((targets.boxes[:2] - tight).abs() <= 0.45 * 4).all()
    assert targets.boxes[1, 0] == targets.boxes[1, 2] == 1  # 宽是 0，噪声也是 0
    assert targets.inside[0, 0].sum() == 8 * 6 and targets.luck.shape == (3, 2, 3)


def test_every_step_asks_as_many_rounds_in_every_process(small_sam, monkeypatch):
    """轮数只由步数决定，几张图都一样；开头的均衡渐渐退去。"""
    seen = []

    def note(sam, embeddings, targets, config, rounds, balanced):
        seen.append((rounds, balanced))

    monkeypatch.setattr(training, "prompt_loss", note)
    config = TrainConfig(batch=3, rounds=9, balanced_steps=20)
    for step in range(8):
        for count in (3, 1):
            images = torch.zeros(count, 3, 64, 64)
            training.sam_loss(small_sam, images, None, config, step)
    assert seen[::2] == seen[1::2] and len({rounds for rounds, _ in seen}) > 2
    assert seen[::2][4][1] == pytest.approx(1 - 4 / 20)
