"""把各轮的数字变成比值、表格和 RESULTS.md。"""

import statistics
from typing import Any, NamedTuple

import numpy as np

from sam_lite.extras import require

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
NOTES = """\
## 怎么量的

- 每个数都在新开的进程里量；三方轮流（甲乙丙甲乙丙），一轮一次，重复 {rounds} 轮。
  各方同一份随机权重、同样的输入、同样的线程数。除了读模型，都先热身再计时。
- “时间 ÷ sam_lite”是同一轮里它的时间除以 sam_lite 的，取各轮的中位数，括号里是最差的
  一轮；大于 1 就是 sam_lite 快。别的程序也在用处理器时，墙上时钟会偏，所以另给进程
  自己用掉的 CPU 时间（各线程相加），它的比值受影响小得多。
- 内存增量是测量期间常驻内存的最高值减去开始之前的值（Linux 的 VmHWM；别的系统未测），
  模型已经装好，不在增量里。进程峰值连 Python、各个库和模型都算上。
- 误差是与官方 float32 的结果相比的最大相对误差，max|a − b| ÷ max|b|，超过容许值就报错
  退出。点击比的是预测的 IoU、低分辨率 logits 和放大之后各张掩码的面积；读模型比的是
  每个参数的平方和。
- 一次点击和 64 次点击用同一份现成的图像嵌入，不含编码器；64 次点击的“低分辨率”只有
  提示编码器和掩码解码器。
- 读模型：权重文件在页缓存里（刚读过一遍），三方一样；导入库的时间不算。sam_lite 把文件
  映射进内存，用到才读，所以另有一项读完再把每个参数读一遍。括号里是内存增量相当于
  几份权重。
- transformers 的解码器默认 LayerNorm 的 eps 是 1e-6，官方是 1e-5，这里写成 1e-5，算式
  才相同；注意力用它默认的实现（sdpa）。图片处理器用不依赖 torchvision 的那一个。官方包
  的 resize 和 batched_nms 用测试里等价的替身，不装 torchvision。
- 权重是随机的：时间和内存与训练好的相同，bfloat16 的误差只说明量级。
"""


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
    for case, variant, _, outcomes in sections:
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
    case, variant, weight_bytes, outcomes = section
    ours = outcomes[0]
    table = []
    for outcome in outcomes:
        who, dtype = outcome.entry
        head = (f"{case.title}（{variant}）", NAMES[who], dtype)
        if outcome.error:
            table.append((*head, outcome.error, *[""] * 7))
            continue
        times = [r["seconds"] for r in outcome.rounds]
        cpu = statistics.median(r["cpu"] for r in outcome.rounds)
        multiple = weight_bytes if case.loads else None
        difference = outcome.difference
        table.append(
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
    return table


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
    """全部结果的表；style 是 tabulate 的格式名。汉字按两格宽对齐。"""
    require("wcwidth", "对齐汉字", "bench")
    tabulate = require("tabulate", "排表格", "bench").tabulate
    body = [row for section in sections for row in rows(section)]
    return tabulate(body, HEADER, tablefmt=style, disable_numparse=True)


def format_report(
    sections: list[Section],
    machine: dict[str, str],
    command: str,
    date: str,
    rounds: int,
) -> str:
    """RESULTS.md 的全文。"""
    about = "\n".join(f"- {name}：{text}" for name, text in machine.items())
    wrong = problems(sections)
    verdict = "全部在容许的误差之内。" if not wrong else "有问题：" + "；".join(wrong)
    return (
        "# 时间和内存的比较\n\n"
        f"这一页由 `{command}` 写出，{date}。{verdict}\n\n"
        f"{format_table(sections, 'github')}\n\n"
        f"## 机器\n\n{about}\n\n{NOTES.format(rounds=rounds)}"
    )


def as_json(sections: list[Section], machine: dict[str, str]) -> dict[str, Any]:
    """全部原始数字，可以写成 JSON。"""
    return {
        "machine": machine,
        "results": [
            {
                "case": section.case.key,
                "variant": section.variant,
                "weight_bytes": section.weight_bytes,
                "contender": outcome.entry[0],
                "dtype": outcome.entry[1],
                "rounds": outcome.rounds,
                "difference": outcome.difference,
                "tolerance": section.case.tolerance,
                "error": outcome.error,
            }
            for section in sections
            for outcome in section.outcomes
        ],
    }
