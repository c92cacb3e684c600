"""命令 ``sam-lite fit``：在自己的照片和掩码上微调。"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..cli import model as cli_model
from ..cli.parser import add_fields, count, from_fields
from ..config import FitConfig
from ..errors import problem
from ..learn.datasets import CocoDataset, LabelMapFolder, MaskDataset
from ..learn.fine_tune import LEARNING_RATES, SCORES, Row
from ..training import fit as fit_model
from ..weights import load

DESCRIPTION = """\
在自己的照片和掩码上微调，存下验证分数最高的一份权重。

PICTURES 是照片的文件夹；MASKS 是标号图的文件夹（a.jpg 配 a.png：0 是背景，每个别的数
是一个物体），或 COCO 格式的 .json。自动留出四分之一的照片做验证。

几个进程一起，前面加上：torchrun --nproc-per-node 2 --no-python

例：sam-lite fit photos labels --out my.safetensors --checkpoint sam_vit_b_01ec64.pth"""
NAMES = {"box": "一个框", "click": "一次点击", "clicks3": "三次点击"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 fit 的全部选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("pictures", metavar="PICTURES", type=Path, help="照片的文件夹")
    add("masks", metavar="MASKS", type=Path, help="标号图的文件夹，或 COCO 的 .json")
    text = "写成这个 .safetensors 文件"
    add("--out", type=Path, required=True, metavar="FILE", help=text)
    text = "标号图里不算物体的编号，例如 Pascal VOC 描边的 255"
    add("--ignore", type=count, metavar="N", help=text)
    add_fields(parser, FitConfig, {"parts": LEARNING_RATES})
    cli_model.add_arguments(parser)


def fit(args: argparse.Namespace) -> None:
    """微调，存下最好的一份，印出前后的分数；Ctrl-C 也存，退出码 130。"""
    config = from_fields(FitConfig, args)
    dataset = open_dataset(args.pictures, args.masks, args.ignore)
    device = cli_model.pick_device(cli_model.local_device(args.device, shared=False))
    sam = load(cli_model.model_name(args), device=device, image_size=args.image_size)
    cli_model.check_model_name(args, sam)
    result = fit_model(sam, dataset, config, out=args.out, progress=True)
    if os.environ.get("RANK", "0") == "0":
        report(result.history[0], result.best, args.out)
    if result.stopped == "interrupted":
        raise SystemExit(130)


def open_dataset(pictures: Path, masks: Path, ignore: int | None = None) -> MaskDataset:
    """标号图的文件夹，或 COCO 的 JSON；后者没有 ignore 可言。"""
    if masks.suffix.lower() != ".json":
        return LabelMapFolder(pictures, masks, ignore=ignore)
    if ignore is not None:
        raise problem("--ignore", ignore, "配标号图用；COCO 的 JSON 里没有这个编号")
    return CocoDataset(masks, pictures)


def report(before: Row, best: Row, out: Path) -> None:
    """印出微调前后的平均 IoU，和权重在哪里。"""
    for name in SCORES:
        print(f"{NAMES[name]}：{before[name]:.3f} -> {best[name]:.3f}")
    if best["epoch"] == 0:
        print(f"没有比原来更好的，{out} 里就是原来的权重。")
        return
    print(f"第 {best['epoch']:.0f} 遍最好，权重在 {out}。")
    print(f"用它：sam-lite segment photo.jpg --point 230,150 --checkpoint {out}")
