"""训练的题目：画一张场景，增强，挑物体，模拟人给的点和框。

场景边训练边画（``Mixture``），由 PyTorch 的 DataLoader 起几个进程画；GPU 比画笔快得多
时，先用 ``draw_shards`` 画好一批存着，``Shards`` 照同样的办法取。第 s 步的第 i 张用第
``s × batch + i`` 号，画什么、怎么裁、点在哪里都只由种子和号数决定：断了再续、几个进程
分着算，结果都一样。
"""

from __future__ import annotations

import itertools
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from ..config import TrainConfig
from ..errors import SamLiteError, problem
from ..files.atomic import atomic_file
from ..model import Sam
from ..scenes.content import BASE, RICH
from ..scenes.scene import Scene, make_scene
from ..scenes.stickers import Collection, bundled_stickers, make_sticker_scene
from ..training import Example, Examples, collate, make_targets, numbered_generator
from .checkpoint import make_folder

TRAIN_SEEDS = 10_000_000  # 训练只用这以下的种子，评测的从十亿开始
PER_SHARD = 256  # 一个文件里几张场景


class Source(Protocol):
    """场景从哪里来：``source[number]`` 是第 number 张。"""

    def __getitem__(self, number: int) -> Scene:
        """返回一张场景；同样的号数总是同一张。"""
        ...


# ---------------------------------------------------------------- 边训练边画


@dataclass(frozen=True)
class Mixture:
    """三种场景按比例混着画：``mixture[number]`` 是第 number 张，总是同一张。

    ``plain``、``rich``、``stickers`` 是各占几份：形状拼的、另有砖石组织的、贴纸的；
    ``size`` 是边长；``collection`` 是哪一套贴纸，None 是随包的，留作打分的从不出现。

    错误：份数不是不小于 0 的数、加起来是 0，或没有训练用的贴纸，抛 SamLiteError。
    """

    plain: float = 1.0
    rich: float = 1.0
    stickers: float = 1.0
    size: int = 256
    collection: Collection | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """查份数；贴纸只留训练用的。"""
        shares = (self.plain, self.rich, self.stickers)
        if not (all(0 <= share < np.inf for share in shares) and sum(shares) > 0):
            raise problem("mix", shares, "三个不小于 0 的数，不全是 0")
        if self.stickers:
            chosen = (self.collection or bundled_stickers()).split(exam=False)
            if not chosen.stickers:
                raise problem("collection", "没有训练用的贴纸", "至少一样")
            object.__setattr__(self, "collection", chosen)

    def __getitem__(self, number: int) -> Scene:
        """画第 number 张。"""
        rng = np.random.default_rng([self.seed, number])
        seed = int(rng.integers(TRAIN_SEEDS))
        place = rng.random() * (self.plain + self.rich + self.stickers)
        if place < self.plain:
            return make_scene(seed, self.size, content=BASE)
        if place < self.plain + self.rich:
            return make_scene(seed, self.size, content=RICH)
        return make_sticker_scene(seed, self.size, self.collection)


# ---------------------------------------------------------------- 先画好存着


class Shards:
    """画好的一批场景：``shards[number]`` 由第 number 号随机数从里面挑一张。

    全部读进内存，256 像素的每万张约 2.6 GB。

    错误：文件夹里没有、坏了、大小不一，抛 SamLiteError，说出是哪个文件。
    """

    def __init__(self, folder: str | Path, seed: int = 0) -> None:
        self.seed, self.scenes = seed, list[Scene]()
        for path in shard_files(folder):
            self.scenes += read_shard(path)
            if self.scenes[-1].image.shape != self.scenes[0].image.shape:
                first, last = self.scenes[0].image.shape, self.scenes[-1].image.shape
                raise problem(f"{path} 里的场景", last, f"和前面的一样 {first}")
        if not self.scenes:
            raise SamLiteError(f"{folder} 里没有画好的场景（scenes-*.npz）。")

    def __len__(self) -> int:
        """一共几张。"""
        return len(self.scenes)

    def __getitem__(self, number: int) -> Scene:
        """第 number 号挑中的场景。"""
        rng = np.random.default_rng([self.seed, number])
        return self.scenes[int(rng.integers(len(self.scenes)))]


