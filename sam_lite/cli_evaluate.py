"""命令 ``sam-lite evaluate``：评测场景上的平均 IoU，和老办法比。"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from . import cli_model, evaluation, viz
from .cli_parser import count, seed
from .extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 evaluate 的全部选项。"""
    add = parser.add_argument
    add("--scenes", type=count, default=500, metavar="N", help="多少个场景")
    add("--seed", type=seed, default=0, metavar="N", help="第几套场景")
    text = "第一次点击：掩码里随机，或离边最远的一点"
    add("--click", choices=("random", "centre"), default="random", help=text)
    add("--json", type=Path, metavar="FILE", help="全部数字另存成 JSON")
    cli_model.add_arguments(parser)


def evaluate(args: argparse.Namespace) -> None:
    """打分，印出表格；给了 ``--json`` 就另存一份。"""
    if args.json is not None:
        viz.check_writable(args.json)
    evaluation.eval_seeds(args.scenes, args.seed)
    sam = cli_model.load_predictor(args).model
    start = time.perf_counter()
    with require("tqdm", "显示进度").tqdm(total=args.scenes, desc="评测") as bar:
        result = evaluation.evaluate(
            sam, args.scenes, args.seed, click=args.click, progress=bar.update
        )
    name = cli_model.model_name(args)
    print(f"模型 {name}，种子 {args.seed}，{args.scenes} 个场景", end="，")
    print(f"用时 {time.perf_counter() - start:.0f} s")
    print(evaluation.format_table(result))
    if args.json is not None:
        text = json.dumps({"model": name} | result, ensure_ascii=False, indent=2)
        viz.write_atomic(args.json, (text + "\n").encode())
        print(f"写好了 {args.json}")
