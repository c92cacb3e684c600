"""定下的目标，和量到的比一比：达到没有。"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from .bounds import times_the_bound
from .report import Outcome, Section, ratios, table

HEADER = ("目标", "量到：中位（最差一轮）", "误差", "达到")
OFFICIAL = ("official", "float32")
Values = Callable[[Outcome, Outcome, str], list[float]]  # （我们，官方，型号）-> 各轮


def above_bound(ours: Outcome, _: Outcome, variant: str) -> list[float]:
    """时间是 mm 的速度容许的几倍。"""
    return times_the_bound(ours, variant, best=False)


def speed(ours: Outcome, other: Outcome, _: str) -> list[float]:
    """是官方速度的几倍。"""
    return ratios(other, ours, "seconds")


def share(field: str) -> Values:
    """内存增量（increase）、进程峰值（peak）是官方的几成。"""
    return lambda ours, other, _: [1 / x for x in ratios(other, ours, field)]


class Aim(NamedTuple):
    """一个目标：某一项里，某个比值至多或至少是多少。"""

    text: str
    key: str  # 哪一项
    values: Values
    limit: float
    at_most: bool

    def reached(self, found: list[float]) -> bool:
        """中位数够不够。"""
        middle = statistics.median(found)
        return middle <= self.limit if self.at_most else middle >= self.limit


# fmt: off
AIMS = (
    Aim("float32 编码器：时间至多是 mm 的速度容许的 1.15 倍",
        "encoder", above_bound, 1.15, True),
    Aim("float32 编码器：至少是官方速度的 1.5 倍",
        "encoder", speed, 1.5, False),
    Aim("float32 编码器：内存增量至多是官方的一半",
        "encoder", share("increase"), 0.5, True),
    Aim("float32 编码器：进程峰值至多是官方的一半",
        "encoder", share("peak"), 0.5, True),
    Aim("bfloat16 编码器：至少是官方 float32 速度的 3 倍",
        "encoder_bf16", speed, 3.0, False),
    Aim("一次点击：时间至多是官方的一半，即至少 2 倍的速度",
        "click", speed, 2.0, False),
    Aim("分割一切，32×32 点，不筛：至少 3 倍的速度，记录相同",
        "everything", speed, 3.0, False),
    Aim("分割一切，小权重，默认阈值：至少 3 倍的速度，记录相同",
        "everything_shipped", speed, 3.0, False),
)
# fmt: on


def row(aim: Aim, sections: list[Section]) -> tuple[str, ...]:
    """一个目标在表里的一行；没有量过也写明。"""
    for section in sections:
        if section.case.key != aim.key:
            continue
        by_entry = {outcome.entry: outcome for outcome in section.outcomes}
        ours, other = section.outcomes[0], by_entry[OFFICIAL]
        found = aim.values(ours, other, section.variant)
        if found:
            worst = max(found) if aim.at_most else min(found)
            value = f"{statistics.median(found):.2f}（{worst:.2f}）"
            wrong = "" if ours.difference is None else f"{ours.difference:.1e}"
            return aim.text, value, wrong, "是" if aim.reached(found) else "否"
    return aim.text, "没有量", "", ""


def format_aims(sections: list[Section]) -> str:
    """全部目标的表。"""
    return table([row(aim, sections) for aim in AIMS], HEADER)
