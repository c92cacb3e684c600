"""下载的下半截：收数据。一次次地要，断了接着要，直到 ``.part`` 够长。

只有收到的像那个文件才动 ``.part``；文件对不对，由 ``download.py`` 按哈希核对。
"""

import itertools
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SamLiteError, require
from ..files.atomic import reason
from ..files.official import OfficialFile

CHUNK = 1 << 16  # 一次收多少字节；断开时最多丢这么多
WAITS = (1, 2, 4, 8, 16)  # 连着失败时，每次重试之前等几秒
RETRY_STATUS = (408, 425, 429)  # 过一会儿可能就好；5xx 也是

OTHER_MIRROR = (
    "也可以换一个镜像：命令行用 --mirror 地址，Python 里用 mirror=地址，"
    "或设环境变量 SAM_LITE_MIRROR。"
)
OTHER_FOLDER = (
    "也可以换一个文件夹：命令行用 --dir，Python 里用 folder=路径，"
    "或设环境变量 SAM_LITE_HOME。"
)


class BrokenOff(Exception):
    """这一次没有下完，可以接着再试。"""


class Job(NamedTuple):
    """一次下载：哪个文件，从哪里来，先写进哪里。"""

    file: OfficialFile
    url: str
    part: Path
    timeout: float  # 连接、以及两次收到数据之间，最多等几秒
    quiet: bool

    @property
    def have(self) -> int:
        """``.part`` 里已经有多少字节。"""
        return self.part.stat().st_size if self.part.exists() else 0

    def say(self, text: str) -> None:
        """印一行话；安静的时候不印。"""
        if not self.quiet:
            print(text, flush=True)


def receive(job: Job) -> bool:
    """把 ``.part`` 补齐到应有的大小；返回它是不是分几次接起来的。

    断了就自动接着下，连着几次没有进展才放弃，抛 SamLiteError；``.part`` 留着。
    """
    requests = require("requests", "下载权重", "download")
    waits, best, spliced = list(WAITS), job.have, True
    while job.have < job.file.size:
        check_space(job)
        try:
            spliced = request(job)
        except (requests.RequestException, BrokenOff) as error:
            if isinstance(error, ValueError | requests.TooManyRedirects):
                text = f"地址 {job.url} 用不了：{error}。{OTHER_MIRROR}"
                raise SamLiteError(text) from error
            if job.have > best + job.file.size // 100:  # 有进展，重新数
                waits, best = list(WAITS), job.have
            if not waits:
                text = f"{job.url} 下载不下来：{trouble(error, job)}。{kept(job)}"
                raise SamLiteError(f"{text}{OTHER_MIRROR}") from error
            job.say(f"断了：{trouble(error, job)}。{waits[0]:g} 秒后接着下。")
            time.sleep(waits.pop(0))
        except OSError as error:
            text = f"写不了 {job.part}：{reason(error)}。{kept(job)}"
            raise SamLiteError(f"{text}{OTHER_FOLDER}") from error
    return spliced


def request(job: Job) -> bool:
    """要一次，把收到的写进 ``.part``；返回是不是接在原有的后面。

    看清楚收到的像这个文件，才动 ``.part``：认证网页、别的文件不会冲掉下好的部分。
    """
    response, offset = ask(job)
    with response:
        check_status(response, offset)
        chunks = response.iter_content(CHUNK)
        first = next(chunks, b"")
        check_content(job, response, offset, first)
        end = offset
        bar = progress_bar(job.file.name, job.file.size, job.quiet, initial=offset)
        with bar, open(job.part, "ab" if offset else "wb") as out:
            for chunk in itertools.chain([first], chunks):
                end += len(chunk)
                if end > job.file.size:
                    break
                out.write(chunk)
                bar.update(len(chunk))
            out.flush()
            os.fsync(out.fileno())
    if end > job.file.size:
        job.part.unlink()
        raise wrong_size(job, f"不止 {job.file.size:,}")
    if end < job.file.size:
        raise BrokenOff(f"连接提前结束，只有 {end:,} 字节")
    return offset > 0


