"""命令 ``sam-lite evaluate``：评测场景或自己的照片上的平均 IoU，和老办法比。"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cli import model as cli_model
from ..cli.fit import open_dataset
from ..cli.parser import count, seed
from ..errors import SamLiteError, require
from ..files.atomic import atomic_file, check_writable
from ..learn import evaluation
from ..learn import photos as evaluation_photos
from ..learn.datasets import MaskDataset
from ..learn.interrupts import Interrupts
from ..model import Sam

SCENES, STICKER_SCENES = 500, 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 evaluate 的全部选项。"""
    add = parser.add_argument
    text = f"多少个场景，默认 {SCENES}；--stickers 时默认 {STICKER_SCENES}"
    add("--scenes", type=count, metavar="N", help=text)
    text = "改在贴纸场景上打分：东西和背景都没训练过"
    add("--stickers", action="store_true", help=text)
    text = "改在自己的照片上打分：照片的文件夹，和标号图的文件夹或 COCO 的 .json"
    places = ("PICTURES", "MASKS")
    add("--photos", nargs=2, type=Path, metavar=places, help=text)
    add("--seed", type=seed, default=0, metavar="N", help="第几套场景")
    text = "第一次点击：掩码里随机，或离边最远的一点"
    add("--click", choices=("random", "centre"), default="random", help=text)
    add("--json", type=Path, metavar="FILE", help="全部数字另存成 JSON")
    cli_model.add_arguments(parser)


def evaluate(args: argparse.Namespace) -> None:
    """打分，印出表格；给了 ``--json`` 就另存一份。

    Ctrl-C 和 SIGTERM：说出打完了几个场景，什么文件也不写，退出码 130 和 143。
    """
    if args.json is not None:
        check_writable(args.json)
    if args.photos and (args.scenes or args.stickers or args.click != "random"):
        args.parser.error("--photos 不和 --scenes、--stickers、--click 一起用")
    args.scenes = args.scenes or (STICKER_SCENES if args.stickers else SCENES)
    dataset = open_dataset(*args.photos) if args.photos else None
    if dataset is None:
        evaluation.eval_seeds(args.scenes, args.seed)
        total, unit, hint = args.scenes, "个场景", "；嫌久就少打几个（--scenes）"
    else:
        total, unit, hint = len(dataset), "张照片", ""
    sam = cli_model.load_predictor(args).model
    start = time.perf_counter()
    tqdm = require("tqdm", "显示进度").tqdm
    with Interrupts(patient=False) as stop, tqdm(total=total, desc="评测") as bar:
        try:
            result = score(args, sam, dataset, bar.update)
        except KeyboardInterrupt:
            bar.close()
            print(
                f"sam-lite：停下了，{total} {unit}打完了 {bar.n} {unit[0]}，"
                f"什么文件也没写。分数要打完才算，再来一次从头打{hint}。",
                file=sys.stderr,
            )
            raise SystemExit(stop.exit_code) from None
    name = cli_model.model_name(args)
    print(f"模型 {name}，种子 {args.seed}，{total} {unit}", end="，")
    print(f"用时 {time.perf_counter() - start:.0f} s")
    show = evaluation_photos.format_photos if dataset else evaluation.format_table
    print(show(result))
    if args.json is not None:
        write_json(args.json, {"model": name} | result)


def score(
    args: argparse.Namespace,
    sam: Sam,
    dataset: MaskDataset | None,
    progress: Callable[[], object],
) -> dict[str, Any]:
    """在照片上打分；没有照片就在评测场景上。"""
    if dataset is not None:
        return evaluation_photos.evaluate_photos(
            sam, dataset, seed=args.seed, progress=progress
        )
    return evaluation.evaluate(
        sam,
        args.scenes,
        args.seed,
        click=args.click,
        stickers=args.stickers,
        progress=progress,
    )


def write_json(path: Path, result: dict[str, Any]) -> None:
    """把全部数字写成 JSON；写不了就印出来，再报错：分数不能白打。"""
    text = json.dumps(result, ensure_ascii=False, indent=2) + "\n"
    try:
        with atomic_file(path) as file:
            file.write(text.encode())
    except SamLiteError as error:
        print(text)
        raise SamLiteError(f"{error}全部数字印在上面了。") from error
    print(f"写好了 {path}")
