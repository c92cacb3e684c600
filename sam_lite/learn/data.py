"""训练的取样：从素材库取一批图并增强，挑物体，模拟人给的点和框。

全程在训练设备上成批进行，不把每个物体的掩码画成整张图：标号图先数成“每个标签盖住每个
低分辨率格子多少像素”，再乘一张“哪个标签属于哪个物体”的表，就得到全部物体的掩码。
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F

from ..config import TrainConfig
from ..errors import SamLiteError
from ..model import Sam
from ..scenes.bank import MAX_LABELS, SceneBank


@dataclass
class Batch:
    """一步的图像和备选物体，都在训练设备上。I 是图数，S 是边长，K = MAX_LABELS。

    ``images`` ``(I, 3, S, S)`` 已规范化；``labels`` ``(I, S, S)``；``member``
    ``(I, K, K)``，``member[i, k, l]`` 为 1 表示标签 l 的像素属于物体 k；``sizes``
    ``(I, 2)`` 是不算填充的 (高, 宽)，像素。
    """

    images: torch.Tensor
    labels: torch.Tensor
    member: torch.Tensor
    sizes: torch.Tensor


@dataclass
class Targets:
    """一步里 B = I·P 组提示要分割的物体。

    ``masks`` ``(B, 1, h, w)``：每个低分辨率像素被物体盖住的比例，0 到 1；``points``
    ``(B, 1, 2)`` 与 ``boxes`` ``(B, 4)`` 是像素坐标；``use_box``、``valid`` ``(B,)``；
    ``inside`` ``(B, 1, h, w)`` 为真的格子不是填充。
    """

    masks: torch.Tensor
    points: torch.Tensor
    boxes: torch.Tensor
    use_box: torch.Tensor
    valid: torch.Tensor
    inside: torch.Tensor


Part = TypeVar("Part", Batch, Targets)


def join(parts: Sequence[Part]) -> Part:
    """把一张张图的 Batch 或 Targets 接成一批。"""
    names = vars(parts[0])
    return type(parts[0])(**{n: torch.cat([vars(p)[n] for p in parts]) for n in names})


# ---------------------------------------------------------------- 取图与增强


def draw_batch(
    bank: SceneBank, sam: Sam, config: TrainConfig, step: int, slots: Iterable[int]
) -> tuple[Batch, Targets]:
    """第 step 步里，次序是 slots 的几张图和它们的提示。

    每张图的随机数只由种子、步数和它在这一步里的次序决定，与哪个进程来算无关。
    """
    grid, pairs = sam.prompt_encoder.mask_input_size[0], []
    for slot in slots:
        g = step_generator(config.seed, step * config.batch + slot, sam.device)
        picture = load_picture(bank, sam, config, g)
        pairs.append((picture, choose_targets(picture, grid, config, g)))
    pictures, targets = zip(*pairs, strict=True)
    return join(pictures), join(targets)


def step_generator(
    seed: int, step: int, device: torch.device, stream: int = 0
) -> torch.Generator:
    """第 step 号的随机数：只由种子和号数决定，所以断了再续也一样。"""
    number = (seed * 1_000_003 + step) * 2 + stream
    return torch.Generator(device=device).manual_seed(number)


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
    images: torch.Tensor, labels: torch.Tensor, min_zoom: float, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """随机裁剪、翻转、变色、加噪。

    形状：``(I, 3, S, S)`` 0–255 与 ``(I, S, S)`` -> 同样的形状。裁剪后总是拉回 S×S，
    图像用双线性，标签用最近邻，两者用同一张取样网格。
    """
    count, S, device = len(images), images.shape[-1], images.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=g, device=device)

    zoom = uniform(min_zoom, 1.0, count, 1) * uniform(0.85, 1.0, count, 2)
    zoom = torch.where(uniform(0, 1, count, 1) < 0.3, torch.ones_like(zoom), zoom)
    flip = torch.where(uniform(0, 1, count, 2) < 0.5, -1.0, 1.0)
    flip[:, 1] = torch.where(uniform(0, 1, count) < 0.1, -1.0, 1.0)  # 照片少有倒立
    shift = uniform(-1, 1, count, 2) * (1 - zoom)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = (zoom * flip).unbind(1)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [count, 1, S, S], align_corners=False)
    # 网格最多伸出图外半个像素，镜像补上
    images = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    labels = labels[:, None].float()
    labels = F.grid_sample(labels, grid, "nearest", "reflection", align_corners=False)
    labels = labels[:, 0].long()

    gain = uniform(0.75, 1.25, count, 1, 1, 1) * uniform(0.85, 1.15, count, 3, 1, 1)
    grey = uniform(0, 1, count, 1, 1, 1) < 0.15
    images = torch.where(grey, images.mean(1, keepdim=True).expand_as(images), images)
    offset = uniform(-25, 25, count, 1, 1, 1)
    noise = torch.randn(images.shape, generator=g, device=device)
    noise = noise * uniform(0, 6, count, 1, 1, 1)
    return (images * gain + offset + noise).clamp(0, 255), labels


def resize(
    images: torch.Tensor, labels: torch.Tensor, S: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """素材缩放到模型的输入边长：图像抗锯齿，标签取最近的像素；一样大就原样。

    形状：``(I, 3, s, s)``、``(I, s, s)`` -> ``(I, 3, S, S)``、``(I, S, S)``。
    """
    shape, flat = (S, S), labels[:, None].float()
    images = F.interpolate(images, shape, mode="bilinear", antialias=True)
    return images, F.interpolate(flat, shape, mode="nearest-exact")[:, 0].long()


def load_picture(
    bank: SceneBank, sam: Sam, config: TrainConfig, g: torch.Generator
) -> Batch:
    """从素材库随机取一张图，增强、缩放、规范化；多半在下边或右边留出填充。"""
    ready, device, S = bank.ready(), sam.device, sam.image_encoder.img_size
    if len(ready) == 0:
        raise SamLiteError("素材库里一张场景也没有画好：先把 bank.fill() 走完。")
    pick = torch.randint(len(ready), (1,), generator=g, device=device)
    index = ready[pick.cpu().numpy()]
    images = torch.from_numpy(bank.images[index]).to(device)
    labels = torch.from_numpy(bank.labels[index]).to(device)
    parents = torch.from_numpy(bank.parents[index]).to(device)
    parents[:, 0] = 0  # 素材库在这一格记“画好了”，不是上级
    images = images.permute(0, 3, 1, 2).float()
    images, labels = resize(*augment(images, labels, config.min_zoom, g), S)
    images = (images - sam.pixel_mean) / sam.pixel_std

    sizes = padded_sizes(1, S, g)
    inside = inside_mask(sizes, S)  # (1, S, S)
    return Batch(images * inside[:, None], labels * inside, membership(parents), sizes)


def padded_sizes(count: int, size: int, g: torch.Generator) -> torch.Tensor:
    """随机的长宽比：三成正方形，其余短边占 0.5 到 1。返回 ``(I, 2)``，(高, 宽)。"""
    draw = torch.rand(count, 3, generator=g, device=g.device)
    short = torch.where(draw[:, 0] < 0.3, 1.0, 0.5 + 0.5 * draw[:, 1])
    wide = draw[:, 2] < 0.7  # 横的照片多些
    high = torch.where(wide, short, torch.ones_like(short))
    width = torch.where(wide, torch.ones_like(short), short)
    return (torch.stack([high, width], dim=1) * size).round()


def inside_mask(sizes: torch.Tensor, size: int) -> torch.Tensor:
    """哪些像素不是填充。形状：``(I, 2) -> (I, size, size)``，布尔。"""
    ruler = torch.arange(size, device=sizes.device)
    rows = ruler < sizes[:, :1]  # (I, size)
    columns = ruler < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


# ---------------------------------------------------------------- 提示


def draw_rounds(most: int, g: torch.Generator) -> int:
    """这一步问几轮：一半的机会只有第一轮；另一半再纠正 1 到 most-1 轮，机会均等。"""
    draw = 2 * torch.rand((), generator=g, device=g.device).item() - 1  # -1 到 1
    return 1 + max(0, math.ceil(draw * (most - 1)))


def tally(labels: torch.Tensor, bins: torch.Tensor, size: int) -> torch.Tensor:
    """数每张图、每个标签有多少像素落在每一档里。

    形状：labels ``(I, S, S)``，bins 能广播到 ``(S, S)``，取值 0 到 size-1
    -> ``(I, K, size)``。
    """
    count = len(labels)
    first = torch.arange(count, device=labels.device)[:, None, None] * MAX_LABELS
    flat = ((first + labels) * size + bins).flatten()
    total = torch.bincount(flat, minlength=count * MAX_LABELS * size)
    return total.reshape(count, MAX_LABELS, size).float()


def choose_targets(
    batch: Batch, grid: int, config: TrainConfig, g: torch.Generator
) -> Targets:
    """给每张图挑 config.prompts 个物体，各采一个正点、一个带噪声的框。

    挑中的机会与面积的 area_power 次方成正比：大的略占便宜，又不让小的绝迹。
    """
    S, K, prompts = batch.labels.shape[-1], MAX_LABELS, config.prompts
    device, cell = batch.labels.device, S // grid
    ruler = torch.arange(S, device=device)
    where = (ruler // cell)[:, None] * grid + ruler // cell  # 每个像素在第几格
    cover = tally(batch.labels, where, grid * grid) / cell**2  # (I, K, 格子数)

    area = (batch.member @ cover).sum(-1) * cell**2  # (I, K)
    area[:, 0] = 0  # 背景不是物体
    odds = torch.where(
        area >= config.min_area, area**config.area_power, torch.zeros_like(area)
    )
    valid = odds.sum(1) > 0  # (I,)：裁剪之后可能一个够大的也不剩
    odds = torch.where(valid[:, None], odds, torch.ones_like(odds))
    chosen = torch.multinomial(odds, prompts, replacement=True, generator=g)  # (I, P)
    member = batch.member.gather(1, chosen[:, :, None].expand(-1, -1, K))  # (I, P, K)

    masks = (member @ cover) * valid[:, None, None]  # (I, P, 格子数)
    masks = masks.reshape(-1, grid * grid)
    columns = (member @ tally(batch.labels, ruler[None, :], S)) > 0  # (I, P, S)
    rows = (member @ tally(batch.labels, ruler[:, None], S)) > 0
    boxes = tight_boxes(rows, columns).reshape(-1, 4)
    points = sample_points(masks, batch, member.reshape(-1, K), grid, g)
    sizes = batch.sizes.repeat_interleave(prompts, dim=0)  # (B, 2)
    return Targets(
        masks=masks.reshape(-1, 1, grid, grid),
        points=points[:, None],
        boxes=jitter_boxes(boxes, sizes, g),
        use_box=torch.rand(len(masks), generator=g, device=device) < config.box_share,
        valid=valid.repeat_interleave(prompts).float(),
        inside=inside_mask(sizes / cell, grid)[:, None],
    )


def tight_boxes(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """由“哪些行、列有像素”得到紧框。形状：两个 ``(I, P, S)`` -> ``(I, P, 4)``。"""
    last = rows.shape[-1] - 1
    # argmax 给出头一个 1 的位置；翻过来再找，就是最后一个
    x0, y0 = columns.float().argmax(-1), rows.float().argmax(-1)
    x1 = last - columns.flip(-1).float().argmax(-1)
    y1 = last - rows.flip(-1).float().argmax(-1)
    return torch.stack([x0, y0, x1, y1], dim=-1).float()


def jitter_boxes(
    boxes: torch.Tensor, sizes: torch.Tensor, g: torch.Generator
) -> torch.Tensor:
    """给框加噪声：标准差最多是边长的一成，多数框只轻轻动；不出照片。

    形状：boxes ``(B, 4)``，sizes ``(B, 2)`` 是照片的 (高, 宽) -> ``(B, 4)``。
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=g, device=boxes.device)
    amount = torch.rand(len(boxes), 1, generator=g, device=boxes.device) ** 2 * 0.1
    last = sizes.flip(1).repeat(1, 2) - 1  # (B, 4)：x、y、x、y 的最大值
    return torch.minimum((boxes + noise * sides * amount).clamp(min=0), last)


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
    # 加 1e-8：没有物体的行全是 0，multinomial 会报错；这些行的损失另由 valid 清零
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
    物体里取一个正点；连盖住过半的格子也没有（物体极细）时，随便取一个负点。
    """
    grid = logits.shape[-1]
    truth = targets.masks.flatten(1) > 0.5
    wrong = (((logits.flatten(1) > 0) != truth) & targets.inside.flatten(1)).float()
    odds = torch.where(wrong.sum(1, keepdim=True) > 0, wrong, truth.float()) + 1e-8
    spot = torch.multinomial(odds, 1, generator=g)  # (B, 1)
    label = truth.gather(1, spot).float()
    jitter = torch.randint(cell, (2, len(spot)), generator=g, device=spot.device)
    x = spot[:, 0] % grid * cell + jitter[0]
    y = spot[:, 0] // grid * cell + jitter[1]
    return torch.stack([x, y], dim=-1).float()[:, None], label


def corrective_batch(
    logits: torch.Tensor,
    targets: Targets,
    cell: int,
    generators: Sequence[torch.Generator],
) -> tuple[torch.Tensor, torch.Tensor]:
    """同 corrective_points，几张图接成的一批：每张图用自己的随机数。"""
    count = len(generators)
    pieces = {name: value.chunk(count) for name, value in vars(targets).items()}
    found = [
        corrective_points(
            part, Targets(**{n: p[i] for n, p in pieces.items()}), cell, g
        )
        for i, (part, g) in enumerate(zip(logits.chunk(count), generators, strict=True))
    ]
    points, labels = zip(*found, strict=True)
    return torch.cat(points), torch.cat(labels)
