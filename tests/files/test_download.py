"""下载：本机的 HTTP 服务器变着法子出错，正式的名字下绝不出现没下完或不对的文件。"""

import errno
import io
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sam_lite import cli
from sam_lite.errors import SamLiteError
from sam_lite.files import download
from sam_lite.files.download import CHUNK
from sam_lite.files.official import OFFICIAL_FILES

from .common import Answer, Server, table_row

NAME = "sam_vit_b_01ec64.pth"
DATA = b"PK\x03\x04" + random.Random(0).randbytes(999_996)
WRONG = b"PK\x03\x04" + random.Random(1).randbytes(999_996)  # 大小相同，内容不同
SIZE, HALF = len(DATA), len(DATA) // 2
PAGE = b"\n <!DOCTYPE html><title>login</title>"
GOOD = Answer(DATA)


@pytest.fixture
def server():
    with Server() as server:
        server.play(GOOD)
        yield server


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """表里的 vit_b 换成一个 1 MB 的文件；重试不等；不走代理。"""
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", table_row(DATA, NAME))
    monkeypatch.setattr(download, "WAITS", (0, 0))
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
    if not keeps:
        assert not part(home).exists()
        return b""
    saved = part(home).read_bytes()
    assert len(saved) >= keeps and DATA.startswith(saved)
    return saved


# ---- 顺利的时候 ----------------------------------------------------------------


def test_downloads_and_says_where_and_how(server, home, capsys):
    assert get(server, quiet=False) == home / NAME
    assert_good(home)
    assert server.ranges == [None]
    out, err = capsys.readouterr()
    assert f"{home / NAME}：下载好了" in out and 'sam_lite.load("vit_b")' in out
    assert NAME in err and "B/s" in err  # 进度条
    get(server)
    assert capsys.readouterr() == ("", "") and server.ranges == [None]


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
    assert path == tmp_path / "a" / "b" / NAME and path.read_bytes() == DATA
    assert f'sam_lite.load(r"{path}")' in capsys.readouterr().out
    assert not (home / NAME).exists()


