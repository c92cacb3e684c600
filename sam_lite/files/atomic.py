"""要么完整写好，要么一点不动：先写临时文件，落到磁盘上，再改名过去。

写文件只用这一个办法，断电、磁盘满、Ctrl-C 都不会留下半个文件，也不会弄丢旧的::

    with atomic_file(path) as file:  # 二进制；with 走完才换掉旧文件
        file.write(data)

``check_writable(path)`` 在动手之前先试写一下，免得白算一场；``sweep(path)`` 清掉被强行
结束的进程留下的临时文件，只在确定没有别人正写 ``path`` 时调用。
"""

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import SamLiteError

# 最常见的几种原因；别的照搬系统的话
REASONS = {
    errno.ENOSPC: "磁盘满了，腾出空间再来",
    errno.EDQUOT: "磁盘配额用完了，腾出空间再来",
    errno.EFBIG: "超过了单个文件的大小上限",
    errno.EROFS: "这个磁盘是只读的",
    errno.EACCES: "没有权限写，或者文件正被别的程序打开",
    errno.EPERM: "没有权限写",
    errno.ENAMETOOLONG: "文件名太长",
}


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """给出一个可写的二进制文件；with 正常走完才改名成 ``path``，否则一点不动。

    临时文件在同一个文件夹里，名字每次不同；数据和文件夹都 fsync 过才算写好。写不了
    （with 里写文件的 OSError 也算）时抛 SamLiteError；别的异常原样抛出。
    """
    path = Path(path)
    temporary = path.with_name(f"{_prefix(path)}{secrets.token_hex(4)}.tmp")
    try:
        if path.is_dir():
            raise SamLiteError(f"写不了 {path}：这是一个文件夹。")
        if path.exists() and not path.is_file():  # 设备、管道：改名会把它们换掉
            raise SamLiteError(f"写不了 {path}：这不是普通文件。")
        if not path.parent.is_dir():
            raise SamLiteError(f"写不了 {path}：没有文件夹 {path.parent}。")
        with open(temporary, "xb") as file:
            yield file
            flush_to_disk(file)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise SamLiteError(f"写不了 {path}：{reason(error)}。") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class _OnlyATrial(Exception):
    """试写完了，不要改名。"""


def check_writable(path: str | os.PathLike[str]) -> None:
    """在 ``path`` 旁边试写 4 KB 再删掉；写不了就抛 SamLiteError。"""
    with contextlib.suppress(_OnlyATrial), atomic_file(path) as file:
        file.write(bytes(4096))
        flush_to_disk(file)
        raise _OnlyATrial


def flush_to_disk(file: BinaryIO) -> None:
    """把写进 ``file`` 的都落到磁盘上：之后断电也还在。"""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """让改名本身也落到磁盘上；Windows 和一些网络磁盘做不到，那就算了。"""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(path: str | os.PathLike[str]) -> None:
    """删掉以前写 ``path`` 时留下的临时文件：进程被强行结束时来不及自己删。"""
    path = Path(path)
    for stale in path.parent.glob(f"{glob.escape(_prefix(path))}*.tmp"):
        with contextlib.suppress(OSError):
            stale.unlink()


def reason(error: OSError) -> str:
    """把系统的错误说成一句中文；不常见的照搬原话。"""
    return REASONS.get(error.errno or 0, error.strerror or str(error))


def _prefix(path: Path) -> str:
    """临时文件名的开头；文件名很长时只取前一段，免得超过系统的上限。"""
    return f".{path.name[:40]}."
