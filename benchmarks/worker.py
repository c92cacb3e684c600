"""在单独的进程里把一项量一次：``python -m benchmarks.worker 设定的文件``。

量出时间、CPU 时间、内存，编码器的两项另有矩阵乘法的速度；怎样交回去见
``process.py``。
"""

import gc
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from .cases import BY_KEY, Case, Run, prepare
from .contenders import Job
from .operations import product_rates
from .process import Parts, answer


def memory(field: str) -> int | None:
    """进程的常驻内存（VmRSS）或它的最高值（VmHWM），字节；不是 Linux 时是 None。"""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(field)]
    return int(found[0]) * 1024 if found else None


def reset_peak() -> bool:
    """把 VmHWM 拉回现在的值；系统不许就返回假，内存于是不量。"""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def measure(run: Run, warmups: int, repeats: int) -> tuple[dict[str, Any], Any]:
    """先热身再计时，峰值内存把热身也算在内。返回（数字，最后一次的结果）。"""
    gc.collect()
    resettable = reset_peak()
    before = memory("VmRSS")
    seconds, cpu = [], []
    result = None
    for i in range(warmups + repeats):
        result = None  # 上一次的结果先放掉，不算进峰值
        start, start_cpu = time.perf_counter(), time.process_time()
        result = run()
        if i >= warmups:
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    peak = memory("VmHWM") if resettable else None
    increase = peak - before if peak is not None and before is not None else None
    numbers = {
        "seconds": statistics.median(seconds),
        "cpu": statistics.median(cpu),
        "peak": peak,
        "increase": increase,
    }
    return numbers, result


def measure_job(case: Case, job: Job) -> tuple[dict[str, Any], Parts]:
    """一项、一方：数字，和要核对的张量（float64）。

    编码器的两项另量矩阵乘法的速度，紧挨着测量，前后各一次。
    """
    dtype = getattr(torch, job.dtype)
    with torch.no_grad():
        run = prepare(case, job)
        before = product_rates(dtype) if case.bound else {}
        numbers, result = measure(run, case.warmups, case.repeats)
        after = product_rates(dtype) if case.bound else {}
        numbers["rates"] = {name: (before[name] + after[name]) / 2 for name in before}
        parts = case.outputs(result)
    return numbers, {name: part.double().numpy() for name, part in parts.items()}


def measure_setting(setting: dict[str, Any]) -> tuple[dict[str, Any], Parts]:
    """照设定量一次。"""
    job = Job(**{**setting["job"], "folder": Path(setting["job"]["folder"])})
    return measure_job(BY_KEY[setting["case"]], job)


if __name__ == "__main__":
    answer(Path(sys.argv[1]), measure_setting)
