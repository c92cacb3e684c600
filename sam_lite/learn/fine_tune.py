"""微调：在自己的照片上接着学，每过一遍打一次分，留下最好的一份。

循环还是 ``loop.Loop``；这里管学哪一部分、一步的梯度、打分。入口是 ``training.fit``。
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..config import FitConfig, TrainConfig
from ..decoding.embedding_file import EncodedImage
from ..errors import SamLiteError, SamLiteWarning, problem, require
from ..files.atomic import check_writable
from ..image_encoder import ImageEncoderViT
from ..inputs.checks import describe, is_whole
from ..model import Sam
from ..predictor import SamPredictor
from ..training import draw_rounds, mixed_precision, numbered_generator, prompt_loss
from ..weights import save_state
from .datasets import split_dataset
from .evaluation import score_prompts
from .interrupts import Interrupts
from .loop import Loop, Record
from .lora import add_lora, check_plain, merge_lora, plain_state
from .samples import Samples
from .team import Team, join_team

# 学哪一部分 -> 最高学习率
LEARNING_RATES = {"decoder": 2e-4, "decoder+prompt": 2e-4, "lora": 1e-3, "all": 1e-4}
SCORES = ("box", "click", "clicks3")  # 一个框、一次点击、三次点击的平均 IoU

WARMUP = 10  # 学习率预热的步数

Row = dict[str, float]


class FitResult(NamedTuple):
    """一次微调的经过。

    ``history`` 每遍一行：``epoch``（0 是微调之前）、``loss``、``minutes``，和验证照片上
    的平均 IoU：``box``、``click``、``clicks3``；``best`` 是最好的一行，模型里就是它；
    ``stopped`` 是怎么停的：``"finished"``、``"patience"`` 或 ``"interrupted"``。
    """

    history: list[Row]
    best: Row
    stopped: str


def fine_tune(
    sam: Sam,
    dataset: Any,
    config: FitConfig,
    validation: Any,
    out: str | os.PathLike[str] | None,
    progress: bool,
) -> FitResult:
    """见 ``training.fit``。"""
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
        gradients = PhotoGradients(teach, config, team)
        loop = Loop(sam, gradients.config, gradients, team=team)
        best = Best(sam, parameters, out, team.rank == 0)
        history: list[Row] = []
        losses: list[float] = []

        def finish_epoch() -> bool:
            """评一次分，记一行；太久没有进步就返回真。"""
            mean = sum(losses) / len(losses) if losses else math.nan
            row = {"epoch": len(history), "loss": mean}
            row |= score(sam, judge, team, config.seed)
            row["minutes"] = round(loop.elapsed / 60, 2)
            history.append(row)
            losses.clear()
            best.consider(row)
            text = f"第 {row['epoch']} 遍，平均 IoU {mean_score(row):.3f}"
            show(loop.done, f"{text}，最好 {mean_score(best.row):.3f}")
            return row["epoch"] - best.row["epoch"] >= config.patience

        def on_step(record: Record) -> bool:
            losses.append(record["loss"])
            at_end = loop.step % gradients.per_epoch == 0 or loop.done >= 1
            return at_end and finish_epoch()

        try:
            finish_epoch()  # 第 0 遍：还没有学
            loop.run(on_step, stop=stop.__bool__)
        finally:
            best.restore()
        best.write()
    stopped = "interrupted"
    if history[-1]["epoch"] - best.row["epoch"] >= config.patience:
        stopped = "patience"
    elif loop.done >= 1:
        stopped = "finished"
    return FitResult(history, best.row, stopped)


class PhotoGradients:
    """微调的一步：一张一张照片求梯度，加起来。

    一张一张算：占的内存是一张的，几个进程分着算也与一个进程相同。``config`` 是换成训
    练的写法的设置，``per_epoch`` 是一遍几步。
    """

    def __init__(self, teach: Samples, config: FitConfig, team: Team) -> None:
        self.teach, self.team = teach, team
        self.per_epoch = math.ceil(len(teach.pictures) / config.batch)
        self.config = TrainConfig(
            steps=config.epochs * self.per_epoch,
            minutes=config.minutes,
            batch=max(config.batch, team.world),
            prompts=config.prompts,
            rounds=config.rounds,
            lr=config.lr or LEARNING_RATES[config.parts],
            weight_decay=0.01,
            warmup=WARMUP,
            ema=0.0,
            bfloat16=config.bfloat16,
            seed=config.seed,
        )
        self.batch = config.batch

    def __call__(self, step: int) -> Record:
        """求第 step 步的梯度；每遍另洗一次牌。"""
        config, sam, total = self.config, self.teach.sam, 0.0
        epoch, place = divmod(step, self.per_epoch)
        g = numbered_generator(config.seed, epoch, stream=1)
        order = torch.randperm(len(self.teach.pictures), generator=g).tolist()
        chosen = order[place * self.batch :][: self.batch]
        for slot in self.team.mine(len(chosen)):
            picture = self.teach.pictures[chosen[slot]]
            g = numbered_generator(config.seed, step * self.batch + slot)
            mirrored = bool(torch.rand((), generator=g) < 0.5)
            rounds = draw_rounds(config.rounds, g)
            targets = self.teach.targets(picture, mirrored, config, g)
            with mixed_precision(sam, config):
                features = self.teach.features(picture, mirrored)
            loss, _ = prompt_loss(sam, features, targets, config, rounds)
            (loss / len(chosen)).backward()
            total += loss.item() / len(chosen)
        return {"loss": total}


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
    training = sam.training
    try:
        if config.parts == "lora":
            parameters = add_lora(sam, config.lora_rank, config.seed)
        else:
            sam.requires_grad_(config.parts == "all")
            sam.mask_decoder.requires_grad_(True)
            sam.prompt_encoder.requires_grad_(config.parts != "decoder")
            parameters = [p for p in sam.parameters() if p.requires_grad]
        yield parameters
    finally:
        merge_lora(sam)
        sam.train(training)
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
