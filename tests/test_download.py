"""下载：本机的 HTTP 服务器变着法子出错，正式的名字下绝不出现没下完或不对的文件。"""

import errno
import hashlib
import http.server
import io
import pickle
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from sam_lite import cli
from sam_lite.errors import SamLiteError
from sam_lite.files import download
from sam_lite.files import stream as download_stream
from sam_lite.files.download import file_url
from sam_lite.files.official import OFFICIAL_FILES, OFFICIAL_URL, OfficialFile
from sam_lite.files.stream import CHUNK

NAME = "sam_vit_b_01ec64.pth"
DATA = b"PK\x03\x04" + random.Random(0).randbytes(999_996)
WRONG = b"PK\x03\x04" + random.Random(1).randbytes(999_996)  # 大小相同，内容不同
SIZE, HALF = len(DATA), len(DATA) // 2
PAGE = b"\n <!DOCTYPE html><title>login</title>"


class Answer(NamedTuple):
    """服务器怎么答一次请求；不写的照规矩来。"""

    data: bytes = DATA
    status: int = 0  # 0 是照规矩：有 Range 答 206，没有答 200
    stop: int | None = None  # 送出多少字节之后断开
    stall: bool = False  # 断开之前先一声不吭，直到测试结束
    pace: float = 0.0  # 每送 64 KiB 停几秒
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
        start = 0
        if wanted and answer.status in (0, 206):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        body = answer.data[start:]
        self.send_response(answer.status or (206 if wanted else 200))
        self.send_header("Content-Type", answer.kind)
        length = len(body) if answer.length == "真的" else answer.length
        if length is not None:
            self.send_header("Content-Length", str(length))
        if wanted and answer.status in (0, 206):
            real = f"bytes {start}-{len(answer.data) - 1}/{len(answer.data)}"
            self.send_header("Content-Range", answer.content_range or real)
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        self.send_body(answer, body)

    def send_body(self, answer, body):
        body = body if answer.stop is None else body[: answer.stop]
        for at in range(0, len(body), CHUNK):
            piece = body[at : at + CHUNK]
            try:
                self.wfile.write(piece)
            except OSError:  # 下载的一方走了
                return
            self.server.sent += len(piece)
            time.sleep(answer.pace)
        if answer.stall:
            self.server.over.wait(20)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """记下每次请求的 Range 和路径，以及一共送出了多少字节。"""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.ranges, self.paths, self.sent = [Answer()], [], [], 0
        self.lock, self.over = threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def play(self, *script):
        """换一个剧本，计数清零。"""
        self.script, self.ranges, self.paths, self.sent = list(script), [], [], 0


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join(5)


