"""训练循环：一步一步走，记录曲线，定时存检查点，断了接着跑。

损失和提示的做法在 ``training`` 里，文件的写法在 ``learn.files`` 里，这里只管不丢
东西：更新到一半的模型绝不写进检查点；存不下就接着训练，下次再存。
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from ..attention import set_fused
from ..config import TrainConfig
from ..errors import SamLiteError
from ..learn.data import draw_batch
from ..learn.exam import Exam
from ..learn.files import Checkpoints, Curve, make_folder
from ..learn.setup import (
    check_config,
    check_settings,
    learning_rate,
    make_optimizers,
    restore,
    set_rate,
)
from ..learn.team import Team
from ..model import Sam
from ..scenes.bank import SceneBank
from ..training import sam_loss

LOG_EVERY = 50  # 每多少步记一行曲线


def set_learning(sam: Sam, learning: bool) -> None:
    """换成训练的样子，或打分、导出的样子。

    CPU 的融合注意力在头很窄时反向极慢（占掉一步的四成），训练时走易读写法。
    """
    sam.train(learning)
    set_fused(sam, not learning or sam.device.type == "cuda")


class Trainer:
    """训练循环：进度、记录、检查点、续跑。

    参数：
        sam: 要训练的模型，已放在目标设备上。
        bank: 素材库；图可以比模型的输入大，取出来再缩小。
        config: 设置。
        out: 输出目录，里面有检查点 ``state.pt``、上一个检查点 ``state.prev.pt`` 和
            ``log.jsonl``（曲线）。
        warn: 收警告的函数：检查点坏了用上一个、磁盘满了没存成。
        team: 一起训练的几个进程；只有第一个写文件。
    """

    def __init__(
        self,
        sam: Sam,
        bank: SceneBank,
        config: TrainConfig,
        out: str | Path,
        warn: Callable[[str], object] = warnings.warn,
        team: Team = Team(),  # noqa: B008 只有自己一个
    ) -> None:
        check_config(config, sam, team)
        self.sam, self.bank, self.config, self.warn = sam, bank, config, warn
        self.out, self.team = Path(out), team
        make_folder(self.out)
        self.files = Checkpoints(self.out)
        self.curve = Curve(self.out / "log.jsonl", warn)
        self.step, self.elapsed = 0, 0.0
        self.failing, self.saved_step = False, 0  # 上次没存成、检查点停在第几步
        self.consistent = True  # 参数更新到一半时为假，这时不存检查点
        self.optimizers = make_optimizers(sam, config)

    @property
    def done(self) -> float:
        """进度，0 到 1。"""
        minutes = self.config.minutes
        return self.elapsed / 60 / minutes if minutes else self.step / self.config.steps

    def save(self) -> None:
        """存下续跑需要的一切；写不了时抛 SamLiteError，已有的检查点不动。"""
        state = {
            "config": asdict(self.config),
            "model": self.sam.state_dict(),
            "optimizer": [each.state_dict() for each in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
        }
        if self.team.rank == 0:
            self.files.save(state)
        self.saved_step = self.step

    def resume(self) -> bool:
        """从上次的检查点接着来；没有检查点就返回假，从头开始。

        最新的检查点坏了，就警告一声，用上一个。

        错误：一个好的都没有、检查点不是这个模型的、或训练设置变了（CHANGEABLE 里的
        除外），抛 SamLiteError，文件都不动。
        """
        if self.files.count() == 0:
            self.trim_curve()
            return False
        state, complaint = self.files.load()
        check_settings(state["config"], self.config)
        restore(state, self.sam, self.optimizers, self.out)
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.saved_step = self.step
        logged = self.trim_curve()
        if complaint:
            self.warn(f"{complaint}，之后的要重走；曲线原来记到第 {logged} 步。")
        return True

    def train_step(self) -> dict[str, float]:
        """走一步，返回记录。梯度是无穷大或 NaN 时不更新参数，抛 SamLiteError。

        几个进程时每个只算自己那几张图，梯度加起来；记录里损失是全部的，别的是自己的。
        """
        config, slots = self.config, self.team.mine(self.config.batch)
        rate = learning_rate(config, self.step, self.done)
        set_learning(self.sam, True)
        set_rate(self.optimizers, rate)
        self.sam.zero_grad(set_to_none=True)
        batch, targets = draw_batch(self.bank, self.sam, config, self.step, slots)
        loss, record = sam_loss(self.sam, batch, targets, config, self.step, slots)
        share = len(slots) / config.batch
        (loss * share).backward()
        parameters = list(self.sam.parameters())
        record["loss"] = self.team.add_up(parameters, [record["loss"] * share])[0]
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise SamLiteError(
                f"第 {self.step} 步的梯度是 {norm.item()}，没有更新参数。"
                "换一个 --out，把学习率调低（--lr），重新训练。"
            )
        self.consistent = False
        for each in self.optimizers:
            each.step()
        self.step += 1
        self.consistent = True
        return record | {"lr": rate}

    def going_on(self, stop: Callable[[], bool]) -> bool:
        """还要不要走：用第一个进程的表；一个进程叫停，就都停在这里。"""
        found = self.team.gather([(self.elapsed, bool(stop()))])
        self.elapsed = found[0][0]
        return self.done < 1 and not any(asked for _, asked in found)

    def run(
        self,
        on_step: Callable[[dict[str, float]], None] | None = None,
        save_every: float = 60.0,
        stop: Callable[[], bool] = lambda: False,
        exam: Exam | None = None,
    ) -> None:
        """一直训练到 done 为 1，或 stop() 为真；每 save_every 秒存一次。

        exam 是途中的小考，分数记在 ``log.jsonl`` 里，走完也考一次。中途存不成只警告，
        下次再存；最后存不成抛 SamLiteError。Ctrl-C 也会存。
        """
        self.check_room()
        last = saved = time.monotonic()
        try:
            while self.going_on(stop):
                if exam and exam.due(self.elapsed):
                    self.take(exam)
                    last = time.monotonic()
                record = self.train_step()
                now = time.monotonic()
                self.elapsed, last = self.elapsed + now - last, now
                if on_step:
                    on_step(record)
                if self.step % LOG_EVERY == 0:
                    self.log(record)
                if now - saved > save_every and self.done < 1:
                    self.save_or_warn()
                    saved = time.monotonic()
            if exam and self.done >= 1:
                self.take(exam)
        finally:
            set_learning(self.sam, False)
            self.finish()

    def take(self, exam: Exam) -> None:
        """考一次，分数记进曲线。"""
        set_learning(self.sam, False)
        self.log(exam.score(self.sam))

    def check_room(self, scenes: int = 0) -> None:
        """还要训练、磁盘却装不下检查点和 ``scenes`` 字节的场景，就抛 SamLiteError。"""
        if self.done < 1 and self.team.rank == 0:
            weights = sum(p.numel() * p.element_size() for p in self.sam.parameters())
            self.files.check_room(weights, scenes)

    def finish(self) -> None:
        """把还没存的存下：检查点（更新到一半的不存）和曲线；存不下抛 SamLiteError。"""
        if self.curve.error is not None:
            self.curve.write()
        if self.consistent and self.step > self.saved_step:
            self.save()
        if self.curve.error is not None:
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

    def log(self, record: dict[str, float]) -> None:
        """往 log.jsonl 添一行；与末一行是同一步的，并成一行。"""
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2)}
        if self.team.rank == 0:
            self.curve.add(line | {k: round(v, 5) for k, v in record.items()})

    def trim_curve(self) -> int:
        """检查点之后的要重走，记录也重来；返回原来记到第几步。"""
        return self.curve.read(self.step) if self.team.rank == 0 else 0