def shard_files(folder: str | Path) -> list[Path]:
    """文件夹里画好的，按名字排序。"""
    return sorted(Path(folder).glob("scenes-*.npz"))


def draw_shards(
    source: Source, folder: str | Path, workers: int = 0, each: int = PER_SHARD
) -> Iterator[int]:
    """画场景存进文件夹，接着已有的画；每存好一个文件，交出画了几张。

    没有尽头，画够了就别再要。错误：写不了、画的进程死了，抛 SamLiteError。
    """
    folder = Path(folder)
    make_folder(folder)
    done = max([int(path.stem[7:]) + 1 for path in shard_files(folder)], default=0)
    writer: Any = ShardWriter(source, folder, each)
    with patient_workers():
        yield from DataLoader(
            writer,
            batch_size=None,
            sampler=itertools.count(done),
            num_workers=workers,
            worker_init_fn=ignore_interrupts,
        )


@dataclass(frozen=True)
class ShardWriter:
    """``writer[n]`` 画好第 n 个文件里的 each 张，写成压缩的 npz，返回张数。"""

    source: Source
    folder: Path
    each: int

    def __getitem__(self, n: int) -> int:
        """各张的上级表长短不一，接成一条，另记各有多长。"""
        scenes = [self.source[n * self.each + i] for i in range(self.each)]
        with atomic_file(self.folder / f"scenes-{n:06d}.npz") as file:
            np.savez_compressed(
                file,
                images=np.stack([scene.image for scene in scenes]),
                labels=np.stack([scene.labels for scene in scenes]),
                parents=np.concatenate([scene.parents for scene in scenes]),
                counts=np.array([len(scene.parents) for scene in scenes]),
            )
        return self.each


