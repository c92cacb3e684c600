"""命令行里选模型、选设备的选项，和按它们读进来的预测器。"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from ..cli.parser import count
from ..errors import SamLiteError
from ..model import Sam
from ..predictor import SamPredictor
from ..weights import check_device, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上选模型的三个选项和 ``--device``。"""
    add_model_arguments(parser)
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    parser.add_argument("--device", default="auto", metavar="NAME", help=text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 ``--model``、``--checkpoint``、``--image-size``。"""
    add = parser.add_argument
    text = "模型：tiny（自带权重，默认）、vit_b、vit_l、vit_h"
    add("--model", metavar="NAME", help=text)
    text = "权重文件；型号由文件自己认出，写了 --model 就核对"
    add("--checkpoint", type=Path, metavar="FILE", help=text)
    text = "输入边长，像素；不写就用权重原来的。越小越快，越粗"
    add("--image-size", type=count, metavar="N", help=text)


def model_name(args: argparse.Namespace) -> str:
    """用的是哪个模型：权重文件，或型号的名字。"""
    return str(args.checkpoint or args.model or "tiny")


def load_predictor(args: argparse.Namespace) -> SamPredictor:
    """按这几个选项读模型，返回预测器；文件不是 ``--model`` 那个型号就抛错。"""
    device = pick_device(args.device)
    sam = load(model_name(args), device=device, image_size=args.image_size)
    check_model_name(args, sam)
    return SamPredictor(sam)


def check_model_name(args: argparse.Namespace, sam: Sam) -> None:
    """``--model`` 和 ``--checkpoint`` 都写了，文件就要是那个型号，否则抛错。"""
    if args.checkpoint and args.model not in (None, sam.name):
        raise SamLiteError(
            f"--checkpoint {args.checkpoint} 是 {sam.name} 的权重，--model 却写着 "
            f"{args.model}：改成 {sam.name}，或去掉 --model。"
        )


def pick_device(name: str) -> str:
    """``auto`` 依次试 cuda、mps、cpu；点了名的设备用不了就抛 ``SamLiteError``。"""
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return str(check_device(name))


def local_device(name: str, shared: bool = True) -> str:
    """torchrun 的几个进程各用一块 NVIDIA 显卡；点了名的（``cuda:1``）照它。

    进程比显卡多时轮着用；shared 为假（一起训练，一块卡只能归一个进程）时抛
    SamLiteError。
    """
    place = os.environ.get("LOCAL_RANK", "")
    if name == "auto" and place:
        name = pick_device(name)
    if name != "cuda" or not place:
        return name
    if not place.isdigit():
        got = f"环境变量 LOCAL_RANK={place!r}"
        raise SamLiteError(f"{got} 说不通：不用 torchrun 就别设")
    cards = torch.cuda.device_count()
    if not cards:
        return name  # 用不了，pick_device 会说
    if int(place) >= cards and not shared:
        raise SamLiteError(
            f"只有 {cards} 块显卡，一个进程一块：把 --nproc-per-node 改小，或加 "
            "--device cpu。"
        )
    return f"cuda:{int(place) % cards}"


def clock(predictor: SamPredictor) -> float:
    """读现在的时刻，秒；GPU 先等它把手上的活做完。"""
    kind = torch.device(predictor.device).type
    if kind == "cuda":
        torch.cuda.synchronize()
    elif kind == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
