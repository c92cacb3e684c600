"""training.fit 和 fine_tune：取样、学哪一部分、留住最好的、停下、存成文件。"""

import copy
import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.small import SMALL

import sam_lite
from sam_lite import SamLiteError, SamLiteWarning, backends, training, weights
from sam_lite.attention import set_fused
from sam_lite.config import FitConfig, TrainConfig
from sam_lite.learn import fine_tune
from sam_lite.learn.fine_tune import Best, PhotoGradients
from sam_lite.learn.interrupts import Interrupts
from sam_lite.learn.lora import add_lora
from sam_lite.learn.samples import Samples, find_things
from sam_lite.scenes.cells import CellScenes

CONFIG = FitConfig(epochs=2, batch=2, prompts=3)
CPU = torch.device("cpu")


class Shapes:
    """大小、物体个数各不相同的照片：第 i 张是 40+8i 高、72 宽，有 i 个方块。"""

    def __init__(self, count=4):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        noise = np.random.default_rng(index).integers(0, 256, (40 + 8 * index, 72, 3))
        masks = np.zeros((index, 40 + 8 * index, 72), bool)
        for k in range(index):
            masks[k, 4 + k : 30, 10 + 15 * k : 30 + 15 * k] = True
        return noise.astype(np.uint8), masks


def samples(sam, dataset, config=CONFIG, frozen=True):
    with Interrupts() as stop:
        return Samples(sam, dataset, config, frozen, stop)


def parameters(sam):
    return {name: p.detach().clone() for name, p in sam.named_parameters()}


def changed(before, sam):
    """哪几个部分的参数变了。"""
    return {
        name.split(".")[0]
        for name, p in sam.named_parameters()
        if not torch.equal(p, before[name])
    }


@pytest.fixture
def scores(monkeypatch):
    """把每遍的分数换成定好的一串；末一个用到底。"""

    def install(*values):
        rest = list(values)

        def fake(*_):
            value = rest.pop(0) if len(rest) > 1 else rest[0]
            return dict.fromkeys(fine_tune.SCORES, value)

        monkeypatch.setattr(fine_tune, "score", fake)

    return install


# ---- 取样 --------------------------------------------------------------------


def test_pictures_without_objects_are_skipped_with_a_warning(small_sam):
    with pytest.warns(SamLiteWarning, match="4 张照片里有 1 张"):
        teach = samples(small_sam, Shapes())
    assert [p.number for p in teach.pictures] == [1, 2, 3]
    assert [len(p.things) for p in teach.pictures] == [1, 2, 3]
    assert [p.size for p in teach.pictures] == [(43, 64), (50, 64), (57, 64)]
    with pytest.raises(SamLiteError, match="一个够大的物体也没有"):
        samples(small_sam, Shapes(1))


def test_bad_pictures_are_named_by_number(small_sam):
    class Bad(Shapes):
        def __getitem__(self, index):
            picture, masks = super().__getitem__(index)
            return picture, masks.astype(np.uint8) if index == 2 else masks

    with pytest.raises(SamLiteError, match="第 2 张图.*掩码"):
        samples(small_sam, Bad())


def test_things_are_resized_and_tiny_ones_dropped():
    masks = np.zeros((3, 20, 40), bool)
    masks[0, 4:12, 10:30] = True
    masks[1, 0, 0] = True
    things = find_things(masks, (10, 20), 4)
    assert len(things) == 1 and things[0].box == (5, 2, 14, 5)
    assert things[0].crop.all() and things[0].crop.shape == (4, 10)


