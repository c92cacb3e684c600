"""命令行里选模型、选设备的选项，和按它们读进来的预测器。"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from .predictor import SamPredictor
from .weights import check_device, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 ``--model``、``--checkpoint``、``--device``。"""
    add = parser.add_argument
    text = "模型：tiny（自带权重）、vit_b、vit_l、vit_h"
    add("--model", default="tiny", metavar="NAME", help=text)
    text = "权重文件；型号由文件自己认出，不看 --model"
    add("--checkpoint", type=Path, metavar="FILE", help=text)
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    add("--device", default="auto", metavar="NAME", help=text)


def model_name(args: argparse.Namespace) -> str:
    """用的是哪个模型：权重文件，或型号的名字。"""
    return str(args.checkpoint or args.model)


def load_predictor(args: argparse.Namespace) -> SamPredictor:
    """按 ``--model``、``--checkpoint``、``--device`` 读模型，返回预测器。"""
    return SamPredictor(load(model_name(args), device=pick_device(args.device)))


def pick_device(name: str) -> str:
    """``auto`` 依次试 cuda、mps、cpu；点了名的设备用不了就抛 ``SamLiteError``。"""
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return str(check_device(name))


def clock(predictor: SamPredictor) -> float:
    """读现在的时刻，秒；GPU 先等它把手上的活做完。"""
    kind = torch.device(predictor.device).type
    if kind == "cuda":
        torch.cuda.synchronize()
    elif kind == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
