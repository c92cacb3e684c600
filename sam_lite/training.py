"""第 15 章：在自己生成的场景上训练一个小 SAM；在自己的照片上微调。

做法照论文附录 A 的 “Making the model ambiguity-aware”、“Losses” 和 “Training
algorithm”：每个物体先给一个正点或一个带噪声的框，再在预测出错的地方补几轮点，上一轮的
掩码 logits 也作为输入；损失是 20·focal + dice，加上 IoU 头的回归；第一轮有歧义，三张
掩码里主要让损失最小的一张学习。

从上往下读：损失，模拟的点击，一步的损失，``train`` 的循环；最后的 ``fit`` 在自己的照
片上微调。能存盘、续跑的循环在 ``learn.loop``，场景怎样变成题目在 ``learn.data``。

与论文不同的几处：默认最多三轮，论文是 11 轮，其中两轮不补点；框的噪声多数更小；三张掩码
的平均损失也占百分之五；只有一个框时，第 0 张掩码也跟着学；开头用均衡的 BCE 代替 focal。
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from .attention import set_fused
from .config import FitConfig, TrainConfig
from .masks.measure import batched_mask_to_box
from .model import Sam
from .two_way import Attention

if TYPE_CHECKING:
    from .learn.fine_tune import FitResult

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


# ---------------------------------------------------------------- 模拟的点击


class Targets(NamedTuple):
    """B 组提示要分割的物体，和模拟的人给的提示。

    ``masks`` ``(B, 1, h, w)``：每个低分辨率像素被物体盖住的比例，0 到 1；``points``
    ``(B, 1, 2)`` 与 ``boxes`` ``(B, 4)`` 是像素坐标；``use_box``、``valid`` ``(B,)``；
    ``inside`` ``(B, 1, h, w)`` 为真的格子不是填充；``luck`` ``(B, 轮数, 3)`` 是以后抽
    纠正的点用的，0 到 1 的随机数。
    """

    masks: torch.Tensor
    points: torch.Tensor
    boxes: torch.Tensor
    use_box: torch.Tensor
    valid: torch.Tensor
    inside: torch.Tensor
    luck: torch.Tensor


Example = tuple[torch.Tensor, Targets]  # 图 (I, 3, S, S)，0–255，和它们的题目


def numbered_generator(seed: int, number: int, stream: int = 0) -> torch.Generator:
    """第 number 号的随机数：只由种子和号数决定，断了再续、几个进程分着算都一样。"""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) * 2 + stream)


def draw_rounds(most: int, g: torch.Generator) -> int:
    """这一步问几轮：一半的机会只有第一轮；另一半再纠正 1 到 most-1 轮，机会均等。"""
    draw = 2 * torch.rand((), generator=g).item() - 1  # -1 到 1
    return 1 + max(0, math.ceil(draw * (most - 1)))


def make_targets(
    masks: torch.Tensor,
    size: tuple[float, float],
    grid: int,
    config: TrainConfig,
    g: torch.Generator,
) -> Targets:
    """一张图里 P 个物体的题目：各抽一个正点、一个带噪声的框。

    形状：masks ``(P, S, S)`` 布尔；size 是不算填充的 (高, 宽)；grid 是掩码的格数。
    """
    P, S, _ = masks.shape
    sizes = torch.tensor([size], dtype=torch.float32).expand(P, 2)
    boxes = batched_mask_to_box(masks).float()
    return Targets(
        masks=F.avg_pool2d(masks[:, None].float(), S // grid),
        points=random_points(masks, g)[:, None],
        boxes=jitter_boxes(boxes, sizes, g),
        use_box=torch.rand(P, generator=g) < config.box_share,
        valid=masks.flatten(1).any(1).float(),
        inside=inside_mask(sizes * grid / S, grid)[:, None],
        luck=torch.rand(P, config.rounds, 3, generator=g),
    )


def random_points(masks: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """每张掩码里均匀地抽一个像素，空的就随便抽。形状：``(P, H, W) -> (P, 2)``，xy。"""
    flat = masks.flatten(1)
    odds = flat | ~flat.any(1, keepdim=True)
    spot = torch.multinomial(odds.float(), 1, generator=g)[:, 0]
    W = masks.shape[-1]
    return torch.stack([spot % W, spot // W], dim=1).float()


def jitter_boxes(
    boxes: torch.Tensor, sizes: torch.Tensor, g: torch.Generator
) -> torch.Tensor:
    """给框加噪声：标准差最多是边长的一成，多数框只轻轻动；不出照片。

    形状：boxes ``(P, 4)``，sizes ``(P, 2)`` 是照片的 (高, 宽) -> ``(P, 4)``。
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=g)
    amount = torch.rand(len(boxes), 1, generator=g) ** 2 * 0.1
    last = sizes.flip(1).repeat(1, 2) - 1  # (P, 4)：x、y、x、y 的最大值
    return torch.minimum((boxes + noise * sides * amount).clamp(min=0), last)


