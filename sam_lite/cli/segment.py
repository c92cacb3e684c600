"""命令 ``sam-lite segment``：照片加提示，写出掩码。"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import viz
from ..cli import model as cli_model
from ..cli.model import clock
from ..cli.parser import numbers
from ..errors import SamLiteError
from ..predictor import SamPredictor

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]  # x, y, 1 正点或 0 负点

DESCRIPTION = """\
照片加提示，写出掩码（白 255 是物体，黑 0 是其余）。坐标是像素，
(0, 0) 是左上角那个像素。

几个 --point 合起来是一个提示，出一张掩码；只有一个点时有歧义，取三张候选里
预测 IoU 最高的。--point 可以和一个 --box 合用。
几个 --box 各出一张掩码，写成 名字_1.png、名字_2.png……，次序和框相同。
--multimask 把一个提示的三张候选都写出来，同样编号，按预测 IoU 从高到低。

例：sam-lite segment cat.jpg --point 230,150 --overlay overlay.png
    sam-lite segment cat.jpg --box 20,0,365,300 --point 300,20,0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 segment 的全部选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("photo", metavar="PHOTO", type=Path, help="照片，Pillow 能读就行")
    text = "一个点，末尾 0 负点、1 正点（不写就是 1）；可以重复"
    repeat: dict[str, Any] = {"action": "append", "default": [], "help": text}
    add("--point", type=point, metavar="x,y[,0|1]", **repeat)
    repeat["help"] = "一个框，左上角和右下角；可以重复"
    add("--box", type=box, metavar="x0,y0,x1,y1", **repeat)
    out = Path("mask.png")
    add("--out", type=Path, default=out, metavar="FILE", help="掩码写到哪里")
    add("--overlay", type=Path, metavar="FILE", help="叠加图写到哪里；不给就不写")
    add("--multimask", action="store_true", help="三张候选掩码都写出来")
    cli_model.add_arguments(parser)


def point(text: str) -> Point:
    """读 ``x,y`` 或 ``x,y,标签``；标签 1 正点、0 负点，不写就是 1。"""
    x, y, *rest = numbers(text, (2, 3), "x,y 或 x,y,0 或 x,y,1")
    label = rest[0] if rest else 1
    if label not in (0, 1):
        raise argparse.ArgumentTypeError(f"点的标签只有 0 和 1，来的是 {text!r}")
    return x, y, int(label)


def box(text: str) -> Box:
    """读 ``x0,y0,x1,y1``，左上角在前。"""
    x0, y0, x1, y1 = numbers(text, (4,), "x0,y0,x1,y1")
    if x0 >= x1 or y0 >= y1:
        raise argparse.ArgumentTypeError(
            f"框的左上角要在右下角的左上方（x0 < x1，y0 < y1），来的是 {text!r}"
        )
    return x0, y0, x1, y1


def check_inside(points: list[Point], boxes: list[Box], photo: viz.Picture) -> None:
    """点和框都要落在照片里，否则抛 ``SamLiteError``。"""
    height, width = photo.shape[:2]
    size = f"照片宽 {width}、高 {height}"
    for x, y, _ in points:
        if not (0 <= x < width and 0 <= y < height):
            raise SamLiteError(f"点 {x:g},{y:g} 在照片外面：{size}")
    for corners in boxes:
        x0, y0, x1, y1 = corners
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            text = ",".join(f"{c:g}" for c in corners)
            raise SamLiteError(f"框 {text} 伸到照片外面：{size}")


class Cut(NamedTuple):
    """一次分割的结果：掩码 ``(N, H, W)``、预测 IoU ``(N,)``、三段用时（秒）。"""

    masks: NDArray[np.bool_]
    scores: NDArray[np.floating[Any]]
    seconds: tuple[float, float, float]  # 读权重、编码、解码


def segment(args: argparse.Namespace) -> None:
    """分割一张照片，写出掩码；给了 ``--overlay`` 就再画一张叠加图。"""
    check_prompts(args)
    files = mask_files(args)
    photo = viz.read_photo(args.photo)
    check_inside(args.point, args.box, photo)
    cut = cut_out(args, photo)
    print(f"照片 {args.photo}：宽 {photo.shape[1]}，高 {photo.shape[0]}")
    for mask, score, file in zip(cut.masks, cut.scores, files, strict=True):
        viz.save_image(file, mask)
        print(f"{file}：预测 IoU {score:.3f}，占画面 {mask.mean():.1%}")
    if args.overlay is not None:
        viz.save_image(args.overlay, draw(photo, cut.masks, args.point, args.box))
        print(f"{args.overlay}：叠加图")
    print(show_seconds(cut.seconds))


