"""训练和评测不丢东西：随时被杀、磁盘满、Ctrl-C。

用 64 像素的小号跑真的 ``sam-lite train``，一步存一次检查点；``train_child.py`` 让它在
指定的一刻出事。设环境变量 ``SAM_LITE_ALL_MOMENTS=1`` 就把每一个时刻都试一遍。
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sam_lite import cli
from sam_lite.files import ASSETS
from sam_lite.learn import evaluation
from sam_lite.learn.checkpoint import Checkpoints

TESTS = Path(__file__).parents[1]
ALL = bool(os.environ.get("SAM_LITE_ALL_MOMENTS"))
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="要 fork 和 /proc"
)
OPTIONS = "--mix 1,1,0 --steps 3 --batch 1 --prompts 2 --save-every 1e-6 --device cpu"
WEIGHTS = "sam_lite_tiny.safetensors"


@pytest.fixture(scope="module")
def server():
    """导入好 torch 的进程，一个任务 fork 一次。"""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    child = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("train_child.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": path, "PYTHONUTF8": "1"},
    )
    yield child
    child.stdin.close()
    child.wait()


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    """跑一次训练：``run(目录, 更多参数, at=, what=, until=, limit=)``。"""
    notes = tmp_path_factory.mktemp("notes")

    def call(folder, *more, argv=None, at=0, what="", until=0, limit=0):
        argv = argv or ["train", "--out", str(folder), *OPTIONS.split(), *more]
        files = {key: str(notes / key) for key in ("out", "err", "names")}
        job = {"argv": argv, "at": at, "what": what, "until": until, "limit": limit}
        server.stdin.write(json.dumps(job | files | {"folder": str(folder)}) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        out, err = ((notes / key).read_text("utf-8") for key in ("out", "err"))
        names = [] if code < 0 else json.loads((notes / "names").read_text("utf-8"))
        return SimpleNamespace(code=code, out=out, err=err, names=names)

    return call


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """一口气跑完的结果，用来比。"""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run(folder)
    assert done.code == 0, done.err
    return SimpleNamespace(**contents(folder), names=done.names)


def contents(folder):
    """训练的成果：检查点、曲线（不含用时）、权重。"""
    state = torch.load(folder / "state.pt", weights_only=True)
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        del row["minutes"]
    weights = (folder / WEIGHTS).read_bytes()
    return {"state": state, "rows": rows, "weights": weights}


def same_as(whole, folder):
    """与一口气跑完逐位相同，也没有多余的文件。"""
    found = contents(folder)
    assert found["rows"] == whole.rows and [r["step"] for r in whole.rows] == [1, 2, 3]
    assert found["weights"] == whole.weights
    a, b = found["state"], whole.state
    assert a["step"] == b["step"] == 3
    for part in ("model", "mean"):
        assert a[part].keys() == b[part].keys() and a[part]
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name
    assert len(a["optimizer"]) == len(b["optimizer"]) == 1
    theirs = b["optimizer"][0]["state"]
    for key, values in a["optimizer"][0]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, theirs[key][name])
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert names == {"state.pt", "state.prev.pt", "log.jsonl", WEIGHTS}


def saved_step(folder):
    """磁盘上最新的完好检查点停在第几步；没有是 0。"""
    files = Checkpoints(folder)
    return files.load()[0]["step"] if files.count() else 0


def moment(whole, pattern, which=-1):
    """名字匹配的时刻里，第 which 个的编号，从 1 数起。"""
    found = [i for i, name in enumerate(whole.names, 1) if re.fullmatch(pattern, name)]
    return found[which]


def saves_before(whole, at):
    """第 at 个时刻之前，写好了几个检查点。"""
    return whole.names[: at - 1].count("rename .state.pt.tmp")


# ---- 随时被杀 ------------------------------------------------------------------

MOMENTS = [  # 时刻的名字、第几次
    ("scene", 0),
    ("scene", -1),
    ("backward", 1),
    ("update", -1),
    ("fsync .log.jsonl.tmp", -1),
    ("rename .log.jsonl.tmp", -1),
    ("fsync .state.pt.tmp", 0),  # 第一个检查点只写了一半
    ("fsync .state.pt.tmp", -2),  # 第三个只写了一半
    ("rename state.pt", -1),
    ("rename .state.pt.tmp", -1),  # 旧的已改名，新的还没有
    ("remove .state.pt.tmp", -1),
    ("rename .*safetensors.*", -1),
]


@pytest.mark.parametrize("pattern, which", MOMENTS)
def test_a_kill_loses_only_the_steps_since_the_last_save(
    run, whole, tmp_path, pattern, which
):
    killed_then_resumed(run, whole, tmp_path / "run", moment(whole, pattern, which))


@pytest.mark.skipif(not ALL, reason="很慢：设 SAM_LITE_ALL_MOMENTS=1 才跑")
def test_a_kill_at_every_single_moment(run, whole, tmp_path):
    for at in range(1, len(whole.names) + 1):
        killed_then_resumed(run, whole, tmp_path / str(at), at)


def killed_then_resumed(run, whole, folder, at):
    """在第 at 个时刻被杀，同一条命令加 --resume，结果一样。"""
    assert run(folder, at=at, what="SIGKILL").code == -signal.SIGKILL
    assert saved_step(folder) >= saves_before(whole, at), whole.names[at - 1]
    done = run(folder, *["--resume"] * folder.is_dir())
    assert done.code == 0, (whole.names[at - 1], done.err)
    same_as(whole, folder)


def test_a_kill_while_resuming(run, whole, tmp_path):
    """曲线比检查点多一步时被杀；续跑要去掉那一行，正写着又被杀。"""
    broken = tmp_path / "broken"
    run(broken, at=moment(whole, "open .state.pt.tmp"), what="SIGKILL")
    assert len((broken / "log.jsonl").read_text("utf-8").splitlines()) == 3
    assert saved_step(broken) == 2
    names = run(shutil.copytree(broken, tmp_path / "look"), "--resume").names
    first_step = names.index("scene")
    assert names[:first_step].count("rename .log.jsonl.tmp") == 1
    for at, name in enumerate(names[:first_step], 1):
        if ALL or name in ("fsync .log.jsonl.tmp", "rename .log.jsonl.tmp"):
            folder = shutil.copytree(broken, tmp_path / str(at))
            killed = run(folder, "--resume", at=at, what="SIGKILL")
            assert killed.code == -signal.SIGKILL and saved_step(folder) == 2
            assert run(folder, "--resume").code == 0
            same_as(whole, folder)


def test_half_a_line_in_the_log_does_not_matter(run, whole, tmp_path):
    """别的程序、旧版本留下的半行：去掉它，接着来。"""
    folder = tmp_path / "run"
    run(folder, at=moment(whole, "scene"), what="SIGKILL")
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 2, "minutes": 0.0, "lo')
    assert run(folder, "--resume").code == 0
    same_as(whole, folder)


# ---- Ctrl-C 和 SIGTERM ---------------------------------------------------------


@pytest.mark.parametrize(
    "name, code, pattern, which, text",
    [
        ("SIGINT", 130, "scene", 0, "检查点存在第 1 步"),
        ("SIGTERM", 143, "scene", 1, "检查点存在第 2 步"),
        ("SIGTERM", 143, "update", 1, "检查点存在第 2 步"),
        ("SIGINT", 130, "fsync .state.pt.tmp", 2, "检查点存在第 2 步"),
        ("SIGTERM", 143, "rename state.pt", 0, "检查点存在第 2 步"),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    run, whole, tmp_path, name, code, pattern, which, text
):
    """停在一步的末尾，存好检查点，印出一行；照着敲就接上了。"""
    folder = tmp_path / "带 空格"
    at = moment(whole, pattern, which)
    stopped = run(folder, at=at, what=name)
    assert stopped.code == code, stopped.err
    line = stopped.err.splitlines()[-1]
    assert line.startswith("sam-lite：停下了") and text in line
    assert "Traceback" not in stopped.err and not list(folder.rglob("*.tmp"))
    words = shlex.split(line.partition("接着来：")[2])
    assert words[0] == "sam-lite" and words[-1] == "--resume"
    done = run(folder, argv=words[1:])
    assert done.code == 0, done.err
    same_as(whole, folder)


@pytest.mark.parametrize(
    "first, second",
    [
        (("scene", 1), ("backward", 1)),
        (("backward", 1), ("fsync .state.pt.tmp", -1)),
        (("rename state.pt", 0), ("rename .state.pt.tmp", 1)),
    ],
)
def test_a_second_interrupt_stops_at_once(run, whole, tmp_path, first, second):
    """等不及再按一次：哪怕正在存，最多丢掉上次存档之后的几步，照样接得上。"""
    folder = tmp_path / "run"
    at, until = moment(whole, *first), moment(whole, *second)
    stopped = run(folder, at=at, what="SIGINT", until=until)
    assert stopped.code == 130, stopped.err
    assert "--resume" in stopped.err.splitlines()[-1]
    assert not list(folder.rglob("*.tmp"))
    assert saved_step(folder) >= saves_before(whole, at)
    assert run(folder, "--resume").code == 0
    same_as(whole, folder)


def test_an_interrupt_during_the_export_lets_it_finish(run, whole, tmp_path):
    folder = tmp_path / "run"
    done = run(folder, at=moment(whole, ".*safetensors.*", 0), what="SIGINT")
    assert done.code == 0 and "训练完了" in done.out
    same_as(whole, folder)


# ---- 磁盘满 --------------------------------------------------------------------


def test_training_outlives_a_disk_full_for_a_while(run, whole, tmp_path):
    """第二步存不下，训练接着走；后来有了空间，曲线和检查点都补上。"""
    folder = tmp_path / "run"
    at = moment(whole, "update", 1)  # 之后四个：打开、删掉曲线和检查点的临时文件
    done = run(folder, at=at, what="ENOSPC", until=at + 5)
    assert done.code == 0, done.err
    assert done.err.count("磁盘满了") == 2  # 曲线一次，检查点一次
    assert "第 2 步的检查点没存成" in done.err
    assert "磁盘上的检查点还停在第 1 步" in done.err
    same_as(whole, folder)


def test_a_disk_full_at_the_end_is_an_error_and_loses_nothing_old(run, whole, tmp_path):
    folder = tmp_path / "run"
    failed = run(folder, at=moment(whole, "update", 1), what="ENOSPC", until=10**9)
    assert failed.code == 1
    last = failed.err.splitlines()[-1]
    assert "权重没导出成" in last and "磁盘满了" in last and "--resume" in last
    assert not list(folder.rglob("*.tmp")) and saved_step(folder) == 1
    assert run(folder, "--resume").code == 0
    same_as(whole, folder)


def test_a_checkpoint_too_large_still_exports_the_weights(run, whole, tmp_path):
    """真的写到一半写不下（单个文件的上限）：权重小，照样导出；退出码 1。"""
    folder = tmp_path / "run"
    failed = run(folder, limit=400_000)
    assert failed.code == 1
    assert failed.err.count("单个文件的大小上限") == 2  # 中途一次，最后一次
    assert "权重导出了" in failed.err.splitlines()[-1]
    assert (folder / WEIGHTS).read_bytes() == whole.weights
    assert not list(folder.rglob("*.tmp")) and saved_step(folder) == 0
    assert run(folder, "--resume").code == 0  # 只是少了 state.prev.pt
    assert saved_step(folder) == 3


def test_resume_needs_a_folder_that_exists(run, tmp_path):
    """打错了 --out，不能悄悄从头训练。"""
    refused = run(tmp_path / "tpyo", "--resume")
    assert refused.code == 1 and "检查 --out" in refused.err
    assert not (tmp_path / "tpyo").exists()


# ---- 真的多进程画场景 ----------------------------------------------------------


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupt_of_the_whole_group_while_workers_draw(tmp_path, name, code):
    """终端的 Ctrl-C 会发给每一个进程，作业系统也常这样；话只由主进程说一句。"""
    options = "--workers 2 --steps 5000 --batch 1 --prompts 2 --size 64 --patch 16"
    argv = ["train", "--out", tmp_path / "run", "--device", "cpu", "--window", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sam_lite.cli", *argv, *options.split()],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1", "PYTHONPATH": str(TESTS.parent)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    text = ""
    while "第 2 步" not in text:
        part = process.stderr.read(1)
        assert part, text
        text += part
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    workers = [Path(f"/proc/{pid}/exe") for pid in children.split()]
    assert len(workers) >= 2
    os.killpg(process.pid, getattr(signal, name))
    text = process.communicate(timeout=100)[1]
    assert process.returncode == code, text
    assert "Traceback" not in text and text.count("sam-lite：") == 1
    step = int(re.search(r"检查点存在第 (\d+) 步。接着来：sam-lite train", text)[1])
    assert saved_step(tmp_path / "run") == step >= 2
    assert (tmp_path / "run" / WEIGHTS).is_file()
    deadline = time.monotonic() + 60
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- 评测 ----------------------------------------------------------------------


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_evaluation_says_how_far_it_got(
    tmp_path, monkeypatch, capsys, name, code
):
    def stopped(sam, number, seed, *, progress, **options):
        for _ in range(3):
            progress()
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(5)
        raise AssertionError("信号没有打断评测")

    monkeypatch.setattr(evaluation, "evaluate", stopped)
    file = tmp_path / "scores.json"
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["evaluate", "--scenes", "20", "--json", str(file)]) == code
    assert "20 个场景打完了 3 个" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_scores_are_printed_when_the_json_cannot_be_written(
    tmp_path, monkeypatch, capsys
):
    """打分时磁盘满了：表格照印，全部数字也印出来，旧文件不动，退出码 1。"""
    file = tmp_path / "scores.json"
    file.write_text("旧的", encoding="utf-8")

    def scores(*args, **options):
        monkeypatch.setattr(os, "fsync", disk_full)
        return {"miou": {"box": 0.5}}

    def disk_full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation, "evaluate", scores)
    monkeypatch.setattr(evaluation, "format_table", lambda result: "表格")
    assert cli.main(["evaluate", "--scenes", "1", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "表格" in out and '"box": 0.5' in out
    assert "磁盘满了" in err and "印在上面" in err
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    assert file.read_text("utf-8") == "旧的"


def test_a_full_disk_is_told_before_the_evaluation(tmp_path, monkeypatch, capsys):
    def disk_full(handle):
        raise OSError(28, "No space left on device")

    def never(*args, **options):
        raise AssertionError("该先试写")

    monkeypatch.setattr(evaluation, "evaluate", never)
    monkeypatch.setattr(os, "fsync", disk_full)
    argv = ["evaluate", "--scenes", "1", "--json", str(tmp_path / "a.json")]
    assert cli.main(argv) == 1
    assert "磁盘满了" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_broken_weights_file_is_a_clear_error(tmp_path, capsys):
    good = ASSETS / WEIGHTS
    for name, data in (("cut", good.read_bytes()[:1000]), ("empty", b"")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        assert cli.main(["evaluate", "--scenes", "1", "--checkpoint", str(path)]) == 1
        err = capsys.readouterr().err
        assert str(path) in err and "意外" not in err and err.count("\n") == 1
