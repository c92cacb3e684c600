"""命令 ``sam-lite train``：训练、续跑、导出权重。"""

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..cli.model import local_device, pick_device
from ..cli.parser import add_fields, count, from_fields, numbers, positive, seed
from ..config import TINY, TrainConfig
from ..errors import SamLiteError, problem, require
from ..files.atomic import sweep
from ..learn.checkpoint import Checkpoints, make_folder
from ..learn.data import Mixture, Shards, Source
from ..learn.exam import Exam
from ..learn.interrupts import Interrupts
from ..learn.loop import CHOICES, Loop, SceneGradients
from ..learn.team import Team, join_team
from ..model import Sam, sam_from_config
from ..scenes.stickers import bundled_stickers, read_collection
from ..training import init_for_training
from ..weights import SHIPPED_FILES, load_as, save

SCENE_SIZE = 256  # 场景至少画这么大，和 sam-lite evaluate 的一样；训练时缩到输入边长
BAR = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}"
DESCRIPTION = """\
在程序画的场景上训练小模型，从零开始，或从一份权重接着学。场景边训练边画。

长跑用 --schedule flat：学习率一直不变，随时停、随时加长，导出的是各步的滑动平均；想再
收尾，把 --minutes 加上收尾的时间，再写 --decay，最后那一段学习率才降到零。

几个进程一起，前面加上：torchrun --nproc-per-node 2 --no-python"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """train 的全部选项；TrainConfig 的每一项都是一个选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/tiny"), metavar="DIR", help="输出目录")
    text = "输入边长，像素"
    add("--size", type=count, default=TINY.image_size, metavar="N", help=text)
    text = "图像块边长，4 的整数倍；越小，掩码越细，越慢"
    add("--patch", type=count, default=TINY.patch_size, metavar="N", help=text)
    text = "窗口边长，单位是图像块"
    add("--window", type=count, default=TINY.window_size, metavar="N", help=text)
    text = "从这份权重（型号名或文件）接着学；尺寸不同就插值"
    add("--init", metavar="NAME", help=text)
    add_fields(parser, TrainConfig, CHOICES)
    text = "三种场景各几份：形状拼的，另有砖石、字、组织的，贴纸的"
    add("--mix", type=mix, default="1,1,1", metavar="A,B,C", help=text)
    text = "整理好的贴纸（tools/stickers.py fetch），不给就用随包的"
    add("--stickers", type=Path, metavar="DIR", help=text)
    text = "不边训练边画，用这里画好的 scenes-*.npz（tools/train_on_gpu.py 画）"
    add("--shards", type=Path, metavar="DIR", help=text)
    text = "几个进程画场景，0 是自己画"
    add("--workers", type=seed, default=0, metavar="N", help=text)
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    add("--device", default="auto", metavar="NAME", help=text)
    text = "每多少秒存一次检查点；意外中断时最多丢这么久"
    add("--save-every", type=positive, default=60.0, metavar="S", help=text)
    text = "每训练多少分钟小考一次，分数记进 log.jsonl"
    add("--eval-every", type=positive, metavar="M", help=text)
    text = "小考用多少张评测场景"
    add("--eval-scenes", type=count, default=60, metavar="N", help=text)
    text = "从输出目录里的检查点接着跑；还没有检查点就从头训练"
    add("--resume", action="store_true", help=text)


def mix(text: str) -> str:
    """查一查 ``--mix``；原样返回，好写回命令行。"""
    numbers(text, (3,), "A,B,C 三个数")
    return text


def train(args: argparse.Namespace) -> None:
    """训练，最后导出 safetensors；中断后加 ``--resume`` 接着来。

    Ctrl-C 和 SIGTERM：走完手上这一步，存好检查点，导出权重，印出怎么接着来，退出码
    130 和 143。
    """
    sam = starting_model(args)
    path = args.out / SHIPPED_FILES["tiny"]
    with Interrupts() as stop, join_team(sam.device) as team:
        first = team.rank == 0
        prepare_folder(args, path, first)
        say = partial(print, file=sys.stderr) if first else lambda text: None
        loop = None
        try:
            source, text = open_source(args, sam)
            say(f"sam-lite：{text}")
            loop = make_loop(args, sam, source, team)
            failure = learn(loop, args, stop)
            if first and loop.step:
                export(loop, path, args)
            stop_here = loop.done < 1
        except KeyboardInterrupt:  # 第二次 Ctrl-C，或还没有开始
            stop_here, failure = True, None
        if stop_here:
            step = loop.saved_step if loop else 0
            text = f"检查点存在第 {step} 步" if step else "还没有检查点"
            say(f"sam-lite：停下了，{text}。接着来：{resume_command(args)}")
            raise SystemExit(stop.exit_code)
    if first:
        print(f"训练完了，权重在 {path}。打分：sam-lite evaluate --checkpoint {path}")
    if failure:
        raise SamLiteError(f"权重导出了，检查点或曲线却没存全：{failure}")