@pytest.mark.filterwarnings("ignore::sam_lite.SamLiteWarning")
@pytest.mark.parametrize("mirrored", [False, True])
def test_targets_agree_with_the_masks(small_sam, mirrored):
    """目标是缩放、镜像后的掩码的平均池化；点在里面，框贴着它，填充处不算。"""
    teach = samples(small_sam, Shapes())
    picture = teach.pictures[2]
    H, W = picture.size
    g = torch.Generator().manual_seed(0)
    targets = teach.targets(picture, mirrored, TrainConfig(prompts=5), g)
    _, masks = teach.dataset[3]
    whole = torch.zeros(3, 1, 64, 64)
    whole[:, 0, :H, :W] = F.interpolate(
        torch.from_numpy(masks)[:, None].float(), (H, W), mode="nearest-exact"
    )[:, 0]
    if mirrored:
        whole[..., :W] = whole[..., :W].flip(-1)
    pooled = F.avg_pool2d(whole, 2)
    seen = set()
    for b in range(5):
        error = (pooled - targets.masks[b]).abs().amax((1, 2, 3))
        k = int(error.argmin())
        assert error[k] < 1e-6
        seen.add(k)
        x, y = targets.points[b, 0].int().tolist()
        assert whole[k, 0, y, x] == 1
        ys, xs = np.nonzero(whole[k, 0].numpy())
        tight = torch.tensor([xs.min(), ys.min(), xs.max(), ys.max()])
        sides = (tight[2:] - tight[:2]).repeat(2)
        assert ((targets.boxes[b] - tight).abs() <= 0.45 * sides + 1e-4).all()
    assert seen == {0, 1, 2}  # 物体不够时轮着来，一个不漏
    assert targets.inside[0, 0, : H // 2].all() and not targets.inside[0, 0, 29:].any()
    assert targets.use_box.dtype == torch.bool and targets.valid.all()


@pytest.mark.filterwarnings("ignore::sam_lite.SamLiteWarning")
def test_frozen_features_are_computed_once_within_the_bound(small_sam):
    dataset = Shapes()
    teach = samples(small_sam, dataset)
    dataset.read.clear()
    first = teach.features(teach.pictures[0], False)
    assert torch.equal(first, teach.features(teach.pictures[0], False))
    assert dataset.read == [1]
    mirrored = teach.features(teach.pictures[0], True)
    assert dataset.read == [1, 1] and not torch.equal(first, mirrored)
    assert not first.requires_grad

    small = samples(small_sam, dataset, dataclasses.replace(CONFIG, cache_mb=0))
    dataset.read.clear()
    for _ in range(2):
        assert torch.equal(first, small.features(small.pictures[0], False))
    assert dataset.read == [1, 1]  # 存不下：每次重算，结果一样


@pytest.mark.filterwarnings("ignore::sam_lite.SamLiteWarning")
def test_task_draws_the_same_questions_every_time(small_sam):
    judge = samples(small_sam, Shapes())
    one, two = (judge.task(judge.pictures[2], 3) for _ in range(2))
    assert np.array_equal(one.clicks, two.clicks) and one.truths.shape == (3, 57, 64)
    assert all(t[y, x] for t, (x, y) in zip(one.truths, one.clicks, strict=True))


# ---- 微调 --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ("decoder", {"mask_decoder"}),
        ("decoder+prompt", {"mask_decoder", "prompt_encoder"}),
        ("lora", {"image_encoder", "mask_decoder"}),
        ("all", {"image_encoder", "mask_decoder", "prompt_encoder"}),
    ],
)
def test_only_the_chosen_parts_learn(small_sam, scores, parts, wanted):
    scores(0.1, 0.2, 0.3)
    before, names = parameters(small_sam), set(small_sam.state_dict())
    config = dataclasses.replace(CONFIG, parts=parts)
    result = training.fit(small_sam, CellScenes(4, size=64), config)
    assert changed(before, small_sam) == wanted
    assert [row["epoch"] for row in result.history] == [0, 1, 2]
    assert result.stopped == "finished" and result.best == result.history[2]
    assert set(small_sam.state_dict()) == names
    assert all(p.requires_grad and p.grad is None for p in small_sam.parameters())


def test_fitting_one_picture_lowers_its_loss():
    """同一张照片反复学：损失一遍比一遍低，解码器以外一点不变。"""
    sam, dataset = sam_lite.load("tiny"), [CellScenes(1)[0]]
    before = parameters(sam)
    config = FitConfig(epochs=3, batch=1, prompts=8, rounds=1, lr=1e-3)
    result = training.fit(sam, dataset * 16, config, validation=dataset)
    losses = [row["loss"] for row in result.history[1:]]
    assert losses == sorted(losses, reverse=True) and losses[2] < 0.85 * losses[0]
    assert changed(before, sam) <= {"mask_decoder"}


def test_same_seed_same_weights_and_minutes_end_it(small_sam, scores):
    other = copy.deepcopy(small_sam)
    for sam in (small_sam, other):
        scores(0.1, 0.2, 0.3)
        training.fit(sam, CellScenes(4, size=64), CONFIG)
    for name, value in parameters(other).items():
        assert torch.equal(value, dict(small_sam.named_parameters())[name]), name
    config = dataclasses.replace(CONFIG, minutes=1e-6)
    result = training.fit(small_sam, CellScenes(4, size=64), config)
    assert len(result.history) == 2 and result.stopped == "finished"


