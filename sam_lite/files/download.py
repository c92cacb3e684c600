"""下载官方权重：断了接着下，大小和 SHA-256 都对上，才给它正式的名字。

    path = download("vit_b")

没下完的部分留在同一个文件夹的 ``….pth.part`` 里，再来一次就从那里接着下。哈希只认
``files.official`` 里的表，从哪个镜像下载都一样；文件里的内容在这里不会被解开。
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import SamLiteError, problem, require
from ..files.atomic import reason, sync_folder
from ..files.official import OFFICIAL_FILES, OFFICIAL_URL, OfficialFile, weights_dir
from ..files.stream import (
    OTHER_FOLDER,
    OTHER_MIRROR,
    Job,
    kept,
    progress_bar,
    receive,
)


def download(
    name: str,
    *,
    folder: str | Path | None = None,
    mirror: str | None = None,
    timeout: float = 30.0,
    quiet: bool = False,
) -> Path:
    """下载一个官方权重文件，返回它的路径；已经有一个完好的，就只核对。

    参数：
        name: ``"vit_b"``、``"vit_l"``、``"vit_h"``。
        folder: 放进哪个文件夹，默认 ``weights_dir()``。
        mirror: 镜像，文件名接在后面；里面有 ``.pth`` 的就是文件的完整地址。默认看
            环境变量 SAM_LITE_MIRROR，再默认是官方地址。
        timeout: 连接、以及两次收到数据之间，最多等几秒。
        quiet: 真则不显示进度，也不说话。

    错误：地址不对、反复连不上、收到的不是这个文件、磁盘写不下、同名的文件不是官方的，
    都抛 SamLiteError；正式的名字下绝不会有没下完或不对的文件。
    """
    if name not in OFFICIAL_FILES:
        raise problem("name", repr(name), "、".join(OFFICIAL_FILES) + " 之一")
    file = OFFICIAL_FILES[name]
    url = file_url(file, mirror or os.environ.get("SAM_LITE_MIRROR") or OFFICIAL_URL)
    target = (weights_dir() if folder is None else Path(folder)) / file.name
    job = Job(file, url, target.with_name(f"{file.name}.part"), timeout, quiet)
    try:
        fetched = fetch_once(job, target)
    except OSError as error:
        text = f"写不了 {target}：{reason(error)}。{OTHER_FOLDER}"
        raise SamLiteError(text) from error
    if not fetched:
        check_existing(target, file, quiet)
    how = "下载好了" if fetched else "已经在那里，没有重新下载"
    job.say(f"{target}：{how}；{file.size:,} 字节，SHA-256 核对无误。")
    found = target.parent.resolve() in (Path.cwd(), weights_dir().resolve())
    job.say(
        f'怎么用：sam_lite.load("{name}")，或 sam-lite segment 照片 --model {name} …'
        if found
        else f'怎么用：sam_lite.load(r"{target}")，'
        f'或 sam-lite segment 照片 --checkpoint "{target}" …'
    )
    return target


def file_url(file: OfficialFile, mirror: str) -> str:
    """文件的完整地址；不是 http 或 https 的抛 SamLiteError。"""
    try:
        parts = urlsplit(mirror)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # 方括号不成对之类
        good = False
    if not good:
        raise problem("mirror", repr(mirror), "http:// 或 https:// 开头的地址")
    return mirror if ".pth" in mirror else f"{mirror.rstrip('/')}/{file.name}"


def check_existing(target: Path, file: OfficialFile, quiet: bool) -> None:
    """已有的同名文件要正是官方的；不是就抛 SamLiteError，不动它。"""
    size = target.stat().st_size
    if size == file.size:
        got, wanted = digest(target, "sha256", quiet=quiet)["sha256"], file.sha256
    else:
        got, wanted = f"{size:,} 字节", f"{file.size:,} 字节"
    if got != wanted:
        raise SamLiteError(
            f"{target} 已经在那里，却不是官方的文件：它是 {got}，应为 {wanted}。"
            f"没有动它：不要了就删掉，要留就改名，再下载一次。{OTHER_FOLDER}"
        )


def fetch_once(job: Job, target: Path) -> bool:
    """还没有这个文件就下载，几个进程同时来也只下一次；返回是不是这一次下的。"""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        with only_one(job, target):
            if not target.exists():  # 等锁的时候，别的进程可能已经下好了
                try:
                    fetch(job, target)
                except KeyboardInterrupt:
                    print(f"\n停在这里。{kept(job)}", file=sys.stderr)
                    raise
                return True
    return False


@contextlib.contextmanager
def only_one(job: Job, target: Path) -> Iterator[None]:
    """同一个文件同时只让一个进程下载；系统的锁，进程一结束就松开，不会过期留下。"""
    filelock = require("filelock", "下载权重", "download")
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        job.say(f"另一个进程正在下载 {target.name}，等它……")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fetch(job: Job, target: Path) -> None:
    """下载、核对、改名；接起来的文件对不上时，从头再下一次。"""
    for last in (False, True):
        spliced = receive(job)
        got = digest(job.part, "sha256", quiet=job.quiet)["sha256"]
        if got == job.file.sha256:
            os.replace(job.part, target)
            sync_folder(target.parent)
            return
        job.part.unlink()
        if last or not spliced:
            raise SamLiteError(
                f"从 {job.url} 下载的不是官方的文件：SHA-256 是 {got}，应为 "
                f"{job.file.sha256}。已经删掉。{OTHER_MIRROR}"
            )
        job.say("分几次接起来的文件核对不上，从头再下一次。")


def digest(path: Path, *algorithms: str, quiet: bool = False) -> dict[str, str]:
    """一遍读完，算出文件的几种哈希，十六进制；读不了时抛 SamLiteError。"""
    sums = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    try:
        total = path.stat().st_size
        with (
            open(path, "rb") as file,
            progress_bar("核对", total, quiet, delay=1) as bar,
        ):
            while chunk := file.read(1 << 20):
                for one in sums:
                    one.update(chunk)
                bar.update(len(chunk))
    except OSError as error:
        raise SamLiteError(f"读不了 {path}：{reason(error)}。") from error
    return {one.name: one.hexdigest() for one in sums}
