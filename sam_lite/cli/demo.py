"""命令 ``sam-lite demo``：在自带的照片上分割，左边原图，右边掩码和提示。"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

from .. import viz
from ..cli import model as cli_model
from ..cli.model import clock
from ..cli.segment import Box, best_mask, draw
from ..files import ASSETS

PHOTOS = ASSETS / "photos"


class Demo(NamedTuple):
    """演示照片上的一个提示：一个框，或者一个点。"""

    what: str
    box: Box | None = None
    point: tuple[float, float] | None = None


DEMO_PROMPTS = {
    "coins": Demo("一枚硬币", box=(305, 12, 368, 75)),
    "coffee": Demo("杯里的咖啡", box=(205, 95, 385, 195)),
    "cat": Demo("猫的一只眼睛", box=(135, 82, 212, 150)),
    "astronaut": Demo("宇航员的头", box=(151, 14, 302, 190)),
    "rocket": Demo("火箭", box=(305, 124, 336, 410)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 demo 的全部选项。"""
    which = parser.add_mutually_exclusive_group()
    names = list(DEMO_PROMPTS)
    which.add_argument("--photo", choices=names, default="coins", help="哪张照片")
    which.add_argument("--all", action="store_true", help="五张照片都做，拼成一张")
    out = Path("sam_lite_demo.png")
    parser.add_argument(
        "--out", type=Path, default=out, metavar="FILE", help="写到哪里"
    )
    cli_model.add_arguments(parser)


def demo(args: argparse.Namespace) -> None:
    """一张或五张照片，各用表里的提示分割，拼成一张图。"""
    viz.check_output(args.out)
    start = time.perf_counter()
    predictor = cli_model.load_predictor(args)
    print(f"读权重 {clock(predictor) - start:.2f} s")
    rows = []
    for name in DEMO_PROMPTS if args.all else [args.photo]:
        prompt = DEMO_PROMPTS[name]
        photo = viz.read_photo(PHOTOS / f"{name}.jpg")
        start = time.perf_counter()
        predictor.set_image(photo)
        points = [(*prompt.point, 1)] if prompt.point else []
        boxes = [prompt.box] if prompt.box else []
        mask, score = best_mask(predictor, points, prompt.box)
        seconds = clock(predictor) - start
        print(f"{name}（{prompt.what}）：预测 IoU {score:.3f}，用时 {seconds:.2f} s")
        picture = draw(photo, mask[None], points, boxes)
        rows.append(viz.side_by_side(photo, picture, height=400 if args.all else None))
    viz.save_image(args.out, viz.stack_rows(rows))
    print(f"写好了 {args.out}：左边原图，右边掩码、轮廓和提示")
    print("接着学：运行 make course，打开 JupyterLab，从第 0 章开始")
