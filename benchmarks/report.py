"""把各轮的数字变成比值，排成表。"""

import statistics
from typing import Any, NamedTuple

import numpy as np

from sam_lite.errors import require

from .cases import Case
from .contenders import NAMES

Entry = tuple[str, str]  # （谁，精度）
HEADER = (
    "测量",
    "谁",
    "精度",
    "时间：中位（最短）",
    "CPU 时间",
    "内存增量",
    "进程峰值",
    "误差",
    "时间 ÷ sam_lite",
    "CPU 时间 ÷ sam_lite",
    "sam_lite 内存 ÷ 它",
)


class Outcome(NamedTuple):
    """一方在一项里的全部结果。"""

    entry: Entry
    rounds: list[dict[str, Any]]  # worker 写的数字，每轮一份
    difference: float | None  # 与官方 float32 的最大相对误差；没有参照时是 None
    error: str = ""  # 没有安装、出错时的说明


class Section(NamedTuple):
    """一项测量，一个型号。"""

    case: Case
    variant: str
    weight_bytes: int
    outcomes: list[Outcome]
    date: str = ""  # 哪一天量的
    machine: dict[str, str] = {}  # 在什么机器上量的，见 machine.py


def relative_difference(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> float:
    """逐项 max|a − b| ÷ max|b|，取最大的；形状不同或有 NaN 时是无穷大。"""
    worst = 0.0
    for name, b in expected.items():
        a = actual[name]
        if a.shape != b.shape or not np.isfinite(a).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def problems(sections: list[Section]) -> list[str]:
    """要让命令失败的事：误差超过容许值，或 sam_lite 自己没量成。"""
    found = []
    for case, variant, _, outcomes, *_ in sections:
        for outcome in outcomes:
            who = f"{case.title}（{variant}，{outcome.entry[1]}）：{outcome.entry[0]}"
            if outcome.error and outcome.entry[0] == "sam_lite":
                found.append(f"{who} {outcome.error}")
            wrong = outcome.difference
            if wrong is not None and not wrong <= case.tolerance:
                found.append(f"{who} 误差 {wrong:.1e}，容许 {case.tolerance:.0e}")
    return found


def ratios(other: Outcome, ours: Outcome, field: str) -> list[float]:
    """同一轮里，对方的数除以 sam_lite 的；没有量到的轮次略过。"""
    pairs = [(a.get(field), b.get(field)) for a, b in zip(other.rounds, ours.rounds)]
    return [a / b for a, b in pairs if a and b]


def rows(section: Section) -> list[tuple[str, ...]]:
    """一项测量在表里的几行。"""
    case, variant, weight_bytes, outcomes, *_ = section
    ours = outcomes[0]
    lines = []
    for outcome in outcomes:
        who, dtype = outcome.entry
        head = (f"{case.title}（{variant}）", NAMES[who], dtype)
        if outcome.error:
            lines.append((*head, outcome.error, *[""] * 7))
            continue
        times = [r["seconds"] for r in outcome.rounds]
        cpu = statistics.median(r["cpu"] for r in outcome.rounds)
        multiple = weight_bytes if case.loads else None
        difference = outcome.difference
        lines.append(
            (
                *head,
                f"{seconds(statistics.median(times))}（{seconds(min(times))}）",
                seconds(cpu),
                size(middle(outcome.rounds, "increase"), multiple),
                size(middle(outcome.rounds, "peak")),
                "无参照" if difference is None else f"{difference:.1e}",
                *comparison(outcome, ours),
            )
        )
    return lines


def comparison(other: Outcome, ours: Outcome) -> tuple[str, str, str]:
    """最后三列：时间比、CPU 时间比、内存比；sam_lite 自己那一行空着。"""
    if other is ours or ours.error:
        return "", "", ""
    memory = [1 / x for x in ratios(other, ours, "increase")]
    return (
        spread(ratios(other, ours, "seconds")),
        spread(ratios(other, ours, "cpu")),
        f"{statistics.median(memory):.2f}" if memory else "未测",
    )


def spread(values: list[float]) -> str:
    """中位数，括号里是最小值。"""
    if not values:
        return "未测"
    return f"{statistics.median(values):.2f}（{min(values):.2f}）"


def middle(rounds: list[dict[str, Any]], field: str) -> float | None:
    """各轮的中位数；没有量到时是 None。"""
    values = [r[field] for r in rounds if r.get(field) is not None]
    return statistics.median(values) if values else None


def seconds(value: float) -> str:
    """不到一秒的用毫秒。"""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def size(value: float | None, weight_bytes: int | None = None) -> str:
    """字节变成 MB；给了权重的字节数，再写出相当于几份权重。"""
    if value is None:
        return "未测"
    text = f"{value / 1e6:.0f} MB"
    return f"{text}（{value / weight_bytes:.2f} 份）" if weight_bytes else text


def format_table(sections: list[Section], style: str = "simple") -> str:
    """全部结果的表；style 是 tabulate 的格式名。"""
    return table([row for s in sections for row in rows(s)], HEADER, style)


def table(body: list[Any], header: tuple[str, ...], style: str = "github") -> str:
    """排好的表，一行文字一行表；汉字按两格宽对齐。"""
    require("wcwidth", "对齐汉字", "bench")
    tabulate = require("tabulate", "排表格", "bench").tabulate
    return tabulate(body, header, tablefmt=style, disable_numparse=True)
