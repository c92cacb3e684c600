"""命令 ``sam-lite train``：画场景、训练、续跑、导出权重。"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from .atomic import sweep
from .cli_model import pick_device
from .cli_parser import count, positive, seed
from .config import TINY, TrainConfig
from .errors import SamLiteError
from .extras import require
from .interrupts import Interrupts
from .model import Sam, sam_from_config
from .scene_bank import SceneBank
from .scene_content import CONTENTS
from .trainer import Trainer
from .training import init_for_training
from .training_files import Checkpoints, folder_lock, make_folder
from .weights import SHIPPED_FILES, load, save

DEFAULTS = TrainConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """train 的全部选项。"""
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/tiny"), metavar="DIR", help="输出目录")
    add("--steps", type=count, default=DEFAULTS.steps, metavar="N", help="训练多少步")
    add("--minutes", type=positive, metavar="M", help="改按时间训练：多少分钟")
    add("--batch", type=count, default=DEFAULTS.batch, metavar="N", help="每步几张图")
    text = "每张图几组提示"
    add("--prompts", type=count, default=DEFAULTS.prompts, metavar="N", help=text)
    add("--lr", type=positive, default=DEFAULTS.lr, metavar="X", help="最高学习率")
    text = "先画多少张场景，每千张约 260 MB"
    add("--scenes", type=count, default=20000, metavar="N", help=text)
    text = "场景放在哪里，不给就在输出目录里；几次训练可以共用"
    add("--bank", type=Path, metavar="DIR", help=text)
    text = "场景里画什么：base 是评测用的那些，rich 另有砖石、字、杆、组织……"
    add("--content", choices=CONTENTS, default="base", help=text)
    add("--seed", type=seed, default=0, metavar="N", help="随机种子")
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    add("--device", default="auto", metavar="NAME", help=text)
    add("--bfloat16", action="store_true", help="混合精度：GPU 和带 AMX 的 CPU 更快")
    text = "从这份权重（型号名或文件）接着学，不从零开始"
    add("--init", metavar="NAME", help=text)
    text = "每多少秒存一次检查点；意外中断时最多丢这么久"
    add("--save-every", type=positive, default=60.0, metavar="S", help=text)
    text = "从输出目录里的检查点接着跑；还没有检查点就接着画场景，从头训练"
    add("--resume", action="store_true", help=text)


def train(args: argparse.Namespace) -> None:
    """先把场景画好，再训练，最后导出 safetensors；中断后加 ``--resume`` 接着来。

    Ctrl-C 和 SIGTERM：走完手上这一步，存好检查点，印出怎么接着来，退出码 130 和 143。
    """
    bar = require("tqdm", "显示进度").tqdm
    if args.resume and not args.out.is_dir():
        raise SamLiteError(f"没有文件夹 {args.out}，接不上：检查 --out。")
    make_folder(args.out)
    with folder_lock(args.out, "训练"), Interrupts() as stop:
        if Checkpoints(args.out).count() and not args.resume:
            raise SamLiteError(
                f"{args.out} 里已有检查点：加 --resume 接着训练，或换 --out。"
            )
        path = args.out / SHIPPED_FILES["tiny"]
        for file in (Checkpoints(args.out).current, args.out / "log.jsonl", path):
            sweep(file)
        bank = trainer = None
        try:
            sam = starting_model(args).to(pick_device(args.device))
            folder = args.bank or args.out / "scenes"
            content = CONTENTS[args.content]
            bank = SceneBank(folder, args.scenes, TINY.image_size, content=content)
            trainer = make_trainer(args, sam, bank, bar)  # 有什么不对，画之前就说
            draw_scenes(bank, bar, stop)
            failure = learn(trainer, args, bar, stop)
            export(trainer, path, args)
        except KeyboardInterrupt:
            text = f"sam-lite：停下了，{standing(bank, trainer)}。"
            print(f"{text}接着来：{resume_command(args)}", file=sys.stderr)
            raise SystemExit(stop.exit_code) from None
    print(
        f"训练完了，权重在 {path}。看看它的本事：sam-lite evaluate --checkpoint {path}"
    )
    if failure:
        raise SamLiteError(f"权重导出了，检查点或曲线却没存全：{failure}")


def starting_model(args: argparse.Namespace) -> Sam:
    """从零开始，或从一份权重开始。"""
    torch.manual_seed(args.seed)
    if args.init is not None:
        sam = load(args.init)
        size = sam.image_encoder.img_size
        if size != TINY.image_size:
            raise SamLiteError(
                f"--init 要 tiny 的权重（输入边长 {TINY.image_size}），"
                f"{args.init} 的输入边长是 {size}。"
            )
        return sam
    sam = sam_from_config(TINY)
    init_for_training(sam)
    return sam


def draw_scenes(bank: SceneBank, bar: Any, stop: Interrupts) -> None:
    """把没画好的场景画完，显示进度。"""
    drawn = len(bank.ready())
    progress = bar(total=len(bank), initial=drawn, desc="画场景", unit="张")
    try:
        with progress as shown, closing(bank.fill()) as drawing:
            for _ in drawing:
                shown.update()
                stop.check()
    except SamLiteError:
        time.sleep(1)  # 作业系统叫停时，画场景的进程可能先死，自己的信号随后就到
        stop.check()
        raise


def make_trainer(
    args: argparse.Namespace, sam: Sam, bank: SceneBank, bar: Any
) -> Trainer:
    """配好训练循环，有检查点就接上。"""
    config = TrainConfig(
        steps=args.steps,
        minutes=args.minutes or 0.0,
        batch=args.batch,
        prompts=args.prompts,
        lr=args.lr,
        bfloat16=args.bfloat16,
        seed=args.seed,
    )

    def warn(text: str) -> None:
        bar.write(f"sam-lite：注意，{text}", file=sys.stderr)

    trainer = Trainer(sam, bank, config, args.out, warn)
    if not trainer.resume() and args.resume:
        warn(f"{args.out} 里还没有检查点，从第 0 步开始。")
    trainer.check_room(0 if args.bank else bank.missing_bytes())
    return trainer


def learn(
    trainer: Trainer, args: argparse.Namespace, bar: Any, stop: Interrupts
) -> SamLiteError | None:
    """跑到头，进度条上显示最近的 IoU；走完了却没存全时，返回那个错误。"""
    with bar(total=100, desc="训练", unit="%", bar_format=BAR) as shown:

        def show(record: dict[str, float]) -> None:
            shown.n = min(100.0, round(100 * trainer.done, 1))
            nan = float("nan")  # 一步里也可能全是框，没有点
            loss = record["loss"]
            click, box = record.get("click0", nan), record.get("box0", nan)
            shown.set_postfix_str(
                f"第 {trainer.step} 步，损失 {loss:.3f}，一点 {click:.2f}，框 {box:.2f}"
            )

        try:
            trainer.run(show, args.save_every, stop.__bool__)
        except SamLiteError as error:
            if trainer.done >= 1:
                return error
            if trainer.saved_step < trainer.step:
                raise SamLiteError(
                    f"停在第 {trainer.step} 步，检查点没存成，磁盘上的停在第 "
                    f"{trainer.saved_step} 步：{error}接着来：{resume_command(args)}"
                ) from error
            raise
    if trainer.done < 1:
        stop.check()
    return None


def export(trainer: Trainer, path: Path, args: argparse.Namespace) -> None:
    """导出权重；写不了时说清训练的成果在哪里。"""
    try:
        save(trainer.sam, path)
    except SamLiteError as error:
        raise SamLiteError(
            f"训练走完了，权重却没导出成：{error}磁盘上的检查点停在第 "
            f"{trainer.saved_step} 步，解决之后接着来：{resume_command(args)}"
        ) from error


def standing(bank: SceneBank | None, trainer: Trainer | None) -> str:
    """停在哪里，存好了什么。"""
    if trainer is not None and trainer.saved_step > 0:
        return f"检查点存在第 {trainer.saved_step} 步"
    drawn = 0 if bank is None else len(bank.ready())
    return f"还没有检查点，画好的 {drawn} 张场景都留着"


def resume_command(args: argparse.Namespace) -> str:
    """接着来要敲的整条命令：和原来一样的选项，加上 ``--resume``。"""
    words = ["sam-lite", "train"]
    for name, value in vars(args).items():
        if name in {"run", "parser", "debug", "resume"}:
            continue
        if value != args.parser.get_default(name):
            option = "--" + name.replace("_", "-")
            words += [option] if value is True else [option, str(value)]
    words.append("--resume")
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


BAR = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}"