def test_patience_stops_and_keeps_the_best(small_sam, scores):
    scores(0.1, 0.3, 0.2, 0.25)
    seen = {}

    def remember(self, row):
        seen[row["epoch"]] = parameters(self.sam)
        return real(self, row)

    real = Best.consider
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Best, "consider", remember)
        config = dataclasses.replace(CONFIG, epochs=9, patience=2)
        result = training.fit(small_sam, CellScenes(4, size=64), config)
    assert result.stopped == "patience" and len(result.history) == 4
    assert result.best["epoch"] == 1
    assert not changed(seen[1], small_sam) and changed(seen[3], small_sam)


def test_no_progress_gives_the_old_weights_back(small_sam, scores):
    scores(0.5, 0.4)
    before = parameters(small_sam)
    result = training.fit(small_sam, CellScenes(4, size=64), CONFIG)
    assert result.best["epoch"] == 0 and not changed(before, small_sam)


@pytest.mark.parametrize("parts", ["decoder", "lora"])
def test_the_file_is_loaded_by_load(small_sam, scores, tmp_path, monkeypatch, parts):
    monkeypatch.setitem(weights.PRESETS, "small", SMALL)
    scores(0.1, 0.4, 0.3)  # 文件里是第一遍的，不是最后的
    config = dataclasses.replace(CONFIG, parts=parts)
    out = tmp_path / "my.safetensors"
    training.fit(small_sam, CellScenes(4, size=64), config, out=out)
    loaded = sam_lite.load(out)
    assert loaded.name == "small"
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(
            value, small_sam.state_dict()[name].half().float(), msg=name
        )
    assert [p.name for p in tmp_path.iterdir()] == ["my.safetensors"]


@pytest.mark.usefixtures("listening")
def test_first_interrupt_stops_after_the_step(small_sam, scores, tmp_path, monkeypatch):
    """Ctrl-C：走完这一步停下；最好的一份在模型里，也在文件里。"""
    scores(0.1, 0.5, 0.6)
    monkeypatch.setitem(weights.PRESETS, "small", SMALL)
    real, steps = PhotoGradients.__call__, []

    def interrupted(self, step):
        steps.append(step)
        if step == 2:  # 第二遍的头一步（三张训练照片，每步两张）
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, step)

    monkeypatch.setattr(PhotoGradients, "__call__", interrupted)
    config = dataclasses.replace(CONFIG, epochs=9)
    out = tmp_path / "my.safetensors"
    result = training.fit(small_sam, CellScenes(4, size=64), config, out=out)
    assert result.stopped == "interrupted" and result.best["epoch"] == 1
    assert steps in ([0, 1, 2], [0, 1, 2, 3])  # 信号最迟在下一步之前看见
    saved = sam_lite.load(out).state_dict()
    for name, value in small_sam.state_dict().items():
        torch.testing.assert_close(saved[name], value.half().float(), msg=name)


@pytest.mark.parametrize("parts", ["decoder", "lora"])
def test_any_exception_leaves_the_best_and_a_clean_model(
    small_sam, scores, monkeypatch, parts
):
    scores(0.5, 0.4)
    before, real = parameters(small_sam), PhotoGradients.__call__

    def broken(self, step):
        if step == 3:
            raise MemoryError
        return real(self, step)

    monkeypatch.setattr(PhotoGradients, "__call__", broken)
    config = dataclasses.replace(CONFIG, parts=parts, epochs=9)
    with pytest.raises(MemoryError):
        training.fit(small_sam, CellScenes(4, size=64), config)
    assert set(before) == set(parameters(small_sam))
    for name, value in parameters(small_sam).items():
        torch.testing.assert_close(value, before[name])
    assert all(p.requires_grad for p in small_sam.parameters())


def test_diverged_gradients_are_reported(small_sam, scores):
    scores(0.1)
    config = dataclasses.replace(CONFIG, lr=1e30, epochs=20)
    with pytest.raises(SamLiteError, match="调低"):
        training.fit(small_sam, CellScenes(4, size=64), config)
    assert all(p.isfinite().all() for p in small_sam.parameters())


