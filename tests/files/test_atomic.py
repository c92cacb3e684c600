"""atomic：要么完整写好，要么一点不动，也不留临时文件。"""

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest

from sam_lite import SamLiteError
from sam_lite.files import atomic
from sam_lite.files.atomic import atomic_file, check_writable, sweep


def names(folder):
    """文件夹里的文件名，从小到大。"""
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert len(names(tmp_path)) == 2
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a.bin"]


def test_data_reaches_the_disk_before_the_rename(tmp_path, monkeypatch):
    """先 fsync 文件，再改名，再 fsync 文件夹：断电也不会改名了却没有内容。"""
    steps = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(handle):
        steps.append("folder" if os.path.isdir(f"/dev/fd/{handle}") else "file")
        fsync(handle)

    def seen_replace(a, b):
        steps.append(f"rename {os.path.getsize(a)}")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"12345")
    assert steps[:2] == ["file", "rename 5"]
    if os.name != "nt":
        assert len(steps) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_any_exception_inside_leaves_everything_as_it_was(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "broken, number, text",
    [
        ("fsync", errno.ENOSPC, "磁盘满了"),
        ("replace", errno.EACCES, "没有权限写"),
        ("fsync", errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_failing_disk_is_a_clear_error(tmp_path, monkeypatch, broken, number, text):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(SamLiteError, match=text), atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_folders_missing_folders_and_devices_are_refused(tmp_path):
    """root 也不能把设备换成普通文件。"""
    cases = {tmp_path: "这是一个文件夹", tmp_path / "no" / "a": "没有文件夹"}
    if os.path.exists(os.devnull) and os.name != "nt":
        link = tmp_path / "null"
        link.symlink_to(os.devnull)
        cases[link] = "不是普通文件"
    for path, text in cases.items():
        with pytest.raises(SamLiteError, match=text), atomic_file(path) as file:
            file.write(b"x")
        with pytest.raises(SamLiteError, match=text):
            check_writable(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows 的权限是另一套")
def test_a_folder_without_permission_is_told_beforehand(ordinary_user):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with ordinary_user(), pytest.raises(SamLiteError, match="没有权限"):
            check_writable(Path(folder) / "a.bin")
        assert os.listdir(folder) == []
        os.chmod(folder, 0o755)


def test_check_writable_leaves_no_trace(tmp_path, monkeypatch):
    check_writable(tmp_path / "a.bin")
    assert names(tmp_path) == []

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SamLiteError, match="磁盘满了"):
        check_writable(tmp_path / "a.bin")
    assert names(tmp_path) == []


def test_two_writers_do_not_mix(tmp_path):
    """两个线程同时写同一个文件：各写各的临时文件，最后是其中完整的一份。"""
    path, ready = tmp_path / "a.bin", threading.Barrier(2)

    def write(letter):
        with atomic_file(path) as file:
            file.write(letter * 1000)
            ready.wait(10)
            file.write(letter * 1000)

    threads = [threading.Thread(target=write, args=(x,)) for x in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (b"a" * 2000, b"b" * 2000)
    assert names(tmp_path) == ["a.bin"]


def test_sweep_takes_only_the_leftovers_of_this_file(tmp_path):
    path = tmp_path / "a[1].bin"  # 名字里的方括号不是通配符
    kept = ["a[1].bin", "a[1].bin.tmp", ".b.bin.1234abcd.tmp", ".a1.bin.1234abcd.tmp"]
    for name in [*kept, ".a[1].bin.1234abcd.tmp", ".a[1].bin.00000000.tmp"]:
        (tmp_path / name).write_bytes(b"")
    sweep(path)
    assert names(tmp_path) == sorted(kept)


def test_a_very_long_name_still_fits(tmp_path):
    path = tmp_path / ("图" * 80 + ".png")  # 244 字节，上限多是 255
    with atomic_file(path) as file:
        file.write(b"x")
    assert names(tmp_path) == [path.name]
    assert atomic._prefix(path) == f".{'图' * 40}."