def prepare_folder(args: argparse.Namespace, path: Path, first: bool) -> None:
    """输出目录在不在、有没有检查点；清掉以前被强行结束时留下的临时文件。"""
    if args.resume and not args.out.is_dir():
        raise SamLiteError(f"没有文件夹 {args.out}，接不上：检查 --out。")
    make_folder(args.out)
    files = Checkpoints(args.out)
    if files.count() and not args.resume:
        raise SamLiteError(
            f"{args.out} 里已有检查点：加 --resume 接着训练，或换 --out。"
        )
    for file in (files.current, args.out / "log.jsonl", path) if first else ():
        sweep(file)


def starting_model(args: argparse.Namespace) -> Sam:
    """从零开始，或从一份权重开始；已放在要用的设备上。"""
    size, patch, window = args.size, args.patch, args.window
    if size % patch or size < patch * window:
        wanted = f"--patch {patch} 的整数倍，至少 {window} 块（一个窗口，--window）"
        raise problem("--size", str(size), wanted)
    config = replace(TINY, image_size=size, patch_size=patch, window_size=window)
    torch.manual_seed(args.seed)
    if args.init is not None:
        sam = load_as(config, args.init)
    else:
        sam = sam_from_config(config)
        init_for_training(sam)
    return sam.to(pick_device(local_device(args.device, shared=False)))


def open_source(args: argparse.Namespace, sam: Sam) -> tuple[Source, str]:
    """场景从哪里来，和一句说明；场景不比模型的输入小。"""
    if args.shards:
        shards = Shards(args.shards, args.seed)
        return shards, f"用 {args.shards} 里画好的 {len(shards)} 张场景"
    shares = numbers(args.mix, (3,), "A,B,C 三个数")
    size = max(SCENE_SIZE, sam.image_encoder.img_size)
    collection, text = None, "没有贴纸"
    if shares[2]:
        stickers = read_collection(args.stickers) if args.stickers else None
        collection = stickers or bundled_stickers()
        kept = len(collection.split(exam=True).stickers)
        count, photos = len(collection.stickers) - kept, len(collection.grounds)
        text = f"贴纸 {count} 样（另有 {kept} 样留作打分），背景照片 {photos} 张"
    mixture = Mixture(shares[0], shares[1], shares[2], size, collection, args.seed)
    return mixture, f"边训练边画，三种场景 {args.mix}；{text}"


def make_loop(args: argparse.Namespace, sam: Sam, source: Source, team: Team) -> Loop:
    """配好训练循环，有检查点就接上。"""
    config = from_fields(TrainConfig, args)
    bar = require("tqdm", "显示进度").tqdm

    def warn(text: str) -> None:
        if team.rank == 0:
            bar.write(f"sam-lite：注意，{text}", file=sys.stderr)

    gradients = SceneGradients(sam, config, source, team, args.workers)
    loop = Loop(sam, config, gradients, args.out, warn, team)
    if not loop.resume() and args.resume:
        warn(f"{args.out} 里还没有检查点，从第 0 步开始。")
    return loop


def learn(
    loop: Loop, args: argparse.Namespace, stop: Interrupts
) -> SamLiteError | None:
    """跑到头，进度条上显示最近的 IoU；走完了却没存全时，返回那个错误。"""
    bar = require("tqdm", "显示进度").tqdm
    form: dict[str, Any] = {"total": 100, "desc": "训练", "bar_format": BAR}
    exam = None
    if args.eval_every:
        exam = Exam(args.eval_every, args.eval_scenes, loop.team)
    with bar(**form, disable=loop.team.rank > 0) as shown:

        def show(record: dict[str, float]) -> None:
            shown.n = min(100.0, round(100 * loop.done, 1))
            nan = float("nan")  # 一步里也可能全是框，没有点
            loss = record["loss"]
            click, box = record.get("click0", nan), record.get("box0", nan)
            shown.set_postfix_str(
                f"第 {loop.step} 步，损失 {loss:.3f}，一点 {click:.2f}，框 {box:.2f}"
            )

        try:
            loop.run(show, args.save_every, stop.__bool__, exam)
        except SamLiteError as error:
            if loop.done >= 1:
                return error
            if loop.saved_step < loop.step:
                raise SamLiteError(
                    f"停在第 {loop.step} 步，检查点没存成，磁盘上的停在第 "
                    f"{loop.saved_step} 步：{error}接着来：{resume_command(args)}"
                ) from error
            raise
    return None


def export(loop: Loop, path: Path, args: argparse.Namespace) -> None:
    """导出权重；写不了时说清训练的成果在哪里。"""
    try:
        save(loop.result, path)
    except SamLiteError as error:
        raise SamLiteError(
            f"权重没导出成：{error}磁盘上的检查点停在第 {loop.saved_step} 步，解决之后"
            f"接着来：{resume_command(args)}"
        ) from error


def resume_command(args: argparse.Namespace) -> str:
    """接着来要敲的整条命令：和原来一样的选项，加上 ``--resume``。"""
    command = ["sam-lite", *words(args), "--resume"]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def words(args: argparse.Namespace) -> list[str]:
    """把选项写回命令行的样子，不含 ``--resume``。"""
    found = ["train"]
    for name, value in vars(args).items():
        hidden = name in ("run", "parser", "debug", "resume")
        if hidden or value == args.parser.get_default(name):
            continue
        option = "--" + name.replace("_", "-")
        found += [option] if value is True else [option, str(value)]
    return found
