"""命令行 ``sam-lite``：segment、demo、evaluate、train。

退出码：0 成功；1 做不成（照片读不了、权重没有……）；2 命令写错。出错时只在标准错误
上写一行中文；加 ``--debug`` 或设环境变量 ``SAM_LITE_DEBUG=1`` 才显示完整的调用记录。
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import viz
from .errors import SamLiteError

if TYPE_CHECKING:
    from .predictor import SamPredictor

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]  # x, y, 1 前景或 0 背景
PHOTOS = Path(__file__).parent / "assets" / "photos"


class Demo(NamedTuple):
    """演示照片上的一个提示：一个框，或者一个点。"""

    what: str
    box: Box | None = None
    point: tuple[float, float] | None = None


DEMO_PROMPTS = {
    "coins": Demo("一枚硬币", box=(305, 15, 366, 73)),
    "coffee": Demo("咖啡杯", box=(172, 16, 411, 240)),
    "cat": Demo("猫的眼睛", box=(135, 82, 212, 150)),
    "astronaut": Demo("宇航员的头", box=(151, 14, 302, 190)),
    "rocket": Demo("火箭", box=(305, 124, 336, 410)),
}


# ---- 提示：读数、核对 ----------------------------------------------------------


def _numbers(text: str, counts: tuple[int, ...], form: str) -> list[float]:
    """把 ``1,2,3`` 读成几个数；中文逗号也收。"""
    try:
        values = [float(part) for part in text.replace("，", ",").split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(math.isfinite(v) for v in values):
        raise argparse.ArgumentTypeError(f"要写成 {form}，来的是 {text!r}")
    return values


def point(text: str) -> Point:
    """读 ``x,y`` 或 ``x,y,标签``；标签 1 前景、0 背景，不写就是 1。"""
    x, y, *rest = _numbers(text, (2, 3), "x,y 或 x,y,0 或 x,y,1")
    label = rest[0] if rest else 1
    if label not in (0, 1):
        raise argparse.ArgumentTypeError(f"点的标签只有 0 和 1，来的是 {text!r}")
    return x, y, int(label)


def box(text: str) -> Box:
    """读 ``x0,y0,x1,y1``，左上角在前。"""
    x0, y0, x1, y1 = _numbers(text, (4,), "x0,y0,x1,y1")
    if x0 >= x1 or y0 >= y1:
        raise argparse.ArgumentTypeError(
            f"框的左上角要在右下角的左上方（x0 < x1，y0 < y1），来的是 {text!r}"
        )
    return x0, y0, x1, y1


def count(text: str) -> int:
    """读一个正整数。"""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"要一个正整数，来的是 {text!r}")
    return int(text)


def seed(text: str) -> int:
    """读一个不小于 0 的整数。"""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"要一个不小于 0 的整数，来的是 {text!r}")
    return int(text)


def minutes(text: str) -> float:
    """读一个正数。"""
    value = _numbers(text, (1,), "一个正数")[0]
    if value <= 0:
        raise argparse.ArgumentTypeError(f"要一个正数，来的是 {text!r}")
    return value


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


# ---- segment -----------------------------------------------------------------


class Cut(NamedTuple):
    """一次分割的结果：掩码 ``(N, H, W)``、预测 IoU ``(N,)``、三段用时（秒）。"""

    masks: NDArray[np.bool_]
    scores: NDArray[np.floating[Any]]
    seconds: tuple[float, float, float]  # 读权重、编码、解码


def segment(args: argparse.Namespace) -> None:
    """``sam-lite segment``：照片加提示，写出掩码。"""
    check_prompts(args)
    if args.overlay is not None:
        viz.check_output(args.overlay)
    number = 3 if args.multimask else max(1, len(args.box))
    files = mask_files(args.out, number)
    for file in files:
        viz.check_output(file, lossless=True)
    written = [*files, args.overlay] if args.overlay else files
    for file in written:
        if file.exists() and args.photo.exists() and file.samefile(args.photo):
            raise SamLiteError(f"{file} 就是原照片，不能覆盖")
    if args.overlay in files:
        raise SamLiteError(f"--overlay 和掩码都要写 {args.overlay}，请换一个名字")

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
        args.parser.error("只有背景点：至少给一个前景点或一个框")
    if len(args.box) > 1 and args.point:
        args.parser.error("几个框各出一张掩码，不能再加点")
    if len(args.box) > 1 and args.multimask:
        args.parser.error("--multimask 只能用于一个提示，不能用于几个框")


def mask_files(out: Path, number: int) -> list[Path]:
    """一张掩码写 ``out`` 本身，几张写 ``名字_1``、``名字_2``……"""
    if number == 1:
        return [out]
    names = (f"{out.stem}_{i}{out.suffix}" for i in range(1, number + 1))
    return [out.with_name(name) for name in names]


def cut_out(args: argparse.Namespace, photo: viz.Picture) -> Cut:
    """读权重、编码照片、解码提示。"""
    start = time.perf_counter()
    predictor = load_predictor(args)
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


def load_predictor(args: argparse.Namespace) -> SamPredictor:
    """按 ``--model``、``--checkpoint``、``--device`` 读模型，返回预测器。"""
    from .predictor import SamPredictor
    from .weights import load

    name = str(args.checkpoint or args.model)
    sam = load(name, device=pick_device(args.device))
    return SamPredictor(sam)


def pick_device(name: str) -> str:
    """``auto`` 依次试 cuda、mps、cpu；点了名的设备用不了就抛 ``SamLiteError``。"""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SamLiteError(f"设备 {name!r} 用不了：{reason}") from error
    return name


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
    """叠加图：掩码、轮廓和提示。"""
    xyl = np.array(points, dtype=float).reshape(-1, 3)  # (N, 3)
    return viz.overlay(
        photo,
        masks,
        points=xyl[:, :2] if len(xyl) else None,
        labels=xyl[:, 2] if len(xyl) else None,
        box=np.array(boxes) if boxes else None,
    )


def clock(predictor: SamPredictor) -> float:
    """现在的时刻，秒；GPU 先等它把手上的活做完。"""
    import torch

    if torch.device(predictor.device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def show_seconds(seconds: tuple[float, float, float]) -> str:
    """三段用时的一行字。"""
    load, encode, decode = seconds
    return f"用时：读权重 {load:.2f} s，编码照片 {encode:.2f} s，解码 {decode:.3f} s"


# ---- demo --------------------------------------------------------------------


def demo(args: argparse.Namespace) -> None:
    """``sam-lite demo``：在自带的照片上分割，左边原图，右边掩码和提示。"""
    viz.check_output(args.out)
    start = time.perf_counter()
    predictor = load_predictor(args)
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


# ---- evaluate、train ---------------------------------------------------------


def evaluate(args: argparse.Namespace) -> None:
    """``sam-lite evaluate``：评测场景上的平均 IoU，和老办法比。"""
    from . import evaluation

    if args.json is not None:
        viz.check_writable(args.json)
    evaluation.eval_seeds(args.scenes, args.seed)
    sam = load_predictor(args).model
    start = time.perf_counter()
    result = evaluation.evaluate(
        sam, args.scenes, args.seed, click=args.click, progress=show_progress
    )
    name = str(args.checkpoint or args.model)
    print(f"模型 {name}，种子 {args.seed}，{args.scenes} 个场景", end="，")
    print(f"用时 {time.perf_counter() - start:.0f} s")
    print(evaluation.format_table(result))
    if args.json is not None:
        text = json.dumps({"model": name} | result, ensure_ascii=False, indent=2)
        viz.write_atomic(args.json, (text + "\n").encode())
        print(f"写好了 {args.json}")


def show_progress(done: int, total: int, what: str = "评测") -> None:
    """进度写到标准错误：终端里原地刷新，别处每一成写一行。"""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{what} {done}/{total}", end=end, file=sys.stderr, flush=True)
    elif done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{what} {done}/{total}", file=sys.stderr, flush=True)


def train(args: argparse.Namespace) -> None:
    """``sam-lite train``：先把场景画好，再训练；中断后加 ``--resume`` 接着来。"""
    from . import config, model, scene_bank, training

    names = ("steps", "minutes", "batch", "prompts", "seed")
    given = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if not args.resume and (args.out / "state.pt").exists():
        raise SamLiteError(f"{args.out} 里已有存档：加 --resume 接着训练，或换 --out")
    sam = model.sam_from_config(config.TINY).to(pick_device(args.device))
    training.init_for_training(sam)
    bank = scene_bank.SceneBank(
        args.out / "scenes", args.scenes, config.TINY.image_size
    )
    drawn = len(bank.ready())
    for done, _ in enumerate(bank.fill(), start=drawn + 1):
        show_progress(done, args.scenes, "画场景")
    trainer = training.Trainer(sam, bank, training.TrainConfig(**given), args.out)
    if args.resume and not trainer.resume():
        raise SamLiteError(f"{args.out} 里没有存档，去掉 --resume 从头训练")

    def report(record: dict[str, float]) -> None:
        if trainer.step % 50 == 0:
            numbers = "，".join(f"{name} {value:.4g}" for name, value in record.items())
            print(f"第 {trainer.step} 步（{trainer.done:.1%}）：{numbers}", flush=True)

    trainer.run(report)
    print(f"训练完了，权重在 {args.out / 'state.pt'}")


# ---- 解析器：argparse 自己的话也换成中文 ---------------------------------------

ARGPARSE_CHINESE = {
    "usage: ": "用法：",
    "positional arguments": "位置参数",
    "options": "选项",
    "optional arguments": "选项",
    "show this help message and exit": "显示这段说明，然后退出",
    "argument %(argument_name)s: %(message)s": "%(argument_name)s：%(message)s",
    "the following arguments are required: %s": "缺少参数：%s",
    "one of the arguments %s is required": "这些参数要给一个：%s",
    "expected one argument": "后面要跟一个值",
    "expected at least one argument": "后面至少要跟一个值",
    "expected at most one argument": "后面最多跟一个值",
    "expected %s argument": "后面要跟 %s 个值",
    "expected %s arguments": "后面要跟 %s 个值",
    "unrecognized arguments: %s": "不认识的参数：%s",
    "not allowed with argument %s": "不能和 %s 一起用",
    "ignored explicit argument %r": "不带值，却给了 %r",
    "ambiguous option: %(option)s could match %(matches)s": (
        "%(option)s 不明确，可能是 %(matches)s"
    ),
    "invalid %(type)s value: %(value)r": "值 %(value)r 不是 %(type)s",
    "invalid choice: %(value)r (choose from %(choices)s)": (
        "没有 %(value)r 这一项，可以选：%(choices)s"
    ),
    "invalid choice: %(value)r, maybe you meant %(suggestion)r? "
    "(choose from %(choices)s)": (
        "没有 %(value)r 这一项，是不是 %(suggestion)r？可以选：%(choices)s"
    ),
    "unknown parser %(parser_name)r (choices: %(choices)s)": (
        "没有命令 %(parser_name)r，可以选：%(choices)s"
    ),
}


@contextmanager
def chinese_argparse() -> Iterator[None]:
    """在这段时间里，argparse 的提示用中文；表里没有的话照旧是英文。"""
    hooks = {
        "_": lambda text: ARGPARSE_CHINESE.get(text, text),
        "ngettext": lambda one, many, n: ARGPARSE_CHINESE.get(
            many, one if n == 1 else many
        ),
    }
    before = {name: getattr(argparse, name) for name in hooks}
    for name, hook in hooks.items():
        setattr(argparse, name, hook)
    try:
        yield
    finally:
        for name, old in before.items():
            setattr(argparse, name, old)


class Formatter(argparse.RawTextHelpFormatter):
    """帮助里的换行照写的来；小标题后面用全角冒号。"""

    def format_help(self) -> str:
        """排好的帮助。"""
        return re.sub(r"(?m)^(位置参数|选项|命令):$", r"\1：", super().format_help())


class Parser(argparse.ArgumentParser):
    """出错时只写一行中文的解析器。"""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """以退出码 2 结束。"""
        self.exit(2, f"{self.prog}：{message}（用法见 {self.prog} --help）\n")


SEGMENT_HELP = """\
照片加提示，写出掩码（白 255 是物体，黑 0 是其余）。坐标是像素，原点在左上角。

