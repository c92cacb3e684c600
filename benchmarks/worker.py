"""在单独的进程里把一项、一方量一次：时间、CPU 时间、内存，编码器另有矩阵乘法的速度。

``spawn`` 是叫的一头，``answer`` 是量的一头，数字和要核对的张量从管子里送回来。
"""

import gc
import multiprocessing
import os
import statistics
import time
from contextlib import redirect_stderr
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cases import BY_KEY, Case, Run
from .contenders import Job, NotInstalledError
from .operations import product_rates

Numbers = dict[str, Any]
Parts = dict[str, np.ndarray]


def spawn(case: Case, job: Job, threads: int) -> tuple[Numbers, Parts]:
    """在新的进程里量一次，返回（数字，要核对的张量）；出错时数字里有 error。"""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(there, case.key, job, threads))
    process.start()
    there.close()
    found = None
    try:
        found = here.recv()
    except EOFError:
        pass  # 它没有送就完了
    except BaseException:
        process.kill()
        raise
    process.join()
    return found or ({"error": f"进程没有走完，退出码 {process.exitcode}"}, {})


def answer(pipe: Connection, key: str, job: Job, threads: int) -> None:
    """量的一头：没装或出错也写明，照常结束。"""
    torch.set_num_threads(threads)
    parts: Parts = {}
    try:
        with open(os.devnull, "w") as null, redirect_stderr(null):  # 别家的进度条
            numbers, parts = measure_job(BY_KEY[key], job)
    except NotInstalledError:
        numbers = {"error": "没有安装"}
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        numbers = {"error": f"出错：{type(error).__name__}：{line}"[:120]}
    pipe.send((numbers, parts))


def measure_job(case: Case, job: Job) -> tuple[Numbers, Parts]:
    """一项、一方：数字，和要核对的张量（float64）。

    要与下限相比的项另量矩阵乘法的速度，紧挨着测量，前后各一次，取平均。
    """
    dtype = getattr(torch, job.dtype)
    with torch.no_grad():
        run = case.preparation(job)(job)
        before = product_rates(dtype) if case.bound else {}
        numbers, result = measure(run, case.warmups, case.repeats, job.device)
        after = product_rates(dtype) if case.bound else {}
        numbers["rates"] = {name: (before[name] + after[name]) / 2 for name in before}
        parts = case.outputs(result)
    return numbers, {name: part.double().cpu().numpy() for name, part in parts.items()}


def measure(
    run: Run, warmups: int, repeats: int, device: str = "cpu"
) -> tuple[Numbers, Any]:
    """先热身再计时，峰值内存把热身也算在内。返回（数字，最后一次的结果）。

    在显卡上，内存是显存；显卡是边派活边算的，看表之前先等它算完。
    """
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    gc.collect()
    resettable = reset_peak(device)
    before = memory("VmRSS", device)
    seconds, cpu = [], []
    result = None
    for i in range(warmups + repeats):
        result = None  # 上一次的结果先放掉，不算进峰值
        wait()
        start, start_cpu = time.perf_counter(), time.process_time()
        result = run()
        wait()
        if i >= warmups:
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    peak = memory("VmHWM", device) if resettable else None
    increase = peak - before if peak is not None and before is not None else None
    numbers = {
        "seconds": statistics.median(seconds),
        "cpu": statistics.median(cpu),
        "peak": peak,
        "increase": increase,
    }
    return numbers, result


def memory(field: str, device: str = "cpu") -> int | None:
    """现在占的（VmRSS）或最多占过的（VmHWM）内存，字节；不是 Linux 时是 None。"""
    if device == "cuda":
        peak = field == "VmHWM"
        cuda = torch.cuda
        return cuda.max_memory_allocated() if peak else cuda.memory_allocated()
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(field)]
    return int(found[0]) * 1024 if found else None


def reset_peak(device: str = "cpu") -> bool:
    """把最高值拉回现在的值；系统不许就返回假，内存于是不量。"""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
