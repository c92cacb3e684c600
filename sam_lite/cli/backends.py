"""命令 ``sam-lite backends``：同一张照片，各个后端轮流编码，比时间和误差。"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import viz
from ..backends import BACKENDS, compare, why_not
from ..cli import model as cli_model
from ..cli.parser import count
from ..files import ASSETS

PHOTO = ASSETS / "photos" / "coins.jpg"
DESCRIPTION = """\
图像编码器换算法、精度、运行环境，在这台机器上各快多少、误差多大：

{}

各个后端轮流编码同一张照片，比值在同一轮里算；别的程序在用处理器时，量不准。
编译要十几秒到几分钟，所以不点名就不编译。

例：sam-lite backends --only fused,compile"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 backends 的全部选项。"""
    names = "\n".join(f"  {name:12} {what}" for name, what in BACKENDS.items())
    parser.description = DESCRIPTION.format(names)
    add = parser.add_argument
    text = "照片；不写就用自带的一张"
    add("image", nargs="?", type=Path, metavar="PHOTO", help=text)
    text = "比哪几个，用逗号隔开，头一个是标准；不写就是 compile 以外能用的全部"
    add("--only", metavar="NAMES", help=text)
    add("--rounds", type=count, default=5, metavar="N", help="量几轮")
    cli_model.add_arguments(parser)


def backends(args: argparse.Namespace) -> None:
    """印一张表：每个后端的时间、是头一个的几倍速、误差、准备的秒数。"""
    photo = viz.read_photo(args.image or PHOTO)
    usable = [name for name in BACKENDS if name != "compile" and not why_not(name)]
    names = args.only.split(",") if args.only else usable
    sam = cli_model.load_predictor(args).model
    side = sam.image_encoder.img_size
    print(f"模型 {cli_model.model_name(args)}，输入边长 {side}，{sam.device}")
    rows = compare(sam, photo, names, args.rounds)
    for row in rows:
        print(
            f"{row.backend:12} {1000 * row.seconds:8.1f} ms，"
            f"是 {rows[0].backend} 的 {row.speedup:.2f} 倍速，误差 {row.error:.0e}，"
            f"准备 {row.preparing:.1f} s"
        )
    for name in BACKENDS if not args.only else ():
        if why_not(name):
            print(f"{name:12} 不能用：{why_not(name)}")
