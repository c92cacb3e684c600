"""命令 ``sam-lite train``：画场景、训练、续跑、导出权重。"""

import argparse
from pathlib import Path

import torch

from .cli_model import pick_device
from .cli_parser import count, positive, seed
from .config import TINY, TrainConfig
from .errors import SamLiteError
from .extras import require
from .model import Sam, sam_from_config
from .scene_bank import SceneBank
from .trainer import Trainer
from .training import init_for_training
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
    add("--seed", type=seed, default=0, metavar="N", help="随机种子")
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    add("--device", default="auto", metavar="NAME", help=text)
    add("--bfloat16", action="store_true", help="混合精度：GPU 和带 AMX 的 CPU 更快")
    text = "从这份权重（型号名或文件）接着学，不从零开始"
    add("--init", metavar="NAME", help=text)
    add("--resume", action="store_true", help="从输出目录里的检查点接着跑")


def train(args: argparse.Namespace) -> None:
    """先把场景画好，再训练，最后导出 safetensors；中断后加 ``--resume`` 接着来。"""
    exists = (args.out / "state.pt").exists()
    if exists and not args.resume:
        raise SamLiteError(
            f"{args.out} 里已有检查点：加 --resume 接着训练，或换 --out。"
        )
    if args.resume and not exists:
        raise SamLiteError(f"{args.out} 里没有检查点，去掉 --resume 从头训练。")
    bar = require("tqdm", "显示进度").tqdm
    torch.manual_seed(args.seed)
    sam = starting_model(args.init).to(pick_device(args.device))
    bank = SceneBank(args.bank or args.out / "scenes", args.scenes, TINY.image_size)
    drawn = len(bank.ready())
    with bar(total=len(bank), initial=drawn, desc="画场景", unit="张") as shown:
        for _ in bank.fill():
            shown.update()

    config = TrainConfig(
        steps=args.steps,
        minutes=args.minutes or 0.0,
        batch=args.batch,
        prompts=args.prompts,
        lr=args.lr,
        bfloat16=args.bfloat16,
        seed=args.seed,
    )
    trainer = Trainer(sam, bank, config, args.out)
    trainer.resume()
    run_with_progress(trainer, bar)
    path = args.out / SHIPPED_FILES["tiny"]
    save(sam, path)
    print(
        f"训练完了，权重在 {path}。看看它的本事：sam-lite evaluate --checkpoint {path}"
    )


def starting_model(init: str | None) -> Sam:
    """从零开始，或从一份权重开始。"""
    if init is not None:
        sam = load(init)
        size = sam.image_encoder.img_size
        if size != TINY.image_size:
            raise SamLiteError(
                f"--init 要 tiny 的权重（输入边长 {TINY.image_size}），"
                f"{init} 的输入边长是 {size}。"
            )
        return sam
    sam = sam_from_config(TINY)
    init_for_training(sam)
    return sam


def run_with_progress(trainer: Trainer, bar: type) -> None:
    """跑到头，进度条上显示最近的 IoU；Ctrl-C 时说清楚怎么接着来。"""
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
            trainer.run(show)
        except KeyboardInterrupt:
            raise SamLiteError(
                f"停在第 {trainer.step} 步，检查点存好了。原命令加 --resume 接着来。"
            ) from None


BAR = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}"
