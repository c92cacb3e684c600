"""下载官方权重：断了接着下，大小和 SHA-256 都对上，才给它正式的名字。

    path = download("vit_b")

没下完的部分留在同一个文件夹的 ``….pth.part`` 里，再来一次就从那里接着下；收到的像是
那个文件，才动它。哈希只认 ``official.py`` 里的表，从哪个镜像下载都一样；不解开文件。
"""

import hashlib
import itertools
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SamLiteError, problem, require
from .atomic import reason, sync_folder
from .official import OFFICIAL_FILES, OFFICIAL_URL, OfficialFile, weights_dir

CHUNK = 1 << 16  # 一次收多少字节；断开时最多丢这么多
WAITS = (1, 2, 4, 8, 16)  # 连着失败时，每次重试之前等几秒
RETRY = {408, 425, 429, *range(500, 600)}  # 过一会儿可能就好的状态码

OTHER_MIRROR = (
    "也可以换一个镜像：命令行用 --mirror 地址，Python 里用 mirror=地址，"
    "或设环境变量 SAM_LITE_MIRROR。"
)
OTHER_FOLDER = (
    "也可以换一个文件夹：命令行用 --dir，Python 里用 folder=路径，"
    "或设环境变量 SAM_LITE_HOME。"
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
    mirror = mirror or os.environ.get("SAM_LITE_MIRROR") or OFFICIAL_URL
    if not re.match("https?://[^/]", mirror):
        raise problem("mirror", repr(mirror), "http:// 或 https:// 开头的地址")
    url = mirror if ".pth" in mirror else f"{mirror.rstrip('/')}/{file.name}"
    target = (weights_dir() if folder is None else Path(folder)) / file.name
    job = Download(file, url, target, timeout, quiet)
    try:
        fetched = job.fetch_once()
    except OSError as error:
        text = f"写不了 {target}：{reason(error)}。{job.kept()}{OTHER_FOLDER}"
        raise SamLiteError(text) from error
    if not fetched:
        check_existing(target, file, quiet)
    how = "下载好了" if fetched else "已经在那里，没有重新下载"
    job.say(f"{target}：{how}；{file.size:,} 字节，SHA-256 核对无误。")
    if target.parent.resolve() in (Path.cwd(), weights_dir().resolve()):
        use = f'sam_lite.load("{name}")，或 sam-lite segment 照片 --model {name} …'
    else:
        use = f'sam_lite.load(r"{target}")，或 sam-lite segment 照片 --checkpoint '
        use += f'"{target}" …'
    job.say(f"怎么用：{use}")
    return target


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


class BrokenOff(Exception):
    """这一次没有下完，可以接着再试。"""


class Download(NamedTuple):
    """一次下载：哪个文件，从哪里来，放到哪里。"""

    file: OfficialFile
    url: str
    target: Path
    timeout: float
    quiet: bool

    @property
    def part(self) -> Path:
        """没下完的部分。"""
        return self.target.with_name(f"{self.file.name}.part")

    @property
    def have(self) -> int:
        """``.part`` 里已经有多少字节。"""
        return self.part.stat().st_size if os.path.exists(self.part) else 0

    def say(self, text: str) -> None:
        """印一行话；安静的时候不印。"""
        if not self.quiet:
            print(text, flush=True)

    def kept(self) -> str:
        """下好的部分在哪里、怎么接着下。"""
        if not self.have:
            return ""
        return f"下好的 {self.have:,} 字节留在 {self.part}，再运行一次会接着下。"

    def fetch_once(self) -> bool:
        """还没有这个文件就下载，几个进程同时来也只下一次；返回是不是这一次下的。"""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if self.target.exists():
            return False
        filelock = require("filelock", "下载权重", "download")
        # 系统的锁，进程一结束就松开，不会过期留下
        lock = filelock.FileLock(self.target.with_name(f".{self.target.name}.lock"))
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            self.say(f"另一个进程正在下载 {self.target.name}，等它……")
            held = lock.acquire()
        with held:
            if self.target.exists():  # 等锁的时候，别的进程下好了
                return False
            try:
                self.fetch()
            except KeyboardInterrupt:
                print(f"\n停在这里。{self.kept()}", file=sys.stderr)
                raise
        return True

    def fetch(self) -> None:
        """下载、核对、改名；接起来的文件对不上时，从头再下一次。"""
        for last in (False, True):
            spliced = self.receive()
            got = digest(self.part, "sha256", quiet=self.quiet)["sha256"]
            if got == self.file.sha256:
                os.replace(self.part, self.target)
                sync_folder(self.target.parent)
                return
            self.part.unlink()
            if last or not spliced:
                raise SamLiteError(
                    f"从 {self.url} 下载的不是官方的文件：SHA-256 是 {got}，应为 "
                    f"{self.file.sha256}。已经删掉。{OTHER_MIRROR}"
                )
            self.say("分几次接起来的文件核对不上，从头再下一次。")

    def receive(self) -> bool:
        """把 ``.part`` 补齐；断了就接着下，连着几次没有进展才放弃。

        返回它是不是分几次接起来的。放弃时抛 SamLiteError，``.part`` 留着。
        """
        requests = require("requests", "下载权重", "download")
        waits, best, spliced = list(WAITS), self.have, True
        while self.have < self.file.size:
            self.check_space()
            try:
                spliced = self.request()
            except (requests.RequestException, BrokenOff) as error:
                if isinstance(error, ValueError | requests.TooManyRedirects):
                    text = f"地址 {self.url} 用不了：{error}。{OTHER_MIRROR}"
                    raise SamLiteError(text) from error
                if self.have > best + self.file.size // 100:  # 有进展，重新数
                    waits, best = list(WAITS), self.have
                what = trouble(error, self.timeout)
                if not waits:
                    text = f"{self.url} 下载不下来：{what}。{self.kept()}{OTHER_MIRROR}"
                    raise SamLiteError(text) from error
                self.say(f"断了：{what}。{waits[0]:g} 秒后接着下。")
                time.sleep(waits.pop(0))
        return spliced

    def check_space(self) -> None:
        """磁盘要放得下余下的部分，否则抛 SamLiteError。"""
        need = self.file.size - self.have
        free = shutil.disk_usage(self.target.parent).free
        if need > free:
            raise SamLiteError(
                f"磁盘空间不够：还要 {need:,} 字节，{self.target.parent} 所在的磁盘"
                f"只剩 {free:,} 字节。腾出空间再来。{OTHER_FOLDER}"
            )

    def request(self) -> bool:
        """要一次，把收到的写进 ``.part``；返回是不是接在原有的后面。"""
        response, offset = self.ask()
        with response:
            chunks = response.iter_content(CHUNK)
            first = self.check_answer(response, offset, chunks)
            end, size = offset, self.file.size
            bar = progress_bar(self.file.name, size, self.quiet, initial=offset)
            with bar, open(self.part, "ab" if offset else "wb") as out:
                for chunk in itertools.chain([first], chunks):
                    end += len(chunk)
                    if end > size:
                        break
                    out.write(chunk)
                    bar.update(len(chunk))
                out.flush()
                os.fsync(out.fileno())
        if end > size:
            self.part.unlink()
            raise self.wrong_size(f"不止 {size:,}")
        if end < size:
            raise BrokenOff(f"连接提前结束，只有 {end:,} 字节")
        return offset > 0

    def ask(self) -> tuple[Any, int]:
        """向服务器要文件，接着 ``.part`` 往下；返回回答，和它从第几个字节开始。"""
        requests = require("requests", "下载权重", "download")
        options: dict[str, Any] = {"stream": True, "timeout": self.timeout}
        headers = {"Accept-Encoding": "identity"}  # 压缩过的字节没法接着下
        start = self.have
        if start:
            wanted = headers | {"Range": f"bytes={start}-"}
            response = requests.get(self.url, headers=wanted, **options)
            given = response.headers.get("Content-Range", "")
            right = rf"bytes {start}-\d+/({self.file.size}|\*)"
            if response.status_code == 206 and re.fullmatch(right, given):
                return response, start
            if response.status_code not in (206, 416):
                return response, 0
            response.close()  # 服务器不肯从这里接着给：从头要整个文件
        return requests.get(self.url, headers=headers, **options), 0

    def check_answer(self, response: Any, offset: int, chunks: Any) -> bytes:
        """状态码对，不是网页，说的大小也对；返回收到的头一段。

        错误：等等可能就好的抛 HTTPError，别的抛 SamLiteError。
        """
        status, headers = response.status_code, response.headers
        if status in RETRY:
            response.raise_for_status()
        if status != (206 if offset else 200):
            what = "没有这个文件" if status in (404, 410) else "不给这个文件"
            raise SamLiteError(
                f"服务器{what}（状态码 {status}）：{response.url}。{OTHER_MIRROR}"
            )
        first = next(chunks, b"")
        page = "html" in headers.get("Content-Type", "").lower()
        if page or (not offset and first.lstrip().startswith(b"<")):
            raise SamLiteError(
                f"收到的是网页，不是权重：{response.url}。网络可能要先登录（校园网、酒店"
                "的认证页），在浏览器里登录之后再试；也可能是镜像的地址不对。"
                + OTHER_MIRROR
            )
        length = headers.get("Content-Length", "")
        plain = headers.get("Content-Encoding", "identity") == "identity"
        if not offset and plain and length.isdigit() and int(length) != self.file.size:
            raise self.wrong_size(f"{int(length):,}")
        return first

    def wrong_size(self, got: str) -> SamLiteError:
        """服务器上的文件大小不对，拼成一个错误。"""
        return SamLiteError(
            f"{self.url} 不是 {self.file.name}：大小是 {got} 字节，应为 "
            f"{self.file.size:,} 字节。{OTHER_MIRROR}"
        )


def trouble(error: Exception, timeout: float) -> str:
    """用几个字说清网络出了什么事。"""
    response, text = getattr(error, "response", None), str(error)
    if response is not None:
        return f"服务器的状态码是 {response.status_code}"
    if isinstance(error, BrokenOff):
        return text
    if "timed out" in text.lower():
        return f"等了 {timeout:g} 秒没有数据"
    if "Connection broken" in text:
        return "连接中断"
    return f"连不上服务器（{type(error).__name__}）"


def digest(path: Path, *algorithms: str, quiet: bool = False) -> dict[str, str]:
    """一遍读完，算出文件的几种哈希，十六进制；读不了时抛 SamLiteError。"""
    sums = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    try:
        bar = progress_bar("核对", path.stat().st_size, quiet, delay=1)
        with open(path, "rb") as file, bar:
            while chunk := file.read(1 << 20):
                for one in sums:
                    one.update(chunk)
                bar.update(len(chunk))
    except OSError as error:
        raise SamLiteError(f"读不了 {path}：{reason(error)}。") from error
    return {one.name: one.hexdigest() for one in sums}


def progress_bar(what: str, total: int, quiet: bool, **options: Any) -> Any:
    """按字节走的进度条：多少、多快、还要多久；``quiet`` 为真就不显示。"""
    tqdm = require("tqdm", "显示进度", "download").tqdm
    options |= {"unit": "B", "unit_scale": True, "disable": quiet}
    return tqdm(total=total, desc=what, **options)
