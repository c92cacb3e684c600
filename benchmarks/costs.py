"""花费随输入边长、型号、点数怎样变：``python -m benchmarks.costs``，写成 COSTS.md。

每一种（量什么、谁、型号、边长）在单独的进程里量。两方由同一个种子随机，权重相同，不
经过文件。显卡上的另见 ``gpu.py``。
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sam_lite.config import PRESETS, SamConfig
from sam_lite.model import sam_from_config
from sam_lite.ops import NoInitialization

from . import store
from .cases import PICTURE, SavedEmbedding, noise, picture
from .contenders import NAMES, Job, import_contender, tests_on_path
from .costs_page import draw, format_costs
from .machine import cores, describe_machine
from .report import relative_difference, seconds, size
from .process import Parts, run_apart
from .worker import measure

HERE = Path(__file__).parent
SIDES = {"tiny": (128, 256, 512)}  # 其余型号用 LARGE
LARGE = (512, 768, 1024)
POINTS = (1, 2, 4, 8, 16, 32, 64)  # 一组提示里的点数
PROMPTS = (1, 4, 16, 64, 256)  # 几组提示，每组一个点
TOLERANCE = 1e-3
Row = dict[str, Any]
Measure = Callable[["Setting"], tuple[list[Row], Parts]]


class Setting(NamedTuple):
    """一个进程里量什么。"""

    kind: str  # KINDS 的键
    contender: str
    variant: str
    side: int  # 输入边长，像素
    threads: int

    @property
    def config(self) -> SamConfig:
        """换过边长的尺寸。"""
        return replace(PRESETS[self.variant], image_size=self.side)


# ---- 在单独的进程里 --------------------------------------------------------------


def build(contender: str, config: SamConfig) -> nn.Module:
    """不读文件，造一个随机权重的模型，eval 模式；两方的数逐个相同。"""
    import_contender(contender)
    tests_on_path()
    from parity.official import assemble, theirs
    from parity.small import randomize

    with NoInitialization():
        if contender == "sam_lite":
            sam: nn.Module = sam_from_config(config)
        else:
            sam = assemble(theirs, **asdict(config))
    return randomize(sam).eval()


def measure_encoder(setting: Setting) -> Iterator[tuple[Row, dict[str, torch.Tensor]]]:
    """编码一张图；大的两个型号不热身。"""
    sam = build(setting.contender, setting.config)
    x = noise(1, 3, setting.side, setting.side)
    warmups = 1 if setting.variant in ("tiny", "vit_b") else 0
    numbers, result = measure(lambda: sam.image_encoder(x), warmups, 1)
    weights = sum(tensor.nbytes for tensor in sam.state_dict().values())
    yield {"count": 1, "weights": weights, **numbers}, {"embedding": result}


def make_predictor(setting: Setting) -> Any:
    """图像已经编码（现成的随机嵌入）的 SamPredictor。"""
    sam = build(setting.contender, setting.config)
    job = Job(setting.contender, setting.variant, "float32", Path())
    sam.image_encoder = SavedEmbedding(job)
    predictor = import_contender(setting.contender).SamPredictor(sam)
    predictor.set_image(picture())
    return predictor


def random_points(count: int) -> np.ndarray:
    """照片里的 count 个点，``(count, 2)``，原图上的 (x, y)。"""
    return np.random.default_rng(0).random((count, 2)) * PICTURE[::-1]


def measure_points(setting: Setting) -> Iterator[tuple[Row, dict[str, torch.Tensor]]]:
    """一组提示里 1 个到 64 个点，掩码放大到原图。"""
    predictor = make_predictor(setting)
    for count in POINTS:
        where, labels = random_points(count), np.ones(count)
        numbers, result = measure(lambda: predictor.predict(where, labels), 2, 9)
        yield {"count": count, **numbers}, {"iou": torch.as_tensor(result[1])}


def measure_prompts(setting: Setting) -> Iterator[tuple[Row, dict[str, torch.Tensor]]]:
    """1 组到 256 组提示，每组一个点，掩码放大到原图。"""
    predictor = make_predictor(setting)
    for count in PROMPTS:
        where = torch.as_tensor(random_points(count)[:, None], dtype=torch.float32)
        where = where * setting.side / max(PICTURE)
        labels = torch.ones(count, 1, dtype=torch.int)
        many = count > 16
        numbers, result = measure(
            lambda: predictor.predict_torch(where, labels),
            0 if many else 1,
            1 if many else 3,
        )
        yield {"count": count, **numbers}, {"iou": result[1]}


KINDS = {
    "encoder": ("图像编码器", measure_encoder),
    "points": ("一组提示", measure_points),
    "prompts": ("几组提示", measure_prompts),
}


def measure_setting(fields: Row) -> tuple[Row, Parts]:
    """量一种，返回（rows：每种个数一行，要核对的张量）。"""
    setting = Setting(**fields)
    rows, parts = [], {}
    with torch.no_grad():
        for row, outputs in KINDS[setting.kind][1](setting):
            rows.append(row)
            for name, value in outputs.items():
                parts[f"{row['count']} {name}"] = value.double().numpy()
    return {"rows": rows}, parts


# ---- 量什么，记下来 --------------------------------------------------------------


def settings(kinds: list[str], variants: list[str], sides: list[int], threads: int):
    """要量的各种，官方在前（它是参照）；variants、sides 为空就全要。"""
    who = ("official", "sam_lite")
    for variant in PRESETS:
        if variants and variant not in variants:
            continue
        for side in SIDES.get(variant, LARGE):
            if "encoder" in kinds and (not sides or side in sides):
                yield from (Setting("encoder", w, variant, side, threads) for w in who)
    for kind in ("points", "prompts"):
        if kind in kinds:
            yield from (Setting(kind, w, "vit_b", 1024, threads) for w in who)


def spawn(setting: Setting) -> tuple[list[Row], Parts]:
    """在新的进程里量；出错时只有一行，写着 error。"""
    found, parts = run_apart("benchmarks.costs_worker", setting._asdict())
    return found["rows"] if "rows" in found else [found], parts


def run_all(wanted: list[Setting], measure: Measure = spawn) -> list[Row]:
    """逐种测量，返回各行：在 Setting 之外另有日期、机器、与官方的误差。"""
    rows: list[Row] = []
    reference: dict[tuple, Parts] = {}
    today = datetime.date.today().isoformat()
    for setting in wanted:
        place = setting.kind, setting.variant, setting.side
        found, parts = measure(setting)
        reference.setdefault(place, parts if setting.contender == "official" else {})
        expected = reference[place]
        known = bool(parts) and set(expected) <= set(parts)
        wrong = relative_difference(parts, expected) if known and expected else None
        for row in found:
            about = {"date": today, "machine": describe_machine(setting.threads)}
            rows.append({**setting._asdict(), **about, "difference": wrong, **row})
            print(progress(rows[-1]), flush=True)
    return rows


def progress(row: Row) -> str:
    """边量边印的一行。"""
    head = f"{KINDS[row['kind']][0]}，{row['variant']}，{row['side']}，"
    head += f"{row.get('mode', '')} {row.get('count', '')}，{NAMES[row['contender']]}："
    if "error" in row:
        return head + row["error"]
    return f"{head}{seconds(row['seconds'])}，内存增量 {size(row['increase'])}"


def place_of(row: Row) -> tuple:
    """同一个位置的数，新的换掉旧的。"""
    names = ("kind", "variant", "side", "mode", "count", "contender")
    return tuple(str(row.get(name, "")) for name in names)


def record(folder: Path, rows: list[Row]) -> None:
    """记进 folder 的 costs.json，再由它写出 COSTS.md 和图。"""
    path = folder / "costs.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    known = list({place_of(row): row for row in [*old, *rows]}.values())
    store.write(path, json.dumps(known, ensure_ascii=False, indent=1) + "\n")
    store.write(folder / "COSTS.md", format_costs(known))
    for name, text in draw(known).items():
        store.write(folder / f"{name}.svg", text)


def main(arguments: list[str], measure: Measure = spawn) -> int:
    """执行一次，返回退出码：0 正常；1 有一方没有量成，或两方的结果不同。"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), help="只量这几样")
    parser.add_argument("--variant", nargs="+", choices=list(PRESETS), default=[])
    parser.add_argument("--side", nargs="+", type=int, default=[], help="只量这些边长")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--folder", type=Path, default=HERE, help="记在哪个文件夹")
    options = parser.parse_args(arguments)
    kinds = options.only or list(KINDS)
    wanted = settings(kinds, options.variant, options.side, options.threads)
    rows = run_all(list(wanted), measure)
    record(options.folder, rows)
    wrong = [
        progress(row)
        for row in rows
        if "error" in row or not (row["difference"] or 0) <= TOLERANCE
    ]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
