"""COSTS.md 的全文。"""

from typing import Any

from sam_lite.config import PRESETS

from .contenders import NAMES
from .page import machine_lines
from .report import seconds, size, table

Row = dict[str, Any]
Pair = dict[str, Row]  # 谁 -> 它的那一行
SIDES = ("型号", "边长", "权重", "内存增量", "官方的", "进程峰值", "官方的")
TIMES = ("时间", "官方的", "官方 ÷ sam_lite", "CPU 时间之比", "误差")
COUNTS = ("内存增量", "官方的", *TIMES)
MODES = ("型号", "测量", "谁", "精度", "时间", "显存增量", "官方 ÷ 它", "误差")
TASKS = {"encoder": "图像编码器", "everything": "分割一切，32×32 点，不筛"}

TEXT = """\
# 花费随型号、输入边长和点数怎样变

这一页由 `python -m benchmarks.costs` 写出，原始的数在 [costs.json](costs.json)；与官
方、transformers 的比较见 [RESULTS.md](RESULTS.md)。没有写谁的一列是 sam_lite，与它比
的是官方包，都用 float32。每一行的两方各在单独的进程里量一次，权重随机、两方相同；误差
是结果的最大相对误差。每种只量一次。时间写着“未测”的，量的
时候别的程序正占着处理器（`--memory`），时间不作数，内存不受影响。

## 图像编码器：型号和输入边长

{encoder}

![每个型号两幅小图，横轴是输入边长，纵轴是时间和内存增量](costs_sides.svg)

权重是 float32 的大小。内存增量是编码一张图时比装好模型之后多占的；进程峰值连 Python、
PyTorch 和模型都算上。tiny、vit_b 先热身一次，两个大型号不热身。换边长用的是
`sam_lite.load(..., image_size=512)`；官方包没有这个选项，这里按它的类拼出同样边长的模
型来比。

## 一组提示里的点数

vit_b，图像已经编码，掩码放大到 750×1000 的原图；先热身两次，取九次的中位数。快路把
图像一侧的投影挪到词元一侧，1 个点时乘法 1.7 GFLOP（官方 3.6），64 个点时却是 9.9 GFLOP
（官方 4.7），所以一组里的点到了 20 个，就不走快路（``prompt_decoder.MANY``）。

{points}

## 几组提示一起问

vit_b，每组一个点，其余同上；16 组以内先热身，再多就不热身，只量一次，头一次向系统要内存
的时间也在里面。

{prompts}

![三幅图：一组提示里的点数与时间，几组提示与时间，几组提示与内存增量](costs_counts.svg)

## 显卡

{gpu}

## 机器

{machines}
"""
NO_GPU = """\
**没有运行过**：这里没有 NVIDIA 显卡。程序写好了，只在 CPU 上用 tiny 走通过编码器一项，
分割一切，显卡上的计时、显存和编译都没有试过。有显卡的人运行
`python -m benchmarks.gpu`，就会在这里写出官方（float32，逐步执行）、sam_lite 的
float32、bfloat16、编译过的 bfloat16 在
vit_b、vit_h 上编码一张图和分割一切的时间与显存。"""


def pairs(rows: list[Row], kind: str) -> list[Pair]:
    """一种测量的各行，按型号、边长、个数成对，从小到大。"""
    order = list(PRESETS)
    found: dict[tuple[int, int, int], Pair] = {}
    for row in rows:
        if row["kind"] == kind and "error" not in row:
            place = order.index(row["variant"]), row["side"], row["count"]
            found.setdefault(place, {})[row["contender"]] = row
    return [found[p] for p in sorted(found) if len(found[p]) == 2]


def memory_of(pair: Pair, field: str) -> tuple[str, str]:
    """sam_lite 的和官方的，MB。"""
    return size(pair["sam_lite"][field]), size(pair["official"][field])


def timed(pair: Pair) -> bool:
    """两方都记了时间。"""
    return all(row["seconds"] is not None for row in pair.values())


def times_of(pair: Pair) -> tuple[str, ...]:
    """两方的时间，时间之比，CPU 时间之比，误差；只记了内存的，时间是“未测”。"""
    a, b = pair["sam_lite"], pair["official"]
    if not timed(pair):
        return "未测", "未测", "", "", f"{a['difference'] or 0:.1e}"
    ratios = [f"{b[field] / a[field]:.2f}" for field in ("seconds", "cpu")]
    wrong = a["difference"]
    error = "无参照" if wrong is None else f"{wrong:.1e}"
    return seconds(a["seconds"]), seconds(b["seconds"]), *ratios, error


def format_sides(found: list[Pair]) -> str:
    """编码器的表。"""
    body = [
        (
            pair["sam_lite"]["variant"],
            str(pair["sam_lite"]["side"]),
            size(pair["sam_lite"]["weights"]),
            *memory_of(pair, "increase"),
            *memory_of(pair, "peak"),
            *times_of(pair),
        )
        for pair in found
    ]
    return table(body, (*SIDES, *TIMES)) if body else "还没有量。"


def format_counts(found: list[Pair], name: str) -> str:
    """点数或提示组数的表，第一列叫 name。"""
    body = [
        (
            str(pair["sam_lite"]["count"]),
            *memory_of(pair, "increase"),
            *times_of(pair),
        )
        for pair in found
    ]
    return table(body, (name, *COUNTS)) if body else "还没有量。"


def format_gpu(rows: list[Row]) -> str:
    """显卡的表；没有在显卡上量过，就说没有。"""
    found = [row for row in rows if row["kind"] == "gpu"]
    if not any("显卡" in row["machine"] for row in found):
        return NO_GPU
    official = {
        (row["variant"], row["task"]): row["seconds"]
        for row in found
        if row["contender"] == "official"
    }
    body = [
        (
            row["variant"],
            TASKS[row["task"]],
            NAMES[row["contender"]],
            row["dtype"] + ("，编译" if row["compiled"] else ""),
            seconds(row["seconds"]),
            size(row["increase"]),
            f"{official[row['variant'], row['task']] / row['seconds']:.2f}",
            f"{row['difference']:.1e}",
        )
        for row in found
    ]
    return table(body, MODES)


def format_costs(rows: list[Row]) -> str:
    """COSTS.md 的全文。"""
    return TEXT.format(
        encoder=format_sides(pairs(rows, "encoder")),
        points=format_counts(pairs(rows, "points"), "点数"),
        prompts=format_counts(pairs(rows, "prompts"), "组数"),
        gpu=format_gpu(rows),
        machines=machine_lines([row["machine"] for row in rows]),
    )
