"""几个进程一起训练、微调（DDP）：每个进程算自己那几张照片，梯度加起来，各自走同样的一步。

进程由 ``torchrun`` 起，它用环境变量告诉每个进程“第几个、一共几个”；CPU 用 gloo 通信，
NVIDIA 显卡用 NCCL。抽样由种子、步数和照片在这一步里的次序决定，与进程数无关，所以两个
进程和一个进程走出同样的结果，只差浮点舍入。Windows 上没有 NCCL，都用 gloo；先设环境变量
``USE_LIBUV=0``，再用 ``torchrun``。
"""

from __future__ import annotations

import os
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
