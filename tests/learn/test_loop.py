"""loop：续跑、检查点、记录、滑动平均、编译。用 64 像素的场景和一个很小的模型。"""

import dataclasses
import os

import pytest
import torch
from parity.small import SMALL

from sam_lite import SamLiteError, training
from sam_lite.config import TrainConfig
from sam_lite.learn.data import Mixture, SceneExamples
from sam_lite.learn.exam import Exam
from sam_lite.learn.loop import (
    Loop,
    SceneGradients,
    check_config,
    compiled,
    make_optimizers,
)
from sam_lite.learn.muon import Muon
from sam_lite.learn.team import Team
from sam_lite.model import sam_from_config

CONFIG = TrainConfig(steps=4, batch=2, prompts=3, min_area=20, warmup=1)
SCENES = Mixture(1, 1, 1, size=64)


def micro_sam(**changes):
    torch.manual_seed(0)
    sam = sam_from_config(dataclasses.replace(SMALL, **changes))
    training.init_for_training(sam)
    return sam


def make_loop(out=None, config=CONFIG, sam=None, warn=None):
    sam = sam or micro_sam()
    gradients = SceneGradients(sam, config, SCENES)
    return Loop(sam, config, gradients, out, warn or pytest.fail)


def assert_same(one, two):
    """两个循环的权重和滑动平均逐位相同。"""
    for a, b in ((one.sam, two.sam), (one.result, two.result)):
        for name, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resume_equals_one_run(tmp_path, optimizer):
    """跑 2 步、断开、再续 2 步，与一口气跑 4 步逐位相同。"""
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    whole = make_loop(tmp_path / "whole", config)
    whole.run()
    part = make_loop(tmp_path / "part", config)
    for _ in range(2):
        part.train_step()
    part.save()
    again = make_loop(tmp_path / "part", config)
    assert again.resume() and again.step == 2
    again.run()
    assert again.step == whole.step == 4
    assert_same(whole, again)


def test_first_steps_move_every_part(tmp_path):
    """几步之后，三个部分的参数都得到了梯度。"""
    run = make_loop(tmp_path)
    for _ in range(3):  # 轮数是随机的：走到有纠正点（用到掩码输入）的那一步
        run.train_step()
    sam = run.sam
    for part in (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder):
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()
        )


def test_interrupt_saves_a_state(tmp_path):
    """Ctrl-C 时也存检查点，续跑从断处开始。"""
    run = make_loop(tmp_path)

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(stop)
    again = make_loop(tmp_path)
    assert again.resume() and again.step == 1


def test_failed_save_keeps_the_old_state(tmp_path, monkeypatch):
    """存到一半失败（磁盘满）：旧检查点一字不动，也没有半个文件留下。"""
    run = make_loop(tmp_path)
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


def test_a_failed_save_does_not_stop_the_training(tmp_path, monkeypatch):
    """中途存不成只警告一次，最后存不成才报错；步数一步不少。"""
    warnings = []
    run = make_loop(tmp_path, warn=warnings.append)

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
    assert make_loop(tmp_path).resume()


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


def two_checkpoints(folder):
    """走三步，第二、三步各存一次。"""
    run = make_loop(folder)
    for _ in range(2):
        run.log(run.train_step())
    run.save()
    run.log(run.train_step())
    run.save()
    return folder / "state.pt", folder / "state.prev.pt"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    """最新的坏了用上一个，警告里有两个文件名和重走的起止；结果不变。"""
    whole = make_loop(tmp_path / "whole")
    whole.run()
    newest, previous = two_checkpoints(tmp_path / "part")
    newest.write_bytes(damage(newest.read_bytes()))
    good, warnings = previous.read_bytes(), []
    again = make_loop(tmp_path / "part", warn=warnings.append)
    assert again.resume() and again.step == 2
    assert len(warnings) == 1
    for text in (str(newest), "已损坏", str(previous), "第 2 步", "记到第 3 步"):
        assert text in warnings[0]
    again.train_step()
    again.save()
    assert previous.read_bytes() == good  # 坏的不配换下好的
    again.run()
    assert_same(whole, again)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_two_broken_checkpoints_are_a_clear_error(tmp_path, damage):
    """两个都坏了：说清怎么办，两个文件都不动。"""
    files = two_checkpoints(tmp_path)
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SamLiteError, match="换一个 --out，或把坏文件移走") as caught:
        make_loop(tmp_path).resume()
    assert all(str(path) in str(caught.value) for path in files)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_killed_between_the_two_renames_needs_no_warning(tmp_path):
    """旧的已改名、新的还没有：上一个就是最新的，没有什么坏掉。"""
    newest, _ = two_checkpoints(tmp_path)
    newest.unlink()
    warnings = []
    again = make_loop(tmp_path, warn=warnings.append)
    assert again.resume() and again.step == 2 and warnings == []


