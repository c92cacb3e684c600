"""第 15 章：在自己生成的场景上训练一个小 SAM；在自己的照片上微调。

做法照论文附录 A 的 “Making the model ambiguity-aware”、“Losses” 和 “Training
algorithm”：每个物体先给一个正点或一个带噪声的框，再在预测出错的地方补几轮点，上一轮的
掩码 logits 也作为输入；损失是 20·focal + dice，加上 IoU 头的回归；第一轮有歧义，三张
掩码里主要让损失最小的一张学习。

与论文不同的几处：默认最多三轮，论文是 11 轮，其中两轮不补点；框的噪声多数更小；三张掩码
的平均损失也占百分之五；只有一个框时，第 0 张掩码也跟着学；开头用均衡的 BCE 代替 focal。
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .config import FitConfig, TrainConfig
from .learn.data import (
    Batch,
    Targets,
    corrective_batch,
    draw_rounds,
    step_generator,
)
from .learn.datasets import split_dataset
from .learn.fit_loop import FineTuning, FitResult
from .learn.fit_parts import Best, check_fit, learning, mean_score, progress_bar
from .learn.fit_samples import Samples
from .learn.interrupts import Interrupts
from .learn.team import join_team
from .model import Sam
from .two_way import Attention

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


def true_iou(
    logits: torch.Tensor, target: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """预测与真值的交并比，IoU 头的学习目标；填充处不算，用的时候也会裁掉。

    形状：``(B, 4, h, w)``、``(B, 1, h, w)``、``(B, 1, h, w)`` -> ``(B, 4)``。
    """
    pred, truth = (logits > 0) & inside, target > 0.5
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
    unambiguous: torch.Tensor,
    multimask: bool,
) -> torch.Tensor:
    """一轮里每组提示的损失。形状：前三个 ``(B, 4)``，unambiguous ``(B,)`` -> ``(B,)``。

    第 0 张掩码学没有歧义的提示（框、多个点）；第 1–3 张学第一轮（点和框），损失是三张里
    最小的一个，再加三张平均的百分之五，免得谁早早荒废。IoU 头学四张掩码各自真实的 IoU。
    """
    loss = unambiguous * losses[:, 0] + ((iou - truth) ** 2).mean(dim=1)
    if multimask:
        three = losses[:, 1:]
        loss = loss + three.min(dim=1).values + 0.05 * three.mean(dim=1)
    return loss


def sam_loss(
    sam: Sam,
    batch: Batch,
    targets: Targets,
    config: TrainConfig,
    step: int,
    slots: Iterable[int],
) -> tuple[torch.Tensor, dict[str, float]]:
    """一步里次序是 slots 的几张图的损失：图像编码一次，提示若干轮。另返回记录。

    轮数各进程相同，否则先走完的要干等；在哪里补点由每张图自己的随机数决定。
    """
    seed, first, device = config.seed, step * config.batch, sam.device
    rounds = draw_rounds(config.rounds, step_generator(seed, step, device, stream=1))
    own = [step_generator(seed, first + slot, device, stream=1) for slot in slots]
    balanced = max(0.0, 1 - step / config.balanced_steps)
    with mixed_precision(sam, config):
        embeddings = sam.image_encoder(batch.images)
    return prompt_loss(sam, embeddings, targets, config, own, rounds, balanced)


def prompt_loss(
    sam: Sam,
    embeddings: torch.Tensor,
    targets: Targets,
    config: TrainConfig | FitConfig,
    generators: list[torch.Generator],
    rounds: int,
    balanced: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """图像已经编码成 ``(I, C, h, w)``，提示 rounds 轮的平均损失。另返回记录用的数字。

    generators 每张图一个，在 sam 所在的设备上，管在哪里补点；balanced 见 mask_losses。
    """
    cell = sam.image_encoder.img_size // targets.masks.shape[-1]
    pe = sam.prompt_encoder.get_dense_pe()
    sparse, dense = first_prompts(sam, targets)

    total = torch.zeros((), device=sam.device)
    record: dict[str, float] = {}
    for turn in range(rounds):
        # 提示编码器不在混合精度内：坐标的编码用半精度会差出一个像素
        with mixed_precision(sam, config):
            logits, iou = sam.mask_decoder.predict_masks(embeddings, pe, sparse, dense)
        logits, iou = logits.float(), iou.float()  # (B, 4, h, w)、(B, 4)
        losses = mask_losses(logits, targets.masks, balanced)
        truth = true_iou(logits.detach(), targets.masks, targets.inside)
        unambiguous = targets.use_box | (turn > 0)
        loss = round_loss(losses, iou, truth, unambiguous.float(), turn == 0)
        # 没有物体的照片记零分，而不是少算一行：各个进程的平均才能直接再平均
        total = total + (loss * targets.valid).mean()

        shown = torch.where(unambiguous, 0, 1 + iou[:, 1:].argmax(dim=1))
        record |= mean_by_prompt(truth.gather(1, shown[:, None])[:, 0], targets, turn)
        if turn + 1 < rounds:
            index = shown[:, None, None, None].expand(-1, 1, *logits.shape[2:])
            previous = logits.detach().gather(1, index)  # (B, 1, h, w)
            clicks = corrective_batch(previous, targets, cell, generators)
            more = sam.prompt_encoder._embed_points(*clicks, pad=False)
            sparse = torch.cat([sparse, more], dim=1)
            dense = sam.prompt_encoder._embed_masks(previous)
    record["loss"] = total.item() / rounds
    return total / rounds, record


def mixed_precision(
    sam: Sam, config: TrainConfig | FitConfig
) -> AbstractContextManager:
    """bfloat16 自动混合精度；没开就什么也不做。"""
    if config.bfloat16:
        return torch.autocast(sam.device.type, torch.bfloat16)
    return nullcontext()


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


# ---------------------------------------------------------------- 微调


def fit(
    sam: Sam,
    dataset: Any,
    config: FitConfig = FitConfig(),  # noqa: B008 冻结的，谁也改不了
    *,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> FitResult:
    """在自己的照片上微调 ``sam``，返回经过；之后 sam 里是验证分数最高的一份权重。

    参数：
        sam: float32 的模型，在哪个设备上就在哪里训练。
        dataset: 照片和掩码，例如 ``datasets.LabelMapFolder``；没有物体的照片跳过。
        config: 设置：学哪一部分、几遍、学习率……
        validation: 验证用的另一份；不给就从 dataset 里分出 ``config.validation``。
        out: 把最好的一份写成这个 ``.safetensors`` 文件，数存成 float16；
            ``sam_lite.load`` 能读。
        progress: 真则显示进度条；要 tqdm。

    按 Ctrl-C 就走完这一步停下，照样留下最好的一份；再按一次当场抛 KeyboardInterrupt，
    也留下最好的一份。在 ``torchrun`` 里几个进程分着做，结果与一个进程相同。

    错误：设置、模型、照片不对，写不了，或梯度不是有限的数时，抛 SamLiteError。
    """
    check_fit(sam, dataset, config, out)
    if validation is None:
        dataset, validation = split_dataset(dataset, config.validation, config.seed)
    with (
        join_team(sam.device) as team,
        Interrupts() as stop,
        learning(sam, config) as parameters,
        progress_bar(progress and team.rank == 0) as show,
    ):
        frozen = config.parts.startswith("decoder")
        teach = Samples(sam, dataset, config, frozen, stop)
        judge = Samples(sam, validation, config, frozen, stop)
        run = FineTuning(sam, config, parameters, team, prompt_loss)
        best = Best(sam, parameters, out, team.rank == 0)
        try:
            for row in run.epochs(teach, judge, stop):
                best.consider(row)
                stale = row["epoch"] - best.row["epoch"]
                text = f"第 {row['epoch']} 遍，平均 IoU {mean_score(row):.3f}"
                show(run.done, f"{text}，最好 {mean_score(best.row):.3f}")
                if stale >= config.patience:
                    run.stopped = "patience"
                    break
        finally:
            best.restore()
        best.write()
        return FitResult(run.history, best.row, run.stopped)
