"""第 15 章：在自己生成的场景上训练一个小 SAM。

做法照论文附录 A 的 “Training algorithm”：每个物体先给一个正点或一个带噪声的框，再在
预测出错的地方补几轮点，上一轮的掩码 logits 也作为输入；损失是 20·focal + dice，加上
IoU 头的回归；只有一个点时有歧义，三张掩码里只让损失最小的一张学习。
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .attention import set_fused
from .errors import SamLiteError
from .model import Sam
from .scene_bank import SceneBank
from .training_data import (
    Batch,
    Targets,
    choose_targets,
    corrective_points,
    load_batch,
    step_generator,
)
from .two_way import Attention


@dataclass(frozen=True)
class TrainConfig:
    """一次训练的全部设置。

    ``minutes`` 大于 0 时按时间安排学习率，到时就停；否则按 ``steps``，这时同一个种子
    逐位可重复，中断再续也与一口气跑完相同。
    """

    steps: int = 20000
    minutes: float = 0.0
    batch: int = 8  # 每步几张图
    prompts: int = 8  # 每张图几组提示
    rounds: int = 3  # 一半的步只走第一轮；其余再纠正，总轮数在 2 到 rounds 里随机
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200  # 学习率从零升上来的步数
    balanced_steps: int = 500  # 前这么多步里，均衡的 BCE 渐渐让位给 focal
    min_area: int = 300  # 物体至少占多少像素才拿来训练
    bfloat16: bool = False  # 用 bfloat16 自动混合精度；GPU 和带 AMX 的 CPU 上更快
    seed: int = 0


# ---------------------------------------------------------------- 损失


def mask_losses(
    logits: torch.Tensor, target: torch.Tensor, balanced: float
) -> torch.Tensor:
    """每张掩码的损失：20·focal + dice。

    ``balanced`` 从 1 降到 0：训练开头用正负均衡的 BCE 代替 focal，不然模型会先学会
    “什么都不选”，再也爬不出来。形状：``(B, 4, h, w)``、``(B, 1, h, w)`` -> ``(B, 4)``。
    """
    target = target.expand_as(logits)
    p = logits.sigmoid()
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = 0.5 * bce * (p - target) ** 2  # α = 0.5，γ = 2
    region = 20 * focal.mean((2, 3))
    if balanced > 0:
        share = target.mean((2, 3), keepdim=True).clamp(0.002, 0.998)
        weight = 0.5 * target / share + 0.5 * (1 - target) / (1 - share)
        region = balanced * (weight * bce).mean((2, 3)) + (1 - balanced) * region
    overlap = (p * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    return region + dice


def true_iou(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """预测与真值的交并比，IoU 头的学习目标。形状同 mask_losses，返回 ``(B, 4)``。"""
    pred, truth = logits > 0, target > 0.5
    overlap = (pred & truth).sum((2, 3)).float()
    return overlap / (pred | truth).sum((2, 3)).clamp(min=1).float()


def first_prompts(sam: Sam, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """第一轮的提示嵌入：一部分是框，其余是一个正点。

    正点后面补一个填充点，于是两种提示都是两个词元，能放进同一批。返回稀疏
    ``(B, 2, C)``、稠密 ``(B, C, h, w)``。
    """
    encoder = sam.prompt_encoder
    positive = torch.ones_like(targets.points[..., 0])  # (B, 1)
    sparse, dense = encoder(points=None, boxes=targets.boxes, masks=None)
    click, _ = encoder(points=(targets.points, positive), boxes=None, masks=None)
    return torch.where(targets.use_box[:, None, None], sparse, click), dense


def round_loss(
    losses: torch.Tensor,
    iou: torch.Tensor,
    truth: torch.Tensor,
    use_first: torch.Tensor,
    use_three: bool,
) -> torch.Tensor:
    """一轮里每组提示的损失。形状：前三个 ``(B, 4)``，use_first ``(B,)`` -> ``(B,)``。

    第 0 张掩码学没有歧义的提示（框、多个点）；第 1–3 张学有歧义的第一轮，只有最好的一张
    全力学，另两张分到百分之五，免得早早荒废。IoU 头学四张掩码各自真实的 IoU。
    """
    loss = use_first * losses[:, 0] + ((iou - truth) ** 2).mean(dim=1)
    if use_three:
        three = losses[:, 1:]
        loss = loss + three.min(dim=1).values + 0.05 * three.mean(dim=1)
    return loss


def sam_loss(
    sam: Sam, batch: Batch, targets: Targets, config: TrainConfig, step: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """一步的总损失：图像编码一次，提示若干轮。另返回记录用的数字。"""
    g = step_generator(config.seed, step, sam.device, stream=1)
    draw = torch.rand((), generator=g, device=sam.device).item()  # 0 到 1
    rounds = max(1, 1 + math.ceil((2 * draw - 1) * (config.rounds - 1)))
    cell = sam.image_encoder.img_size // targets.masks.shape[-1]
    balanced = max(0.0, 1 - step / config.balanced_steps)
    mixed = torch.autocast(sam.device.type, torch.bfloat16, enabled=config.bfloat16)
    with mixed:
        embeddings = sam.image_encoder(batch.images)
    pe = sam.prompt_encoder.get_dense_pe()
    sparse, dense = first_prompts(sam, targets)

    total = torch.zeros((), device=sam.device)
    record: dict[str, float] = {}
    for turn in range(rounds):
        with mixed:  # 提示编码器不在内：坐标的编码用半精度会差出一个像素
            logits, iou = sam.mask_decoder.predict_masks(embeddings, pe, sparse, dense)
        logits, iou = logits.float(), iou.float()  # (B, 4, h, w)、(B, 4)
        losses = mask_losses(logits, targets.masks, balanced)
        truth = true_iou(logits.detach(), targets.masks)
        use_first = targets.use_box | (turn > 0)
        loss = round_loss(losses, iou, truth, use_first.float(), turn == 0)
        total = total + (loss * targets.valid).sum() / targets.valid.sum().clamp(min=1)

        shown = torch.where(use_first, 0, 1 + iou[:, 1:].argmax(dim=1))
        record |= mean_by_prompt(truth.gather(1, shown[:, None])[:, 0], targets, turn)
        if turn + 1 < rounds:
            index = shown[:, None, None, None].expand(-1, 1, *logits.shape[2:])
            previous = logits.detach().gather(1, index)  # (B, 1, h, w)
            clicks = corrective_points(previous, targets, cell, g)
            more = sam.prompt_encoder._embed_points(*clicks, pad=False)
            sparse = torch.cat([sparse, more], dim=1)
            dense = sam.prompt_encoder._embed_masks(previous)
    record["loss"] = total.item() / rounds
    return total / rounds, record


def mean_by_prompt(iou: torch.Tensor, targets: Targets, turn: int) -> dict[str, float]:
    """这一轮的平均 IoU，点和框分开记：``click0``、``box0`` 等。"""
    valid = targets.valid > 0
    groups = {"click": ~targets.use_box & valid, "box": targets.use_box & valid}
    return {
        f"{name}{turn}": iou[rows].mean().item()
        for name, rows in groups.items()
        if rows.any()
    }


# ---------------------------------------------------------------- 训练


@torch.no_grad()
def init_for_training(sam: Sam, gain: float = 2.5) -> None:
    """让解码器一开始就懂“离得近”，否则从零训练会塌成空掩码。

    词元与图像之间的每个注意力，查询和键用同一个放大的正交矩阵：两边的傅里叶编码
    经同一变换再点积，位置越近分数越高。
    """
    for layer in sam.mask_decoder.modules():
        # 交叉注意力的内部宽度都缩小了一半，自注意力没有，借此认出它们
        if isinstance(layer, Attention) and layer.internal_dim < layer.embedding_dim:
            nn.init.orthogonal_(layer.q_proj.weight, gain)
            layer.k_proj.weight.copy_(layer.q_proj.weight)
    if sam.image_encoder.pos_embed is not None:
        nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """先线性升温，再按余弦降到零；done 是进度，0 到 1。"""
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
    """训练循环：进度、记录、存档、续跑。

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
        """从上次的存档接着来；没有存档就返回假。"""
        path = self.out / "state.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.sam.device, weights_only=True)
        except Exception as error:
            raise SamLiteError(
                f"存档 {path} 读不出来（{error}）。把它移走可以从头训练。"
            ) from error
        self.sam.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        return True

    def train_step(self) -> dict[str, float]:
        """走一步，返回记录。"""
        config, device = self.config, self.sam.device
        g = step_generator(config.seed, self.step, device)
        rate = learning_rate(config, self.step, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = load_batch(self.bank, self.sam, config.batch, g)
        grid = self.sam.prompt_encoder.mask_input_size[0]
        targets = choose_targets(batch, grid, config.prompts, config.min_area, g)
        loss, record = sam_loss(self.sam, batch, targets, config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
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
            self.save()
            set_fused(self.sam.eval(), True)

    def log(self, record: dict[str, float]) -> None:
        """往 log.jsonl 追加一行。"""
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2)}
        line |= {k: round(v, 5) for k, v in record.items()}
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
