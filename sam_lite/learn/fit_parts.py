"""微调时学哪一部分、怎么打分、怎么留住最好的一份。"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..attention import set_fused
from ..config import FitConfig
from ..decoding.embedding_file import EncodedImage
from ..errors import SamLiteError, SamLiteWarning, problem, require
from ..files.atomic import check_writable
from ..image_encoder import ImageEncoderViT
from ..inputs.checks import describe, is_whole
from ..learn.evaluation import score_prompts
from ..learn.fit_samples import Samples
from ..learn.lora import add_lora, check_plain, merge_lora, plain_state
from ..learn.team import Team
from ..model import Sam
from ..predictor import SamPredictor
from ..weights import save_state

# 学哪一部分 -> 最高学习率
LEARNING_RATES = {"decoder": 2e-4, "decoder+prompt": 2e-4, "lora": 1e-3, "all": 1e-4}
SCORES = ("box", "click", "clicks3")  # 一个框、一次点击、三次点击的平均 IoU

Row = dict[str, float]


# ---- 进门检查 ------------------------------------------------------------------


def check_fit(
    sam: Sam, dataset: Any, config: FitConfig, out: str | os.PathLike[str] | None
) -> None:
    """设置、模型、照片、输出的地方有什么不对，动手之前就抛 SamLiteError。"""
    require("scipy.ndimage", "给微调打分")
    check_model(sam)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        wanted = "能数有几张、能取第 i 张的数据集，例如 datasets.LabelMapFolder(…)"
        raise problem("dataset", describe(dataset), wanted)
    if not isinstance(config, FitConfig):
        raise problem("config", describe(config), "FitConfig(…)")
    if config.parts not in LEARNING_RATES:
        raise problem("parts", repr(config.parts), "、".join(LEARNING_RATES))
    for name in ("epochs", "batch", "prompts", "rounds", "patience"):
        value = getattr(config, name)
        if not is_whole(value) or value < 1:
            raise problem(name, repr(value), "正整数")
    if not is_whole(config.seed) or config.seed < 0:
        raise problem("seed", repr(config.seed), "不小于 0 的整数")
    for name in ("minutes", "lr", "cache_mb"):
        value = getattr(config, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and 0 <= value < math.inf):
            raise problem(name, repr(value), "不小于 0 的数")
    if out is not None:
        if Path(out).suffix != ".safetensors":
            raise problem("out", repr(str(out)), "以 .safetensors 结尾的文件名")
        check_writable(out)


def check_model(sam: Any) -> None:
    """不是原样的、float32 的 Sam，就抛 SamLiteError。"""
    if not isinstance(sam, Sam):
        mend = "predictor.model 就是。" if isinstance(sam, SamPredictor) else ""
        raise problem("sam", describe(sam), "Sam 模型", mend)
    if not isinstance(sam.image_encoder, ImageEncoderViT):
        got = f"编码器是 {describe(sam.image_encoder)} 的模型"
        mend = "backends.prepare 的编码器只管推理；先微调，再换上它。"
        raise problem("sam", got, "编码器是 ImageEncoderViT 的模型", mend)
    if sam.dtype != torch.float32:
        mend = "微调好、存下之后，再 sam_lite.load(路径, dtype=torch.float16)。"
        raise problem("sam", f"{sam.dtype} 的模型", "float32 的模型", mend)
    check_plain(sam)


# ---- 学哪一部分 ----------------------------------------------------------------


@contextmanager
def learning(sam: Sam, config: FitConfig) -> Iterator[list[nn.Parameter]]:
    """在 with 里只让该学的参数要梯度，给出它们；出来时适配器合并，全部恢复原样。"""
    before = [(p, p.requires_grad) for p in sam.parameters()]
    fused = [(m, m.fused) for m in sam.modules() if hasattr(m, "fused")]
    encoder_learns = config.parts in ("lora", "all")
    try:
        if config.parts == "lora":
            parameters = add_lora(sam, config.lora_rank, config.seed)
        else:
            sam.requires_grad_(config.parts == "all")
            sam.mask_decoder.requires_grad_(True)
            sam.prompt_encoder.requires_grad_(config.parts != "decoder")
            parameters = [p for p in sam.parameters() if p.requires_grad]
        if encoder_learns:  # 训练时 CPU 的融合注意力反而慢，见 Trainer
            set_fused(sam, sam.device.type == "cuda")
        yield parameters
    finally:
        merge_lora(sam)
        for p, flag in before:
            p.requires_grad_(flag)
            p.grad = None
        for module, was in fused:
            module.fused = was


# ---- 打分 ----------------------------------------------------------------------


@torch.no_grad()
def score(sam: Sam, judge: Samples, team: Team, seed: int) -> Row:
    """验证照片上的平均 IoU：一个框、一次点击、三次点击；几个进程分着评。"""
    predictor = SamPredictor(sam)
    found = []
    for i in team.mine(len(judge.pictures)):
        picture = judge.pictures[i]
        features = judge.features(picture, mirrored=False)
        predictor._keep(EncodedImage(features, picture.size, picture.size))
        scores = score_prompts(predictor, judge.task(picture, seed))
        found.append((i, {name: scores[name] for name in SCORES}))
    rows = [row for _, row in sorted(team.gather(found), key=lambda pair: pair[0])]
    means = {n: float(np.concatenate([r[n] for r in rows]).mean()) for n in SCORES}
    return {name: round(value, 4) for name, value in means.items()}


# ---- 留住最好的 ----------------------------------------------------------------


class Best:
    """最好的一份参数：记在内存里，也写进 ``out``；第一个进程才写文件。

    参数：
        sam: 正在学的模型；parameters 是其中在学的参数。
        out: ``.safetensors`` 文件，None 是不写。
        first: 自己是不是第一个进程。
    """

    def __init__(
        self,
        sam: Sam,
        parameters: list[nn.Parameter],
        out: str | os.PathLike[str] | None,
        first: bool,
    ) -> None:
        self.sam, self.parameters = sam, parameters
        self.out = Path(out) if out is not None and first else None
        self.row: Row = {}
        self.values: list[torch.Tensor] = []
        self.unsaved = False

    def consider(self, row: Row) -> bool:
        """比以前的都好就记下，返回真；文件写不成只警告，最后再写一次。"""
        if self.row and mean_score(row) <= mean_score(self.row):
            return False
        self.row, self.unsaved = row, True
        self.values = [p.detach().clone() for p in self.parameters]
        if row["epoch"] > 0:  # 第 0 遍是原来的权重，训练完还是它最好才写
            try:
                self.write()
            except SamLiteError as error:
                text = f"{error}训练接着走，最后再写一次。"
                warnings.warn(text, SamLiteWarning, stacklevel=2)
        return True

    @torch.no_grad()
    def restore(self) -> None:
        """把最好的一份放回模型。"""
        for p, value in zip(self.parameters, self.values):
            p.copy_(value)

    def write(self) -> None:
        """模型现在的样子写进文件，适配器合并在内；写不了抛 SamLiteError。"""
        if self.out is not None and self.unsaved:
            save_state(plain_state(self.sam), self.out)
        self.unsaved = False


def mean_score(row: Row) -> float:
    """一遍的总分：三种提示的平均。"""
    return sum(row[name] for name in SCORES) / len(SCORES)


# ---- 进度 ----------------------------------------------------------------------


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[float, str], Any]]:
    """给出 ``show(进度 0 到 1, 一句话)``；shown 为假时什么也不显示。"""
    if not shown:
        yield lambda done, text: None
        return
    form = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}"
    tqdm = require("tqdm", "显示进度").tqdm
    with tqdm(total=100, desc="微调", bar_format=form) as bar:

        def show(done: float, text: str) -> None:
            bar.n = min(100.0, round(100 * done, 1))
            bar.set_postfix_str(text)

        yield show
