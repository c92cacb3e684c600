"""命令 ``sam-lite train``：画场景、训练、续跑、导出权重。"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..cli.model import local_device, pick_device
from ..cli.parser import count, positive
from ..cli.train_options import (
    add_config_arguments,
    resume_command,
    train_config,
    words,
)
from ..config import TINY
from ..errors import SamLiteError, problem, require
from ..files.atomic import sweep
from ..learn.exam import Exam
from ..learn.files import Checkpoints, folder_lock, make_folder
from ..learn.interrupts import Interrupts
from ..learn.team import Team, join_team, start_others
from ..learn.trainer import Trainer
from ..model import Sam, sam_from_config
from ..scenes.bank import SceneBank
from ..scenes.content import CONTENTS
from ..training import init_for_training
from ..weights import SHIPPED_FILES, load_as, save

SCENE_SIZE = 256  # 场景至少画这么大，和 sam-lite evaluate 的一样；训练时缩到输入边长
DESCRIPTION = """\
在程序画的场景上训练小模型，从零开始，或从一份权重接着学。

长跑用 --schedule flat：学习率一直不变，随时停、随时加长；到该收尾时，把 --minutes 加上
收尾的时间，再写 --decay，最后那一段学习率才降到零。

几个进程一起：--processes 2，或者前面加上 torchrun --nproc-per-node 2 --no-python"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """train 的全部选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/tiny"), metavar="DIR", help="输出目录")
    add_config_arguments(parser)
    text = "先画多少张场景，每千张约 260 MB"
    add("--scenes", type=count, default=20000, metavar="N", help=text)
    text = "场景放在哪里，不给就在输出目录里；几次训练可以共用"
    add("--bank", type=Path, metavar="DIR", help=text)
    text = "场景里画什么：base 是评测用的那些，rich 另有砖石、字、杆、组织……"
    add("--content", choices=CONTENTS, default="base", help=text)
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    add("--device", default="auto", metavar="NAME", help=text)
    text = "几个进程一起训练，结果和一个进程相同"
    add("--processes", type=count, default=1, metavar="N", help=text)
    text = "从这份权重（型号名或文件）接着学；尺寸不同就插值"
    add("--init", metavar="NAME", help=text)
    text = "每多少秒存一次检查点；意外中断时最多丢这么久"
    add("--save-every", type=positive, default=60.0, metavar="S", help=text)
    text = "每训练多少分钟小考一次，分数记进 log.jsonl"
    add("--eval-every", type=positive, metavar="M", help=text)
    text = "小考用多少张评测场景"
    add("--eval-scenes", type=count, default=60, metavar="N", help=text)
    text = "从输出目录里的检查点接着跑；还没有检查点就接着画场景，从头训练"
    add("--resume", action="store_true", help=text)


def train(args: argparse.Namespace) -> None:
    """先把场景画好，再训练，最后导出 safetensors；中断后加 ``--resume`` 接着来。

    Ctrl-C 和 SIGTERM：走完手上这一步，存好检查点，印出怎么接着来，退出码 130 和 143。
    """
    if os.environ.get("RANK", "0") != "0":
        follow(args)
        return
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
            sam = starting_model(args)
            bank = open_bank(args, sam)
            trainer = make_trainer(args, sam, bank, bar)  # 有什么不对，画之前就说
            draw_scenes(bank, bar, stop)
            with together(args, sam) as trainer.team:
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


@contextmanager
def together(args: argparse.Namespace, sam: Sam) -> Iterator[Team]:
    """照 ``--processes`` 起别的进程，和它们连上。"""
    cards = torch.cuda.device_count()
    if sam.device.type == "cuda" and args.processes > cards:
        raise SamLiteError(f"只有 {cards} 块显卡，一个进程一块：把 --processes 改小。")
    command = [sys.executable, "-m", "sam_lite.cli", *words(args)]
    with start_others(args.processes, command), join_team(sam.device) as team:
        yield team


def follow(args: argparse.Namespace) -> None:
    """不是第一个的进程：分着算，不写文件，也不说话。"""
    sam = starting_model(args)
    # 第一个进程画好了场景才来连，所以连上之后再打开素材库
    with Interrupts() as stop, join_team(sam.device) as team:
        bank = open_bank(args, sam)
        config = train_config(args)
        trainer = Trainer(sam, bank, config, args.out, lambda text: None, team)
        trainer.resume()
        trainer.run(stop=stop.__bool__, exam=make_exam(args, team))
        if trainer.done < 1:
            raise SystemExit(stop.exit_code)


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


def open_bank(args: argparse.Namespace, sam: Sam) -> SceneBank:
    """素材库：场景不比模型的输入小。"""
    size = max(SCENE_SIZE, sam.image_encoder.img_size)
    folder, content = args.bank or args.out / "scenes", CONTENTS[args.content]
    return SceneBank(folder, args.scenes, size, content=content)


def make_exam(args: argparse.Namespace, team: Team) -> Exam | None:
    """途中的小考；没给 ``--eval-every`` 就没有。"""
    return Exam(args.eval_every, args.eval_scenes, team) if args.eval_every else None


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
    config = train_config(args)
    if args.eval_every:
        require("scipy.ndimage", "小考打分")

    def warn(text: str) -> None:
        bar.write(f"sam-lite：注意，{text}", file=sys.stderr)

    world = os.environ.get("WORLD_SIZE", "")
    team = Team(0, int(world) if world.isdigit() else args.processes)
    trainer = Trainer(sam, bank, config, args.out, warn, team)
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
            exam = make_exam(args, trainer.team)
            trainer.run(show, args.save_every, stop.__bool__, exam)
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
        raise KeyboardInterrupt
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


BAR = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}"