def read_shard(path: Path) -> list[Scene]:
    """读一个 npz；坏了抛 SamLiteError，说出是哪一个。"""
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
            ends = np.cumsum(file["counts"])[:-1]
            parents = np.split(file["parents"], ends)
        return [Scene(*one) for one in zip(images, labels, parents, strict=True)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        text = f"场景文件 {path} 坏了（{type(error).__name__}）：删掉它，再画一次。"
        raise SamLiteError(text) from error


# ---------------------------------------------------------------- 场景变成题目


class SceneExamples:
    """``examples[number]``：第 number 张场景，增强好的图和它的题目。

    参数：
        source: 场景从哪里来，Mixture 或 Shards。
        sam: 给哪个模型做，照它的输入边长和掩码格数。
        config: 设置。
    """

    def __init__(self, source: Source, sam: Sam, config: TrainConfig) -> None:
        self.source, self.config = source, config
        self.side = sam.image_encoder.img_size
        self.grid = sam.prompt_encoder.mask_input_size[0]
        self.mean = sam.pixel_mean.cpu()  # 填充用它，规范化之后是 0

    def __getitem__(self, number: int) -> Example:
        """返回图 ``(1, 3, S, S)`` 和 P 组提示。"""
        scene, S = self.source[number], self.side
        g = numbered_generator(self.config.seed, number)
        image = torch.from_numpy(scene.image).permute(2, 0, 1).float()
        labels = torch.from_numpy(scene.labels).float()
        image, labels = augment(image, labels, self.config.min_zoom, g)
        image, labels = resize(image, labels, S)
        H, W = size = photo_size(S, g)
        image[:, H:], image[:, :, W:] = self.mean, self.mean
        labels[H:], labels[:, W:] = 0, 0
        visible = replace(scene, labels=labels.byte().numpy())
        masks = choose_objects(torch.from_numpy(visible.masks()), self.config, g)
        return image[None], make_targets(masks, size, self.grid, self.config, g)


def augment(
    image: torch.Tensor, labels: torch.Tensor, min_zoom: float, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """随机裁剪、翻转、变色、加噪。

    形状：``(3, S, S)`` 0–255 与 ``(S, S)`` -> 同样的形状。裁剪后总是拉回 S×S，图像用
    双线性，标签用最近邻，两者用同一张取样网格。
    """

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=g)

    def chance(odds: float) -> bool:
        return torch.rand((), generator=g).item() < odds

    zoom = uniform(min_zoom, 1.0, 1) * uniform(0.85, 1.0, 2)
    zoom = torch.ones(2) if chance(0.3) else zoom
    flip = torch.tensor([-1.0 if chance(odds) else 1.0 for odds in (0.5, 0.1)])
    shift = uniform(-1, 1, 2) * (1 - zoom)  # 上面竖着翻的少：照片少有倒立
    theta = torch.cat([torch.diag(zoom * flip), shift[:, None]], dim=1)[None]
    grid = F.affine_grid(theta, [1, 1, *labels.shape], align_corners=False)
    # 网格最多伸出图外半个像素，镜像补上
    options: Any = {"padding_mode": "reflection", "align_corners": False}
    image = F.grid_sample(image[None], grid, "bilinear", **options)[0]
    labels = F.grid_sample(labels[None, None], grid, "nearest", **options)[0, 0]

    gain = uniform(0.75, 1.25, 1, 1, 1) * uniform(0.85, 1.15, 3, 1, 1)
    if chance(0.15):
        image = image.mean(0, keepdim=True).expand_as(image)  # 黑白
    noise = torch.randn(image.shape, generator=g) * uniform(0, 6, 1)
    return (image * gain + uniform(-25, 25, 1) + noise).clamp(0, 255), labels


def resize(
    image: torch.Tensor, labels: torch.Tensor, S: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """缩放到模型的输入边长：图像抗锯齿，标签取最近的像素；一样大就原样。

    形状：``(3, s, s)``、``(s, s)`` -> ``(3, S, S)``、``(S, S)``。
    """
    shape, flat = (S, S), labels[None, None]
    image = F.interpolate(image[None], shape, mode="bilinear", antialias=True)[0]
    return image, F.interpolate(flat, shape, mode="nearest-exact")[0, 0]


def photo_size(S: int, g: torch.Generator) -> tuple[int, int]:
    """随机的 (高, 宽)，其余是填充：三成正方形，别的短边占 0.5 到 1，横的多些。"""
    square, short, wide = torch.rand(3, generator=g).tolist()
    side = S if square < 0.3 else round(S * (0.5 + 0.5 * short))
    return (side, S) if wide < 0.7 else (S, side)


def choose_objects(
    masks: torch.Tensor, config: TrainConfig, g: torch.Generator
) -> torch.Tensor:
    """挑 config.prompts 个够大的物体，可以重复；一个也没有就全是空的。

    挑中的机会与面积的 area_power 次方成正比：大的略占便宜，又不让小的绝迹。
    形状：``(K, S, S) -> (P, S, S)``，布尔。
    """
    area = masks.flatten(1).sum(1).float()  # (K,)
    odds = torch.where(area >= config.min_area, area**config.area_power, 0.0)
    if not odds.any():  # 裁剪之后可能一个够大的也不剩
        return masks.new_zeros(config.prompts, *masks.shape[1:])
    return masks[torch.multinomial(odds, config.prompts, True, generator=g)]


# ---------------------------------------------------------------- 一步一步地取


def batches(
    examples: Examples, batch: int, slots: range, first_step: int, workers: int
) -> Iterator[Example]:
    """从第 first_step 步起，每步里次序是 slots 的几张，接成一批；没有尽头。

    workers 是几个进程画，0 是自己画。错误：画的进程死了，抛 SamLiteError。
    """
    pictures: Any = examples  # DataLoader 只要 __getitem__
    steps = itertools.count(first_step)
    return iter(
        DataLoader(
            pictures,
            batch_sampler=([step * batch + slot for slot in slots] for step in steps),
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=ignore_interrupts,
        )
    )


def ignore_interrupts(worker: int) -> None:
    """画场景的进程不听 Ctrl-C 和 SIGTERM：由主进程走完手上的一步，再让它们走。"""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def patient_workers() -> Iterator[None]:
    """画场景的进程死了，或在里面报错，换成一句中文的 SamLiteError。"""
    try:
        yield
    except SamLiteError as error:
        if "DataLoader worker" not in str(error):
            raise
        # DataLoader 在前面加了那个进程里的调用记录
        raise SamLiteError(str(error).rpartition("SamLiteError: ")[2].strip()) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise SamLiteError(
            "画场景的进程意外死了，多半是内存不够：关掉别的程序，或用小些的 --workers。"
        ) from error
