"""trainer：续跑、检查点、记录。用 64 像素的场景和一个几秒就能跑的小模型。"""

import dataclasses
import os
import shutil

import pytest
import torch
from parity.small import SMALL

from sam_lite import SamLiteError, training
from sam_lite.config import TrainConfig
from sam_lite.learn.trainer import Trainer
from sam_lite.model import sam_from_config
from sam_lite.scenes.bank import SceneBank

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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resume_equals_one_run(bank, tmp_path, optimizer):
    """跑 2 步、断开、再续 2 步，与一口气跑 4 步逐位相同。"""
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    whole = Trainer(micro_sam(), bank, config, tmp_path / "whole")
    whole.run()
    part = Trainer(micro_sam(), bank, config, tmp_path / "part")
    for _ in range(2):
        part.train_step()
    part.save()
    again = Trainer(micro_sam(), bank, config, tmp_path / "part")
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
    """Ctrl-C 时也存检查点，续跑从断处开始。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(stop)
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    assert again.resume() and again.step == 1


def test_failed_save_keeps_the_old_state(bank, tmp_path, monkeypatch):
    """存到一半失败（磁盘满）：旧检查点一字不动，也没有半个文件留下。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.train_step()
    run.save()
    good = (tmp_path / "state.pt").read_bytes()

    def disk_full(handle):
        raise OSError(28, "No space left on device")

    run.train_step()
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(SamLiteError, match="磁盘满了.*一个检查点要 .* MB"):
        run.save()
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == good and run.saved_step == 1


def test_a_failed_save_does_not_stop_the_training(bank, tmp_path, monkeypatch):
    """中途存不成只警告一次，最后存不成才报错；步数一步不少。"""
    warnings = []
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path, warnings.append)

    def disk_full(state):
        raise SamLiteError("磁盘满了。")

    monkeypatch.setattr(run.files, "save", disk_full)
    with pytest.raises(SamLiteError, match="磁盘满了"):
        run.run(save_every=-1)
    assert run.step == 4 and len(warnings) == 1
    assert "第 1 步的检查点没存成" in warnings[0] and "第 0 步" in warnings[0]
    monkeypatch.undo()
    run.save_or_warn()
    assert len(warnings) == 2 and "又存得成了，存在第 4 步" in warnings[1]
    assert Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()