def ask(job: Job) -> tuple[Any, int]:
    """向服务器要文件，接着 ``.part`` 往下；返回回答，和它从第几个字节开始。"""
    requests = require("requests", "下载权重", "download")
    options: dict[str, Any] = {"stream": True, "timeout": job.timeout}
    headers = {"Accept-Encoding": "identity"}  # 压缩过的字节没法接着下
    start = job.have
    if start:
        wanted = headers | {"Range": f"bytes={start}-"}
        response = requests.get(job.url, headers=wanted, **options)
        given = response.headers.get("Content-Range", "")
        right = rf"bytes {start}-\d+/({job.file.size}|\*)"
        if response.status_code == 206 and re.fullmatch(right, given):
            return response, start
        if response.status_code not in (206, 416):
            return response, 0
        response.close()  # 服务器不肯从这里接着给：从头要整个文件
    return requests.get(job.url, headers=headers, **options), 0


def check_status(response: Any, offset: int) -> None:
    """状态码要是 200，接着下的是 206。

    错误：等等可能就好的抛 HTTPError，别的抛 SamLiteError。
    """
    status = response.status_code
    if 500 <= status < 600 or status in RETRY_STATUS:
        response.raise_for_status()
    if status != (206 if offset else 200):
        what = "没有这个文件" if status in (404, 410) else "不给这个文件"
        raise SamLiteError(
            f"服务器{what}（状态码 {status}）：{response.url}。{OTHER_MIRROR}"
        )


def check_content(job: Job, response: Any, offset: int, first: bytes) -> None:
    """不是网页，说的大小也对；不像这个文件就抛 SamLiteError。"""
    page = "html" in response.headers.get("Content-Type", "").lower()
    if page or (not offset and first.lstrip().startswith(b"<")):
        raise SamLiteError(
            f"收到的是网页，不是权重：{response.url}。网络可能要先登录（校园网、酒店的"
            f"认证页），在浏览器里登录之后再试；也可能是镜像的地址不对。{OTHER_MIRROR}"
        )
    length = response.headers.get("Content-Length", "")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    if not offset and plain and length.isdigit() and int(length) != job.file.size:
        raise wrong_size(job, f"{int(length):,}")


def wrong_size(job: Job, got: str) -> SamLiteError:
    """服务器上的文件大小不对，拼成一个错误。"""
    return SamLiteError(
        f"{job.url} 不是 {job.file.name}：大小是 {got} 字节，应为 "
        f"{job.file.size:,} 字节。{OTHER_MIRROR}"
    )


def check_space(job: Job) -> None:
    """磁盘要放得下余下的部分，否则抛 SamLiteError。"""
    need, free = job.file.size - job.have, shutil.disk_usage(job.part.parent).free
    if need > free:
        raise SamLiteError(
            f"磁盘空间不够：还要 {need:,} 字节，{job.part.parent} 所在的磁盘只剩 "
            f"{free:,} 字节。腾出空间再来。{OTHER_FOLDER}"
        )


def trouble(error: Exception, job: Job) -> str:
    """用几个字说清网络出了什么事。"""
    response, text = getattr(error, "response", None), str(error)
    if response is not None:
        return f"服务器的状态码是 {response.status_code}"
    if isinstance(error, BrokenOff):
        return text
    if "timed out" in text.lower():
        return f"等了 {job.timeout:g} 秒没有数据"
    if "Connection broken" in text:
        return "连接中断"
    return f"连不上服务器（{type(error).__name__}）"


def kept(job: Job) -> str:
    """说清下好的部分在哪里、怎么接着下。"""
    if not job.have:
        return ""
    return f"下好的 {job.have:,} 字节留在 {job.part}，再运行一次会接着下。"


def progress_bar(what: str, total: int, quiet: bool, **options: Any) -> Any:
    """按字节走的进度条：多少、多快、还要多久；``quiet`` 为真就不显示。"""
    tqdm = require("tqdm", "显示进度", "download").tqdm
    options |= {"unit": "B", "unit_scale": True, "disable": quiet}
    return tqdm(total=total, desc=what, **options)