def inside_mask(sizes: torch.Tensor, side: int) -> torch.Tensor:
    """哪些格子不是填充。形状：``(P, 2) -> (P, side, side)``，布尔。"""
    ruler = torch.arange(side)
    rows = ruler < sizes[:, :1]  # (P, side)
    columns = ruler < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def corrective_points(
    logits: torch.Tensor,
    truth: torch.Tensor,
    inside: torch.Tensor,
    cell: int,
    luck: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """在预测出错的地方取一点：漏掉的给正点，多出的给负点。

    没有错处时在物体里取一个正点；连盖住过半的格子也没有（物体极细）时，随便取一个负点。
    形状：前三个 ``(B, 1, h, w)``，luck ``(B, 3)`` 在 0 到 1 -> 点 ``(B, 1, 2)``、标签
    ``(B, 1)``。cell 是一格多少像素。
    """
    grid, thing = logits.shape[-1], truth.flatten(1) > 0.5
    odds = ((logits.flatten(1) > 0) != thing) & inside.flatten(1)
    for other in (thing, inside.flatten(1)):
        odds = torch.where(odds.any(1, keepdim=True), odds, other)
    order = odds.cumsum(1).float()  # (B, 格子数)：到这一格为止有几个备选
    drawn = luck[:, :1] * order[:, -1:]
    spot = torch.searchsorted(order, drawn, right=True)  # (B, 1)
    jitter = (luck[:, 1:] * cell).floor()  # 格子里的哪个像素
    x, y = spot % grid * cell + jitter[:, :1], spot // grid * cell + jitter[:, 1:]
    return torch.stack([x, y], dim=-1), thing.gather(1, spot).float()


# ---------------------------------------------------------------- 一步的损失


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


def sam_loss(
    sam: Sam, images: torch.Tensor, targets: Targets, config: TrainConfig, step: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """第 step 步里 ``(I, 3, S, S)`` 这几张图的损失：编码一次，提示若干轮。另返回记录。

    轮数各进程相同，否则先走完的要干等。
    """
    rounds = draw_rounds(config.rounds, numbered_generator(config.seed, step, stream=1))
    balanced = max(0.0, 1 - step / config.balanced_steps)
    with mixed_precision(sam, config):
        embeddings = sam.image_encoder(sam.preprocess(images))
    return prompt_loss(sam, embeddings, targets, config, rounds, balanced)


def prompt_loss(
    sam: Sam,
    embeddings: torch.Tensor,
    targets: Targets,
    config: TrainConfig,
    rounds: int,
    balanced: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """图像已经编码成 ``(I, C, h, w)``，提示 rounds 轮的平均损失。另返回记录用的数字。

    balanced 见 mask_losses。
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
            truth, inside, luck = targets.masks, targets.inside, targets.luck[:, turn]
            clicks = corrective_points(previous, truth, inside, cell, luck)
            more = sam.prompt_encoder._embed_points(*clicks, pad=False)
            sparse = torch.cat([sparse, more], dim=1)
            dense = sam.prompt_encoder._embed_masks(previous)
    record["loss"] = total.item() / rounds
    return total / rounds, record


def mixed_precision(sam: Sam, config: TrainConfig) -> AbstractContextManager:
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


def learning_rate(config: TrainConfig, step: int, done: float) -> float:
    """线性预热（warmup），同时按余弦降到零，或到末尾才线性降；done 是进度，0 到 1。"""
    warm, left = min(1.0, (step + 1) / config.warmup), 1 - min(done, 1.0)
    if config.schedule == "cosine":
        return config.lr * warm * 0.5 * (1 - math.cos(math.pi * left))
    if config.decay:
        warm = min(warm, left * (config.minutes or config.steps) / config.decay)
    return config.lr * warm


def set_learning(sam: Sam, learning: bool) -> None:
    """换成训练的样子，或打分、导出的样子。

    CPU 的融合注意力在头很窄时反向极慢（占掉一步的四成），编码器要学时走易读写法。
    """
    sam.train(learning)
    encoder = learning and any(p.requires_grad for p in sam.image_encoder.parameters())
    set_fused(sam, not encoder or sam.device.type == "cuda")


class Examples(Protocol):
    """一大批题目：``examples[number]`` 是第 number 张图和它的 Targets。"""

    def __getitem__(self, number: int) -> Example:
        """返回 ``(1, 3, S, S)`` 的图和 P 组提示。"""
        ...


def collate(examples: Sequence[Example]) -> Example:
    """把几张图和它们的题目接成一批。"""
    images, targets = zip(*examples, strict=True)
    return torch.cat(images), Targets(*map(torch.cat, zip(*targets, strict=True)))


def train(
    sam: Sam, examples: Examples, config: TrainConfig
) -> Iterator[dict[str, float]]:
    """最朴素的训练循环：取一批，算损失，走一步；每走一步交出一次记录。

    examples 见 ``learn.data``；第 step 步用第 step·batch 张起的 batch 张。能存盘、续
    跑、几个进程一起的是 ``learn.loop.Loop``，同样的设置走出同样的权重。
    """
    groups: list[dict[str, Any]] = [
        {"params": [p for p in sam.parameters() if p.ndim > 1]},
        {"params": [p for p in sam.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    set_learning(sam, True)
    for step in range(config.steps):
        rate = learning_rate(config, step, step / config.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        first = step * config.batch
        images, targets = collate([examples[first + i] for i in range(config.batch)])
        loss, record = sam_loss(sam, images, targets, config, step)
        for p in sam.parameters():  # 这一步没有用到的，梯度是 0，不是没有
            p.grad = torch.zeros_like(p)
        loss.backward()
        nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        yield record | {"lr": rate}
    set_learning(sam, False)


# ---------------------------------------------------------------- 微调


def fit(
    sam: Sam,
    dataset: Any,
    config: FitConfig = FitConfig(),  # noqa: B008 冻结的，谁也改不了
    *,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> "FitResult":
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
    from .learn.fine_tune import fine_tune  # 它要用上面的损失，所以不能在开头导入

    return fine_tune(sam, dataset, config, validation, out, progress)