def test_a_checkpoint_is_never_executed(tmp_path):
    """检查点里夹带的代码不会运行。"""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"config": Evil()}, tmp_path / "state.pt")
    with pytest.raises(SamLiteError, match="检查点"):
        make_loop(tmp_path).resume()
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_another_model_is_told_apart(tmp_path):
    """好好的检查点，只是别的尺寸的模型：不说它坏了。"""
    two_checkpoints(tmp_path)
    other = sam_from_config(dataclasses.replace(SMALL, embed_dim=30))
    with pytest.raises(SamLiteError, match="另一种尺寸"):
        make_loop(tmp_path, sam=other).resume()


def test_out_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(SamLiteError, match="同名的文件"):
        make_loop(tmp_path / "run")


def test_interrupt_inside_the_update_keeps_the_last_checkpoint(tmp_path):
    """参数更新到一半被打断：不存这个半成品，留下的还是上一个检查点。"""
    run = make_loop(tmp_path)
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


def test_bad_gradient_stops_before_the_update(tmp_path):
    """权重里有 NaN：报错，不更新参数，也不写检查点。"""
    run = make_loop(tmp_path)
    run.sam.mask_decoder.iou_token.weight.data[0, 0] = float("nan")
    with pytest.raises(SamLiteError, match="梯度"):
        run.run()
    assert not (tmp_path / "state.pt").exists()


def test_resume_refuses_other_settings(tmp_path):
    """换了学习率就不是同一次训练；步数可以加。"""
    run = make_loop(tmp_path)
    run.train_step()
    run.save()
    other = dataclasses.replace(CONFIG, lr=0.5)
    with pytest.raises(SamLiteError, match="lr 原来是"):
        make_loop(tmp_path, other).resume()
    longer = dataclasses.replace(CONFIG, steps=9)
    assert make_loop(tmp_path, longer).resume()


def test_a_flat_run_may_be_lengthened_and_then_decay(tmp_path):
    """先走平的；后来加长、收尾，都是普通的续跑；平的换成余弦就不是了。"""
    flat = dataclasses.replace(CONFIG, steps=2, schedule="flat")
    make_loop(tmp_path, flat).run()
    longer = dataclasses.replace(flat, steps=6, decay=4)
    run = make_loop(tmp_path, longer)
    rates = []
    assert run.resume() and run.step == 2
    run.run(lambda record: rates.append(record["lr"]))
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])
    cosine = dataclasses.replace(CONFIG, steps=9)
    with pytest.raises(SamLiteError, match="schedule 原来是 flat"):
        make_loop(tmp_path, cosine).resume()


def test_scenes_larger_than_the_input_will_do():
    """场景 64×64，模型的输入 48×48、图像块 8：照样训练。"""
    run = make_loop(sam=micro_sam(image_size=48))
    run.run()
    assert run.step == 4


def test_resume_trims_the_log(tmp_path):
    """检查点之后的、重复的、只有半行的记录，续跑前都去掉。"""
    run = make_loop(tmp_path)
    for _ in range(3):
        run.log(run.train_step())
    run.step = 2
    run.save()
    log = tmp_path / "log.jsonl"
    first, second, third = log.read_text(encoding="utf-8").splitlines()
    lines = [first, second, second, first, '{"step": 2, "lo', "[]", third]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    again = make_loop(tmp_path)
    again.resume()
    assert log.read_text(encoding="utf-8").splitlines() == [first, second]


def test_a_log_without_a_checkpoint_starts_afresh(tmp_path):
    """第一次存档之前就被杀：那几步要从头走，旧记录不留。"""
    run = make_loop(tmp_path)
    run.log(run.train_step())
    again = make_loop(tmp_path)
    assert not again.resume() and again.step == 0
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == ""


def test_the_plain_loop_walks_to_the_same_weights():
    """training.train 的四十行与不怕出事的循环，同样的设置逐位相同。"""
    run, sam, rates = make_loop(), micro_sam(), []
    run.run(lambda record: rates.append(record["lr"]))
    examples = SceneExamples(SCENES, sam, CONFIG)
    plain = [record["lr"] for record in training.train(sam, examples, CONFIG)]
    assert plain == rates and not sam.training
    for name, value in sam.state_dict().items():
        assert torch.equal(value, run.sam.state_dict()[name]), name


