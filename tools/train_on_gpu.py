"""在一台借来的机器上，限定的分钟数里做完：画场景，训练，存下可以接着来的一份。

用法：``python tools/train_on_gpu.py --out 结果 --minutes 29``；下次从结果接着来，另给
``--start 结果``。开头几分钟用全部核心画场景，其余时间训练：学习率不变，导出的是各步的
滑动平均，所以什么时候停都可以。

结果文件夹里：``sam_lite_tiny.safetensors`` 是滑动平均（float16），``state-00.bin`` 起是
接着训练要的，优化器的动量存成 bfloat16，切成每片不到 16 MB。
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sam_lite.cli.parser import count, positive
from sam_lite.cli.train import SCENE_SIZE, starting_model
from sam_lite.config import TrainConfig
from sam_lite.errors import SamLiteError
from sam_lite.files.atomic import atomic_file
from sam_lite.files.reading import read_state_dict
from sam_lite.learn.checkpoint import make_folder
from sam_lite.learn.data import Mixture, Shards, draw_shards
from sam_lite.learn.interrupts import Interrupts
from sam_lite.learn.loop import Loop, SceneGradients
from sam_lite.scenes.stickers import read_collection
from sam_lite.weights import SHIPPED_FILES, save

PIECE = 16_000_000  # 一片最多多少字节
MOST = 64_000_000  # 带进去的和带出来的合起来最多多少字节
CLOSING = 0.03  # 留出几成时间收尾：最后一步、存盘


def main(argv: list[str] | None = None) -> int:
    """画、训练、存下；返回 0。"""
    args = parse(argv)
    begun = time.monotonic()

    def spent() -> float:
        return (time.monotonic() - begun) / 60

    sam = starting_model(args)
    with Interrupts() as stop, tempfile.TemporaryDirectory() as folder:
        stickers = read_collection(args.stickers) if args.stickers else None
        size = max(SCENE_SIZE, args.size)
        mixture = Mixture(1, 1, 1, size, stickers, args.seed)
        drawn = 0
        for more in draw_shards(mixture, folder, args.workers, args.each):
            drawn += more
            if spent() >= args.draw_minutes or stop:
                break
        print(f"画了 {drawn} 张，用了 {spent():.1f} 分钟", flush=True)
        config = TrainConfig(
            minutes=max(0.01, (1 - CLOSING) * args.minutes - spent()),
            batch=args.batch,
            schedule="flat",
            optimizer="muon",
            bfloat16=True,
            compile=args.compile,
            seed=args.seed,
        )
        shards = Shards(folder, args.seed)
        gradients = SceneGradients(sam, config, shards, workers=args.workers)
        loop = Loop(sam, config, gradients)
        if args.start:
            unpack(loop, args.start)
        first = loop.step

        def show(record: dict[str, float]) -> None:
            if loop.step % 100 == 0:
                text = f"第 {loop.step} 步，损失 {record['loss']:.3f}"
                print(f"{text}，{spent():.1f} 分钟", flush=True)

        loop.run(show, stop=stop.__bool__)
    total = pack(loop, args.out) + (sizes(args.start) if args.start else 0)
    text = f"走了 {loop.step - first} 步，共 {loop.step} 步"
    print(f"{text}；带进带出共 {total / 1e6:.1f} MB，用了 {spent():.1f} 分钟")
    if total > MOST:
        raise SamLiteError(f"结果都在 {args.out}，但超过了 {MOST / 1e6:.0f} MB。")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """读选项。"""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="结果的文件夹")
    add("--start", type=Path, help="从这个结果接着来")
    add("--minutes", type=positive, default=29.0, help="一共多少分钟")
    add("--draw-minutes", type=positive, default=4.0, help="其中画场景多少分钟")
    add("--batch", type=count, default=32, help="每步几张图")
    add("--stickers", type=Path, help="整理好的贴纸；不给就用随包的")
    spare = max(0, (os.cpu_count() or 1) - 1)
    add("--workers", type=int, default=spare, help="几个进程画场景")
    add("--each", type=count, default=256, help="一个场景文件几张")
    add("--init", help="从这份权重开始，例如 tiny；--start 优先")
    add("--size", type=count, default=256, help="输入边长")
    add("--patch", type=count, default=8, help="图像块边长")
    add("--window", type=count, default=7, help="窗口边长")
    add("--compile", action="store_true", help="用 torch.compile")
    add("--device", default="auto", help="auto 是有 cuda 就用")
    add("--seed", type=int, default=0, help="随机种子；接着来时换一个，场景就是新的")
    return parser.parse_args(argv)


# ---- 存成几片，再拼回来 --------------------------------------------------------


def pack(loop: Loop, folder: Path) -> int:
    """权重和切成片的状态写进文件夹，返回一共多少字节。"""
    make_folder(folder)
    save(loop.result, folder / SHIPPED_FILES["tiny"])
    state = loop.state()
    state["mean"] = {}  # 就是权重文件里的
    state["optimizer"] = [cast(each, torch.bfloat16) for each in state["optimizer"]]
    file = io.BytesIO()
    torch.save(state, file)
    data = file.getvalue()
    for old in folder.glob("state-*.bin"):
        old.unlink()
    for n, start in enumerate(range(0, len(data), PIECE)):
        with atomic_file(folder / f"state-{n:02d}.bin") as piece:
            piece.write(data[start : start + PIECE])
    return sizes(folder)


def unpack(loop: Loop, folder: Path) -> None:
    """把 pack 写的装回去，步数接着数，时间从零算；不全、尺寸不同抛 SamLiteError。"""
    pieces = sorted(folder.glob("state-*.bin"))
    data = io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))
    try:
        state = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # 少一片、坏一片，torch 报的错五花八门
        raise SamLiteError(f"{folder} 里的 state-*.bin 不全或坏了。") from error
    state["mean"] = read_state_dict(folder / SHIPPED_FILES["tiny"])
    state["optimizer"] = [cast(each, torch.float32) for each in state["optimizer"]]
    # 每次的批量、种子、分钟数可以不同，所以不查设置
    loop.restore(state | {"config": vars(loop.config), "elapsed": 0.0})


def cast(value: Any, dtype: torch.dtype) -> Any:
    """嵌套的字典和列表里，浮点张量都换成 dtype；单个数（步数）不换。"""
    if isinstance(value, dict):
        return {key: cast(each, dtype) for key, each in value.items()}
    if isinstance(value, list):
        return [cast(each, dtype) for each in value]
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(dtype) if floating and value.ndim else value


def sizes(folder: Path) -> int:
    """权重和各片一共多少字节。"""
    files = [folder / SHIPPED_FILES["tiny"], *folder.glob("state-*.bin")]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    raise SystemExit(main())
