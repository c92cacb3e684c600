"""把结果填进 RESULTS.md 和 COSTS.md：话写在页上，表填在 ``<!-- 名字 -->`` 之间。"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_lite.errors import require

from . import store
from .compare import AIMS, Aim, problems, ratios, shares, times_the_bound
from .machine import kind_of
from .store import Outcome, Section

HERE = Path(__file__).parent
Row = tuple[str, ...]
# fmt: off
NUMBERS = (
    "测量", "谁", "精度", "时间：中位（最短）", "CPU 时间", "内存增量", "进程峰值",
    "误差", "时间 ÷ sam_lite", "CPU 时间 ÷ sam_lite", "sam_lite 内存 ÷ 它", "机器",
)
BOUNDS = (
    "测量", "谁", "精度", "时间", "mm，每秒", "最快的写法，每秒", "时间 ÷ mm 容许的",
    "时间 ÷ 最快的写法容许的", "机器",
)
# fmt: on
TIMES = ("时间", "官方的", "官方 ÷ sam_lite", "CPU 时间之比", "误差", "机器")
MEMORY = ("内存增量", "官方的")
SIDES = ("型号", "边长", "权重", *MEMORY, "进程峰值", "官方的", *TIMES)
NO_GPU = """\
**没有运行过**：这里没有 NVIDIA 显卡。程序写好了，只在 CPU 上用 tiny 走通过编码器一项；
分割一切，显卡上的计时、显存和编译都没有试过。"""


# ---- 页 -----------------------------------------------------------------------


def write_pages(folder: Path, sections: list[Section]) -> None:
    """由结果写出两页，写进 folder。"""
    for name, parts in (("RESULTS", results(sections)), ("COSTS", costs(sections))):
        text = (HERE / f"{name}.md").read_text(encoding="utf-8")
        store.write(folder / f"{name}.md", fill(text, parts))


def fill(text: str, parts: dict[str, str]) -> str:
    """换掉 ``<!-- 名字 -->`` 与 ``<!-- /名字 -->`` 之间的文字，别的一字不动。

    错误：页上没有这个名字时抛 ValueError。
    """
    for name, part in parts.items():
        opening, closing = f"<!-- {name} -->\n\n", f"\n\n<!-- /{name} -->"
        if text.count(opening) != 1 or text.count(closing) != 1:
            raise ValueError(f"页上要有一处 <!-- {name} --> 和 <!-- /{name} -->")
        before, _, rest = text.partition(opening)
        text = before + opening + part + closing + rest.partition(closing)[2]
    return text


def results(sections: list[Section]) -> dict[str, str]:
    """RESULTS.md 的各处。"""
    found = [s for s in sections if s.about.group == "results"]
    wrong = problems(found)
    known = distinct_machines(found)
    dates = [date_row(s, known.index(s.machine) + 1) for s in found]
    bounds = [row for s in found if s.about.bound for row in bound_rows(s)]
    return {
        "verdict": "有问题：" + "；".join(wrong) if wrong else "全部在容许的误差之内。",
        "aims": table(
            [aim_row(aim, found) for aim in AIMS],
            ("目标", "量到：中位（最差一轮）", "误差", "达到", "机器"),
        ),
        "numbers": format_numbers(found),
        "bounds": table(bounds, BOUNDS),
        "dates": table(dates, ("测量", "日期", "轮数", "机器")),
        "machines": format_machines(known),
    }


def costs(sections: list[Section]) -> dict[str, str]:
    """COSTS.md 的各处；只有一方量成的不进表。"""
    groups: dict[str, list[Section]] = {}
    for s in sections:
        if s.outcome("sam_lite") and s.outcome("official"):
            groups.setdefault(s.about.group, []).append(s)
    sides, points, prompts, gpu = (
        groups.get(name, []) for name in ("sides", "points", "prompts", "gpu")
    )
    return {
        "sides": table([side_row(s) for s in sides], SIDES),
        "points": table([count_row(s) for s in points], ("点数", *MEMORY, *TIMES)),
        "prompts": table([count_row(s) for s in prompts], ("组数", *MEMORY, *TIMES)),
        "gpu": format_numbers(gpu) if gpu else NO_GPU,
        "machines": format_machines(
            distinct_machines([*sides, *points, *prompts, *gpu])
        ),
    }


# ---- 表里的行 ------------------------------------------------------------------


def aim_row(aim: Aim, sections: list[Section]) -> Row:
    """一个目标：中位数，最差的一轮，达到没有；没有量过也写明。"""
    for section in sections:
        found = aim.values(section) if section.case == aim.key else []
        if found:
            worst = max(found) if aim.at_most else min(found)
            value = f"{statistics.median(found):.2f}（{worst:.2f}）"
            reached = "是" if aim.reached(found) else "否"
            wrong = difference(section.outcomes[0])
            return aim.text, value, wrong, reached, kind_of(section.machine)
    return aim.text, "没有量", "", "", ""


def format_numbers(sections: list[Section], style: str = "github") -> str:
    """全部数字，每项每方一行；style 是 tabulate 的格式名。"""
    return table([row for s in sections for row in number_rows(s)], NUMBERS, style)


def number_rows(section: Section) -> list[Row]:
    """一项测量的几行；没有量成的一方写着为什么。"""
    lines = []
    for it in section.outcomes:
        head = section.title, *it.label.split("，", 1)
        if it.error:
            lines.append((*head, it.error, *[""] * 8))
            continue
        times = f"{seconds(it.median('seconds'))}（{seconds(shortest(it))}）"
        copies = section.weight_bytes if section.about.loads else None
        lines.append(
            (
                *head,
                times,
                seconds(it.median("cpu")),
                size(it.median("increase"), copies),
                size(it.median("peak")),
                difference(it),
                *comparison(it, section),
            )
        )
    return lines


def comparison(other: Outcome, section: Section) -> Row:
    """最后四列：时间比、CPU 时间比、内存比、机器；sam_lite 自己那一行空着。"""
    ours = section.outcomes[0]
    if other is ours or ours.error:
        return "", "", "", ""
    times = [spread(ratios(other, ours, name), min) for name in ("seconds", "cpu")]
    memory = shares(other, ours, "increase")
    share = f"{statistics.median(memory):.2f}" if memory else "未测"
    return *times, share, kind_of(section.machine)


def bound_rows(section: Section) -> list[Row]:
    """编码器一项的几行：时间与矩阵乘法的速度容许的相比；没有量成的一方略去。"""
    lines = []
    for it in section.outcomes:
        rates = [r["rates"] for r in it.rounds if r.get("rates")]
        if rates:
            lines.append(
                (
                    section.title,
                    *it.label.split("，", 1),
                    f"{it.median('seconds'):.2f} s",
                    per_second([found["mm"] for found in rates]),
                    per_second([max(found.values()) for found in rates]),
                    spread(times_the_bound(it, section.variant), max),
                    spread(times_the_bound(it, section.variant, best=True), max),
                    kind_of(section.machine),
                )
            )
    return lines


def side_row(section: Section) -> Row:
    """一个型号、一个边长。"""
    weights = size(section.weight_bytes)
    return (
        section.variant,
        str(section.side),
        weights,
        *both(section, "increase"),
        *both(section, "peak"),
        *times(section),
    )


def count_row(section: Section) -> Row:
    """几个点，或几组提示。"""
    return str(section.count), *both(section, "increase"), *times(section)


def both(section: Section, name: str) -> Row:
    """sam_lite 的和官方的，MB。"""
    return tuple(size(it.median(name)) for it in section.outcomes)


def times(section: Section) -> Row:
    """两方的时间，时间之比，CPU 时间之比，误差，机器。"""
    ours, other = section.outcomes
    found = [ratios(other, ours, name) for name in ("seconds", "cpu")]
    return (
        *(seconds(it.median("seconds")) for it in (ours, other)),
        *(f"{statistics.median(values):.2f}" for values in found),
        difference(ours),
        kind_of(section.machine),
    )


def date_row(section: Section, number: int) -> Row:
    """一项是哪天、在第几台机器上量的，几轮。"""
    dtype = section.outcomes[0].dtype
    most = max(len(it.rounds) for it in section.outcomes)
    name = f"{section.about.title}（{section.variant}，{dtype}）"
    return name, section.date, str(most), str(number)


# ---- 机器，数的写法 --------------------------------------------------------------


def distinct_machines(sections: list[Section]) -> list[dict[str, str]]:
    """用过的各台机器，不重复，照出现的次序。"""
    machines = [section.machine for section in sections]
    return [m for i, m in enumerate(machines) if m not in machines[:i]]


def format_machines(known: list[dict[str, str]]) -> str:
    """各台机器的说明，一台一串条目；不止一台时写出编号。"""
    texts = ["\n".join(f"- {k}：{v}" for k, v in m.items()) for m in known]
    if len(known) == 1:
        return texts[0]
    return "\n\n".join(f"机器 {i + 1}：\n\n{text}" for i, text in enumerate(texts))


def shortest(outcome: Outcome) -> float:
    """最快的一轮，秒。"""
    return min(r["seconds"] for r in outcome.rounds)


def difference(outcome: Outcome) -> str:
    """与官方 float32 的误差。"""
    wrong = outcome.difference
    return "无参照" if wrong is None else f"{wrong:.1e}"


def spread(values: list[float], worst: Any) -> str:
    """中位数，括号里是最差的一轮；worst 是 min 或 max。"""
    if not values:
        return "未测"
    return f"{statistics.median(values):.2f}（{worst(values):.2f}）"


def per_second(values: list[float]) -> str:
    """每秒多少 GFLOP，取中位数。"""
    return f"{statistics.median(values) / 1e9:.0f} GFLOP"


def seconds(value: float | None) -> str:
    """不到一秒的用毫秒。"""
    if value is None:
        return "未测"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def size(value: float | None, weight_bytes: int | None = None) -> str:
    """字节变成 MB；给了权重的字节数，再写出相当于几份权重。"""
    if value is None:
        return "未测"
    text = f"{value / 1e6:.0f} MB"
    return f"{text}（{value / weight_bytes:.2f} 份）" if weight_bytes else text


def table(
    body: Sequence[Row], header: Row, style: str = "github", align: Row | None = None
) -> str:
    """排好的表，汉字按两格宽对齐；一行也没有就写“还没有量”。"""
    if not body:
        return "还没有量。"
    require("wcwidth", "对齐汉字", "bench")
    tabulate = require("tabulate", "排表格", "bench").tabulate
    text: str = tabulate(body, header, style, disable_numparse=True, colalign=align)
    return text