def table_row(data: bytes, name: str = NAME) -> OfficialFile:
    sums = (hashlib.new(kind, data).hexdigest() for kind in ("md5", "sha256"))
    return OfficialFile(name, len(data), *sums)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """表里的 vit_b 换成一个 1 MB 的文件；重试不等；不走代理。"""
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", table_row(DATA))
    monkeypatch.setattr(download_stream, "WAITS", (0, 0))
    monkeypatch.delenv("SAM_LITE_MIRROR", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """目标文件夹，里面已经有一个完好的别的文件，结束时要一点没变。"""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("SAM_LITE_HOME", str(folder))
    neighbour = folder / "sam_vit_l_0b3195.pth"
    neighbour.write_bytes(WRONG)
    yield folder
    assert neighbour.read_bytes() == WRONG


def get(server, **options):
    options = {"mirror": server.url, "timeout": 5.0, "quiet": True} | options
    return download.download("vit_b", **options)


def part(home) -> Path:
    return home / f"{NAME}.part"


def assert_good(home):
    """下好了：内容一字不差，没有留下 .part。"""
    assert (home / NAME).read_bytes() == DATA
    assert not part(home).exists()


def assert_fails(server, home, words, keeps=0, **options):
    """失败：消息里有这些字，没有正式的文件；keeps 是 .part 至少留下几个字节。"""
    with pytest.raises(SamLiteError) as caught:
        get(server, **options)
    for word in words.split("|"):
        assert word in str(caught.value), str(caught.value)
    assert not (home / NAME).exists()
    if keeps:
        saved = part(home).read_bytes()
        assert len(saved) >= keeps
        assert DATA.startswith(saved)
        return saved
    assert not part(home).exists()


# ---- 顺利的时候 ----------------------------------------------------------------


def test_downloads_and_says_where_and_how(server, home, capsys):
    assert get(server, quiet=False) == home / NAME
    assert_good(home)
    assert server.ranges == [None]
    out, err = capsys.readouterr()
    assert f"{home / NAME}：下载好了" in out
    assert 'sam_lite.load("vit_b")' in out
    assert NAME in err and "B/s" in err  # 进度条


def test_quiet_says_nothing(server, home, capsys):
    get(server)
    assert capsys.readouterr() == ("", "")


def test_intact_file_is_checked_and_not_fetched_again(server, home, capsys):
    (home / NAME).write_bytes(DATA)
    (home / NAME).chmod(0o400)
    get(server, quiet=False)
    assert server.ranges == []
    assert "没有重新下载" in capsys.readouterr().out
    assert (home / NAME).read_bytes() == DATA


@pytest.mark.parametrize("old", [WRONG, DATA[:HALF]])
def test_other_file_of_that_name_is_left_alone(server, home, old):
    (home / NAME).write_bytes(old)
    with pytest.raises(SamLiteError, match="却不是官方的文件.*没有动它"):
        get(server)
    assert (home / NAME).read_bytes() == old
    assert server.ranges == []


def test_other_folder(server, home, tmp_path, capsys):
    """放在 load 找不到的地方，就教人给路径；文件夹没有就建。"""
    path = get(server, folder=tmp_path / "a" / "b", quiet=False)
    assert path == tmp_path / "a" / "b" / NAME
    assert path.read_bytes() == DATA
    assert f'sam_lite.load(r"{path}")' in capsys.readouterr().out
    assert not (home / NAME).exists()


def test_nothing_is_unpickled(server, home, tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    evil = pickle.dumps(Trap())
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", table_row(evil))
    server.play(Answer(evil))
    assert get(server).read_bytes() == evil
    assert not (tmp_path / "executed").exists()


# ---- 断开，接着下 --------------------------------------------------------------


def test_break_in_the_middle_resumes_by_itself(server, home):
    server.play(Answer(stop=HALF), Answer())
    get(server)
    assert_good(home)
    first, second = server.ranges
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert first is None
    assert HALF - CHUNK <= start <= HALF
    assert server.sent <= SIZE + CHUNK  # 前一半没有重下


def test_resumes_in_a_later_run(server, home):
    server.play(Answer(stop=HALF, status=200))
    saved = assert_fails(server, home, "连接中断|再运行一次会接着下", HALF - CHUNK)
    server.play(Answer())
    get(server)
    assert_good(home)
    assert server.ranges == [f"bytes={len(saved)}-"]
    assert server.sent == SIZE - len(saved)


def test_part_that_is_already_whole_needs_no_request(server, home):
    part(home).write_bytes(DATA)
    get(server)
    assert_good(home)
    assert server.ranges == []


def test_many_breaks_with_progress_do_not_exhaust_the_retries(server, home):
    server.play(Answer(stop=SIZE // 8))
    get(server)
    assert_good(home)
    assert len(server.ranges) > 3 * len(download_stream.WAITS)


def test_server_that_gives_small_ranges_only(server, home):
    """206 里只有一小段，老老实实说了段尾：接着要下一段。"""
    part(home).write_bytes(DATA[:HALF])
    piece = Answer(DATA[: HALF + 200_000], content_range=f"bytes {HALF}-699999/{SIZE}")
    server.play(piece, Answer())
    get(server)
    assert_good(home)
    assert server.ranges == [f"bytes={HALF}-", "bytes=700000-"]


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(status=200),
        Answer(b"", status=416),
        Answer(content_range=f"bytes 0-{SIZE - 1}/{SIZE}"),
        Answer(content_range=f"bytes {HALF}-{SIZE}/{SIZE + 1}"),
        Answer(content_range="nonsense"),
    ],
    ids=["200", "416", "start", "total", "nonsense"],
)
def test_server_that_will_not_resume_starts_over(server, home, refusal, capsys):
    part(home).write_bytes(WRONG[:HALF])  # 接上去就错：一定要从头
    server.play(refusal, Answer())
    get(server, quiet=False)
    assert_good(home)
    assert "核对不上" not in capsys.readouterr().out  # 没有先接上去再发现
    assert server.ranges[0] == f"bytes={HALF}-"
    assert server.ranges[1:] in ([], [None])


def test_corrupt_part_is_fetched_again_once(server, home, capsys):
    part(home).write_bytes(WRONG[:HALF])
    get(server, quiet=False)
    assert_good(home)
    assert server.ranges == [f"bytes={HALF}-", None]
    assert "从头再下一次" in capsys.readouterr().out


def test_corrupt_part_and_wrong_file_fail_in_the_end(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(WRONG))
    assert_fails(server, home, "SHA-256")
    assert len(server.ranges) == 2


def test_part_that_is_too_long_is_thrown_away(server, home):
    part(home).write_bytes(DATA + b"more")
    get(server)
    assert_good(home)
    assert server.ranges == [None]


def test_stalled_server_times_out_and_resumes(server, home, capsys):
    server.play(Answer(stop=HALF, stall=True), Answer())
    get(server, timeout=0.2, quiet=False)
    assert_good(home)
    assert server.ranges[1].startswith("bytes=")
    assert "等了 0.2 秒没有数据" in capsys.readouterr().out


def test_server_that_always_stalls_fails(server, home):
    server.play(Answer(stop=HALF, stall=True, status=200))
    assert_fails(server, home, "等了 0.1 秒没有数据", HALF - CHUNK, timeout=0.1)
    assert len(server.ranges) <= 2 * len(download_stream.WAITS) + 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server_is_asked_again(server, home, status):
    server.play(Answer(b"busy", status), Answer(b"busy", status), Answer())
    get(server)
    assert_good(home)
    assert len(server.ranges) == 3


def test_server_that_stays_busy_fails_and_keeps_the_part(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(b"busy", 503))
    assert_fails(server, home, "503|--mirror", HALF)
    assert len(server.ranges) == len(download_stream.WAITS) + 1


def test_missing_file_fails_at_once_then_recovers(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(PAGE, 404, kind="text/html"), Answer())
    assert_fails(server, home, "没有这个文件|404|--mirror", HALF)
    assert len(server.ranges) == 1
    get(server)
    assert_good(home)
    assert server.ranges[1] == f"bytes={HALF}-"


def test_waits_grow():
    assert list(download_stream.WAITS) == sorted(download_stream.WAITS)


# ---- 收到的不是这个文件 ----------------------------------------------------------


def test_wrong_file_of_the_right_size(server, home):
    server.play(Answer(WRONG))
    got, wanted = (hashlib.sha256(data).hexdigest() for data in (WRONG, DATA))
    assert_fails(server, home, f"{got}|应为 {wanted}|已经删掉")
    assert len(server.ranges) == 1


@pytest.mark.parametrize("length", [SIZE + 1, SIZE - 1, 0, 10 * SIZE])
def test_lie_about_content_length_is_seen_before_any_byte_is_written(
    server, home, length
):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(status=200, length=length))
    assert_fails(server, home, f"大小是 {length:,} 字节|应为 1,000,000 字节", HALF)
    assert len(server.ranges) == 1


def test_body_longer_than_it_should_be(server, home):
    server.play(Answer(DATA + b"more", length=None))
    assert_fails(server, home, "不止 1,000,000 字节")


def test_endless_body_is_cut_off(server, home):
    server.play(Answer(DATA * 40, length=None))
    assert_fails(server, home, "不止 1,000,000 字节")
    assert server.sent < 20 * SIZE  # 多出来的只在系统的缓冲区里


def test_body_shorter_than_it_should_be(server, home):
    server.play(Answer(DATA[:HALF], status=200, length=None))
    assert_fails(server, home, f"提前结束，只有 {HALF:,} 字节", HALF)


@pytest.mark.parametrize(
    ("kind", "page"),
    [("Text/HTML; charset=utf-8", b"Log in first"), ("application/x-zip", PAGE)],
    ids=["by type", "by content"],
)
@pytest.mark.parametrize("kept", [0, HALF])
def test_login_page_is_recognised_and_spares_the_part(server, home, kind, page, kept):
    if kept:
        part(home).write_bytes(DATA[:kept])
    server.play(Answer(page, 200, kind=kind))
    assert_fails(server, home, "网页|登录", kept)
    assert len(server.ranges) == 1


def test_resumed_bytes_may_begin_like_a_page(server, home, monkeypatch):
    data = DATA[:HALF] + b"<" + DATA[HALF:]
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", table_row(data))
    part(home).write_bytes(data[:HALF])
    server.play(Answer(data))
    assert get(server).read_bytes() == data
    assert server.ranges == [f"bytes={HALF}-"]


# ---- 地址 --------------------------------------------------------------------


def test_redirect_is_followed(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(b"", 302, location="/elsewhere/x"), Answer())
    get(server)
    assert_good(home)
    assert server.paths == [f"/{NAME}", "/elsewhere/x"]
    assert server.ranges == [f"bytes={HALF}-"] * 2


@pytest.mark.parametrize("target", ["/again", "ftp://127.0.0.1/x", "file:///etc/x"])
def test_bad_redirect(server, home, target):
    server.play(Answer(b"", 302, location=target))
    assert_fails(server, home, "用不了")


def test_nobody_listens(server, home):
    with Server() as gone:
        url = gone.url
    assert_fails(server, home, "连不上服务器|--mirror", mirror=url)


@pytest.mark.parametrize(
    "mirror", ["ftp://x/y", "file:///tmp", "x.org/y", "http://", "http://[::1/x"]
)
def test_mirror_must_be_http(server, home, mirror):
    assert_fails(server, home, "mirror 不对|http:// 或 https://", mirror=mirror)


def test_mirror_variable_and_full_address(server, home, monkeypatch):
    monkeypatch.setenv("SAM_LITE_MIRROR", f"{server.url}/deep/")
    get(server, mirror=None)
    assert server.paths == [f"/deep/{NAME}"]
    (home / NAME).unlink()
    get(server, mirror=f"{server.url}/other.pth?x=1")  # 参数胜过环境变量
    assert server.paths[1:] == ["/other.pth?x=1"]
    assert_good(home)


def test_official_address():
    for name, file in OFFICIAL_FILES.items():
        url = urlsplit(file_url(file, OFFICIAL_URL))
        assert url.scheme == "https"
        assert url.path == f"/segment_anything/{file.name}"
        assert f"_{name}_{file.md5[:6]}" in file.name or name == "vit_b"


def test_unknown_name():
    with pytest.raises(SamLiteError, match="name 不对：收到 'tiny'，应为 vit_b"):
        download.download("tiny")


def test_missing_library_is_named(server, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    assert_fails(server, home, "requests|pip install")


# ---- 磁盘 --------------------------------------------------------------------


def test_too_little_space_is_seen_before_asking(server, home, monkeypatch):
    part(home).write_bytes(DATA[:HALF])
    usage = download_stream.shutil.disk_usage(home)._replace(free=HALF - 1)
    monkeypatch.setattr(download_stream.shutil, "disk_usage", lambda folder: usage)
    assert_fails(server, home, f"空间不够：还要 {HALF:,} 字节|只剩 {HALF - 1:,}", HALF)
    assert server.ranges == []
    usage = usage._replace(free=HALF)
    get(server)
    assert_good(home)


class FullDisk(io.FileIO):
    """写到一半就没有地方的文件。"""

    def write(self, data):
        room = HALF - self.tell()
        number = super().write(data[:room])
        if number < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return number


def test_disk_full_in_the_middle_keeps_the_part(server, home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(download_stream, "open", FullDisk, raising=False)
        assert_fails(server, home, "写不了|磁盘满了|再运行一次会接着下", HALF)
    get(server)
    assert_good(home)
    assert server.ranges == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("what", ["file", "forbidden"])
def test_folder_that_cannot_be_written(server, home, tmp_path, monkeypatch, what):
    folder = tmp_path / "blocked"
    if what == "file":
        folder.write_bytes(b"")
    else:  # root 不受权限约束，所以直接让 open 失败

        def refuse(*args, **options):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(download_stream, "open", refuse, raising=False)
    assert_fails(server, home, "写不了|--dir|SAM_LITE_HOME", folder=folder)


# ---- 真的进程：杀掉、文件大小的上限、两个同时来 ------------------------------------

CHILD = """
import sys
from sam_lite.files import download, stream as download_stream
from sam_lite.files.official import OFFICIAL_FILES, OfficialFile
download_stream.WAITS = ()
name, size, md5, sha256, limit, folder, mirror = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit),) * 2)
OFFICIAL_FILES["vit_b"] = OfficialFile(name, int(size), md5, sha256)
try:
    download.download("vit_b", folder=folder, mirror=mirror)
except download.SamLiteError as error:
    sys.exit(str(error))
"""


def start(server, home, limit=0) -> subprocess.Popen:
    arguments = [*table_row(DATA), limit, home, server.url]
    return subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", CHILD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_process_leaves_a_part_to_resume(server, home):
    server.play(Answer(stop=HALF, stall=True), Answer())
    child = start(server, home)
    wait_for(lambda: part(home).exists() and part(home).stat().st_size > 0)
    child.kill()
    child.communicate(timeout=60)
    saved = part(home).stat().st_size
    assert not (home / NAME).exists()
    assert [p.name for p in home.glob(".*lock")]  # 锁文件还在，但锁已经松开
    get(server)
    assert_good(home)
    assert server.ranges[1:] == [f"bytes={saved}-"]


@pytest.mark.skipif(sys.platform == "win32", reason="没有 RLIMIT_FSIZE")
def test_real_write_failure_keeps_the_part(server, home):
    child = start(server, home, limit=HALF)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "写不了" in err and "大小上限" in err and "再运行一次会接着下" in err
    assert not (home / NAME).exists()
    assert part(home).read_bytes() == DATA[:HALF]
    get(server)
    assert_good(home)
    assert server.ranges[1:] == [f"bytes={HALF}-"]


def test_two_processes_download_once(server, home):
    server.play(Answer(pace=0.2))  # 约 3 秒，够两个都开始
    children = [start(server, home), start(server, home)]
    outs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert_good(home)
    assert server.ranges == [None]
    assert server.sent == SIZE
    assert sorted("没有重新下载" in out for out in outs) == [False, True]


# ---- 命令行 --------------------------------------------------------------------


def test_command_downloads_each_name_once(server, home, capsys):
    argv = ["download", "vit_b", "vit_b", "--mirror", server.url]
    assert cli.main(argv) == 0
    assert_good(home)
    assert server.ranges == [None]
    assert "下载好了" in capsys.readouterr().out
    assert cli.main(argv) == 0
    assert "没有重新下载" in capsys.readouterr().out


def test_command_fails_with_one_clear_line(server, home, tmp_path, capsys):
    server.play(Answer(PAGE, 200))
    argv = ["download", "vit_b", "--mirror", server.url, "--dir", str(tmp_path / "d")]
    assert cli.main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sam-lite：收到的是网页") and err.count("\n") == 1
    assert cli.main(["download", "vit_x"]) == 2
    assert "可以选" in capsys.readouterr().err


def test_interrupt_keeps_the_part_and_says_how_to_go_on(
    server, home, capsys, monkeypatch
):
    def stop(seconds):
        if seconds == 99:
            raise KeyboardInterrupt

    server.play(Answer(stop=HALF), Answer())
    monkeypatch.setattr(download_stream, "WAITS", (99,))
    monkeypatch.setattr(download_stream.time, "sleep", stop)
    assert cli.main(["download", "vit_b", "--mirror", server.url]) == 130
    err = capsys.readouterr().err
    assert "再运行一次会接着下" in err and "已中断" in err
    assert not (home / NAME).exists()
    assert part(home).stat().st_size >= HALF - CHUNK
    get(server)
    assert_good(home)
