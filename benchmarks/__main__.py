"""命令行：逐项测量，边量边报，量完一项记一项，最后给出表格。"""

import argparse
import datetime
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sam_lite.config import PRESETS
from sam_lite.errors import SamLiteError

from . import store
from .cases import CASES, GROUPS, OFFICIAL, Case
from .compare import problems, relative_difference
from .contenders import Job, warm_files, write_weights
from .machine import cores, describe_machine
from .page import HERE, format_numbers, seconds, size, write_pages
from .store import Outcome, Section
from .worker import Numbers, Parts, spawn

Measure = Callable[[Case, Job, int], tuple[Numbers, Parts]]


def run_case(
    section: Section, job: Job, rounds: int, threads: int, measure: Measure = spawn
) -> Section:
    """各方轮流量 rounds 轮，填好 section；一方出了错，后面几轮就不再量它。"""
    case = section.about
    found = [Outcome(*entry) for entry in case.entries]
    parts: dict[int, Parts] = {}
    for turn in range(rounds):
        for i, outcome in enumerate(found):
            if outcome.error:
                continue
            warm_files(job.folder)
            entry = case.entries[i]._asdict()
            numbers, tensors = measure(case, replace(job, **entry), threads)
            if "error" in numbers:
                found[i] = replace(outcome, error=numbers["error"])
                text = numbers["error"]
            else:
                outcome.rounds.append(numbers)
                parts.setdefault(i, tensors)
                text = f"{seconds(numbers['seconds'])}，内存增量 "
                text += size(numbers["increase"])
            turns = f"第 {turn + 1}/{rounds} 轮"
            print(f"{section.title}，{turns}，{outcome.label}：{text}", flush=True)
    expected = parts.get(case.entries.index(OFFICIAL))
    if expected is not None:
        for i, tensors in parts.items():
            wrong = relative_difference(tensors, expected)
            found[i] = replace(found[i], difference=wrong)
    return replace(section, outcomes=found)


def run_all(
    options: argparse.Namespace,
    keep: Callable[[Section], object],
    measure: Measure = spawn,
) -> list[str]:
    """逐个型号、逐个边长造权重、测量、删掉；量完一项就交给 keep。

    返回没有做成的：权重写不下时那一份权重的各项都量不成，别的照量。
    """
    today, failed = datetime.date.today().isoformat(), []
    needed: dict[tuple[str, int], list[Case]] = {}
    for case in options.cases:
        for variant in case.chosen(options.variants):
            for side in case.sides:
                needed.setdefault((variant, side), []).append(case)
    for (variant, side), cases in needed.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            print(f"写 {variant} 的随机权重……", flush=True)
            job = Job("sam_lite", variant, Path(name), side=side)
            try:
                theirs = any(case.huggingface for case in cases)
                weight_bytes = write_weights(job, theirs)
            except (SamLiteError, OSError, RuntimeError) as error:
                failed.append(f"{variant} 的权重没有写成：{error}")
                continue
            for case in cases:
                machine = describe_machine(options.threads, case.device)
                for count in case.counts:
                    here = replace(job, device=case.device, count=count)
                    place = case.key, variant, side, count
                    section = Section(*place, weight_bytes, today, machine)
                    times = options.rounds, options.threads
                    keep(run_case(section, here, *times, measure))
    return failed


def parse(arguments: list[str]) -> argparse.Namespace:
    """读命令行参数；cases 是要量的各项，照表里的次序。"""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="与官方 segment_anything、transformers 比时间和峰值内存。",
    )
    keys, tables = [case.key for case in CASES], "、".join(GROUPS)
    text = f"只量这几项或这几张表（{tables}），逗号隔开：{'、'.join(keys)}"
    parser.add_argument("--only", default="", help=text)
    parser.add_argument(
        "--variant", default="", help="换成这几个型号，逗号隔开，如 vit_l"
    )
    parser.add_argument("--rounds", type=int, help="几轮，默认 5")
    parser.add_argument("--quick", action="store_true", help="只量一轮")
    parser.add_argument("--threads", type=int, default=cores(), help="默认等于核数")
    parser.add_argument("--update", action="store_true", help="把结果记下来；见下")
    parser.add_argument("--folder", type=Path, default=HERE, help="记在哪个文件夹")
    parser.epilog = (
        "不写 --only 就量 RESULTS.md 的全部，每量完一项就记进 benchmarks/ 的 "
        "results.json，并由它写出两页；用了 --only、--variant 或 --quick，给出 "
        "--update 才记，只换掉量了的这几项，别的留着。"
    )
    options = parser.parse_args(arguments)
    only, options.variants = (
        [name for name in text.split(",") if name]
        for text in (options.only, options.variant)
    )
    for flag, names, known in (
        ("--only", only, [*keys, *GROUPS]),
        ("--variant", options.variants, list(PRESETS)),
    ):
        unknown = "、".join(name for name in names if name not in known)
        if unknown:
            parser.error(f"{flag} 里不认得 {unknown}，可用：{'、'.join(known)}")
    wanted = only or ["results"]
    options.cases = [c for c in CASES if c.key in wanted or c.group in wanted]
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds 和 --threads 至少是 1")
    options.update |= not (only or options.variants or options.quick)
    return options


def main(arguments: list[str], measure: Measure = spawn) -> int:
    """执行一次，返回退出码：0 正常；1 误差超过容许值，或有没量成的。

    错误：要量显卡，这里却没有时抛 SamLiteError。
    """
    options = parse(arguments)
    cuda = any(case.device == "cuda" for case in options.cases)
    if cuda and not torch.cuda.is_available():
        raise SamLiteError("这里没有能用的 NVIDIA 显卡，量不了 gpu 的几项。")
    for name, text in describe_machine(options.threads).items():
        print(f"{name}：{text}")
    sections: list[Section] = []

    def keep(section: Section) -> None:
        sections.append(section)
        if options.update:
            known = store.record(options.folder / "results.json", [section])
            write_pages(options.folder, known)

    failed = run_all(options, keep, measure)
    print("\n" + format_numbers(sections, "simple"))
    wrong = [*failed, *problems(sections)]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    # 作业系统叫停时也要删掉几 GB 的临时文件，像 Ctrl-C 一样
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except SamLiteError as error:
        sys.exit(f"错误：{error}")
    except KeyboardInterrupt:
        sys.exit(130)
