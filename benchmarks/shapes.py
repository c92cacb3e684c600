"""模型该多大：各种尺寸同样训练几分钟，质量怎么随时间变化。

用法：``python -m benchmarks.shapes --bank 素材库 --init 权重文件``。两类比较：从同一份
权重出发，换输入边长和图像块（``weights.load_as`` 插值）；从零开始，换宽度、层数、提示的
宽度。做完一种记一种（training/curves.json），断了再敲一遍就接着做；每种用一个线程，两个
核可以分头做两种。图由 figures/training_curves.py 画。
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sam_lite.cli.parser import Parser, count, positive
from sam_lite.config import TINY, SamConfig, TrainConfig
from sam_lite.errors import problem
from sam_lite.learn.exam import SCORES, Exam
from sam_lite.learn.interrupts import Interrupts
from sam_lite.learn.team import Team
from sam_lite.learn.trainer import Trainer
from sam_lite.model import Sam, sam_from_config
from sam_lite.scenes.bank import SceneBank
from sam_lite.training import init_for_training
from sam_lite.weights import load_as

from . import store
from .study import attempt, note

CURVES = Path(__file__).parent / "training" / "curves.json"
COARSE = replace(TINY, image_size=256, patch_size=16, window_size=6)  # 从零开始的起点


class Shape(NamedTuple):
    """一种尺寸；resumed 为真就从权重出发，否则从零开始。"""

    label: str
    config: SamConfig
    resumed: bool


def all_shapes() -> list[Shape]:
    """试的每一种；从零的几种每次只改一样，都在 256/16 上。"""
    grids = [(256, 16, 6), (192, 8, 7), (256, 8, 7), (128, 8, 6)]
    resumed = [
        Shape(
            f"{size}/{patch}",
            replace(TINY, image_size=size, patch_size=patch, window_size=window),
            True,
        )
        for size, patch, window in grids
    ]
    deeper = replace(COARSE, depth=10, global_attn_indexes=(2, 5, 9))
    fresh = {
        "宽 160、6 层、提示 128": COARSE,
        "宽 224": replace(COARSE, embed_dim=224, num_heads=7),
        "10 层": deeper,
        "提示 64": replace(COARSE, prompt_embed_dim=64, iou_head_hidden_dim=64),
    }
    return resumed + [Shape(name, config, False) for name, config in fresh.items()]


def make_model(shape: Shape, init: str) -> Sam:
    """插值过的权重，或随机的初值（种子 0）。"""
    if shape.resumed:
        return load_as(shape.config, init)
    torch.manual_seed(0)
    sam = sam_from_config(shape.config)
    init_for_training(sam)
    return sam


def settings(shape: Shape, minutes: float) -> TrainConfig:
    """训练的设置：学习率从头线性降到零；从零开始时学习率大一倍，BCE 先均衡。"""
    return TrainConfig(
        minutes=minutes,
        decay=minutes,
        schedule="flat",
        optimizer="muon",
        bfloat16=True,
        prompts=6,
        min_area=64,
        lr=5e-4 if shape.resumed else 1e-3,
        warmup=20 if shape.resumed else 100,
        balanced_steps=1 if shape.resumed else 300,
    )


def run(shape: Shape, args: argparse.Namespace, stop: Interrupts) -> dict[str, Any]:
    """训练一种，返回要记的一项；被叫停就抛 KeyboardInterrupt。"""
    sam, folder = make_model(shape, args.init), args.work / slug(shape)
    bank = SceneBank(args.bank, args.scenes, 256)
    config = settings(shape, args.minutes)
    trainer = Trainer(sam, bank, config, folder, note)
    trainer.resume()
    exam = Exam(args.eval_every, args.eval_scenes, Team())
    trainer.run(stop=stop.__bool__, exam=exam)
    if trainer.done < 1:
        raise KeyboardInterrupt
    return {
        "label": shape.label,
        "start": "weights" if shape.resumed else "nothing",
        "parameters": sum(p.numel() for p in sam.parameters()),
        "steps": trainer.step,
        "points": read_log(folder / "log.jsonl"),
    }


def slug(shape: Shape) -> str:
    """这一种的文件夹名：由尺寸拼成。"""
    c = shape.config
    numbers = (c.image_size, c.patch_size, c.embed_dim, c.depth, c.prompt_embed_dim)
    return "-".join(map(str, numbers)) + ("" if shape.resumed else "-fresh")


def read_log(path: Path) -> list[list[float]]:
    """取出小考的那些行，每点是 [分钟, 一个框, 一次点击, 三张里最好的, 三次点击]。"""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        [round(row[name], 4) for name in ("minutes", *SCORES)]
        for row in rows
        if "box" in row
    ]


def read() -> list[dict[str, Any]]:
    """已有的曲线，一次训练一项。"""
    found: list[dict[str, Any]] = json.loads(CURVES.read_text(encoding="utf-8"))
    return found


def record(result: dict[str, Any]) -> None:
    """记下一项，次序照 all_shapes；先重读一遍，别的进程也许刚记过。"""
    every = {run["label"]: run for run in read()} | {result["label"]: result}
    ordered = [every[s.label] for s in all_shapes() if s.label in every]
    lines = ",\n".join(json.dumps(run, ensure_ascii=False) for run in ordered)
    store.write(CURVES, f"[\n{lines}\n]\n")


def make_parser() -> Parser:
    """全部选项。"""
    parser = Parser(prog="python -m benchmarks.shapes")
    add: Callable[..., Any] = parser.add_argument
    add(
        "--bank", type=Path, required=True, metavar="DIR", help="画好的素材库，256 像素"
    )
    add("--init", required=True, metavar="FILE", help="从这份 tiny 的权重出发")
    add("--scenes", type=count, default=30000, metavar="N", help="素材库有多少张")
    add("--only", metavar="A,B", help="只做这几种，写 curves.json 里的 label")
    add("--minutes", type=positive, default=6.0, metavar="M", help="每种训练多久")
    add("--eval-every", type=positive, default=1.5, metavar="M", help="隔多久考一次")
    add("--eval-scenes", type=count, default=60, metavar="N", help="考多少张场景")
    text = "检查点放在哪里"
    add("--work", type=Path, default=Path("runs/shapes"), metavar="DIR", help=text)
    return parser


def compare(args: argparse.Namespace) -> None:
    """一种一种做下去，做过的跳过。"""
    names = args.only.split(",") if args.only else [s.label for s in all_shapes()]
    for name in names:
        if name not in [shape.label for shape in all_shapes()]:
            wanted = "、".join(shape.label for shape in all_shapes())
            raise problem("--only", name, f"这些之一，逗号隔开：{wanted}")
    with Interrupts() as stop:
        for shape in all_shapes():
            known = [run["label"] for run in read()]
            if shape.label in names and shape.label not in known:
                result = run(shape, args, stop)
                record(result)
                note(f"{shape.label}：{result['steps']} 步，{result['points'][-1]}")


def main(arguments: list[str]) -> int:
    """执行一次，返回退出码。"""
    args = make_parser().parse_args(arguments)
    torch.set_num_threads(1)
    return attempt(lambda: compare(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
