"""一次训练怎么安排：设置说得通吗、学习率怎么走、用什么优化器、续跑能改什么。"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..config import TrainConfig
from ..errors import SamLiteError, problem
from ..learn.muon import Muon, hidden_matrices
from ..learn.team import Team
from ..model import Sam

CHANGEABLE = {"steps", "minutes", "decay", "bfloat16"}  # 续跑时可以改的设置
CHOICES = {"schedule": ("cosine", "flat"), "optimizer": ("adamw", "muon")}


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """线性预热（warmup），同时按余弦降到零，或到末尾才线性降；done 是进度，0 到 1。"""
    warm, left = min(1.0, (step + 1) / config.warmup), 1 - min(done, 1.0)
    if config.schedule == "cosine":
        return config.lr * warm * 0.5 * (1 - math.cos(math.pi * left))
    if config.decay:
        warm = min(warm, left * (config.minutes or config.steps) / config.decay)
    return config.lr * warm


def check_config(config: TrainConfig, sam: Sam, team: Team) -> None:
    """设置说不通、这个模型没法训练，就抛 SamLiteError。"""
    for name, allowed in CHOICES.items():
        if getattr(config, name) not in allowed:
            raise problem(name, repr(getattr(config, name)), "、".join(allowed))
    for name in ("batch", "prompts", "rounds", "warmup", "balanced_steps"):
        if getattr(config, name) < 1:
            raise problem(name, str(getattr(config, name)), "正整数")
    if config.batch < team.world:
        raise problem("batch", str(config.batch), f"不少于进程数 {team.world}")
    if config.decay and config.schedule != "flat":
        mend = "余弦本来就降到零：去掉 decay，或改成 flat。"
        raise problem("schedule", repr(config.schedule), "'flat'", mend)
    total = config.minutes or config.steps
    if not 0 <= config.decay <= total:
        raise problem("decay", f"{config.decay:g}", f"0 到总长 {total:g} 之间")
    side, cells = sam.image_encoder.img_size, sam.prompt_encoder.mask_input_size[0]
    if side % cells:
        got = f"输入边长 {side}、掩码 {cells} 格的模型"
        raise problem("sam", got, "边长是掩码格数的整数倍，即图像块是 4 的整数倍")


def make_optimizers(sam: Sam, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """按设置配好优化器：AdamW 一个，用 Muon 时再加一个；偏置不衰减。"""
    hidden = hidden_matrices(sam) if config.optimizer == "muon" else {}
    others = [p for name, p in sam.named_parameters() if name not in hidden]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1]},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    decay = config.weight_decay
    adamw = torch.optim.AdamW(
        groups, lr=config.lr, betas=(0.9, 0.98), weight_decay=decay
    )
    if not hidden:
        return [adamw]
    qkv = [p for name, p in hidden.items() if name.endswith("qkv.weight")]
    rest = [p for name, p in hidden.items() if not name.endswith("qkv.weight")]
    parts = [{"params": rest}, {"params": qkv, "parts": 3}]
    return [adamw, Muon(parts, lr=config.lr, weight_decay=decay)]


def check_settings(saved: dict[str, object], config: TrainConfig) -> None:
    """续跑要用原来的设置，不然就不是同一次训练了。"""
    changed = [
        f"{key} 原来是 {saved.get(key)}，现在是 {value}"
        for key, value in asdict(config).items()
        if key not in CHANGEABLE and saved.get(key) != value
    ]
    if changed:
        raise SamLiteError(
            "续跑的设置和检查点里的不同："
            + "；".join(changed)
            + "。改回原来的设置，或换一个 --out 重新训练；训练完导出的 "
            ".safetensors 可以交给 --init 接着学。"
        )


def set_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """把学习率告诉每个优化器。"""
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] = rate


def restore(
    state: dict[str, Any],
    sam: Sam,
    optimizers: Sequence[torch.optim.Optimizer],
    out: Path,
) -> None:
    """把检查点装回模型和优化器；是别的尺寸的，抛 SamLiteError。"""
    try:
        sam.load_state_dict(state["model"])
        for each, saved in zip(optimizers, state["optimizer"], strict=True):
            each.load_state_dict(saved)
    except (RuntimeError, ValueError, KeyError) as error:
        raise SamLiteError(
            f"{out} 里的检查点属于另一种尺寸的模型。换一个 --out 从头训练。"
        ) from error
