"""训练循环：一步一步走，记录曲线，定时存检查点，断了接着跑。

损失和提示的做法在 ``training`` 里，文件的写法在 ``training_files`` 里，这里只管不丢
东西：更新到一半的模型绝不写进检查点；存不下就接着训练，下次再存。
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from .attention import set_fused
from .config import TrainConfig
from .errors import SamLiteError
from .model import Sam
from .scene_bank import SceneBank
from .training import sam_loss
from .training_data import choose_targets, load_batch, step_generator
from .training_files import Checkpoints, Curve, make_folder

LOG_EVERY = 50  # 每多少步记一行曲线
CHANGEABLE = {"steps", "minutes", "bfloat16"}  # 续跑时可以改的设置


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """线性预热（warmup），同时按余弦降到零；done 是进度，0 到 1。"""
    warm = min(1.0, (step + 1) / config.warmup)
    return config.lr * warm * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


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


class Trainer:
    """训练循环：进度、记录、检查点、续跑。

    参数：
        sam: 要训练的模型，已放在目标设备上。
        bank: 素材库。
        config: 设置。
        out: 输出目录，里面有检查点 ``state.pt``、上一个检查点 ``state.prev.pt`` 和
            ``log.jsonl``（曲线）。
        warn: 收警告的函数：检查点坏了用上一个、磁盘满了没存成。
    """

    def __init__(
        self,
        sam: Sam,
        bank: SceneBank,
        config: TrainConfig,
        out: str | Path,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        self.sam, self.bank, self.config, self.warn = sam, bank, config, warn
        self.out = Path(out)
        make_folder(self.out)
        self.files = Checkpoints(self.out)
        self.curve = Curve(self.out / "log.jsonl", warn)
        self.step, self.elapsed = 0, 0.0
        self.failing = False  # 上一次没存成
        self.saved_step = 0  # 磁盘上的检查点停在第几步
        self.consistent = True  # 参数更新到一半时为假，这时不存检查点
        # CPU 的融合注意力在头很窄时反向极慢（占掉一步的四成），训练时走易读写法
        set_fused(sam, sam.device.type == "cuda")
        decay = [p for p in sam.parameters() if p.ndim > 1]
        rest = [p for p in sam.parameters() if p.ndim <= 1]
        groups = [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))

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
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        self.files.save(state)
        self.saved_step = self.step

    def resume(self) -> bool:
        """从上次的检查点接着来；没有检查点就返回假，从头开始。

        最新的检查点坏了，就警告一声，用上一个。

        错误：一个好的都没有、检查点不是这个模型的、或训练设置变了（CHANGEABLE 里的
        除外），抛 SamLiteError，文件都不动。
        """
        if self.files.count() == 0:
            self.curve.read(0)
            return False
        state, complaint = self.files.load()
        check_settings(state["config"], self.config)
        try:
            self.sam.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise SamLiteError(
                f"{self.out} 里的检查点属于另一种尺寸的模型。换一个 --out 从头训练。"
            ) from error
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.saved_step = self.step
        logged = self.curve.read(self.step)  # 检查点之后的要重走，记录也重来
        if complaint:
            self.warn(f"{complaint}，之后的要重走；曲线原来记到第 {logged} 步。")
        return True

    def train_step(self) -> dict[str, float]:
        """走一步，返回记录。梯度是无穷大或 NaN 时不更新参数，抛 SamLiteError。"""
        config, device = self.config, self.sam.device
        g = step_generator(config.seed, self.step, device)
        rate = learning_rate(config, self.step, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = load_batch(self.bank, self.sam, config, g)
        grid = self.sam.prompt_encoder.mask_input_size[0]
        targets = choose_targets(batch, grid, config, g)
        loss, record = sam_loss(self.sam, batch, targets, config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise SamLiteError(
                f"第 {self.step} 步的梯度是 {norm.item()}，没有更新参数。"
                "换一个 --out，把学习率调低（--lr），重新训练。"
            )
        self.consistent = False
        self.optimizer.step()
        self.step += 1
        self.consistent = True
        record["lr"] = rate
        return record

    def run(
        self,
        on_step: Callable[[dict[str, float]], None] | None = None,
        save_every: float = 60.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """一直训练到 done 为 1，或 stop() 为真；每 save_every 秒存一次。

        中途存不成只警告，下次再存；最后存不成抛 SamLiteError。Ctrl-C 也会存。
        """
        self.check_room()
        self.sam.train()
        last = saved = time.monotonic()
        try:
            while self.done < 1 and not stop():
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
        finally:
            set_fused(self.sam.eval(), True)
            self.finish()

    def check_room(self, scenes: int = 0) -> None:
        """还要训练、磁盘却装不下检查点和 ``scenes`` 字节的场景，就抛 SamLiteError。"""
        if self.done < 1:
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
        """往 log.jsonl 添一行。"""
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2)}
        self.curve.add(line | {k: round(v, 5) for k, v in record.items()})
