"""本机的 HTTP 服务器，照剧本变着法子出错：下载的测试、官方权重的核对都用它。"""

import hashlib
import http.server
import re
import threading
from typing import NamedTuple

from sam_lite.files.download import CHUNK
from sam_lite.files.official import OfficialFile


class Answer(NamedTuple):
    """服务器怎么答一次请求；不写的照规矩来。"""

    data: bytes
    status: int = 0  # 0 是照规矩：有 Range 答 206，没有答 200
    stop: int | None = None  # 送出多少字节之后断开
    stall: bool = False  # 断开之前先一声不吭，直到测试结束
    hold: bool = False  # 先等 server.go，再送
    length: int | None | str = "真的"  # Content-Length；None 是不说
    content_range: str = ""
    kind: str = "application/octet-stream"
    location: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    """按服务器的剧本，一次请求演一条；演完了就重复最后一条。"""

    def do_GET(self):
        server = self.server
        with server.lock:
            answer = server.script[min(len(server.ranges), len(server.script) - 1)]
            wanted = self.headers.get("Range")
            server.ranges.append(wanted)
            server.paths.append(self.path)
        partial = wanted and answer.status in (0, 206)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if partial else 0
        body, whole = answer.data[start:], len(answer.data)
        self.send_response(answer.status or (206 if wanted else 200))
        self.send_header("Content-Type", answer.kind)
        length = len(body) if answer.length == "真的" else answer.length
        if length is not None:
            self.send_header("Content-Length", str(length))
        if partial:
            real = f"bytes {start}-{whole - 1}/{whole}"
            self.send_header("Content-Range", answer.content_range or real)
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        self.send_body(answer, body)

    def send_body(self, answer, body):
        if answer.hold:
            self.server.go.wait(60)
        body = body[: answer.stop]
        for at in range(0, len(body), CHUNK):
            piece = body[at : at + CHUNK]
            try:
                self.wfile.write(piece)
            except OSError:  # 下载的一方走了
                return
            self.server.sent += len(piece)
        if answer.stall:
            self.server.over.wait(20)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """记下每次请求的 Range 和路径，以及一共送出了多少字节。"""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.go, self.over = (
            threading.Lock(),
            threading.Event(),
            threading.Event(),
        )
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.play()

    def play(self, *script):
        """换一个剧本，计数清零。"""
        self.script, self.ranges, self.paths, self.sent = list(script), [], [], 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.thread.join(5)
        self.server_close()


def table_row(data: bytes, name: str) -> OfficialFile:
    """data 在官方文件的表里该是哪一行。"""
    sums = (hashlib.new(kind, data).hexdigest() for kind in ("md5", "sha256"))
    return OfficialFile(name, len(data), *sums)
