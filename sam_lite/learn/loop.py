"""不怕出事的训练循环，训练和微调共用：一步一步走，记曲线，定时存检查点，断了接着跑。

损失怎么算由 ``gradients`` 给（``SceneGradients`` 或 ``fine_tune``），文件的写法在
``checkpoint`` 里，这里只管不丢东西：更新到一半的模型绝不写进检查点；存不下就接着训练，
下次再存。
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
from ..errors import SamLiteError, problem
from ..model import Sam
from ..training import Example, Targets, learning_rate, sam_loss, set_learning
from .checkpoint import Checkpoints, Curve, make_folder
from .data import SceneExamples, Source, batches, patient_workers
from .exam import Exam
from .muon import Muon, hidden_matrices
from .team import Team

LOG_EVERY = 50  # 每多少步记一行曲线
CHANGEABLE = {"steps", "minutes", "decay", "bfloat16", "compile"}  # 续跑时可以改的设置
CHOICES = {"schedule": ("cosine", "flat"), "optimizer": ("adamw", "muon")}

Record = dict[str, float]


class Loop:
    """训练循环：进度、记录、检查点、续跑、滑动平均。

    参数：
        sam: 要训练的模型，已放在目标设备上；只学要梯度的参数。
        config: 设置。
        gradients: ``gradients(step)`` 求第 step 步的梯度，返回记录；几个进程时只算自己
            那几张，梯度和记录里的 ``loss`` 是各进程加起来的那一份。
        out: 输出目录，里面有检查点 ``state.pt``、上一个检查点 ``state.prev.pt`` 和
            ``log.jsonl``（曲线）；None 是什么也不写。
        warn: 收警告的函数：检查点坏了用上一个、磁盘满了没存成。
        team: 一起训练的几个进程；只有第一个写文件。
    """

    def __init__(
        self,
        sam: Sam,
        config: TrainConfig,
        gradients: Callable[[int], Record],
        out: str | Path | None = None,
        warn: Callable[[str], object] = warnings.warn,
        team: Team = Team(),  # noqa: B008 只有自己一个
    ) -> None:
        check_config(config, sam, team)
        self.sam, self.config, self.gradients = sam, config, gradients
        self.warn, self.team = warn, team
        self.files = self.curve = None
        if out is not None:
            make_folder(Path(out))
            self.files = Checkpoints(Path(out))
            self.curve = Curve(Path(out) / "log.jsonl", warn)
        self.step, self.elapsed = 0, 0.0
        self.failing, self.saved_step = False, 0  # 上次没存成、检查点停在第几步
        self.consistent = True  # 参数更新到一半时为假，这时不存检查点
        self.parameters = [p for p in sam.parameters() if p.requires_grad]
        self.optimizers = make_optimizers(sam, config)
        # 各步权重的指数滑动平均：比任何一步的都好，学习率不降也不晃
        self.mean = copy.deepcopy(sam).requires_grad_(False) if config.ema else None

    @property
    def done(self) -> float:
        """进度，0 到 1。"""
        minutes = self.config.minutes
        return self.elapsed / 60 / minutes if minutes else self.step / self.config.steps

    @property
    def result(self) -> Sam:
        """该打分、该导出的那份：滑动平均，没有就是模型自己。"""
        return self.sam if self.mean is None else self.mean

    # ---- 走 ------------------------------------------------------------------

    def train_step(self) -> Record:
        """走一步，返回记录。梯度是无穷大或 NaN 时不更新参数，抛 SamLiteError。"""
        set_learning(self.sam, True)
        rate = learning_rate(self.config, self.step, self.done)
        for each in self.optimizers:
            for group in each.param_groups:
                group["lr"] = rate
        for p in self.parameters:
            p.grad = None
        record = self.gradients(self.step)
        record["loss"] = self.team.add_up(self.parameters, [record["loss"]])[0]
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not torch.isfinite(norm):
            raise SamLiteError(
                f"第 {self.step} 步的梯度是 {norm.item()}，没有更新参数。"
                "把学习率（lr）调低，重新开始。"
            )
        self.consistent = False
        for each in self.optimizers:
            each.step()
        self.step += 1
        self.average()
        self.consistent = True
        return record | {"lr": rate}

    @torch.no_grad()
    def average(self) -> None:
        """把这一步的权重并进滑动平均；开头平均得短些，好忘掉随机的起点。"""
        if self.mean is None:
            return
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for mean, p in zip(self.mean.parameters(), self.sam.parameters(), strict=True):
            mean.lerp_(p, 1 - decay)

    def run(
        self,
        on_step: Callable[[Record], object] | None = None,
        save_every: float = 60.0,
        stop: Callable[[], bool] = lambda: False,
        exam: Exam | None = None,
    ) -> None:
        """一直走到 done 为 1，或 stop() 为真，或 on_step(记录) 为真。

        每 save_every 秒存一次；exam 是途中的小考，分数记进曲线，走完也考一次。中途存不
        成只警告，下次再存；最后存不成抛 SamLiteError。Ctrl-C 也会存。
        """
        saved = time.monotonic()
        try:
            with patient_workers(), compiled(self.sam, self.config.compile):
                start = time.monotonic()
                while self.done < 1 and not self.asked(stop):
                    if exam and exam.due(self.elapsed):
                        self.take(exam)
                        start = time.monotonic()  # 考试不算训练的时间
                    record = self.train_step()
                    now = time.monotonic()
                    seconds, start = now - start, now
                    # 用第一个进程的表，各进程才停在同一步
                    self.elapsed = self.team.gather([self.elapsed + seconds])[0]
                    if self.step % LOG_EVERY == 0:
                        self.log(record)
                    if on_step and on_step(record):
                        break
                    if now - saved > save_every and self.done < 1:
                        self.save_or_warn()
                        saved = time.monotonic()
                if exam and self.done >= 1:
                    self.take(exam)
        finally:
            set_learning(self.sam, False)
            self.finish()

    def asked(self, stop: Callable[[], bool]) -> bool:
        """有没有哪个进程叫停；有就都停在这里。"""
        return any(self.team.gather([bool(stop())]))

    def take(self, exam: Exam) -> None:
        """考一次，分数记进曲线。"""
        set_learning(self.sam, False)
        self.log(exam.score(self.result))

    # ---- 存 ------------------------------------------------------------------

    def save(self) -> None:
        """存下续跑需要的一切；写不了时抛 SamLiteError，已有的检查点不动。"""
        if self.files is not None and self.team.rank == 0:
            self.files.save(self.state())
        self.saved_step = self.step

    def state(self) -> dict[str, Any]:
        """续跑需要的一切。"""
        return {
            "config": asdict(self.config),
            "model": self.sam.state_dict(),
            "mean": {} if self.mean is None else self.mean.state_dict(),
            "optimizer": [each.state_dict() for each in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """装回 state() 交出的；设置或尺寸不同（CHANGEABLE 除外）抛 SamLiteError。"""
        check_settings(state["config"], self.config)
        try:
            self.sam.load_state_dict(state["model"])
            if self.mean is not None:
                self.mean.load_state_dict(state["mean"])
            for each, saved in zip(self.optimizers, state["optimizer"], strict=True):
                each.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise SamLiteError(
                "检查点属于另一种尺寸的模型。换一个 --out 从头训练。"
            ) from error
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.saved_step = self.step

    def resume(self) -> bool:
        """从上次的检查点接着来；没有检查点就返回假，从头开始。

        最新的检查点坏了，就警告一声，用上一个。

        错误：一个好的都没有，或 restore 装不回去，抛 SamLiteError，文件都不动。
        """
        if self.files is None or self.files.count() == 0:
            self.trim_curve()
            return False
        state, complaint = self.files.load()
        self.restore(state)
        logged = self.trim_curve()
        if complaint:
            self.warn(f"{complaint}，之后的要重走；曲线原来记到第 {logged} 步。")
        return True

    def finish(self) -> None:
        """把还没存的存下：检查点（更新到一半的不存）和曲线；存不下抛 SamLiteError。"""
        if self.curve is not None and self.curve.error is not None:
            self.curve.write()
        if self.consistent and self.step > self.saved_step:
            self.save()
        if self.curve is not None and self.curve.error is not None:
            raise self.curve.error

    def save_or_warn(self) -> None:
        """存检查点；存不成就警告一次，训练接着走；又存得成了，也说一声。"""
        try:
            self.save()
        except SamLiteError as error:
            if not self.failing:
                self.warn(
                    f"第 {self.step} 步的检查点没存成：{error}训练接着走，"
                    f"过一会儿再试；磁盘上的检查点还停在第 {self.saved_step} 步。"
                )
            self.failing = True
            return
        if self.failing:
            self.warn(f"检查点又存得成了，存在第 {self.step} 步。")
        self.failing = False

    def log(self, record: Record) -> None:
        """往 log.jsonl 添一行；与末一行是同一步的，并成一行。"""
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2)}
        if self.curve is not None and self.team.rank == 0:
            self.curve.add(line | {k: round(v, 5) for k, v in record.items()})

    def trim_curve(self) -> int:
        """检查点之后的要重走，记录也重来；返回原来记到第几步。"""
        if self.curve is None or self.team.rank != 0:
            return 0
        return self.curve.read(self.step)


class SceneGradients:
    """在场景上训练的一步：取自己那几张，算损失，求梯度。

    参数：
        sam、config、team: 同 Loop。
        source: 场景从哪里来，``data.Mixture`` 或 ``data.Shards``。
        workers: 几个进程画场景，0 是自己画。
    """

    def __init__(
        self,
        sam: Sam,
        config: TrainConfig,
        source: Source,
        team: Team = Team(),  # noqa: B008
        workers: int = 0,
    ) -> None:
        self.sam, self.config = sam, config
        self.slots, self.workers = team.mine(config.batch), workers
        self.examples = SceneExamples(source, sam, config)
        self.batches: Iterator[Example] | None = None

    def __call__(self, step: int) -> Record:
        """求第 step 步的梯度；头一次决定从哪一步开始，之后一步接一步。"""
        if self.batches is None:
            options = self.config.batch, self.slots, step, self.workers
            self.batches = batches(self.examples, *options)
        images, targets = next(self.batches)
        images = images.to(self.sam.device)
        targets = Targets(*(part.to(self.sam.device) for part in targets))
        loss, record = sam_loss(self.sam, images, targets, self.config, step)
        share = len(self.slots) / self.config.batch
        (loss * share).backward()
        record["loss"] *= share
        return record


@contextmanager
def compiled(sam: Sam, wanted: bool) -> Iterator[None]:
    """在 with 里，编码器和解码器换成 ``torch.compile`` 编译的；出来恢复原样。

    错误：这台机器上编译不了，抛 SamLiteError。
    """
    if not wanted:
        yield
        return
    try:  # 先编译一个最小的：缺编译器、Python 太新，都在这里说
        torch.compile(torch.add)(torch.ones(1, device=sam.device), 1)
        encoder: Any = torch.compile(sam.image_encoder.forward, dynamic=False)
        decoder: Any = torch.compile(sam.mask_decoder.predict_masks, dynamic=False)
    except Exception as error:  # 编译的每一步各有各的错误
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SamLiteError(
            f"这里用不了 torch.compile（{text}）：去掉 --compile。"
        ) from error
    vars(sam.image_encoder)["forward"] = encoder
    vars(sam.mask_decoder)["predict_masks"] = decoder
    try:
        yield
    finally:
        del vars(sam.image_encoder)["forward"], vars(sam.mask_decoder)["predict_masks"]


# ---------------------------------------------------------------- 设置和优化器


def check_config(config: TrainConfig, sam: Sam, team: Team) -> None:
    """设置说不通、这个模型没法训练，就抛 SamLiteError。"""
    for name, allowed in CHOICES.items():
        if getattr(config, name) not in allowed:
            raise problem(name, repr(getattr(config, name)), "、".join(allowed))
    for name in ("batch", "prompts", "rounds", "warmup", "balanced_steps"):
        if getattr(config, name) < 1:
            raise problem(name, str(getattr(config, name)), "正整数")
    if not 0 <= config.ema < 1:
        raise problem("ema", f"{config.ema:g}", "0（不用）到 1 之间，不含 1")
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


def make_optimizers(sam: Sam, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """按设置配好优化器：AdamW 一个，用 Muon 时再加一个；偏置不衰减。"""
    hidden = hidden_matrices(sam) if config.optimizer == "muon" else {}
    others = [
        p
        for name, p in sam.named_parameters()
        if name not in hidden and p.requires_grad
    ]
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
