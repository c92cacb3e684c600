"""编码器的时间与矩阵乘法的速度容许的时间相比：这台机器上还能快多少。"""

import statistics

from sam_lite.config import PRESETS

from .contenders import NAMES
from .operations import total_operations
from .report import Outcome, Section, table

HEADER = (
    "测量",
    "谁",
    "精度",
    "时间",
    "mm，每秒",
    "最快的写法，每秒",
    "时间 ÷ mm 容许的",
    "时间 ÷ 最快的写法容许的",
)


def fastest(rates: dict[str, float]) -> float:
    """几种写法里最快的一种，每秒多少次运算。"""
    return max(rates.values())


def times_the_bound(outcome: Outcome, variant: str, best: bool) -> list[float]:
    """各轮的时间除以它应得的：运算次数除以同一个进程里量到的速度。"""
    count = total_operations(PRESETS[variant])
    return [
        r["seconds"] * (fastest(r["rates"]) if best else r["rates"]["mm"]) / count
        for r in outcome.rounds
        if r.get("rates")
    ]


def per_second(values: list[float]) -> str:
    """每秒多少 GFLOP，取中位数。"""
    return f"{statistics.median(values) / 1e9:.0f} GFLOP"


def against(values: list[float]) -> str:
    """中位数，括号里是最差（最大）的一轮。"""
    return f"{statistics.median(values):.2f}（{max(values):.2f}）"


def rows(section: Section) -> list[tuple[str, ...]]:
    """一项测量在表里的几行；没有量成的一方略去。"""
    lines = []
    for outcome in section.outcomes:
        rates = [r["rates"] for r in outcome.rounds if r.get("rates")]
        if not rates:
            continue
        time = statistics.median(r["seconds"] for r in outcome.rounds)
        lines.append(
            (
                f"{section.case.title}（{section.variant}）",
                NAMES[outcome.entry[0]],
                outcome.entry[1],
                f"{time:.2f} s",
                per_second([found["mm"] for found in rates]),
                per_second([fastest(found) for found in rates]),
                against(times_the_bound(outcome, section.variant, best=False)),
                against(times_the_bound(outcome, section.variant, best=True)),
            )
        )
    return lines


def format_bounds(sections: list[Section]) -> str:
    """编码器各项的表；一项也没有量过就是空的。"""
    body = [row for s in sections if s.case.bound for row in rows(s)]
    return table(body, HEADER) if body else "还没有量。"
