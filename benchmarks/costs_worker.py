"""一种花费在单独的进程里量：``python -m benchmarks.costs_worker 设定的文件``。"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sam_lite.config import PRESETS, SamConfig
from sam_lite.model import sam_from_config
from sam_lite.ops import NoInitialization

from .cases import PICTURE, SavedEmbedding, noise, picture
from .contenders import Job, import_contender, tests_on_path
from .process import Parts, answer
from .worker import measure

POINTS = (1, 2, 4, 8, 16, 32, 64)  # 一组提示里的点数
PROMPTS = (1, 4, 16, 64, 256)  # 几组提示，每组一个点
Row = dict[str, Any]


class Setting(NamedTuple):
    """一个进程里量什么。"""

    kind: str  # KINDS 的键
    contender: str
    variant: str
    side: int  # 输入边长，像素
    threads: int

    @property
    def config(self) -> SamConfig:
        """换过边长的尺寸。"""
        return replace(PRESETS[self.variant], image_size=self.side)


def build(contender: str, config: SamConfig) -> nn.Module:
    """不读文件，造一个随机权重的模型，eval 模式；两方的数逐个相同。"""
    import_contender(contender)
    tests_on_path()
    from parity.official import assemble, theirs
    from parity.small import randomize

    with NoInitialization():
        if contender == "sam_lite":
            sam: nn.Module = sam_from_config(config)
        else:
            sam = assemble(theirs, **asdict(config))
    return randomize(sam).eval()


def measure_encoder(setting: Setting) -> Iterator[tuple[Row, dict[str, torch.Tensor]]]:
    """编码一张图；大的两个型号不热身。"""
    sam = build(setting.contender, setting.config)
    x = noise(1, 3, setting.side, setting.side)
    warmups = 1 if setting.variant in ("tiny", "vit_b") else 0
    numbers, result = measure(lambda: sam.image_encoder(x), warmups, 1)
    weights = sum(tensor.nbytes for tensor in sam.state_dict().values())
    yield {"count": 1, "weights": weights, **numbers}, {"embedding": result}


def make_predictor(setting: Setting) -> Any:
    """图像已经编码（现成的随机嵌入）的 SamPredictor。"""
    sam = build(setting.contender, setting.config)
    job = Job(setting.contender, setting.variant, "float32", Path())
    sam.image_encoder = SavedEmbedding(job)
    predictor = import_contender(setting.contender).SamPredictor(sam)
    predictor.set_image(picture())
    return predictor


def random_points(count: int) -> np.ndarray:
    """照片里的 count 个点，``(count, 2)``，原图上的 (x, y)。"""
    return np.random.default_rng(0).random((count, 2)) * PICTURE[::-1]


def measure_points(setting: Setting) -> Iterator[tuple[Row, dict[str, torch.Tensor]]]:
    """一组提示里 1 个到 64 个点，掩码放大到原图。"""
    predictor = make_predictor(setting)
    for count in POINTS:
        where, labels = random_points(count), np.ones(count)
        numbers, result = measure(partial(predictor.predict, where, labels), 2, 9)
        yield {"count": count, **numbers}, {"iou": torch.as_tensor(result[1])}


def measure_prompts(setting: Setting) -> Iterator[tuple[Row, dict[str, torch.Tensor]]]:
    """1 组到 256 组提示，每组一个点，掩码放大到原图。"""
    predictor = make_predictor(setting)
    for count in PROMPTS:
        where = torch.as_tensor(random_points(count)[:, None], dtype=torch.float32)
        where = where * setting.side / max(PICTURE)
        labels = torch.ones(count, 1, dtype=torch.int)
        warmups, repeats = (0, 1) if count > 16 else (1, 3)
        run = partial(predictor.predict_torch, where, labels)
        numbers, result = measure(run, warmups, repeats)
        yield {"count": count, **numbers}, {"iou": result[1]}


KINDS = {
    "encoder": measure_encoder,
    "points": measure_points,
    "prompts": measure_prompts,
}


def measure_setting(fields: Row) -> tuple[Row, Parts]:
    """量一种，返回（rows：每种个数一行，要核对的张量）。"""
    setting = Setting(**fields)
    rows, parts = [], {}
    with torch.no_grad():
        for row, outputs in KINDS[setting.kind](setting):
            rows.append(row)
            for name, value in outputs.items():
                parts[f"{row['count']} {name}"] = value.double().numpy()
    return {"rows": rows}, parts


if __name__ == "__main__":
    answer(Path(sys.argv[1]), measure_setting)