def test_a_full_disk_warns_and_is_reported_at_the_end(
    small_sam, scores, tmp_path, monkeypatch
):
    scores(0.1, 0.2)

    def full(*_):
        raise SamLiteError("磁盘满了。")

    monkeypatch.setattr(fine_tune, "save_state", full)
    before = parameters(small_sam)
    with (
        pytest.warns(SamLiteWarning, match="磁盘满了.*最后再写一次"),
        pytest.raises(SamLiteError, match="磁盘满了"),
    ):
        training.fit(
            small_sam, CellScenes(4, size=64), CONFIG, out=tmp_path / "a.safetensors"
        )
    assert changed(before, small_sam)  # 成果还在模型里


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": "encoder"}, "parts"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 2.5}, "batch"),
        ({"prompts": 0}, "prompts"),
        ({"lr": -1.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"minutes": float("inf")}, "minutes"),
        ({"minutes": "10"}, "minutes"),
        ({"lr": None}, "lr"),
        ({"validation": 1.5}, "validation"),
        ({"seed": -1}, "seed"),
        ({"parts": "lora", "lora_rank": 0}, "lora_rank"),
    ],
)
def test_bad_settings_are_named(small_sam, change, message):
    before = parameters(small_sam)
    with pytest.raises(SamLiteError, match=message):
        training.fit(
            small_sam, CellScenes(4, size=64), dataclasses.replace(CONFIG, **change)
        )
    assert not changed(before, small_sam)
    assert all(p.requires_grad for p in small_sam.parameters())


def test_half_precision_and_bad_outputs_are_refused(small_sam, tmp_path):
    cells = CellScenes(4, size=64)
    with pytest.raises(SamLiteError, match="float32"):
        training.fit(copy.deepcopy(small_sam).half(), cells, CONFIG)
    with pytest.raises(SamLiteError, match=r"\.safetensors"):
        training.fit(small_sam, cells, CONFIG, out=tmp_path / "my.pth")
    with pytest.raises(SamLiteError, match="没有文件夹"):
        training.fit(small_sam, cells, CONFIG, out=tmp_path / "no" / "my.safetensors")


def test_what_is_not_a_model_or_a_config_is_refused(small_sam):
    cells = CellScenes(4, size=64)
    with pytest.raises(SamLiteError, match=r"predictor\.model"):
        training.fit(sam_lite.SamPredictor(small_sam), cells, CONFIG)
    with pytest.raises(SamLiteError, match="dataset 不对：收到 None"):
        training.fit(small_sam, None)
    with pytest.raises(SamLiteError, match="FitConfig"):
        training.fit(small_sam, cells, {"epochs": 2})
    small_sam.image_encoder = backends.prepare(small_sam)
    with pytest.raises(SamLiteError, match=r"backends\.prepare 的编码器只管推理"):
        training.fit(small_sam, cells)


@pytest.mark.parametrize("parts", ["decoder", "lora"])
def test_adapters_of_the_caller_are_not_merged_away(small_sam, parts):
    add_lora(small_sam, 2)
    before = parameters(small_sam)
    config = dataclasses.replace(CONFIG, parts=parts)
    with pytest.raises(SamLiteError, match="先 merge_lora"):
        training.fit(small_sam, CellScenes(4, size=64), config)
    assert set(before) == set(parameters(small_sam))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_left_as_it_was(small_sam, scores, fused):
    scores(0.1)
    set_fused(small_sam, fused)
    config = dataclasses.replace(CONFIG, parts="lora", epochs=1)
    training.fit(small_sam, CellScenes(4, size=64), config)
    flags = {m.fused for m in small_sam.modules() if hasattr(m, "fused")}
    assert flags == {fused}


def test_frozen_flags_of_the_caller_survive(small_sam, scores):
    scores(0.1)
    small_sam.image_encoder.requires_grad_(False)
    training.fit(small_sam, CellScenes(4, size=64), CONFIG)
    assert not any(p.requires_grad for p in small_sam.image_encoder.parameters())
    assert all(p.requires_grad for p in small_sam.mask_decoder.parameters())


def test_progress_shows_epochs(small_sam, scores, capsys):
    scores(0.1, 0.2)
    training.fit(small_sam, CellScenes(4, size=64), CONFIG, progress=True)
    assert "第 2 遍，平均 IoU 0.200，最好 0.200" in capsys.readouterr().err
