"""场景里的哪样成分让真照片上的掩码变好：一次只改一样，各训练同样多步，再打分。

用法：``python -m benchmarks.content``。每一组从同一份权重出发，种子、步数都一样，只有
场景里画什么不同；做完一组记一组（content.json、CONTENT.md），断了再敲一遍就接着做，做完的不
重做。``--list`` 印出有哪些组。
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sam_lite.cli.parser import Parser, count, positive
from sam_lite.config import TrainConfig
from sam_lite.errors import SamLiteError, problem
from sam_lite.learn.evaluation import eval_seeds, make_task, score_model
from sam_lite.learn.files import make_folder
from sam_lite.learn.interrupts import Interrupts
from sam_lite.learn.photos import CLICKS, MODEL, evaluate_photos
from sam_lite.learn.trainer import Trainer
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor
from sam_lite.scenes import make_scene
from sam_lite.scenes.bank import SceneBank
from sam_lite.scenes.content import BASE, CONTENTS, NEW, OLD, RICH, SceneContent
from sam_lite.weights import load

from . import store
from .content_page import format_page
from .photos.truth import Photos
from .study import attempt, note

HERE = Path(__file__).parent
SEED_STEP = 1_000_000  # 换一个种子，场景也从别处画起
# 从练过的权重接着学：学习率低些，不要开头那一段均衡的 BCE
DEFAULTS = TrainConfig(
    steps=400,
    prompts=6,
    lr=5e-4,
    warmup=20,
    schedule="flat",
    balanced_steps=1,
    min_area=64,
)


class Arm(NamedTuple):
    """一组：画什么，种子是几；steps 为假就不训练。"""

    name: str
    content: SceneContent
    seed: int = 0
    trained: bool = True


def all_arms() -> list[Arm]:
    """不训练的、两个种子的 BASE、去掉一样、添上一样、全都添上。"""
    arms = [
        Arm("start", BASE, trained=False),
        Arm("base", BASE),
        Arm("base-2", BASE, 1),
    ]
    arms += [Arm(f"-{name}", replace(BASE, **{name: 0.0})) for name in OLD]
    arms += [
        Arm(f"+{name}", replace(BASE, **{name: getattr(RICH, name)})) for name in NEW
    ]
    return [*arms, Arm("rich", RICH)]


def train(arm: Arm, sam: Sam, args: argparse.Namespace, folder: Path) -> None:
    """画这一组的场景，训练 sam；断过就从检查点接着来。"""
    first = arm.seed * SEED_STEP
    with Interrupts() as stop:
        bank = SceneBank(folder / "bank", args.scenes, args.size, first, arm.content)
        for _ in bank.fill(args.workers):
            stop.check()
        config = replace(args.config, seed=arm.seed)
        trainer = Trainer(sam, bank, config, folder / "run", note)
        trainer.resume()
        trainer.run(stop=stop.__bool__)
        if trainer.done < 1:
            stop.check()


def score_scenes(sam: Sam, scenes: int, content: SceneContent) -> dict[str, float]:
    """在没训练过的场景上的平均 IoU，四种提示。"""
    predictor, found = SamPredictor(sam), []
    for seed in eval_seeds(scenes):
        task = make_task(make_scene(seed, content=content), "random", seed)
        if task is not None:
            found.append(score_model(predictor, task))
    return {
        key: float(np.mean(np.concatenate([one[key] for one in found])))
        for key in MODEL
    }


def score(sam: Sam, args: argparse.Namespace) -> dict[str, Any]:
    """十张照片（逐张）和两种没训练过的场景上的分数。"""
    photos = Photos()
    found = evaluate_photos(sam, photos, args.clicks, baselines=False)
    pairs = zip(photos.photos, found["photos"], strict=True)
    return {
        "miou": found["miou"],
        "miou_objects": found["miou_objects"],
        "photos": {photo.name: one["miou"] for photo, one in pairs},
        "scenes": {
            name: score_scenes(sam, args.eval_scenes, content)
            for name, content in CONTENTS.items()
        },
    }


def run(arm: Arm, args: argparse.Namespace) -> dict[str, Any]:
    """做一组，返回可以写成 JSON 的结果；素材库和检查点用完就删。"""
    begin, folder = time.monotonic(), args.work / arm.name
    sam = load(args.init)
    if arm.trained:
        train(arm, sam, args, folder)
    result = score(sam, args)
    if folder.exists() and not args.keep:
        shutil.rmtree(folder)
    minutes = (time.monotonic() - begin) / 60
    found = {"content": asdict(arm.content), "seed": arm.seed, "minutes": minutes}
    text = json.dumps(found | result)
    rounded: dict[str, Any] = json.loads(text, parse_float=lambda x: round(float(x), 4))
    return rounded


# ---- 结果的文件 ----------------------------------------------------------------


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """结果要能相比，这些就得一样。"""
    digest = hashlib.sha256()
    for tensor in load(args.init).state_dict().values():
        digest.update(tensor.float().numpy().tobytes())
    names = ("scenes", "size", "eval_scenes", "clicks")
    return {
        "weights": digest.hexdigest(),
        "rich": asdict(RICH),
        "config": asdict(args.config),
        **{name: getattr(args, name) for name in names},
    }


def read(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """读已有的结果；还没有就是空的；设置不同时抛 SamLiteError。"""
    if not path.is_file():
        return {"settings": wanted, "arms": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    old = found["settings"]
    changed = [name for name in wanted if wanted[name] != old.get(name)]
    if changed:
        words = "、".join(changed)
        raise SamLiteError(
            f"{path} 里的结果是用别的设置做的（{words} 不同），不能放在一起比。"
            "改回原来的设置，或换一个 --out。"
        )
    return found


def record(out: Path, wanted: dict[str, Any], arm: Arm, result: dict) -> None:
    """记下一组，重写那一页；先重读一遍，别的进程也许刚记过。"""
    found = read(out / "content.json", wanted)
    every = found["arms"] | {arm.name: result}
    found["arms"] = {a.name: every[a.name] for a in all_arms() if a.name in every}
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    store.write(out / "content.json", text)
    store.write(out / "CONTENT.md", format_page(found))


# ---- 命令行 --------------------------------------------------------------------


def parse_settings(pairs: list[str]) -> TrainConfig:
    """由“名字=值”改训练的设置；不认得的名字、读不懂的值抛 SamLiteError。"""
    known = asdict(DEFAULTS)
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in known or name == "seed":
            raise problem("--set", pair, f"名字=值，名字是{'、'.join(known)}之一")
        kind = type(known[name])
        try:
            known[name] = bool(int(text)) if kind is bool else kind(text)
        except ValueError:
            raise problem("--set", pair, f"{name} 是 {kind.__name__}") from None
    if known["schedule"] == "flat" and not known["decay"]:
        known["decay"] = float(known["steps"])  # 从头就线性降到零
    return TrainConfig(**known)


def choose(names: list[str] | None) -> list[Arm]:
    """按名字挑几组；不给就是全部，名字不认得时抛 SamLiteError。"""
    arms = {arm.name: arm for arm in all_arms()}
    for name in names or []:
        if name not in arms:
            raise problem("--arms", name, f"这些之一：{'、'.join(arms)}")
    return [arm for name, arm in arms.items() if not names or name in names]


def make_parser() -> Parser:
    """全部选项。"""
    parser = Parser(prog="python -m benchmarks.content")
    add: Callable[..., Any] = parser.add_argument
    add("--list", action="store_true", help="印出有哪些组，不做")
    text = "只做这几组，用逗号隔开，写成 --arms=-textures,+packed 的样子"
    add("--arms", type=lambda t: t.split(","), metavar="NAME", help=text)
    add("--init", default="tiny", metavar="NAME", help="从这份权重（型号名或文件）出发")
    add("--scenes", type=count, default=2500, metavar="N", help="每组画多少张场景")
    add("--size", type=count, default=256, metavar="N", help="场景的边长")
    add("--workers", type=count, default=1, metavar="N", help="几个进程画场景")
    add("--threads", type=count, default=1, metavar="N", help="训练用几个线程")
    text = "训练的设置，例如 --set steps=600 --set lr=0.0003；可以写多次"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    add("--eval-scenes", type=count, default=60, metavar="N", help="评测几张场景")
    add("--clicks", type=count, default=CLICKS, metavar="N", help="照片上点几次")
    add(
        "--minutes", type=positive, metavar="M", help="过了这么多分钟就不再开始新的一组"
    )
    text = "素材库和检查点放在哪里"
    add("--work", type=Path, default=Path("runs/content"), metavar="DIR", help=text)
    text = "content.json 和 CONTENT.md 写在哪里"
    add("--out", type=Path, default=HERE, metavar="DIR", help=text)
    add("--keep", action="store_true", help="素材库和检查点用完不删")
    return parser


def study(args: argparse.Namespace) -> None:
    """一组一组做下去。"""
    args.config = parse_settings(args.set)
    wanted, begin = settings(args), time.monotonic()
    make_folder(args.out)
    for arm in choose(args.arms):
        if arm.name in read(args.out / "content.json", wanted)["arms"]:
            continue
        if args.minutes and time.monotonic() - begin > 60 * args.minutes:
            note("时间到了，剩下的下次再做。")
            return
        result = run(arm, args)
        record(args.out, wanted, arm, result)
        means = " ".join(f"{key} {value:.4f}" for key, value in result["miou"].items())
        note(f"{arm.name}：{means}，{result['minutes']:.1f} 分钟")


def main(arguments: list[str]) -> int:
    """执行一次，返回退出码。"""
    args = make_parser().parse_args(arguments)
    if args.list:
        print("\n".join(arm.name for arm in all_arms()))
        return 0
    torch.set_num_threads(args.threads)
    return attempt(lambda: study(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