def test_nothing_is_unpickled(server, home, tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    evil = pickle.dumps(Trap())
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", table_row(evil, NAME))
    server.play(Answer(evil))
    assert get(server).read_bytes() == evil
    assert not (tmp_path / "executed").exists()


# ---- 断开，接着下 --------------------------------------------------------------


def test_break_in_the_middle_resumes_by_itself(server, home):
    server.play(Answer(DATA, stop=HALF), GOOD)
    get(server)
    assert_good(home)
    first, second = server.ranges
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert first is None and HALF - CHUNK <= start <= HALF
    assert server.sent <= SIZE + CHUNK  # 前一半没有重下


def test_resumes_in_a_later_run(server, home):
    server.play(Answer(DATA, stop=HALF, status=200))
    saved = assert_fails(server, home, "连接中断|再运行一次会接着下", HALF - CHUNK)
    server.play(GOOD)
    get(server)
    assert_good(home)
    assert server.ranges == [f"bytes={len(saved)}-"]
    assert server.sent == SIZE - len(saved)


def test_many_breaks_with_progress_do_not_exhaust_the_retries(server, home):
    server.play(Answer(DATA, stop=SIZE // 8))
    get(server)
    assert_good(home)
    assert len(server.ranges) > 3 * len(download.WAITS)


def test_server_that_gives_small_ranges_only(server, home):
    """206 里只有一小段，老老实实说了段尾：接着要下一段。"""
    part(home).write_bytes(DATA[:HALF])
    given = f"bytes {HALF}-699999/{SIZE}"
    server.play(Answer(DATA[: HALF + 200_000], content_range=given), GOOD)
    get(server)
    assert_good(home)
    assert server.ranges == [f"bytes={HALF}-", "bytes=700000-"]


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(DATA, status=200),
        Answer(b"", status=416),
        Answer(DATA, content_range=f"bytes 0-{SIZE - 1}/{SIZE}"),
        Answer(DATA, content_range=f"bytes {HALF}-{SIZE}/{SIZE + 1}"),
    ],
    ids=["200", "416", "start", "total"],
)
def test_server_that_will_not_resume_starts_over(server, home, refusal, capsys):
    part(home).write_bytes(WRONG[:HALF])  # 接上去就错：一定要从头
    server.play(refusal, GOOD)
    get(server, quiet=False)
    assert_good(home)
    assert "核对不上" not in capsys.readouterr().out  # 没有先接上去再发现
    assert server.ranges[0] == f"bytes={HALF}-"
    assert server.ranges[1:] in ([], [None])


@pytest.mark.parametrize("old", [WRONG[:HALF], DATA + b"more"])
def test_corrupt_part_is_fetched_again_once(server, home, old):
    part(home).write_bytes(old)
    get(server)
    assert_good(home)
    assert server.ranges[-1] is None and len(server.ranges) <= 2


def test_corrupt_part_and_wrong_file_fail_in_the_end(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(WRONG))
    assert_fails(server, home, "SHA-256")
    assert len(server.ranges) == 2


def test_stalled_server_times_out_and_resumes(server, home, capsys):
    server.play(Answer(DATA, stop=HALF, stall=True), GOOD)
    get(server, timeout=0.2, quiet=False)
    assert_good(home)
    assert server.ranges[1].startswith("bytes=")
    assert "等了 0.2 秒没有数据" in capsys.readouterr().out


def test_busy_server_is_asked_again_but_not_for_ever(server, home):
    server.play(Answer(b"busy", 503), Answer(b"busy", 429), Answer(DATA, stop=HALF))
    server.script += [Answer(b"busy", 503)]
    assert_fails(server, home, "503|--mirror", HALF - CHUNK)
    assert len(server.ranges) == 3 + len(download.WAITS)  # 有过进展，重新数
    server.play(GOOD)
    get(server)
    assert_good(home)


def test_missing_file_fails_at_once_then_recovers(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(PAGE, 404, kind="text/html"), GOOD)
    assert_fails(server, home, "没有这个文件|404|--mirror", HALF)
    assert len(server.ranges) == 1
    get(server)
    assert_good(home)
    assert server.ranges[1] == f"bytes={HALF}-"


# ---- 收到的不是这个文件 ----------------------------------------------------------


def test_wrong_file_of_the_right_size(server, home):
    server.play(Answer(WRONG))
    got, wanted = (table_row(data, NAME).sha256 for data in (WRONG, DATA))
    assert_fails(server, home, f"{got}|应为 {wanted}|已经删掉")
    assert len(server.ranges) == 1


@pytest.mark.parametrize("length", [SIZE + 1, 0])
def test_wrong_content_length_is_seen_before_a_byte_is_written(server, home, length):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(DATA, status=200, length=length))
    assert_fails(server, home, f"大小是 {length:,} 字节|应为 1,000,000 字节", HALF)
    assert len(server.ranges) == 1


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
def test_login_page_is_recognised_and_spares_the_part(server, home, kind, page):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(page, 200, kind=kind))
    assert_fails(server, home, "网页|登录", HALF)
    assert len(server.ranges) == 1


def test_resumed_bytes_may_begin_like_a_page(server, home, monkeypatch):
    data = DATA[:HALF] + b"<" + DATA[HALF:]
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", table_row(data, NAME))
    part(home).write_bytes(data[:HALF])
    server.play(Answer(data))
    assert get(server).read_bytes() == data
    assert server.ranges == [f"bytes={HALF}-"]


# ---- 地址 --------------------------------------------------------------------


def test_redirect_is_followed(server, home):
    part(home).write_bytes(DATA[:HALF])
    server.play(Answer(b"", 302, location="/elsewhere/x"), GOOD)
    get(server)
    assert_good(home)
    assert server.paths == [f"/{NAME}", "/elsewhere/x"]
    assert server.ranges == [f"bytes={HALF}-"] * 2


@pytest.mark.parametrize("target", ["/again", "file:///etc/x"])
def test_bad_redirect(server, home, target):
    server.play(Answer(b"", 302, location=target))
    assert_fails(server, home, "用不了")


def test_nobody_listens(server, home):
    with Server() as gone:
        url = gone.url
    assert_fails(server, home, "连不上服务器|--mirror", mirror=url)


