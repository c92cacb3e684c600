"""微调的循环：一步一步走，每遍评一次分；损失由 ``training`` 给。"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from ..config import FitConfig
from ..errors import SamLiteError
from ..learn.data import draw_rounds, step_generator
from ..learn.fit_parts import LEARNING_RATES, Row, score
from ..learn.fit_samples import Picture, Samples
from ..learn.interrupts import Interrupts
from ..learn.team import Team
from ..model import Sam

WARMUP = 10  # 学习率预热的步数


class FitResult(NamedTuple):
    """一次微调的经过。

    ``history`` 每遍一行：``epoch``（0 是微调之前）、``loss``、``minutes``，和验证照片上
    的平均 IoU：``box``、``click``、``clicks3``；``best`` 是最好的一行，模型里就是它；
    ``stopped`` 是怎么停的：``"finished"``、``"patience"`` 或 ``"interrupted"``。
    """

    history: list[Row]
    best: Row
    stopped: str


class FineTuning:
    """微调的循环：一遍一遍走，每遍评一次分。

    参数：
        sam、config、team: 同 fit。
        parameters: 该学的参数，别的都冻结。
        loss: 一张照片的损失，``training.prompt_loss``。
    """

    def __init__(
        self,
        sam: Sam,
        config: FitConfig,
        parameters: list[nn.Parameter],
        team: Team,
        loss: Callable[..., tuple[torch.Tensor, Row]],
    ) -> None:
        self.sam, self.config, self.team = sam, config, team
        self.parameters, self.loss = parameters, loss
        self.optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
        self.step, self.done, self.stopped = 0, 0.0, ""
        self.history: list[Row] = []

    def epochs(self, teach: Samples, judge: Samples, stop: Interrupts) -> Iterator[Row]:
        """每遍给出一行，从第 0 遍（还没有学）开始，到时、够数或有人叫停为止。"""
        config, start, losses = self.config, time.monotonic(), [math.nan]
        while True:
            row = {"epoch": len(self.history), "loss": sum(losses) / len(losses)}
            row |= score(self.sam, judge, self.team, config.seed)
            row["minutes"] = round((time.monotonic() - start) / 60, 2)
            self.history.append(row)
            yield row
            if self.done >= 1:
                self.stopped = "finished"
                return
            losses = []
            g = step_generator(config.seed, len(self.history), torch.device("cpu"))
            order = torch.randperm(len(teach.pictures), generator=g).tolist()
            for first in range(0, len(order), config.batch):
                chosen = [teach.pictures[i] for i in order[first:][: config.batch]]
                so_far = [float(bool(stop)), time.monotonic() - start]
                loss, asked, seconds = self.train_step(teach, chosen, so_far)
                losses.append(loss)
                if asked:
                    self.stopped = "interrupted"
                    return
                minutes = seconds / self.team.world / 60
                total = config.epochs * math.ceil(len(order) / config.batch)
                self.done = self.step / total
                if config.minutes:
                    self.done = minutes / config.minutes
                if self.done >= 1:
                    break

    def train_step(
        self, teach: Samples, pictures: list[Picture], numbers: list[float]
    ) -> list[float]:
        """一张一张照片算梯度，加起来走一步；返回各进程合计的损失和 numbers。

        照片一张一张算：占的内存是一张的，几个进程分着算也与一个进程相同。
        """
        config, device, total = self.config, self.sam.device, 0.0
        rate = config.lr or LEARNING_RATES[config.parts]
        warm = min(1.0, (self.step + 1) / WARMUP)
        rate = rate * warm * 0.5 * (1 + math.cos(math.pi * self.done))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        for slot in self.team.mine(len(pictures)):
            number = self.step * config.batch + slot
            g = step_generator(config.seed, number, torch.device("cpu"))
            mirrored = bool(torch.rand((), generator=g) < 0.5)
            targets = teach.targets(pictures[slot], mirrored, config.prompts, g)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                features = teach.features(pictures[slot], mirrored)
            g = step_generator(config.seed, number, device, stream=1)
            rounds = draw_rounds(config.rounds, g)
            loss, _ = self.loss(self.sam, features, targets, config, [g], rounds)
            (loss / len(pictures)).backward()
            total += loss.item() / len(pictures)
        sums = self.team.add_up(self.parameters, [total, *numbers])
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not torch.isfinite(norm):
            raise SamLiteError(
                f"第 {self.step} 步的梯度是 {norm.item()}，没有更新参数；模型里是在此"
                "之前最好的一份。把学习率（lr）调低再来。"
            )
        self.optimizer.step()
        self.step += 1
        return sums
