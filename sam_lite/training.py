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

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .attention import set_fused
from .errors import SamLiteError
from .model import Sam
from .scene_bank import MAX_LABELS, SceneBank


@dataclass(frozen=True)
class TrainConfig:
    """一次训练的全部设置。

    ``minutes`` 大于 0 时按时间安排学习率，到时就停；否则按 ``steps``，这时同一个种子
    逐位可重复，中断再续也与一口气跑完相同。
    """

    steps: int = 20000
    minutes: float = 0.0
    batch: int = 8  # 每步几张图
    prompts: int = 6  # 每张图几组提示
    rounds: int = 3  # 每步随机走 1 到 rounds 轮：第一轮提示，之后是纠正的点
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200  # 学习率从零升上来的步数
    balanced_steps: int = 500  # 前这么多步里，均衡的 BCE 渐渐让位给 focal
    min_area: int = 150  # 物体至少占多少像素才拿来训练
    bfloat16: bool = False  # 用 bfloat16 自动混合精度；GPU 和带 AMX 的 CPU 上更快
    seed: int = 0


@dataclass
class Batch:
    """一步的图像和备选物体，都在训练设备上。

    ``images`` ``(I, 3, S, S)`` 已规范化；``labels`` ``(I, S, S)``；``member``
    ``(I, K, K)``，``member[i, k, l]`` 为 1 表示标签 l 的像素属于物体 k。
    """

    images: torch.Tensor
    labels: torch.Tensor
    member: torch.Tensor


@dataclass
class Targets:
    """一步里 B = I·P 组提示要分割的物体。

    ``masks`` ``(B, 1, h, w)``：每个低分辨率像素被物体盖住的比例，0 到 1；``points``
    ``(B, 1, 2)`` 与 ``boxes`` ``(B, 4)`` 是像素坐标；``use_box``、``valid`` ``(B,)``。
    """

    masks: torch.Tensor
    points: torch.Tensor
    boxes: torch.Tensor
    use_box: torch.Tensor
    valid: torch.Tensor


# ---------------------------------------------------------------- 取图与增强


def membership(parents: torch.Tensor) -> torch.Tensor:
    """由上级表得到归属表。形状：``(I, K) -> (I, K, K)``。"""
    K = parents.shape[1]
    eye = torch.eye(K, device=parents.device)
    up = eye[parents.long()] * (parents > 0)[:, :, None]  # up[i, l, k]：l 的上级是 k
    belongs = eye.expand(len(parents), K, K)
    for _ in range(3):  # 部件的部件的部件，最多三层
        belongs = ((belongs @ up + eye) > 0).float()
    return belongs.transpose(1, 2)


