"""花费随输入边长、型号、点数怎样变：``python -m benchmarks.costs``，写成 COSTS.md。

每一种（量什么、谁、型号、边长）在单独的进程里量。两方由同一个种子随机，权重相同，不
经过文件。显卡上的另见 ``gpu.py``。
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sam_lite.config import PRESETS

from . import store
from .contenders import NAMES
from .costs_figures import draw
from .costs_page import format_costs
from .costs_worker import KINDS, Row, Setting
from .machine import cores, describe_machine
from .process import Parts, run_apart
from .report import relative_difference, seconds, size

HERE = Path(__file__).parent
SIDES = {"tiny": (96, 192, 384)}  # 其余型号用 LARGE
LARGE = (512, 768, 1024)
EXTRA = ("task", "dtype", "compiled", "count")  # 只有一部分测量才有的那几项
TOLERANCE = 1e-3
Measure = Callable[[Setting], tuple[list[Row], Parts]]


def settings(
    kinds: list[str], variants: list[str], sides: list[int], threads: int
) -> Iterator[Setting]:
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
    return found.get("rows", [found]), parts


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
    names = [row[k] for k in ("kind", "variant", "side", *EXTRA) if k in row]
    head = "，".join(map(str, names)) + f"，{NAMES[row['contender']]}："
    if "error" in row:
        return head + row["error"]
    return f"{head}{seconds(row['seconds'])}，内存增量 {size(row['increase'])}"


def place_of(row: Row) -> tuple:
    """同一个位置的数，新的换掉旧的。"""
    names = ("kind", "variant", "side", "contender", *EXTRA)
    return tuple(row.get(name) for name in names)


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
    parser.add_argument("--memory", action="store_true", help="机器不空闲：只记内存")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--folder", type=Path, default=HERE, help="记在哪个文件夹")
    options = parser.parse_args(arguments)
    kinds = options.only or list(KINDS)
    wanted = settings(kinds, options.variant, options.side, options.threads)
    rows = run_all(list(wanted), measure)
    if options.memory:
        rows = [{**row, "seconds": None, "cpu": None} for row in rows]
    record(options.folder, rows)
    wrong = [
        f"{row['kind']}，{row['variant']}，{NAMES[row['contender']]}："
        + row.get("error", f"误差 {row['difference']}")
        for row in rows
        if "error" in row or not (row["difference"] or 0) <= TOLERANCE
    ]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