@pytest.mark.parametrize("mirror", ["file:///tmp", "x.org/y", "http://"])
def test_mirror_must_be_http(server, home, mirror):
    assert_fails(server, home, "mirror 不对|http:// 或 https://", mirror=mirror)
    assert_fails(server, home, "用不了", mirror="http://[::1/x")


def test_mirror_variable_and_full_address(server, home, monkeypatch):
    monkeypatch.setenv("SAM_LITE_MIRROR", f"{server.url}/deep/")
    get(server, mirror=None)
    assert server.paths == [f"/deep/{NAME}"]
    (home / NAME).unlink()
    get(server, mirror=f"{server.url}/other.pth?x=1")  # 参数胜过环境变量
    assert server.paths[1:] == ["/other.pth?x=1"]
    assert_good(home)


def test_unknown_name():
    with pytest.raises(SamLiteError, match="name 不对：收到 'tiny'，应为 vit_b"):
        download.download("tiny")


# ---- 磁盘 --------------------------------------------------------------------


def test_too_little_space_is_seen_before_asking(server, home, monkeypatch):
    part(home).write_bytes(DATA[:HALF])
    usage = download.shutil.disk_usage(home)._replace(free=HALF - 1)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
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
        patch.setattr(download, "open", FullDisk, raising=False)
        assert_fails(server, home, "写不了|磁盘满了|再运行一次会接着下", HALF)
    get(server)
    assert_good(home)
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_folder_that_cannot_be_made(server, home, tmp_path):
    (tmp_path / "blocked").write_bytes(b"")
    folder = tmp_path / "blocked"
    assert_fails(server, home, "写不了|--dir|SAM_LITE_HOME", folder=folder)


# ---- 真的进程：杀掉、两个同时来 ---------------------------------------------------

CHILD = """
import sys
from sam_lite.files import download
from sam_lite.files.official import OFFICIAL_FILES, OfficialFile
name, size, md5, sha256, folder, mirror = sys.argv[1:]
OFFICIAL_FILES["vit_b"] = OfficialFile(name, int(size), md5, sha256)
download.download("vit_b", folder=folder, mirror=mirror)
"""


def start(server, home, log: Path) -> subprocess.Popen:
    arguments = map(str, [*table_row(DATA, NAME), home, server.url])
    with open(log, "wb") as out:
        return subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", CHILD, *arguments],
            stdout=out,
            stderr=subprocess.DEVNULL,
        )


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_process_leaves_a_part_to_resume(server, home, tmp_path):
    server.play(Answer(DATA, stop=HALF, stall=True), GOOD)
    child = start(server, home, tmp_path / "log")
    wait_for(lambda: part(home).exists() and part(home).stat().st_size > 0)
    child.kill()
    child.wait(60)
    saved = part(home).stat().st_size
    assert not (home / NAME).exists()
    assert [p.name for p in home.glob(".*lock")]  # 锁文件还在，但锁已经松开
    get(server)
    assert_good(home)
    assert server.ranges[1:] == [f"bytes={saved}-"]


def test_two_processes_download_once(server, home, tmp_path):
    server.play(Answer(DATA, hold=True))
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    children = [start(server, home, log) for log in logs]
    wait_for(lambda: any("另一个进程" in log.read_text("utf-8") for log in logs))
    server.go.set()
    assert [child.wait(60) for child in children] == [0, 0]
    assert_good(home)
    assert server.ranges == [None] and server.sent == SIZE
    said = sorted("没有重新下载" in log.read_text("utf-8") for log in logs)
    assert said == [False, True]


# ---- 命令行 --------------------------------------------------------------------


def test_command_downloads_each_name_once(server, home, capsys):
    argv = ["download", "vit_b", "vit_b", "--mirror", server.url]
    assert cli.main(argv) == 0
    assert_good(home)
    assert server.ranges == [None]
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
        raise KeyboardInterrupt

    server.play(Answer(DATA, stop=HALF), GOOD)
    monkeypatch.setattr(download.time, "sleep", stop)
    assert cli.main(["download", "vit_b", "--mirror", server.url]) == 130
    err = capsys.readouterr().err
    assert "再运行一次会接着下" in err and "已中断" in err
    assert not (home / NAME).exists()
    assert part(home).stat().st_size >= HALF - CHUNK
    get(server)
    assert_good(home)