def augment(
    images: torch.Tensor, labels: torch.Tensor, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """随机裁剪、翻转、变色、加噪。

    形状：``(I, 3, S, S)`` 0–255 与 ``(I, S, S)`` -> 同样的形状。裁剪后总是拉回 S×S，
    图像用双线性，标签用最近邻，两者用同一张取样网格。
    """
    count, S, device = len(images), images.shape[-1], images.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=g, device=device)

    zoom = uniform(0.55, 1.0, count, 1) * uniform(0.85, 1.0, count, 2)
    zoom = torch.where(uniform(0, 1, count, 1) < 0.3, torch.ones_like(zoom), zoom)
    flip = torch.where(uniform(0, 1, count, 2) < 0.5, -1.0, 1.0)
    flip[:, 1] = torch.where(uniform(0, 1, count) < 0.1, -1.0, 1.0)  # 照片少有倒立
    shift = uniform(-1, 1, count, 2) * (1 - zoom)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = (zoom * flip).unbind(1)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [count, 1, S, S], align_corners=False)
    mode = dict(padding_mode="border", align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", **mode)
    labels = F.grid_sample(labels[:, None].float(), grid, mode="nearest", **mode)[:, 0]

    gain = uniform(0.75, 1.25, count, 1, 1, 1) * uniform(0.85, 1.15, count, 3, 1, 1)
    grey = uniform(0, 1, count, 1, 1, 1) < 0.15
    images = torch.where(grey, images.mean(1, keepdim=True).expand_as(images), images)
    offset = uniform(-25, 25, count, 1, 1, 1)
    noise = torch.randn(images.shape, generator=g, device=device)
    noise = noise * uniform(0, 6, count, 1, 1, 1)
    return (images * gain + offset + noise).clamp(0, 255), labels.long()


def load_batch(
    bank: SceneBank, sam: Sam, config: TrainConfig, g: torch.Generator
) -> Batch:
    """从素材库随机取一批图，增强，规范化；一部分图在下边或右边留出填充。"""
    ready = bank.ready()
    device = sam.device
    pick = torch.randint(len(ready), (config.batch,), generator=g, device=device)
    index = np.sort(ready[pick.cpu().numpy()])
    images = torch.from_numpy(bank.images[index]).to(device)
    labels = torch.from_numpy(bank.labels[index]).to(device)
    parents = torch.from_numpy(bank.parents[index]).to(device)
    parents[:, 0] = 0
    images = images.permute(0, 3, 1, 2).float()
    images, labels = augment(images, labels, g)
    images = (images - sam.pixel_mean) / sam.pixel_std

    S = images.shape[-1]
    keep = torch.rand(config.batch, 2, generator=g, device=device) * 0.45 + 0.55
    keep = torch.where(keep < 0.75, keep + 0.25, torch.ones_like(keep))
    keep[:, 0] = torch.where(keep[:, 1] < 1, torch.ones_like(keep[:, 0]), keep[:, 0])
    ruler = torch.arange(S, device=device)
    rows = ruler < (keep[:, :1] * S)  # (I, S)：哪些行不是填充
    cols = ruler < (keep[:, 1:] * S)
    inside = rows[:, :, None] & cols[:, None, :]
    return Batch(images * inside[:, None], labels * inside, membership(parents))


# ---------------------------------------------------------------- 提示


def choose_targets(
    batch: Batch, grid: int, config: TrainConfig, g: torch.Generator
) -> Targets:
    """给每张图挑 P 个物体，各采一个正点、一个带噪声的框。

    全分辨率的掩码一张也不用存：标签图先数成“每个标签盖住每个低分辨率格子多少像素”，
    再乘归属表，就是每个物体的掩码。
    """
    count, S, P, K = len(batch.labels), batch.labels.shape[-1], config.prompts, MAX_LABELS
    device, cell = batch.labels.device, batch.labels.shape[-1] // grid
    ruler = torch.arange(S, device=device)
    where = (ruler // cell)[:, None] * grid + ruler // cell  # (S, S)：像素在第几格

    def tally(bins: torch.Tensor, size: int) -> torch.Tensor:
        """数每张图、每个标签落在每一档里的像素。返回 ``(I, K, size)``。"""
        first = torch.arange(count, device=device)[:, None, None] * K
        flat = ((first + batch.labels) * size + bins).flatten()
        total = torch.bincount(flat, minlength=count * K * size)
        return total.reshape(count, K, size).float()

    cover = tally(where, grid * grid) / cell**2  # (I, K, 格子数)
    area = (batch.member @ cover).sum(-1) * cell**2  # (I, K)
    area[:, 0] = 0
    odds = torch.where(area >= config.min_area, area**0.25, torch.zeros_like(area))
    valid = odds.sum(1) > 0
    odds = torch.where(valid[:, None], odds, torch.ones_like(odds))
    chosen = torch.multinomial(odds, P, replacement=True, generator=g)  # (I, P)
    member = batch.member.gather(1, chosen[:, :, None].expand(-1, -1, K))  # (I, P, K)
    masks = member @ cover  # (I, P, 格子数)
    masks = masks * valid[:, None, None]

    columns = (member @ tally(ruler[None, :].expand(S, S), S)) > 0  # (I, P, S)
    rows = (member @ tally(ruler[:, None].expand(S, S), S)) > 0
    boxes = tight_boxes(rows, columns).reshape(-1, 4)
    masks = masks.reshape(count * P, grid * grid)
    points = sample_points(masks, batch, member.reshape(count * P, K), grid, g)
    return Targets(
        masks.reshape(-1, 1, grid, grid),
        points[:, None],
        jitter_boxes(boxes, S, g),
        torch.rand(count * P, generator=g, device=device) < 0.5,
        valid.repeat_interleave(P).float(),
    )


def tight_boxes(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """由“哪些行、列有像素”得到紧框。形状：两个 ``(I, P, S)`` -> ``(I, P, 4)``。"""
    last = rows.shape[-1] - 1
    x0, y0 = columns.float().argmax(-1), rows.float().argmax(-1)
    x1 = last - columns.flip(-1).float().argmax(-1)
    y1 = last - rows.flip(-1).float().argmax(-1)
    return torch.stack([x0, y0, x1, y1], dim=-1).float()


def jitter_boxes(boxes: torch.Tensor, size: int, g: torch.Generator) -> torch.Tensor:
    """给框加噪声：标准差是边长的一成，最多 20 像素（按 256 折算）；一半的框只轻轻动。"""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=g, device=boxes.device)
    amount = torch.rand(len(boxes), 1, generator=g, device=boxes.device) ** 2 * 0.1
    limit = 20 * size / 256
    shift = (noise * sides * amount).clamp(-limit, limit)
    return (boxes + shift).clamp(0, size - 1)


def sample_points(
    masks: torch.Tensor,
    batch: Batch,
    member: torch.Tensor,
    grid: int,
    g: torch.Generator,
) -> torch.Tensor:
    """在物体里均匀取一个像素：先按覆盖比例取格子，再在格子里取像素。

    形状：masks ``(B, 格子数)``，member ``(B, K)`` -> ``(B, 2)``，顺序 (x, y)。
    """
    B, cell = len(masks), batch.labels.shape[-1] // grid
    spot = torch.multinomial(masks + 1e-8, 1, generator=g)[:, 0]  # (B,)
    image = torch.arange(B, device=masks.device) // (B // len(batch.labels))
    inner = torch.arange(cell * cell, device=masks.device)
    y = (spot // grid * cell)[:, None] + inner // cell  # (B, cell²)
    x = (spot % grid * cell)[:, None] + inner % cell
    label = batch.labels[image[:, None], y, x]
    inside = member.gather(1, label) + 1e-8
    which = torch.multinomial(inside, 1, generator=g)
    return torch.cat([x.gather(1, which), y.gather(1, which)], dim=1).float()


def corrective_points(
    logits: torch.Tensor, targets: Targets, cell: int, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """在预测出错的地方取一点：漏掉的给正点，多出的给负点。

    形状：logits ``(B, 1, h, w)`` -> 点 ``(B, 1, 2)``、标签 ``(B, 1)``。没有错处时在
    物体里取一个正点。
    """
    grid = logits.shape[-1]
    truth = targets.masks.flatten(1) > 0.5
    wrong = ((logits.flatten(1) > 0) != truth).float()
    odds = torch.where(wrong.sum(1, keepdim=True) > 0, wrong, truth.float()) + 1e-8
    spot = torch.multinomial(odds, 1, generator=g)  # (B, 1)
    label = truth.gather(1, spot).float()
    jitter = torch.randint(cell, (2, len(spot)), generator=g, device=spot.device)
    x = spot[:, 0] % grid * cell + jitter[0]
    y = spot[:, 0] // grid * cell + jitter[1]
    return torch.stack([x, y], dim=-1).float()[:, None], label


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


def sam_loss(
    sam: Sam, batch: Batch, targets: Targets, config: TrainConfig, step: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """一步的总损失：编码一次，提示若干轮。另返回记录用的数字。"""
    g = step_generator(config, step, sam.device, stream=1)
    size, grid = sam.image_encoder.img_size, targets.masks.shape[-1]
    balanced = max(0.0, 1 - step / config.balanced_steps)
    encoder = sam.prompt_encoder
    embeddings = sam.image_encoder(batch.images)
    pe = encoder.get_dense_pe()

    no_label = -torch.ones_like(targets.points[..., 0])
    start = encoder._embed_points(
        torch.cat([targets.points, torch.zeros_like(targets.points)], 1),
        torch.cat([-no_label, no_label], 1),
        pad=False,
    )  # 正点加一个填充点：两个词元，与框一样多，于是可以放进同一批
    box = encoder._embed_boxes(targets.boxes)
    sparse = torch.where(targets.use_box[:, None, None], box, start)
    _, dense = encoder(None, targets.boxes, None)

    total, record = torch.zeros((), device=sam.device), {}
    single = targets.use_box.float()[:, None]  # 这一组提示有多大程度用第 0 张掩码
    rounds = int(torch.randint(config.rounds, (), generator=g, device=sam.device)) + 1
    for turn in range(rounds):
        logits, iou = sam.mask_decoder.predict_masks(embeddings, pe, sparse, dense)
        logits, iou = logits.float(), iou.float()
        losses = mask_losses(logits, targets.masks, balanced)
        best = losses[:, 1:].min(dim=1).values + 0.05 * losses[:, 1:].mean(dim=1)
        first = single if turn == 0 else torch.ones_like(single)
        multi = 1.0 if turn == 0 else 0.0
        loss = first[:, 0] * losses[:, 0] + multi * best
        truth = true_iou(logits.detach(), targets.masks)
        loss = loss + ((iou - truth) ** 2).mean(dim=1)
        total = total + (loss * targets.valid).sum() / targets.valid.sum().clamp(min=1)

        pick = torch.where(first[:, 0] > 0, 0, 1 + iou[:, 1:].argmax(dim=1))
        rows = torch.arange(len(pick), device=pick.device)
        shown = truth[rows, pick]
        for name, group in (("click", ~targets.use_box), ("box", targets.use_box)):
            kept = group & (targets.valid > 0)
            record[f"{name}{turn}"] = shown[kept].mean().item()
        if turn + 1 < rounds:
            previous = logits[rows, pick].detach()[:, None]
            points, labels = corrective_points(previous, targets, size // grid, g)
            more = encoder._embed_points(points, labels, pad=False)
            sparse = torch.cat([sparse, more], dim=1)
            dense = encoder._embed_masks(previous.clamp(-20, 20))
    record["loss"] = total.item() / rounds
    return total / rounds, record


# ---------------------------------------------------------------- 训练


@torch.no_grad()
def init_for_training(sam: Sam, gain: float = 2.5) -> None:
    """让解码器一开始就懂“离得近”，否则从零训练会塌成空掩码。

    词元与图像之间的每个注意力，查询和键用同一个放大的正交矩阵：两边的傅里叶编码
    经同一变换再点积，位置越近分数越高。
    """
    transformer = sam.mask_decoder.transformer
    crosses = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crosses += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crosses:
        nn.init.orthogonal_(attention.q_proj.weight, gain)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)


def step_generator(
    config: TrainConfig, step: int, device: torch.device, stream: int = 0
) -> torch.Generator:
    """第 step 步的随机数：只由种子和步数决定，所以断了再续也一样。"""
    seed = (config.seed * 1_000_003 + step) * 2 + stream
    return torch.Generator(device=device).manual_seed(seed)


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
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": config.weight_decay},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(0.9, 0.98),
        )

    @property
    def done(self) -> float:
        """进度，0 到 1。"""
        if self.config.minutes > 0:
            return self.elapsed / (60 * self.config.minutes)
        return self.step / self.config.steps

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
        g = step_generator(config, self.step, device)
        rate = learning_rate(config, self.step, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = load_batch(self.bank, self.sam, config, g)
        grid = self.sam.prompt_encoder.mask_input_size[0]
        targets = choose_targets(batch, grid, config, g)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
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
