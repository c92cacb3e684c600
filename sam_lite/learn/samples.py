"""微调的取样：照片编码一次存着，物体记成小块的掩码，每一步从里面抽提示。

物体按模型的输入边长缩放，只记紧框里的一块，所以几百个物体也不占多少内存；照片本身不留，
编码器不学的时候，连再读一遍也不必。
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

from ..config import FitConfig, TrainConfig
from ..errors import SamLiteError, SamLiteWarning
from ..inputs.checks import naming_image
from ..model import Sam
from ..preprocess import ResizeLongestSide
from ..training import Targets, make_targets
from .datasets import check_sample
from .evaluation import Task, first_click, tight_box
from .interrupts import Interrupts

JUDGED_OBJECTS = 8  # 每张验证照片最多评几个物体


class Thing(NamedTuple):
    """一个物体：紧框 ``x0, y0, x1, y1``（含两端），和框里的掩码，布尔 ``(h, w)``。"""

    box: tuple[int, int, int, int]
    crop: np.ndarray


class Picture(NamedTuple):
    """一张照片：在数据集里第几张，缩放后、填充前的 (高, 宽)，至少一个物体。"""

    number: int
    size: tuple[int, int]
    things: list[Thing]


class Samples:
    """一份照片里有物体的那些，和它们的编码。

    参数：
        sam: 要微调的模型；dataset 见 ``learn.datasets``。
        config: 设置；frozen 为真时编码器不学，结果存着。
        stop: 读照片的时候，有人叫停就抛 KeyboardInterrupt。

    错误：某张照片不对、或没有一张有物体时，抛 SamLiteError；有些没有物体时只警告。
    """

    def __init__(
        self, sam: Sam, dataset: Any, config: FitConfig, frozen: bool, stop: Interrupts
    ) -> None:
        self.sam, self.dataset, self.frozen = sam, dataset, frozen
        self.side = sam.image_encoder.img_size
        self.grid = sam.prompt_encoder.mask_input_size[0]
        self.room = config.cache_mb * 1_000_000  # 还能存多少字节
        self.cache: dict[tuple[int, bool], torch.Tensor] = {}
        self.pictures: list[Picture] = []
        for index in range(len(dataset)):
            stop.check()
            with naming_image(index):
                picture, masks = check_sample(dataset[index])
            H, W = picture.shape[:2]
            size = ResizeLongestSide.get_preprocess_shape(H, W, self.side)
            things = find_things(masks, size, (self.side // self.grid) ** 2)
            if things:
                self.pictures.append(Picture(index, size, things))
        if not self.pictures:
            raise SamLiteError(
                f"{len(dataset)} 张照片里一个够大的物体也没有：缩放到边长 {self.side} "
                f"之后，至少要 {(self.side // self.grid) ** 2} 个像素。"
            )
        empty = len(dataset) - len(self.pictures)
        if empty:
            text = f"{len(dataset)} 张照片里有 {empty} 张没有够大的物体，跳过。"
            warnings.warn(text, SamLiteWarning, stacklevel=3)

    def features(self, picture: Picture, mirrored: bool) -> torch.Tensor:
        """图像嵌入 ``(1, C, h, w)``；编码器不学时存着，下次不再算。"""
        key = (picture.number, mirrored)
        if key in self.cache:
            return self.cache[key].to(self.sam.device)
        pixels, _ = check_sample(self.dataset[picture.number])
        pixels = ResizeLongestSide(self.side).apply_image(pixels)
        pixels = np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)
        image = torch.from_numpy(pixels).to(self.sam.device).permute(2, 0, 1)[None]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            found = self.sam.image_encoder(self.sam.preprocess(image))
        size = found.numel() * found.element_size()
        if self.frozen and size <= self.room:
            self.room -= size
            self.cache[key] = found.cpu()
        return found

    def targets(
        self,
        picture: Picture,
        mirrored: bool,
        config: TrainConfig,
        g: torch.Generator,
    ) -> Targets:
        """抽 ``config.prompts`` 个物体，做成题目。"""
        count, prompts = len(picture.things), config.prompts
        order = torch.randperm(max(count, prompts), generator=g)[:prompts] % count
        things = [picture.things[i] for i in order.tolist()]
        masks = torch.from_numpy(draw_things(things, (self.side, self.side)))
        width = picture.size[1]
        if mirrored:
            masks[..., :width] = masks[..., :width].flip(-1)
        targets = make_targets(masks, picture.size, self.grid, config, g)
        return Targets(*(part.to(self.sam.device) for part in targets))

    def task(self, picture: Picture, seed: int) -> Task:
        """验证的题目：抽最多八个物体，各给一次点击和紧框；坐标在缩放后的图上。"""
        rng = np.random.default_rng([seed, picture.number])
        order = rng.permutation(len(picture.things))[:JUDGED_OBJECTS]
        truths = draw_things([picture.things[i] for i in order], picture.size)
        clicks = np.array([first_click(truth, "random", rng) for truth in truths])
        boxes = np.array([picture.things[i].box for i in order])
        return Task(np.zeros((*picture.size, 3), np.uint8), truths, clicks, boxes)


def find_things(masks: np.ndarray, size: tuple[int, int], least: int) -> list[Thing]:
    """把掩码 ``(N, H, W)`` 缩放到 ``size``，留下至少 ``least`` 个像素的。"""
    H, W = masks.shape[1:]
    rows = ((np.arange(size[0]) + 0.5) * H / size[0]).astype(int)  # 最近的一行
    columns = ((np.arange(size[1]) + 0.5) * W / size[1]).astype(int)
    things = []
    for mask in masks:
        small = mask[rows][:, columns]
        if small.sum() >= least:
            x0, y0, x1, y1 = box = tight_box(small)
            things.append(Thing(box, small[y0 : y1 + 1, x0 : x1 + 1].copy()))
    return things


def draw_things(things: list[Thing], size: tuple[int, int]) -> np.ndarray:
    """把各个物体画回整张图，布尔 ``(N, H, W)``。"""
    whole = np.zeros((len(things), *size), dtype=bool)
    for mask, ((x0, y0, x1, y1), crop) in zip(whole, things, strict=True):
        mask[y0 : y1 + 1, x0 : x1 + 1] = crop
    return whole
