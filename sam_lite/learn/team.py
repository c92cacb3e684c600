"""几个进程一起训练、微调（DDP）：每个进程算自己那几张照片，梯度加起来，各自走同样的一步。

进程由 ``torchrun`` 起（或者用 ``start_others``），它用环境变量告诉每个进程“第几个、一共
几个”；CPU 用 gloo 通信，NVIDIA 显卡用 NCCL。抽样由种子、步数和照片在这一步里的次序
决定，与进程数无关，所以两个进程和一个进程走出同样的结果，只差浮点舍入。Windows 上没有
NCCL，都用 gloo；先设环境变量 ``USE_LIBUV=0``，再用 ``torchrun``。
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..errors import SamLiteError, problem


class Team:
    """一起干活的几个进程；只有一个时什么也不通信。

    参数：
        rank: 自己是第几个，从 0 数。
        world: 一共几个。
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    def mine(self, count: int) -> range:
        """``count`` 件事里自己的那几件：像发牌一样轮流分。"""
        return range(self.rank, count, self.world)

    def add_up(
        self, parameters: Iterable[nn.Parameter], numbers: Sequence[float]
    ) -> list[float]:
        """各进程的梯度加起来，放回各自的 ``grad``；几个数也加起来，返回它们。

        没有梯度的当作 0：这一步里别的进程可能用到了它。全部拼成一条，只通信一次。
        """
        parameters = list(parameters)
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        if self.world == 1:
            return list(numbers)
        grads = [p.grad.flatten() for p in parameters if p.grad is not None]
        flat = torch.cat([*grads, grads[0].new_tensor(numbers)])
        with talking():
            dist.all_reduce(flat)
        *parts, total = flat.split([*map(len, grads), len(numbers)])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view_as(p)
        return total.tolist()

    def gather(self, rows: list[Any]) -> list[Any]:
        """各进程的几行合成一份，每个进程都拿到全部。"""
        if self.world == 1:
            return rows
        everyone: list[list[Any]] = [[] for _ in range(self.world)]
        with talking():
            dist.all_gather_object(everyone, rows)
        return [row for each in everyone for row in each]


@contextmanager
def talking() -> Iterator[None]:
    """通信时别的进程没了，就抛 SamLiteError。"""
    try:
        yield
    except RuntimeError as error:
        raise SamLiteError(f"和别的进程断了，它们也许被杀了：{error}") from error


@contextmanager
def join_team(device: torch.device) -> Iterator[Team]:
    """在 ``torchrun`` 里就和别的进程连上，出来时断开；不在就只有自己一个。

    错误：环境变量说不通、连不上、设备不是 CPU 或 NVIDIA 显卡时抛 SamLiteError。
    """
    started = dist.is_available() and dist.is_initialized()
    world = os.environ.get("WORLD_SIZE", "1")
    if not started and world == "1":
        yield Team()
        return
    if device.type not in ("cpu", "cuda"):  # gloo 和 NCCL 都不认 mps
        raise problem("sam", f"在 {device} 上", "几个进程时在 cpu 或 cuda 上")
    if not started:
        if os.name == "nt":  # Windows 的 PyTorch 多半没有 libuv，而它默认要用
            os.environ.setdefault("USE_LIBUV", "0")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            nccl = device.type == "cuda" and dist.is_nccl_available()
            dist.init_process_group("nccl" if nccl else "gloo")
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise SamLiteError(
                f"和别的进程连不上：{error}。不用 torchrun 就去掉环境变量 WORLD_SIZE。"
            ) from error
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        if not started:
            dist.destroy_process_group()


def free_address() -> dict[str, str]:
    """这台机器上一个空着的端口，写成环境变量的样子。"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


@contextmanager
def start_others(world: int, command: Sequence[str]) -> Iterator[None]:
    """不用 ``torchrun``，自己再起 world - 1 个进程各跑一遍 command，好一起 join_team。

    走完了等它们走完；半路出来就停掉它们，所以 command 在那些进程里不要写文件。终端的
    Ctrl-C 不传给它们，由自己告诉它们停。CPU 的线程几个进程平分。world 是 1 时什么也
    不做。

    错误：已经在 ``torchrun`` 里时抛 SamLiteError。
    """
    if world == 1:
        yield
        return
    if "WORLD_SIZE" in os.environ:
        mend = "torchrun 已经起了几个进程；不用它，就去掉环境变量 WORLD_SIZE。"
        raise problem("processes", str(world), "1", mend)
    threads = max(1, torch.get_num_threads() // world)
    torch.set_num_threads(threads)
    shared = free_address() | {
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": str(threads),
    }
    before, others = dict(os.environ), []
    try:
        for rank in range(world):
            own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if rank:
                # 终端的 Ctrl-C 只给第一个进程，由它告诉别的：还在导入的听了会当场死掉
                other = subprocess.Popen(
                    command,
                    env=before | own,
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
                others.append(other)
            else:
                os.environ.update(own)
        yield
        for other in others:
            other.wait()
    finally:
        for other in others:
            other.kill()
            other.wait()
        for name in (*shared, "RANK", "LOCAL_RANK"):
            os.environ.pop(name)
        os.environ.update(before)