几个 --point 合起来是一个提示，出一张掩码；只有一个点时有歧义，取三张候选里
预测 IoU 最高的。--point 可以和一个 --box 合用。
几个 --box 各出一张掩码，写成 名字_1.png、名字_2.png……，次序和框相同。
--multimask 把一个提示的三张候选都写出来，同样编号，按预测 IoU 从高到低。

例：sam-lite segment cat.jpg --point 230,150 --overlay overlay.png
    sam-lite segment cat.jpg --box 20,0,365,300 --point 300,20,0"""


def build_parser() -> Parser:
    """整个命令行的解析器。"""
    from . import __version__

    parser = Parser(prog="sam-lite", description="小而完整的 Segment Anything。")
    parser.add_argument(
        "--version", action="version", version=__version__, help="显示版本号"
    )
    commands = parser.add_subparsers(title="命令", metavar="COMMAND", required=True)

    sub = _command(commands, "segment", "给照片加点或框，写出掩码", segment)
    sub.description = SEGMENT_HELP
    _add_segment(sub)
    _add_model(sub)

    sub = _command(commands, "demo", "在自带的照片上看看效果", demo)
    which = sub.add_mutually_exclusive_group()
    _option(which, "--photo", "哪张照片", choices=list(DEMO_PROMPTS), default="coins")
    _option(which, "--all", "五张照片都做，拼成一张", action="store_true")
    out = Path("sam_lite_demo.png")
    _option(sub, "--out", "写到哪里", type=Path, default=out, metavar="FILE")
    _add_model(sub)

    sub = _command(commands, "evaluate", "在没训练过的场景上打分，和老办法比", evaluate)
    _option(sub, "--scenes", "多少个场景", type=count, default=500, metavar="N")
    _option(sub, "--seed", "第几套场景", type=seed, default=0, metavar="N")
    clicks = ("random", "centre")
    text = "第一次点击：掩码里随机，或离边最远的一点"
    _option(sub, "--click", text, choices=clicks, default="random")
    _option(sub, "--json", "全部数字另存成 JSON", type=Path, metavar="FILE")
    _add_model(sub)

    sub = _command(commands, "train", "在程序画的场景上训练", train)
    _add_train(sub)
    _add_device(sub)
    return parser


def _command(commands: Any, name: str, text: str, run: Any) -> Parser:
    """加一个子命令。"""
    sub: Parser = commands.add_parser(name, help=text, description=text + "。")
    sub.set_defaults(run=run, parser=sub)
    return sub


def _add_model(sub: Parser) -> None:
    text = "模型：tiny（自带权重）、vit_b、vit_l、vit_h"
    _option(sub, "--model", text, default="tiny", metavar="NAME")
    text = "权重文件；型号由文件自己认出，不看 --model"
    _option(sub, "--checkpoint", text, type=Path, metavar="FILE")
    _add_device(sub)


def _add_device(sub: Parser) -> None:
    text = "auto、cpu、cuda、mps；auto 是有什么用什么"
    _option(sub, "--device", text, default="auto", metavar="NAME")
    _option(sub, "--debug", "出错时显示完整的调用记录", action="store_true")


def _option(parser: Any, flag: str, text: str, **options: Any) -> None:
    """加一个选项；有默认值时写进说明。"""
    default = options.get("default")
    if default is not None:
        text += f"（默认 {default}）"
    parser.add_argument(flag, help=text, **options)


def _add_segment(sub: Parser) -> None:
    sub.add_argument("photo", metavar="PHOTO", type=Path, help="照片，Pillow 能读就行")
    repeat: dict[str, Any] = {"action": "append", "default": []}
    text = "一个点，末尾 0 背景、1 前景（不写就是 1）；可以重复"
    sub.add_argument("--point", help=text, type=point, metavar="x,y[,0|1]", **repeat)
    text = "一个框，左上角和右下角；可以重复"
    sub.add_argument("--box", help=text, type=box, metavar="x0,y0,x1,y1", **repeat)
    out = Path("mask.png")
    _option(sub, "--out", "掩码写到哪里", type=Path, default=out, metavar="FILE")
    _option(sub, "--overlay", "叠加图写到哪里；不给就不写", type=Path, metavar="FILE")
    _option(sub, "--multimask", "三张候选掩码都写出来", action="store_true")


def _add_train(sub: Parser) -> None:
    out = Path("runs/tiny")
    _option(sub, "--out", "检查点写到哪个文件夹", type=Path, default=out, metavar="DIR")
    _option(sub, "--steps", "训练多少步", type=count, metavar="N")
    _option(sub, "--minutes", "最多训练多少分钟", type=minutes, metavar="N")
    _option(sub, "--batch", "一步几张图", type=count, metavar="N")
    _option(sub, "--prompts", "一张图几个提示", type=count, metavar="N")
    text = "事先画好多少个场景（一个占 0.25 MB 磁盘）"
    _option(sub, "--scenes", text, type=count, default=4000, metavar="N")
    _option(sub, "--seed", "随机种子", type=seed, metavar="N")
    _option(sub, "--resume", "从 --out 里的检查点接着训练", action="store_true")


# ---- 入口 --------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """跑一条命令，返回退出码。"""
    debug = bool(os.environ.get("SAM_LITE_DEBUG"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # 终端的编码没有汉字时，别因此中断
            stream.reconfigure(errors="replace")
    try:
        with chinese_argparse():
            args = build_parser().parse_args(argv)
        debug = debug or args.debug
        args.run(args)
    except SystemExit as stop:  # --help、--version 和用法错误
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print("sam-lite：已中断", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"sam-lite：{explain(error)}", file=sys.stderr)
        return 1
    return 0


def explain(error: Exception) -> str:
    """一行中文说清出了什么事；预料之外的错误附上类型和看全文的办法。"""
    text = " ".join(str(error).split())
    if isinstance(error, SamLiteError):
        return text
    return f"意外的错误 {type(error).__name__}：{text}（加 --debug 看完整的调用记录）"


if __name__ == "__main__":
    sys.exit(main())