def test_no_room_is_told_before_the_first_step(bank, tmp_path, monkeypatch):
    """磁盘装不下检查点：一步都没走就说出差多少。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**9, 10**9, 1000))
    with pytest.raises(SamLiteError, match="只剩 0.0 MB，检查点还要 .*再腾出"):
        run.run()
    assert run.step == 0 and list(tmp_path.iterdir()) == []


# ---- 坏掉的检查点 --------------------------------------------------------------


def flip(data):
    """翻转中间的一位：torch.load 不验校验和，会照读不误。"""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: b"not a checkpoint",
    "one bit": flip,
}


def two_checkpoints(bank, folder):
    """走三步，第二、三步各存一次。"""
    run = Trainer(micro_sam(), bank, CONFIG, folder)
    for _ in range(2):
        run.log(run.train_step())
    run.save()
    run.log(run.train_step())
    run.save()
    return folder / "state.pt", folder / "state.prev.pt"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(
    bank, tmp_path, damage
):
    """最新的坏了用上一个，警告里有两个文件名和重走的起止；结果不变。"""
    whole = Trainer(micro_sam(), bank, CONFIG, tmp_path / "whole")
    whole.run()
    newest, previous = two_checkpoints(bank, tmp_path / "part")
    newest.write_bytes(damage(newest.read_bytes()))
    good, warnings = previous.read_bytes(), []
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path / "part", warnings.append)
    assert again.resume() and again.step == 2
    assert len(warnings) == 1
    for text in (str(newest), "已损坏", str(previous), "第 2 步", "记到第 3 步"):
        assert text in warnings[0]
    again.train_step()
    again.save()
    assert previous.read_bytes() == good  # 坏的不配换下好的
    again.run()
    for name, value in whole.sam.state_dict().items():
        assert torch.equal(value, again.sam.state_dict()[name]), name


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_two_broken_checkpoints_are_a_clear_error(bank, tmp_path, damage):
    """两个都坏了：说清怎么办，两个文件都不动。"""
    files = two_checkpoints(bank, tmp_path)
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SamLiteError, match="换一个 --out，或把坏文件移走") as caught:
        Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()
    assert all(str(path) in str(caught.value) for path in files)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_killed_between_the_two_renames_needs_no_warning(bank, tmp_path):
    """旧的已改名、新的还没有：上一个就是最新的，没有什么坏掉。"""
    newest, _ = two_checkpoints(bank, tmp_path)
    newest.unlink()
    warnings = []
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path, warnings.append)
    assert again.resume() and again.step == 2 and warnings == []


def test_a_checkpoint_is_never_executed(bank, tmp_path):
    """检查点里夹带的代码不会运行。"""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"config": Evil()}, tmp_path / "state.pt")
    with pytest.raises(SamLiteError, match="检查点"):
        Trainer(micro_sam(), bank, CONFIG, tmp_path).resume()
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_another_model_is_told_apart(bank, tmp_path):
    """好好的检查点，只是别的尺寸的模型：不说它坏了。"""
    two_checkpoints(bank, tmp_path)
    other = sam_from_config(dataclasses.replace(SMALL, embed_dim=30))
    with pytest.raises(SamLiteError, match="另一种尺寸"):
        Trainer(other, bank, CONFIG, tmp_path).resume()


def test_out_that_is_a_file_is_a_clear_error(bank, tmp_path):
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(SamLiteError, match="同名的文件"):
        Trainer(micro_sam(), bank, CONFIG, tmp_path / "run")


def test_interrupt_inside_the_update_keeps_the_last_checkpoint(bank, tmp_path):
    """参数更新到一半被打断：不存这个半成品，留下的还是上一个检查点。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.train_step()
    run.save()
    run.train_step()  # 走完了、还没存的一步
    good = (tmp_path / "state.pt").read_bytes()

    def half_update():
        next(run.sam.parameters()).data.add_(1)
        raise KeyboardInterrupt

    run.optimizers[0].step = half_update
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


def test_a_flat_run_may_be_lengthened_and_then_decay(bank, tmp_path):
    """先走平的；后来加长、收尾，都是普通的续跑；平的换成余弦就不是了。"""
    flat = dataclasses.replace(CONFIG, steps=2, schedule="flat")
    Trainer(micro_sam(), bank, flat, tmp_path).run()
    longer = dataclasses.replace(flat, steps=6, decay=4)
    run = Trainer(micro_sam(), bank, longer, tmp_path)
    rates = []
    assert run.resume() and run.step == 2
    run.run(lambda record: rates.append(record["lr"]))
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])
    cosine = dataclasses.replace(CONFIG, steps=9)
    with pytest.raises(SamLiteError, match="schedule 原来是 flat"):
        Trainer(micro_sam(), bank, cosine, tmp_path).resume()


def test_a_bank_of_larger_pictures_will_do(bank, tmp_path):
    """素材 64×64，模型的输入 48×48、图像块 8：照样训练。"""
    sam = sam_from_config(dataclasses.replace(SMALL, image_size=48))
    run = Trainer(sam, bank, CONFIG, tmp_path)
    run.run()
    assert run.step == 4


def test_resume_trims_the_log(bank, tmp_path):
    """检查点之后的、重复的、只有半行的记录，续跑前都去掉。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    for _ in range(3):
        run.log(run.train_step())
    run.step = 2
    run.save()
    log = tmp_path / "log.jsonl"
    first, second, third = log.read_text(encoding="utf-8").splitlines()
    lines = [first, second, second, first, '{"step": 2, "lo', "[]", third]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    again.resume()
    assert log.read_text(encoding="utf-8").splitlines() == [first, second]


def test_a_log_without_a_checkpoint_starts_afresh(bank, tmp_path):
    """第一次存档之前就被杀：那几步要从头走，旧记录不留。"""
    run = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    run.log(run.train_step())
    again = Trainer(micro_sam(), bank, CONFIG, tmp_path)
    assert not again.resume() and again.step == 0
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == ""
