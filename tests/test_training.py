"""training：损失、续跑、存档。用 64 像素的场景和一个几秒就能跑的小模型。"""

import dataclasses

import numpy as np
import pytest
import torch

from sam_lite import SamLiteError, training
from sam_lite.config import TINY
from sam_lite.model import sam_from_config
from sam_lite.scene_bank import SceneBank
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
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()
        )


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
