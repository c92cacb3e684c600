"""``sam-lite train`` 的设置：模型的尺寸和 TrainConfig 的选项，以及怎么写回命令行。"""

import argparse
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from ..cli.parser import count, positive, seed
from ..config import TINY, TrainConfig
from ..errors import problem
from ..learn.setup import CHOICES

DEFAULTS = TrainConfig()


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """模型的尺寸和 TrainConfig 的选项。"""
    add = parser.add_argument
    text = "输入边长，像素"
    add("--size", type=count, default=TINY.image_size, metavar="N", help=text)
    text = "图像块边长，4 的整数倍；越小，掩码越细，越慢"
    add("--patch", type=count, default=TINY.patch_size, metavar="N", help=text)
    text = "窗口边长，单位是图像块"
    add("--window", type=count, default=TINY.window_size, metavar="N", help=text)
    add("--steps", type=count, default=DEFAULTS.steps, metavar="N", help="训练多少步")
    add("--minutes", type=positive, metavar="M", help="改按时间训练：一共多少分钟")
    text = "每步几张图，所有进程合计"
    add("--batch", type=count, default=DEFAULTS.batch, metavar="N", help=text)
    text = "每张图几组提示"
    add("--prompts", type=count, default=DEFAULTS.prompts, metavar="N", help=text)
    add("--lr", type=positive, default=DEFAULTS.lr, metavar="X", help="最高学习率")
    text = "预热之后，学习率按余弦降到零，或一直不变"
    allowed = CHOICES["schedule"]
    add("--schedule", choices=allowed, default=DEFAULTS.schedule, help=text)
    text = "flat 的末尾，用这么多分钟（按步训练时是步）线性降到零"
    add("--decay", type=positive, metavar="M", help=text)
    text = "优化器：全用 AdamW，或隐藏层的矩阵用 Muon"
    allowed = CHOICES["optimizer"]
    add("--optimizer", choices=allowed, default=DEFAULTS.optimizer, help=text)
    add("--seed", type=seed, default=0, metavar="N", help="随机种子")
    add("--bfloat16", action="store_true", help="混合精度：GPU 和带 AMX 的 CPU 更快")
    text = "TrainConfig 里的别的设置，可以写几次，例如 --set box_share=0.55"
    add("--set", action="append", default=[], metavar="NAME=X", help=text)


def train_config(args: argparse.Namespace) -> TrainConfig:
    """由选项配成 TrainConfig。"""
    config = TrainConfig(
        steps=args.steps,
        minutes=args.minutes or 0.0,
        batch=args.batch,
        prompts=args.prompts,
        lr=args.lr,
        schedule=args.schedule,
        decay=args.decay or 0.0,
        optimizer=args.optimizer,
        bfloat16=args.bfloat16,
        seed=args.seed,
    )
    for text in args.set:
        name, _, value = text.partition("=")
        kind = type(getattr(DEFAULTS, name, None))
        try:
            if kind not in (int, float):
                raise ValueError
            config = replace(config, **{name: kind(value)})
        except ValueError:
            names = [n for n, v in vars(DEFAULTS).items() if type(v) in (int, float)]
            wanted = "名字=数，名字是 " + "、".join(names)
            raise problem("--set", repr(text), wanted) from None
    return config


def resume_command(args: argparse.Namespace) -> str:
    """接着来要敲的整条命令：和原来一样的选项，加上 ``--resume``。"""
    command = ["sam-lite", *words(args, ["processes"]), "--resume"]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def words(args: argparse.Namespace, more: Sequence[str] = ()) -> list[str]:
    """把选项写回命令行的样子，不含 ``--resume``；``--processes`` 在 more 里才写。"""
    found = ["train"]
    for name, value in vars(args).items():
        hidden = {"run", "parser", "debug", "resume", "processes"} - set(more)
        if name in hidden or value == args.parser.get_default(name):
            continue
        option = "--" + name.replace("_", "-")
        for each in value if isinstance(value, list) else [value]:
            found += [option] if each is True else [option, str(each)]
    return found
