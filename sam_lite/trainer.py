"""训练循环：一步一步走，记录曲线，定时存检查点，断了接着跑。

损失和提示的做法在 ``training`` 里，这里只管不丢东西：检查点先写临时文件再改名，更新到
一半的模型绝不写进去。
"""

import json
import math
import os
import time
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

CHANGEABLE = {"steps", "minutes", "bfloat16"}  # 续跑时可以改的设置


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """线性预热（warmup），同时按余弦降到零；done 是进度，0 到 1。"""
    warm = min(1.0, (step + 1) / config.warmup)
    return config.lr * warm * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def save_atomically(obj: object, path: Path) -> None:
    """先写临时文件，写完再改名：中途断电，旧文件还在。"""
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(obj, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Trainer:
    """训练循环：进度、记录、检查点、续跑。

    参数：
        sam: 要训练的模型，已放在目标设备上。
        bank: 素材库。
        config: 设置。
        out: 输出目录，里面有 ``state.pt``（续跑用）和 ``log.jsonl``（曲线）。
    """

    def __init__(
        self, sam: Sam, bank: SceneBank, config: TrainConfig, out: str | Path
    ) -> None:
        self.sam, self.bank, self.config = sam, bank, config
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.step, self.elapsed = 0, 0.0
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
        """存下续跑需要的一切。"""
        state = {
            "config": asdict(self.config),
            "model": self.sam.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        save_atomically(state, self.out / "state.pt")

    def resume(self) -> bool:
        """从上次的检查点接着来；没有检查点就返回假。

        错误：检查点损坏、不是这个模型的、或训练设置变了（CHANGEABLE 里的
        除外），抛 SamLiteError。
        """
        path = self.out / "state.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.sam.device, weights_only=True)
            self.check_settings(state["config"])
            self.sam.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.elapsed = state["step"], state["elapsed"]
        except SamLiteError:
            raise
        except Exception as error:
            raise SamLiteError(
                f"检查点 {path} 不能用（{type(error).__name__}）：已损坏，或属于另一种"
                "尺寸的模型。把它移走可以从头训练。"
            ) from error
        self.trim_log()
        return True

    def check_settings(self, saved: dict[str, object]) -> None:
        """续跑要用原来的设置，不然就不是同一次训练了。"""
        now = asdict(self.config)
        changed = [
            f"{key} 原来是 {saved.get(key)}，现在是 {value}"
            for key, value in now.items()
            if key not in CHANGEABLE and saved.get(key) != value
        ]
        if changed:
            raise SamLiteError(
                "续跑的设置和检查点里的不同："
                + "；".join(changed)
                + "。改回原来的设置，或换一个 --out 重新训练；训练完导出的 "
                ".safetensors 可以交给 --init 接着学。"
            )

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
    ) -> None:
        """一直训练到 done 为 1；每 save_every 秒存一次，Ctrl-C 也会存。"""
        self.sam.train()
        last = saved = time.monotonic()
        try:
            while self.done < 1:
                record = self.train_step()
                now = time.monotonic()
                self.elapsed, last = self.elapsed + now - last, now
                if on_step:
                    on_step(record)
                if self.step % 50 == 0:
                    self.log(record)
                if now - saved > save_every:
                    self.save()
                    saved = time.monotonic()
        finally:
            if self.consistent and self.step > 0:
                self.save()
            set_fused(self.sam.eval(), True)

    def log(self, record: dict[str, float]) -> None:
        """往 log.jsonl 追加一行。"""
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2)}
        line |= {k: round(v, 5) for k, v in record.items()}
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def trim_log(self) -> None:
        """续跑之前，删掉检查点之后的记录：那几步要重走一遍。"""
        path = self.out / "log.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(kept), encoding="utf-8")
            os.replace(temporary, path)
