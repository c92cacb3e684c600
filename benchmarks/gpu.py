"""显卡上的时间和显存：``python -m benchmarks.gpu``，记进 costs.json 和 COSTS.md。

官方照原样用 float32；sam_lite 用 float32、bfloat16、编译过的 bfloat16。
"""

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sam_lite.config import PRESETS

from .cases import SavedEmbedding, noise, picture, records
from .contenders import Job
from .costs import HERE, progress, record
from .costs_page import TASKS
from .costs_worker import Row, build
from .machine import describe_machine
from .report import relative_difference

# （谁，精度，编译不编译）；官方是参照，排在最前
MODES = (
    ("official", "float32", False),
    ("sam_lite", "float32", False),
    ("sam_lite", "bfloat16", False),
    ("sam_lite", "bfloat16", True),
)


def describe_gpu(device: torch.device) -> dict[str, str]:
    """机器的说明，加上显卡、驱动的 CUDA 版本。"""
    about = describe_machine(torch.get_num_threads())
    if device.type == "cuda":
        about["显卡"] = torch.cuda.get_device_name(device)
        about["CUDA"] = str(torch.version.cuda)
    return about


def measure_on(
    device: torch.device, run: Callable[[], Any], warmups: int, repeats: int
) -> tuple[Row, Any]:
    """热身、计时；显卡是边派活边算的，停表之前要等它算完。

    increase 是测量期间显存的最高值减去开始之前的；不是显卡时是 None。
    """
    cuda = device.type == "cuda"
    wait: Callable[[], Any] = torch.cuda.synchronize if cuda else lambda: None
    before = torch.cuda.memory_allocated(device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    found, result = [], None
    for i in range(warmups + repeats):
        result = None  # 上一次的结果先放掉，不算进峰值
        wait()
        start = time.perf_counter()
        result = run()
        wait()
        if i >= warmups:
            found.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    increase = peak - before if peak is not None else None
    return {"seconds": statistics.median(found), "increase": increase}, result


def make_run(
    task: str, mode: tuple[str, str, bool], variant: str, device: torch.device
) -> Callable[[], dict[str, torch.Tensor]]:
    """装好模型，返回要量的：一次编码，或整张图的分割一切（图像已经编码）。"""
    contender, dtype, compiled = mode
    kind = getattr(torch, dtype)
    sam: Any = build(contender, PRESETS[variant]).to(device, kind)
    job = Job(contender, variant, dtype, Path())
    if task == "encoder":
        encoder = torch.compile(sam.image_encoder) if compiled else sam.image_encoder
        side = job.config.image_size
        x = noise(1, 3, side, side).to(device, kind)
        return lambda: {"embedding": encoder(x)}
    sam.image_encoder = SavedEmbedding(job).to(device, kind)
    sam.image_encoder.features = sam.image_encoder.features.to(device, kind)
    if compiled:
        sam.mask_decoder = torch.compile(sam.mask_decoder)
    options = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = job.generator(sam, output_mode="uncompressed_rle", **options)
    return lambda: records(generator.generate(picture()))


def measure_variant(
    variant: str, device: torch.device, tasks: list[str], warmups: int, repeats: int
) -> list[Row]:
    """一个型号的各行：每样、每种方式一行，误差对官方的 float32。"""
    rows: list[Row] = []
    about = {
        "kind": "gpu",
        "variant": variant,
        "side": PRESETS[variant].image_size,
        "date": datetime.date.today().isoformat(),
        "machine": describe_gpu(device),
    }
    for task in tasks:
        expected = None
        for mode in MODES:
            contender, dtype, compiled = mode
            with torch.no_grad():
                run = make_run(task, mode, variant, device)
                numbers, result = measure_on(device, run, warmups, repeats)
            parts = {k: v.detach().double().cpu().numpy() for k, v in result.items()}
            expected = expected or parts
            name = {"task": task, "dtype": dtype, "compiled": compiled}
            wrong = relative_difference(parts, expected)
            place = {"contender": contender, "difference": wrong, **name}
            rows.append({**about, **place, **numbers})
            print(progress(rows[-1]), flush=True)
    return rows


def tolerance(row: Row) -> float:
    """容许的误差；半精度的分割一切会换掉一些掩码，只写出来，不算错。"""
    if row["dtype"] == "float32":
        return 1e-3
    return 0.05 if row["task"] == "encoder" else float("inf")


def main(arguments: list[str]) -> int:
    """执行一次，返回退出码：0 正常；1 误差超过容许值；2 没有显卡。"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", default="cuda", help="cpu 只用来试这个程序")
    parser.add_argument("--variant", nargs="+", default=["vit_b", "vit_h"])
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--warmups", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=HERE, help="记在哪个文件夹")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("这里没有能用的 NVIDIA 显卡。", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for variant in options.variant:
        times = options.warmups, options.repeats
        rows += measure_variant(variant, device, options.only, *times)
    record(options.folder, rows)
    wrong = [r for r in rows if not r["difference"] <= tolerance(r)]
    print("\n".join(map(progress, wrong)), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
