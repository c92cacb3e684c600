"""trainer：续跑、检查点、记录。用 64 像素的场景和一个几秒就能跑的小模型。"""

import dataclasses
import json

import pytest
import torch
from parity.small import SMALL

from sam_lite import SamLiteError, trainer, training
from sam_lite.config import TrainConfig
from sam_lite.model import sam_from_config
from sam_lite.scene_bank import SceneBank
from sam_lite.trainer import Trainer

CONFIG = TrainConfig(steps=4, batch=2, prompts=3, min_area=20, warmup=1)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = SceneBank(tmp_path_factory.mktemp("bank"), 6, 64)
    assert list(bank.fill(workers=1)) == [0, 1, 2, 3, 4, 5]
    return bank


def micro_sam():
    torch.manual_seed(0)
    sam = sam_from_config(SMALL)
    training.init_for_training(sam)
    return sam


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


def test_first_steps_move_every_part(bank, tmp_path):
    """几步之后，三个部分的参数都得到了梯度。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    for _ in range(3):  # 轮数是随机的：走到有纠正点（用到掩码输入）的那一步
        run.train_step()
    sam = run.sam
    for part in (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder):
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()
        )


def test_interrupt_saves_a_state(bank, tmp_path):
    """Ctrl-C 时也检查点，续跑从断处开始。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(stop)
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    assert again.resume() and again.step == 1


def test_failed_save_keeps_the_old_state(bank, tmp_path, monkeypatch):
    """存到一半失败（磁盘满）：旧检查点还在，也没有半个文件留下。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.train_step()
    run.save()

    def disk_full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError):
        run.save()
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()


def test_corrupt_state_is_a_clear_error(bank, tmp_path):
    """坏掉的检查点给出中文错误，说清怎么办。"""
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(SamLiteError, match="检查点"):
        Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()


def test_learning_rate_warms_up_then_falls_to_zero():
    config = TrainConfig(lr=1.0, warmup=10)
    assert trainer.learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert trainer.learning_rate(config, 100, 0.5) == pytest.approx(0.5)
    assert trainer.learning_rate(config, 100, 1.0) == pytest.approx(0.0)


def test_interrupt_inside_the_update_keeps_the_last_checkpoint(bank, tmp_path):
    """参数更新到一半被打断：不存这个半成品，留下的还是上一个检查点。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.train_step()
    run.save()
    good = (tmp_path / "state.pt").read_bytes()

    def half_update():
        next(run.sam.parameters()).data.add_(1)
        raise KeyboardInterrupt

    run.optimizer.step = half_update
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert (tmp_path / "state.pt").read_bytes() == good


def test_bad_gradient_stops_before_the_update(bank, tmp_path):
    """权重里有 NaN：报错，不更新参数，也不写检查点。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.sam.mask_decoder.iou_token.weight.data[0, 0] = float("nan")
    with pytest.raises(SamLiteError, match="梯度"):
        run.run()
    assert not (tmp_path / "state.pt").exists()


def test_resume_refuses_other_settings(bank, tmp_path):
    """换了学习率就不是同一次训练；步数可以加。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.train_step()
    run.save()
    other = dataclasses.replace(CONFIG, lr=0.5)
    with pytest.raises(SamLiteError, match="lr 原来是"):
        Trainer(micro_sam(), bank, other, tmp_path).resume()
    longer = dataclasses.replace(CONFIG, steps=9)
    assert Trainer(micro_sam(), bank, longer, tmp_path).resume()


def test_resume_trims_the_log(bank, tmp_path):
    """检查点之后的记录在续跑前删掉，不会有重复的步数。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    for _ in range(2):
        run.log(run.train_step())
    run.step = 1
    run.save()
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    again.resume()
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]