def check_prompts(args: argparse.Namespace) -> None:
    """提示的搭配要说得通，否则以退出码 2 结束。"""
    if not args.point and not args.box:
        args.parser.error("至少给一个 --point 或 --box")
    if not args.box and not any(label for *_, label in args.point):
        args.parser.error("只有负点：至少给一个正点或一个框")
    if len(args.box) > 1 and args.point:
        args.parser.error("几个框各出一张掩码，不能再加点")
    if len(args.box) > 1 and args.multimask:
        args.parser.error("--multimask 只能用于一个提示，不能用于几个框")


def mask_files(args: argparse.Namespace) -> list[Path]:
    """掩码写进哪几个文件：一张写 ``--out`` 本身，几张写 ``名字_1``、``名字_2`` 等等。

    跑模型之前先看清楚：都能写，不盖住原照片，也不和叠加图同名。
    """
    number, out = 3 if args.multimask else max(1, len(args.box)), args.out
    names = [f"{out.stem}_{i}{out.suffix}" for i in range(1, number + 1)]
    files = [out] if number == 1 else [out.with_name(name) for name in names]
    for file in files:
        viz.check_output(file, lossless=True)
    if args.overlay is not None:
        viz.check_output(args.overlay)
    for file in [*files, args.overlay] if args.overlay else files:
        if file.exists() and args.photo.exists() and file.samefile(args.photo):
            raise SamLiteError(f"{file} 就是原照片，不能覆盖")
    if args.overlay and args.overlay.resolve() in [file.resolve() for file in files]:
        raise SamLiteError(f"--overlay 和掩码都要写 {args.overlay}，换一个名字")
    return files


def cut_out(args: argparse.Namespace, photo: viz.Picture) -> Cut:
    """读权重、编码照片、解码提示。"""
    start = time.perf_counter()
    predictor = cli_model.load_predictor(args)
    loaded = clock(predictor)
    predictor.set_image(photo)
    encoded = clock(predictor)
    prompts = [(args.point, b) for b in args.box] or [(args.point, None)]
    if args.multimask:
        masks, scores, _ = predict(predictor, *prompts[0], multimask=True)
        order = np.argsort(-scores, kind="stable")  # 从高到低
        masks, scores = masks[order], scores[order]
    else:
        best = [best_mask(predictor, *prompt) for prompt in prompts]
        masks = np.stack([mask for mask, _ in best])
        scores = np.array([score for _, score in best])
    done = clock(predictor)
    return Cut(masks, scores, (loaded - start, encoded - loaded, done - encoded))


def predict(
    predictor: SamPredictor, points: list[Point], corners: Box | None, multimask: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """一个提示（点合在一起，可以再加一个框）-> 掩码 (C, H, W)、预测 IoU (C,)。"""
    xyl = np.array(points, dtype=np.float32).reshape(-1, 3)  # (N, 3)
    return predictor.predict(
        point_coords=xyl[:, :2] if len(xyl) else None,
        point_labels=xyl[:, 2].astype(int) if len(xyl) else None,
        box=None if corners is None else np.array(corners, dtype=np.float32),
        multimask_output=multimask,
    )


def best_mask(
    predictor: SamPredictor, points: list[Point], corners: Box | None
) -> tuple[NDArray[Any], float]:
    """一个孤零零的点有歧义：取三张里预测 IoU 最高的；别的提示直接要一张。"""
    lone = len(points) == 1 and corners is None
    masks, scores, _ = predict(predictor, points, corners, multimask=lone)
    best = int(np.argmax(scores))
    return masks[best], float(scores[best])


def draw(
    photo: viz.Picture, masks: NDArray[Any], points: list[Point], boxes: list[Box]
) -> viz.Picture:
    """画叠加图：掩码、轮廓和提示。"""
    xyl = np.array(points, dtype=float).reshape(-1, 3)  # (N, 3)
    return viz.overlay(
        photo,
        masks,
        points=xyl[:, :2] if len(xyl) else None,
        labels=xyl[:, 2] if len(xyl) else None,
        box=np.array(boxes) if boxes else None,
    )


def show_seconds(seconds: tuple[float, float, float]) -> str:
    """把三段用时写成一行字。"""
    load, encode, decode = seconds
    return f"用时：读权重 {load:.2f} s，编码照片 {encode:.2f} s，解码 {decode:.3f} s"
