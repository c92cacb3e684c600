"""在单独的进程里量：设定写成文件交过去，数字和张量从文件取回来。"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .contenders import NotInstalledError

ROOT = Path(__file__).resolve().parent.parent
Numbers = dict[str, Any]
Parts = dict[str, np.ndarray]


def run_apart(module: str, setting: Numbers) -> tuple[Numbers, Parts]:
    """执行 ``python -m module 设定的文件``，返回（数字，要核对的张量）。

    setting 里要有 threads。出错时数字里有 error。
    """
    threads = setting["threads"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "setting.json"
        path.write_text(json.dumps(setting), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", module, str(path)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
        )
        found = path.with_name("result.json")
        if done.returncode != 0 or not found.is_file():
            return {"error": f"进程没有走完，退出码 {done.returncode}"}, {}
        numbers = json.loads(found.read_text(encoding="utf-8"))
        if "error" in numbers:
            return numbers, {}
        with np.load(path.with_name("result.npz")) as parts:
            return numbers, dict(parts)


def answer(path: Path, measure: Callable[[Numbers], tuple[Numbers, Parts]]) -> None:
    """那一头：读设定，量，写结果；没装或出错也写明，照常结束。"""
    setting = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(setting["threads"])
    try:
        found, parts = measure(setting)
        np.savez(path.with_name("result.npz"), **parts)  # type: ignore[arg-type]
    except NotInstalledError:
        found = {"error": "没有安装"}
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        found = {"error": f"出错：{type(error).__name__}：{line}"[:120]}
    path.with_name("result.json").write_text(json.dumps(found), encoding="utf-8")
