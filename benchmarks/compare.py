"""各方的结果差多少，快几倍：误差、同一轮里的比值、编码器的下限。"""

import statistics
from typing import NamedTuple

import numpy as np

from sam_lite.config import PRESETS

from .operations import total_operations
from .store import Outcome, Section
from .worker import Parts


def relative_difference(actual: Parts, expected: Parts) -> float:
    """逐项 max|a − b| ÷ max|b|，取最大的；缺一项、形状不同或有 NaN 时是无穷大。"""
    worst = 0.0
    for name, b in expected.items():
        a = actual.get(name)
        if a is None or a.shape != b.shape or not np.isfinite(a).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def problems(sections: list[Section]) -> list[str]:
    """要让命令失败的事：误差超过容许值，或 sam_lite 自己没量成。"""
    found = []
    for section in sections:
        for outcome in section.outcomes:
            who = f"{section.title}：{outcome.label}，"
            if outcome.error and outcome.contender == "sam_lite":
                found.append(who + outcome.error)
            wrong, limit = outcome.difference, section.about.allowed(outcome.dtype)
            if wrong is not None and not wrong <= limit:
                found.append(f"{who}误差 {wrong:.1e}，容许 {limit:.0e}")
    return found


def ratios(other: Outcome, ours: Outcome, name: str) -> list[float]:
    """同一轮里，对方的数除以 sam_lite 的；没有量到的轮次略过。"""
    pairs = [(a.get(name), b.get(name)) for a, b in zip(other.rounds, ours.rounds)]
    return [a / b for a, b in pairs if a and b]


def shares(other: Outcome, ours: Outcome, name: str) -> list[float]:
    """反过来：sam_lite 的数除以对方的。"""
    return [1 / value for value in ratios(other, ours, name)]


def times_the_bound(outcome: Outcome, variant: str, best: bool = False) -> list[float]:
    """各轮的时间除以它应得的：运算次数除以同一个进程里量到的矩阵乘法的速度。

    速度是 ``mm`` 的；best 为真时取几种写法里最快的。
    """
    count = total_operations(PRESETS[variant])
    return [
        r["seconds"] * (max(r["rates"].values()) if best else r["rates"]["mm"]) / count
        for r in outcome.rounds
        if r.get("rates")
    ]


class Aim(NamedTuple):
    """一个目标：某一项里，某个比值至多或至少是多少。"""

    text: str
    key: str  # 哪一项
    what: str  # bound、speed、increase、peak 之一，见 values
    limit: float

    @property
    def at_most(self) -> bool:
        """越小越好；只有速度是越大越好。"""
        return self.what != "speed"

    def values(self, section: Section) -> list[float]:
        """各轮的数；有一方没有量成就是空的。"""
        ours, official = section.outcome("sam_lite"), section.outcome("official")
        if ours is None or official is None:
            return []
        if self.what == "bound":
            return times_the_bound(ours, section.variant)
        if self.what == "speed":
            return ratios(official, ours, "seconds")
        return shares(official, ours, self.what)

    def reached(self, found: list[float]) -> bool:
        """中位数够不够。"""
        middle = statistics.median(found)
        return middle <= self.limit if self.at_most else middle >= self.limit


# fmt: off
AIMS = (
    Aim("float32 编码器：时间至多是 mm 的速度容许的 1.15 倍", "encoder", "bound", 1.15),
    Aim("float32 编码器：至少是官方速度的 1.5 倍", "encoder", "speed", 1.5),
    Aim("float32 编码器：内存增量至多是官方的一半", "encoder", "increase", 0.5),
    Aim("float32 编码器：进程峰值至多是官方的一半", "encoder", "peak", 0.5),
    Aim("bfloat16 编码器：至少是官方 float32 速度的 3 倍", "encoder_bf16", "speed", 3),
    Aim("一次点击：时间至多是官方的一半，即至少 2 倍的速度", "click", "speed", 2),
    Aim("分割一切，32×32 点，不筛：至少 3 倍的速度，记录相同",
        "everything", "speed", 3),
    Aim("分割一切，小权重，默认阈值：至少 3 倍的速度，记录相同",
        "everything_shipped", "speed", 3),
)
# fmt: on
