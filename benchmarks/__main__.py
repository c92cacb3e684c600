"""命令行：逐项测量，边量边报，最后给出表格，写成 RESULTS.md。"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sam_lite.atomic import atomic_file
from sam_lite.config import PRESETS
from sam_lite.errors import SamLiteError
from sam_lite.interrupts import Interrupts

from .cases import BY_KEY, CASES, Case
from .contenders import NAMES, Job, write_weights
from .machine import cores, describe_machine
from .report import (
    Entry,
    Outcome,
    Section,
    as_json,
    format_report,
    format_table,
    problems,
    relative_difference,
    seconds,
    size,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"
Parts = dict[str, np.ndarray]
Measure = Callable[[Case, Job, int], tuple[dict[str, Any], Parts]]


def spawn(case: Case, job: Job, threads: int) -> tuple[dict[str, Any], Parts]:
    """在新的进程里量一次，返回（数字，要核对的张量）；出错时数字里有 error。"""
    with tempfile.TemporaryDirectory() as folder:
        setting = Path(folder) / "setting.json"
        fields = {**vars(job), "folder": str(job.folder)}
        text = json.dumps({"case": case.key, "threads": threads, "job": fields})
        setting.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.worker", str(setting)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
        )
        found = setting.with_name("result.json")
        if done.returncode != 0 or not found.is_file():
            return {"error": f"进程没有走完，退出码 {done.returncode}"}, {}
        numbers = json.loads(found.read_text(encoding="utf-8"))
        if "error" in numbers:
            return numbers, {}
        with np.load(setting.with_name("result.npz")) as parts:
            return numbers, dict(parts)


def warm_files(job: Job) -> None:
    """把权重文件读一遍，三方读模型时都在页缓存里。"""
    for path in (job.checkpoint, job.huggingface / "model.safetensors"):
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass


def run_case(
    case: Case, folder: Path, variant: str, rounds: int, threads: int, measure: Measure
) -> list[Outcome]:
    """三方轮流量 rounds 轮；一方出了错，后面几轮就不再量它。"""
    numbers: dict[Entry, list[dict[str, Any]]] = {entry: [] for entry in case.entries}
    parts: dict[Entry, Parts] = {}
    errors: dict[Entry, str] = {}
    for i in range(rounds):
        for entry in case.entries:
            if entry in errors:
                continue
            job = Job(entry[0], variant, entry[1], folder)
            warm_files(job)
            found, tensors = measure(case, job, threads)
            head = f"{case.title}（{variant}），第 {i + 1}/{rounds} 轮，"
            head += f"{NAMES[entry[0]]} {entry[1]}："
            if "error" in found:
                errors[entry] = found["error"]
                print(head + errors[entry], flush=True)
                continue
            numbers[entry].append(found)
            parts.setdefault(entry, tensors)
            line = f"{seconds(found['seconds'])}，内存增量 {size(found['increase'])}"
            print(head + line, flush=True)
    reference = parts.get(("official", "float32"))
    return [
        Outcome(
            entry,
            numbers[entry],
            None
            if reference is None or entry not in parts
            else relative_difference(parts[entry], reference),
            errors.get(entry, ""),
        )
        for entry in case.entries
    ]


def run_all(
    keys: list[str],
    variants: list[str],
    rounds: int,
    threads: int,
    measure: Measure = spawn,
) -> list[Section]:
    """逐个型号造权重、测量、删掉；variants 为空就用各项自己的型号。"""
    chosen = [case for case in CASES if case.key in keys]
    wanted = variants or [v for v in PRESETS if any(v in c.variants for c in chosen)]
    sections = []
    for variant in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            print(f"写 {variant} 的随机权重……", flush=True)
            weight_bytes = write_weights(check_space(Path(name), variant), variant)
            for case in chosen:
                if variants or variant in case.variants:
                    args = Path(name), variant, rounds, threads, measure
                    outcomes = run_case(case, *args)
                    sections.append(Section(case, variant, weight_bytes, outcomes))
    return sections


def check_space(folder: Path, variant: str) -> Path:
    """临时文件夹所在的磁盘放不下两份权重时，抛 SamLiteError；否则返回它。"""
    c = PRESETS[variant]
    needed = 2 * 4 * 13 * c.depth * c.embed_dim**2  # 主干约 12·层数·宽度² 个参数
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SamLiteError(
            f"临时文件夹的磁盘只剩 {free / 1e9:.1f} GB，{variant} 的两份权重约要 "
            f"{needed / 1e9:.1f} GB。环境变量 TMPDIR 可以指到别的磁盘。"
        )
    return folder


def parse(arguments: list[str]) -> argparse.Namespace:
    """读命令行参数。"""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="与官方 segment_anything、transformers 比时间和峰值内存。",
    )
    known = "、".join(BY_KEY)
    parser.add_argument("--only", help=f"只量这几项，逗号隔开：{known}")
    parser.add_argument("--variant", help="换成这几个型号，逗号隔开，如 vit_l")
    parser.add_argument("--rounds", type=int, help="几轮，默认 5")
    parser.add_argument("--quick", action="store_true", help="只量一轮")
    parser.add_argument("--threads", type=int, help="线程数，默认等于核数")
    parser.add_argument("--json", type=Path, help="把原始数字写到这个文件")
    parser.add_argument("--out", type=Path, help="报告写到哪里；见下")
    parser.epilog = (
        "全部测量时报告写到 benchmarks/RESULTS.md；用了 --only、--variant 或 --quick，"
        "给出 --out 才写。"
    )
    options = parser.parse_args(arguments)
    options.keys = split(parser, "--only", options.only, list(BY_KEY)) or list(BY_KEY)
    options.variants = split(parser, "--variant", options.variant, list(PRESETS))
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    options.threads = options.threads or cores()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds 和 --threads 至少是 1")
    if options.out is None and not (options.only or options.variant or options.quick):
        options.out = RESULTS
    return options


def split(
    parser: argparse.ArgumentParser, name: str, text: str | None, known: list[str]
) -> list[str]:
    """逗号隔开的一串名字；有不认得的就报错退出。"""
    names = text.split(",") if text else []
    unknown = [item for item in names if item not in known]
    if unknown:
        parser.error(f"{name} 里不认得 {'、'.join(unknown)}，可用：{'、'.join(known)}")
    return names


def write(path: Path, text: str) -> None:
    """完整写好才换掉旧文件。"""
    with atomic_file(path) as file:
        file.write(text.encode())


def main(arguments: list[str], measure: Measure = spawn) -> int:
    """执行一次，返回退出码：0 正常；1 误差超过容许值，或 sam_lite 没有量成。"""
    options = parse(arguments)
    machine = describe_machine(options.threads)
    for name, text in machine.items():
        print(f"{name}：{text}")
    sections = run_all(
        options.keys, options.variants, options.rounds, options.threads, measure
    )
    print("\n" + format_table(sections))
    if options.json:
        content = json.dumps(as_json(sections, machine), ensure_ascii=False, indent=1)
        write(options.json, content + "\n")
    if options.out:
        command = " ".join(["python -m benchmarks", *shown(arguments)])
        date = datetime.date.today().isoformat()
        report = format_report(sections, machine, command, date, options.rounds)
        write(options.out, report)
    wrong = problems(sections)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def shown(arguments: list[str]) -> list[str]:
    """报告里写出的参数：写文件的那两个不影响数字，略去。"""
    kept, skip = [], False
    for item in arguments:
        if not skip and not item.startswith(("--out", "--json")):
            kept.append(item)
        skip = item in ("--out", "--json")
    return kept


if __name__ == "__main__":
    try:
        with Interrupts(patient=False):  # 作业系统叫停时也要删掉几 GB 的临时文件
            sys.exit(main(sys.argv[1:]))
    except SamLiteError as error:
        sys.exit(f"错误：{error}")
    except KeyboardInterrupt:
        sys.exit(130)