# ---- 滑动平均 ------------------------------------------------------------------


def test_the_average_follows_the_weights():
    """每步留旧的几成：开头 2/11、3/12……，不超过 ema；0 是不用。"""
    run = make_loop(config=dataclasses.replace(CONFIG, ema=0.26))
    expected = run.sam.mask_decoder.iou_token.weight.detach().clone()
    for decay in (2 / 11, 3 / 12, 0.26, 0.26):
        run.train_step()
        now = run.sam.mask_decoder.iou_token.weight.detach()
        expected = decay * expected + (1 - decay) * now
    found = run.result.mask_decoder.iou_token.weight
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, now) and not found.requires_grad
    plain = make_loop(config=dataclasses.replace(CONFIG, ema=0.0))
    assert plain.result is plain.sam


def test_the_exam_takes_the_average(tmp_path, monkeypatch):
    """小考考的是滑动平均那一份。"""
    run, seen = make_loop(tmp_path), []
    monkeypatch.setattr(Exam, "score", lambda self, sam: seen.append(sam) or {})
    run.run(exam=Exam(1e-9, 1, Team()))
    assert seen and all(sam is run.result for sam in seen)


# ---- 编译 ----------------------------------------------------------------------


def test_compile_is_used_for_the_steps_only(monkeypatch):
    """一步走的是编译的两个函数，走完恢复原样；结果不变。"""
    calls = []

    def fake(function, **options):
        def run(*args, **more):
            calls.append(getattr(function, "__name__", ""))
            return function(*args, **more)

        return run

    monkeypatch.setattr(torch, "compile", fake)
    fast = make_loop(config=dataclasses.replace(CONFIG, steps=1, compile=True))
    fast.run()
    assert calls.count("forward") == 1 and calls.count("predict_masks") >= 1
    assert "forward" not in vars(fast.sam.image_encoder)
    assert "predict_masks" not in vars(fast.sam.mask_decoder)
    slow = make_loop(config=dataclasses.replace(CONFIG, steps=1))
    slow.run()
    assert_same(fast, slow)


def test_no_compiler_is_a_clear_error(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("没有 g++")

    monkeypatch.setattr(torch, "compile", broken)
    match = "没有 g.*去掉 --compile"
    with pytest.raises(SamLiteError, match=match), compiled(micro_sam(), True):
        pass


# ---- 设置 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "linear"}, "schedule.*cosine、flat"),
        ({"optimizer": "sgd"}, "optimizer.*adamw、muon"),
        ({"decay": 5.0}, "schedule.*flat"),
        ({"decay": 200.0, "schedule": "flat", "steps": 100}, "decay.*0 到总长 100"),
        ({"balanced_steps": 0}, "balanced_steps.*正整数"),
        ({"ema": 1.0}, "ema"),
        ({"batch": 1}, "batch.*不少于进程数 2"),
    ],
)
def test_nonsense_settings_are_refused(changes, words):
    config = dataclasses.replace(TrainConfig(batch=2), **changes)
    with pytest.raises(SamLiteError, match=words):
        check_config(config, sam_from_config(SMALL), Team(0, 2))


def test_a_patch_that_is_no_multiple_of_four_is_refused():
    """块边长 6：一格掩码是一个半像素，标签数不成格子。"""
    sam = micro_sam(image_size=48, patch_size=6)
    with pytest.raises(SamLiteError, match="4 的整数倍"):
        check_config(TrainConfig(), sam, Team())
    check_config(
        TrainConfig(), sam_from_config(dataclasses.replace(SMALL, patch_size=4)), Team()
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer(name):
    """一个不少、一个不重；偏置和规范化不衰减；qkv 分三份。"""
    sam = sam_from_config(SMALL)
    found = make_optimizers(sam, TrainConfig(optimizer=name, weight_decay=0.3))
    groups = [group for each in found for group in each.param_groups]
    ours = [p for group in groups for p in group["params"]]
    assert len(ours) == len(set(map(id, ours))) == len(list(sam.parameters()))
    for group in groups:
        flat = {p.ndim <= 1 for p in group["params"]}
        assert flat == {group["weight_decay"] == 0.0} and group["lr"] == 1e-3
    if name == "muon":
        assert isinstance(found[1], Muon)
        parts = {p: group["parts"] for group in groups[2:] for p in group["params"]}
        assert parts[sam.image_encoder.blocks[0].attn.qkv.weight] == 3
        assert parts[sam.image_encoder.blocks[0].attn.proj.weight] == 1
    assert isinstance(found[0], torch.optim.AdamW)
