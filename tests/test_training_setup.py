"""training_setup：学习率怎么走，什么设置说不通。"""

from dataclasses import replace

import pytest
import torch
from parity.small import SMALL

from sam_lite import SamLiteError
from sam_lite.config import TrainConfig
from sam_lite.learn.muon import Muon
from sam_lite.learn.setup import check_config, learning_rate, make_optimizers
from sam_lite.learn.team import Team
from sam_lite.model import sam_from_config


def test_cosine_warms_up_then_falls_to_zero():
    config = TrainConfig(lr=1.0, warmup=10)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 100, 0.25) == pytest.approx(0.5 + 0.5**1.5)
    assert learning_rate(config, 100, 0.5) == pytest.approx(0.5)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.0)


@pytest.mark.parametrize("unit", ["steps", "minutes"])
def test_flat_stays_until_the_decay(unit):
    """总长 200，末尾 50 线性降：0.75 之前不变，0.875 时一半，到头是零。"""
    config = TrainConfig(lr=2.0, warmup=10, schedule="flat", **{unit: 200})
    for done in (0.0, 0.5, 1.0):
        assert learning_rate(config, 100, done) == 2.0
    assert learning_rate(config, 4, 0.5) == pytest.approx(1.0)
    config = replace(config, decay=50)
    for done, rate in ((0.2, 2.0), (0.75, 2.0), (0.875, 1.0), (1.0, 0.0)):
        assert learning_rate(config, 100, done) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "linear"}, "schedule.*cosine、flat"),
        ({"optimizer": "sgd"}, "optimizer.*adamw、muon"),
        ({"decay": 5.0}, "schedule.*flat"),
        ({"decay": 200.0, "schedule": "flat", "steps": 100}, "decay.*0 到总长 100"),
        ({"balanced_steps": 0}, "balanced_steps.*正整数"),
        ({"batch": 1}, "batch.*不少于进程数 2"),
    ],
)
def test_nonsense_settings_are_refused(changes, words):
    config = replace(TrainConfig(batch=2), **changes)
    with pytest.raises(SamLiteError, match=words):
        check_config(config, sam_from_config(SMALL), Team(0, 2))


def test_a_patch_that_is_no_multiple_of_four_is_refused():
    """块边长 6：一格掩码是一个半像素，标签数不成格子。"""
    sam = sam_from_config(replace(SMALL, image_size=48, patch_size=6))
    with pytest.raises(SamLiteError, match="4 的整数倍"):
        check_config(TrainConfig(), sam, Team())
    check_config(TrainConfig(), sam_from_config(replace(SMALL, patch_size=4)), Team())


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
