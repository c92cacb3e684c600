"""training：取样、提示、损失、续跑。用 64 像素的场景和一个几秒就能跑的小模型。"""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam_lite import SamLiteError, training
from sam_lite.config import TINY
from sam_lite.model import sam_from_config
from sam_lite.scene_bank import SceneBank
from sam_lite.scenes import Scene, make_scene
from sam_lite.training import TrainConfig, Trainer

MICRO = dataclasses.replace(
    TINY,
    embed_dim=32,
    depth=2,
    num_heads=2,
    global_attn_indexes=(1,),
    image_size=64,
    window_size=3,
    prompt_embed_dim=32,
    decoder_mlp_dim=32,
    iou_head_hidden_dim=32,
)
CONFIG = TrainConfig(steps=4, batch=2, prompts=3, min_area=20, warmup=1)
GRID = 16


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = SceneBank(tmp_path_factory.mktemp("bank"), 6, 64)
    assert list(bank.fill(workers=1)) == [0, 1, 2, 3, 4, 5]
    return bank


def micro_sam():
    torch.manual_seed(0)
    sam = sam_from_config(MICRO)
    training.init_for_training(sam)
    return sam


def scene_batch(seeds=(0, 1)) -> tuple[training.Batch, list[Scene]]:
    """不经增强的一批，好与场景的真值对账。"""
    scenes = [make_scene(seed, 64) for seed in seeds]
    labels = torch.stack([torch.from_numpy(s.labels).long() for s in scenes])
    parents = torch.zeros(len(scenes), training.MAX_LABELS, dtype=torch.uint8)
    for row, scene in zip(parents, scenes, strict=True):
        row[: len(scene.parents)] = torch.from_numpy(scene.parents)
    images = torch.zeros(len(scenes), 3, 64, 64)
    return training.Batch(images, labels, training.membership(parents)), scenes


def test_membership_equals_scene_masks():
    """归属表乘标签图，就是场景自己给出的掩码（部件也算在整体里）。"""
    batch, scenes = scene_batch(range(8))
    assert any(scene.parents.any() for scene in scenes)
    for i, scene in enumerate(scenes):
        for k in range(1, scene.num_objects + 1):
            ours = batch.member[i, k][batch.labels[i]].bool().numpy()
            np.testing.assert_array_equal(ours, scene.mask(k))


def test_targets_are_pooled_masks_with_points_inside():
    """目标是某个物体掩码的平均池化；点落在它里面，框贴着它。"""
    batch, scenes = scene_batch()
    quiet = dataclasses.replace(CONFIG, prompts=5)
    g = torch.Generator().manual_seed(3)
    targets = training.choose_targets(batch, GRID, quiet, g)
    assert targets.masks.shape == (10, 1, GRID, GRID)
    for b in range(10):
        scene = scenes[b // 5]
        pooled = F.avg_pool2d(torch.from_numpy(scene.masks())[:, None].float(), 4)
        error = (pooled - targets.masks[b]).abs().amax((1, 2, 3))
        k = int(error.argmin())
        assert error[k] < 1e-6
        mask = scene.mask(k + 1)
        x, y = targets.points[b, 0].int().tolist()
        assert mask[y, x]
        ys, xs = np.nonzero(mask)
        tight = torch.tensor([xs.min(), ys.min(), xs.max(), ys.max()])
        sides = (tight[2:] - tight[:2]).repeat(2)
        assert ((targets.boxes[b] - tight).abs() <= 0.45 * sides + 1e-4).all()


def test_tight_boxes_by_hand():
    """第 1–2 行、第 3–5 列有像素：框是 (3, 1, 5, 2)。"""
    rows = torch.tensor([[[0, 1, 1, 0, 0, 0, 0, 0]]])
    columns = torch.tensor([[[0, 0, 0, 1, 1, 1, 0, 0]]])
    box = training.tight_boxes(rows.bool(), columns.bool())
    assert box.tolist() == [[[3, 1, 5, 2]]]


def test_corrective_points_land_on_errors():
    """漏掉的地方给正点，多出的地方给负点。"""
    truth = torch.zeros(2, 1, 4, 4)
    truth[:, :, 1, 2] = 1  # 物体是 (x=2, y=1) 这一格
    logits = torch.full((2, 1, 4, 4), -5.0)
    logits[1, 0, 1, 2] = logits[1, 0, 3, 0] = 5.0  # 第二组找对了，还多了一格
    empty = torch.zeros(2, 1)
    targets = training.Targets(truth, empty, empty, empty, empty)
    g = torch.Generator().manual_seed(0)
    points, labels = training.corrective_points(logits, targets, 16, g)
    assert labels.tolist() == [[1.0], [0.0]]
    assert (points[:, 0] // 16).int().tolist() == [[2, 1], [0, 3]]


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
    assert training.true_iou(logits, target).item() == pytest.approx(1 / 3)


def test_augment_keeps_image_and_labels_together():
    """图像就是标签画出来的时候，增强之后两者仍然对得上。"""
    labels = torch.zeros(4, 64, 64, dtype=torch.long)
    labels[:, 10:40, 5:30] = 1
    images = (labels[:, None] * 200.0).expand(4, 3, 64, 64)
    g = torch.Generator().manual_seed(1)
    moved, moved_labels = training.augment(images, labels, g)
    assert moved_labels.float().mean() > 0.02
    for image, label in zip(moved, moved_labels, strict=True):
        inside, outside = image.mean(0)[label == 1], image.mean(0)[label == 0]
        assert inside.median() > outside.median() + 80


def test_resume_equals_one_run(bank, tmp_path):
    """跑 2 步、断开、再续 2 步，与一口气跑 4 步逐位相同。"""
    whole = Trainer(micro_sam(), bank, CONFIG, tmp_path / "whole")
    whole.run()
    part = Trainer(micro_sam(), bank, CONFIG, tmp_path / "part")
    for _ in range(2):
        part.train_step()
    part.save()
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path / "part")
    assert again.resume() and again.step == 2
    again.run()
    assert again.step == whole.step == 4
    for name, value in whole.sam.state_dict().items():
        assert torch.equal(value, again.sam.state_dict()[name]), name


def test_first_step_moves_every_trainable_part(bank, tmp_path):
    """一步之后，三个部分的参数都得到了梯度。"""
    trainer = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    for _ in range(3):  # 轮数是随机的：走到有纠正点（用到掩码输入）的那一步
        trainer.train_step()
    sam = trainer.sam
    for part in (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_interrupt_saves_a_state(bank, tmp_path):
    """Ctrl-C 时也存档，续跑从断处开始。"""
    trainer = Trainer(micro_sam(), bank, CONFIG, tmp_path)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    assert again.resume() and again.step == 1


def test_failed_save_keeps_the_old_state(bank, tmp_path, monkeypatch):
    """存到一半失败（磁盘满）：旧存档还在，也没有半个文件留下。"""
    trainer = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    trainer.train_step()
    trainer.save()

    def disk_full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError):
        trainer.save()
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()


def test_corrupt_state_is_a_clear_error(bank, tmp_path):
    """坏掉的存档给出中文错误，说清怎么办。"""
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(SamLiteError, match="存档"):
        Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()


def test_learning_rate_warms_up_then_falls_to_zero():
    config = TrainConfig(lr=1.0, warmup=10)
    assert training.learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert training.learning_rate(config, 100, 0.5) == pytest.approx(0.5)
    assert training.learning_rate(config, 100, 1.0) == pytest.approx(0.0)
