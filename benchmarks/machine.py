"""这台机器是什么样的：处理器、核数、内存、系统、各个库的版本。"""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

# 影响矩阵乘法快慢的那些指令集
# fmt: off
INSTRUCTIONS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "asimd", "asimddp", "bf16", "sve",
)
# fmt: on
# 从宽到窄
WIDEST = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}


def cores() -> int:
    """这个进程能用的核数。"""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # 不是 Linux
        return os.cpu_count() or 1


def cpu_information() -> tuple[str, list[str]]:
    """处理器的型号和指令集；不是 Linux 时只有型号。"""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), []
    lines = [line.partition(":") for line in text.splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    name = fields.get("model name") or platform.machine()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return name, [flag for flag in INSTRUCTIONS if flag in flags]


def ram() -> str:
    """物理内存，GB；问不出来时是“未知”。"""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "未知"
    return f"{size / 1e9:.1f} GB"


def version(name: str) -> str:
    """一个库的版本，没装就是“没有安装”。"""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "没有安装"


def describe_machine(threads: int, device: str = "cpu") -> dict[str, str]:
    """名目到说明，顺序就是表里的顺序；量显卡时另有显卡的两行。"""
    name, flags = cpu_information()
    about = {
        "处理器": name,
        "核与线程": f"{cores()} 核，各方都用 {threads} 个线程",
        "指令集": "、".join(flags) or "未知",
        "内存": ram(),
        "系统": f"{platform.system()} {platform.release()}，{platform.machine()}",
        "Python": platform.python_version(),
        "torch": f"{torch.__version__}（{torch.backends.cpu.get_cpu_capability()}）",
        "transformers": version("transformers"),
        "segment-anything-py": version("segment-anything-py"),
        "numpy": version("numpy"),
    }
    if device == "cuda":
        about["显卡"] = torch.cuda.get_device_name()
        about["CUDA"] = str(torch.version.cuda)
    return about


def kind_of(machine: dict[str, str]) -> str:
    """这是哪一种机器，写在比值旁边：显卡，或处理器和它最宽的向量指令。

    只看记下的说明；没有记下的不写，一样也没有就是空的。
    """
    if "显卡" in machine:
        return machine["显卡"]
    flags = machine.get("指令集", "").split("、")
    widest = [name for flag, name in WIDEST.items() if flag in flags][:1]
    return "，".join([machine[k] for k in ("处理器",) if k in machine] + widest)
