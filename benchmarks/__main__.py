"""命令行：逐项测量，边量边报，最后给出表格，记进 results.json 和 RESULTS.md。"""

import argparse
import datetime
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam_lite.config import PRESETS
from sam_lite.errors import SamLiteError
from sam_lite.learn.interrupts import Interrupts

from . import store
from .cases import BY_KEY, CASES, Case
from .contenders import NAMES, Job, write_weights
from .machine import cores, describe_machine
from .page import format_report
from .process import Parts, run_apart
from .report import (
    Entry,
    Outcome,
    Section,
    format_table,
    problems,
    relative_difference,
    seconds,
    size,
)

HERE = Path(__file__).parent
Measure = Callable[[Case, Job, int], tuple[dict[str, Any], Parts]]


def spawn(case: Case, job: Job, threads: int) -> tuple[dict[str, Any], Parts]:
    """在新的进程里量一次，返回（数字，要核对的张量）；出错时数字里有 error。"""
    fields = {**vars(job), "folder": str(job.folder)}
    setting = {"case": case.key, "threads": threads, "job": fields}
    return run_apart("benchmarks.worker", setting)


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
    machine, today = describe_machine(threads), datetime.date.today().isoformat()
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
                    found = Section(case, variant, weight_bytes, outcomes)
                    sections.append(found._replace(date=today, machine=machine))
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
    parser.add_argument("--update", action="store_true", help="把结果记下来；见下")
    parser.add_argument("--folder", type=Path, default=HERE, help="记在哪个文件夹")
    parser.epilog = (
        "量全部时，结果记进 benchmarks/ 的 results.json，并由它写出 RESULTS.md；用了 "
        "--only、--variant 或 --quick，给出 --update 才记，只换掉量了的这几项，"
        "别的留着。"
    )
    options = parser.parse_args(arguments)
    options.keys = split(parser, "--only", options.only, list(BY_KEY)) or list(BY_KEY)
    options.variants = split(parser, "--variant", options.variant, list(PRESETS))
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    options.threads = options.threads or cores()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds 和 --threads 至少是 1")
    options.update |= not (options.only or options.variant or options.quick)
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
    if options.update:
        record(options.folder, sections)
    wrong = problems(sections)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def record(folder: Path, sections: list[Section]) -> None:
    """把量到的记进 folder 的 results.json，再由它写出 RESULTS.md。"""
    known = store.merge(store.read(folder / "results.json"), sections)
    store.save(folder / "results.json", known)
    store.write(folder / "RESULTS.md", format_report(known))


if __name__ == "__main__":
    try:
        with Interrupts(patient=False):  # 作业系统叫停时也要删掉几 GB 的临时文件
            sys.exit(main(sys.argv[1:]))
    except SamLiteError as error:
        sys.exit(f"错误：{error}")
    except KeyboardInterrupt:
        sys.exit(130)
