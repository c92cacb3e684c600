"""跑一次小号的 ``sam-lite train``，在指定的一刻出事。给 test_train_robustness 用。

只导入一次 torch，之后每个任务 fork 一个子进程：标准输入每行一个 JSON 任务，标准输出
每行一个 JSON 结果。"时刻"是训练目录里的每一次打开（写）、改名、删除、建文件夹、fsync，
和每张场景、每次求梯度、每次更新参数；子进程从 1 数起，数到指定的那一刻就出事。
"""

import errno
import json
import os
import re
import resource
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import safetensors.torch  # noqa: F401
import torch
import tqdm  # noqa: F401
from parity.small import SMALL

from sam_lite import cli
from sam_lite.cli import train as cli_train
from sam_lite.learn import loop
from sam_lite.learn.data import Mixture

# 张量少，存取就快
MICRO = replace(SMALL, depth=1, global_attn_indexes=(0,), decoder_depth=1)
FILLING = ("open", "rename", "mkdir", "fsync")  # 磁盘满时做不成的
WRITING = os.O_WRONLY | os.O_RDWR


class Moments:
    """数时刻，到了就出事。

    ``what`` 是信号的名字：在第 ``at`` 个时刻发给自己，到第 ``until`` 个再发一次；或是
    ``ENOSPC``：从 ``at`` 到 ``until`` 之前磁盘一直满着；空的就只数。
    """

    def __init__(self, folder: str, at: int, what: str, until: int) -> None:
        self.folder, self.at, self.what, self.until = folder, at, what, until
        self.names: list[str] = []
        self.busy = False

    def reach(self, name: str, handle: int | None = None) -> None:
        """到了一个时刻；``handle`` 是正要 fsync 的临时文件。"""
        if self.busy:
            return
        self.names.append(re.sub(r"\.[0-9a-f]{8}\.tmp", ".tmp", name))
        count = len(self.names)
        if self.what == "ENOSPC":
            if self.at <= count < self.until and name.split()[0] in FILLING:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif self.what and count in (self.at, self.until):
            if handle is not None and self.what == "SIGKILL":  # 只写了一半
                self.busy = True
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
            os.kill(os.getpid(), getattr(signal, self.what))

    def audit(self, event: str, args: tuple) -> None:
        """Python 每次打开、改名、删除文件都会来报。"""
        writing = event == "open" and args[2] & WRITING
        if writing or event in ("os.rename", "os.remove", "os.mkdir"):
            path = os.fspath(args[0]) if not isinstance(args[0], int) else ""
            if str(path).startswith(self.folder):
                self.reach(f"{event.removeprefix('os.')} {os.path.basename(path)}")

    def watch(self) -> None:
        """装上探头。"""
        sys.addaudithook(self.audit)
        fsync = os.fsync

        def counted_fsync(handle: int) -> None:
            name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
            temporary = name.endswith(".tmp")
            self.reach(f"fsync {name}", handle if temporary else None)
            fsync(handle)

        os.fsync = counted_fsync

        def before(module: object, name: str, label: str) -> None:
            original = getattr(module, name)

            def watched(*args: object, **options: object) -> object:
                self.reach(label)
                return original(*args, **options)

            setattr(module, name, watched)

        before(Mixture, "__getitem__", "scene")
        before(loop.nn.utils, "clip_grad_norm_", "backward")
        before(loop.torch.optim.AdamW, "step", "update")


def child(job: dict) -> int:
    """子进程里：接好输出，装好探头，跑命令。"""
    for number, stream in ((1, "out"), (2, "err")):
        handle = os.open(job[stream], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if job["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    cli_train.TINY = MICRO
    cli_train.SCENE_SIZE = MICRO.image_size
    loop.LOG_EVERY = 1
    moments = Moments(job["folder"], job["at"], job["what"], job["until"])
    moments.watch()
    try:
        return cli.main(job["argv"])
    finally:
        moments.busy = True
        Path(job["names"]).write_text(json.dumps(moments.names), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()


def main() -> None:
    """一行一个任务，做完答一行退出码（负数是被信号杀死）。"""
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # 它要导入的东西很多
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = child(json.loads(line))
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
