"""team：两个进程一起训练、微调，与一个进程相同；只有第一个写文件，叫停停在同一步。"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sam_lite import SamLiteError
from sam_lite.learn.team import Team, join_team

ROOT = Path(__file__).parents[2]

# 每个进程：同样的小模型、同样的六张图，各把结果存下
FIT = """
import os, sys
import torch
sys.path[:0] = {paths!r}
torch.set_num_threads(1)
from parity.small import SMALL, randomize
from sam_lite import training
from sam_lite.config import FitConfig
from sam_lite.learn.fine_tune import Best
from sam_lite.model import sam_from_config
from sam_lite.scenes.cells import CellScenes

if __name__ == "__main__":
    Best.restore = lambda self: None  # 要比的是最后的权重，不是最好的
    sam = randomize(sam_from_config(SMALL)).eval()
    config = FitConfig(parts="lora", epochs=2, batch=3, prompts=3, patience=9)
    result = training.fit(sam, CellScenes(6, size=64), config)
    out = sys.argv[1] + os.environ.get("RANK", "")
    torch.save((result.history, sam.state_dict()), out)
"""


# 每个进程：同样的小模型，走四步，末一个进程在第二步之后叫停，再接着走完
TRAIN = """
import os, sys
import torch
sys.path[:0] = {paths!r}
torch.set_num_threads(1)
from parity.small import SMALL
from sam_lite import training
from sam_lite.config import TrainConfig
from sam_lite.learn.checkpoint import Checkpoints
from sam_lite.learn.data import Mixture
from sam_lite.learn.exam import Exam
from sam_lite.learn.loop import Loop, SceneGradients
from sam_lite.learn.team import join_team
from sam_lite.model import sam_from_config

if __name__ == "__main__":
    rank = os.environ.get("RANK", "0")
    config = TrainConfig(
        steps=4, batch=3, prompts=3, min_area=20, warmup=1, optimizer="muon"
    )
    with join_team(torch.device("cpu")) as team:
        for turn in range(2):
            torch.manual_seed(0)
            sam = sam_from_config(SMALL)
            training.init_for_training(sam)
            gradients = SceneGradients(sam, config, Mixture(size=64), team)
            run = Loop(sam, config, gradients, sys.argv[1] + ".run", team=team)
            if rank == "1":
                Checkpoints.save = None  # 第 1 个进程写文件就出错
                run.curve.write = None
            assert run.resume() == (turn == 1) and run.step == 2 * turn
            asked = rank == str(team.world - 1) and turn == 0
            exam = Exam(1e-9, 2, team)  # 每步都考
            run.run(stop=lambda: asked and run.step == 2, exam=exam)
            assert run.step == 2 * turn + 2
            team.gather([])
    torch.save(run.result.state_dict(), sys.argv[1] + os.environ.get("RANK", ""))
"""


def start(script, out, world):
    """起 world 个进程，返回它们。"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(world):
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        names |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
        environment = os.environ | (names if world > 1 else {})
        command = [sys.executable, str(script), str(out)]
        children.append(subprocess.Popen(command, env=environment))
    return children


def results(child, folder, monkeypatch):
    """一个进程的结果，和两个进程的两份。"""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    script, paths = folder / "child.py", [str(ROOT), str(ROOT / "tests")]
    script.write_text(child.format(paths=paths), "utf-8")
    children = start(script, folder / "one", 1) + start(script, folder / "two", 2)
    assert [child.wait(240) for child in children] == [0, 0, 0]
    names = ("one", "two0", "two1")
    return [torch.load(folder / name, weights_only=True) for name in names]


def assert_close(one, twos, rtol, atol):
    """只差舍入；可总有末一位不同的，全同说明没有分着算。"""
    differing = 0
    for two in twos:
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=rtol, atol=atol)
            differing += not torch.equal(value, two[name])
    assert differing


def test_two_processes_train_like_one(tmp_path, monkeypatch):
    """每步三张图：一个进程分到两张，另一个一张；中途由第二个叫停、续跑。"""
    one, *twos = results(TRAIN, tmp_path, monkeypatch)
    assert_close(one, twos, 1e-3, 1e-4)


def test_two_processes_fit_like_one(tmp_path, monkeypatch):
    """五张训练照片，每步三张：一个进程分到两张、另一个一张，末一步各一张。"""
    (history, state), *twos = results(FIT, tmp_path, monkeypatch)
    assert len(history) == 3
    for theirs, _ in twos:
        for mine, row in zip(history[1:], theirs[1:], strict=True):
            assert mine["loss"] == pytest.approx(row["loss"], rel=1e-4)
            assert mine["box"] == pytest.approx(row["box"], abs=0.01)
    assert_close(state, [values for _, values in twos], 1e-4, 1e-5)


def test_alone_nothing_is_communicated():
    with join_team(torch.device("cpu")) as team:
        assert (team.rank, team.world) == (0, 1)
        p, q = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
        p.sum().backward()
        assert team.add_up([p, q], [1.0, 2.0]) == [1.0, 2.0]
        assert p.grad.tolist() == [1, 1] and q.grad.tolist() == [0, 0, 0]
        assert team.gather([3]) == [3]


def test_work_is_dealt_like_cards():
    shares = [list(Team(rank, 3).mine(7)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("device", "nccl", "wanted"),
    [("cpu", True, "gloo"), ("cuda", True, "nccl"), ("cuda", False, "gloo")],
)
def test_which_way_they_talk(monkeypatch, device, nccl, wanted):
    """Windows 的 PyTorch 没有 NCCL，显卡也用 gloo。"""
    seen = []

    def init(backend):
        seen.append(backend)
        raise RuntimeError

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: nccl)
    monkeypatch.setattr("torch.distributed.init_process_group", init)
    with pytest.raises(SamLiteError), join_team(torch.device(device)):
        pass
    assert seen == [wanted]


def test_apple_devices_work_alone_only(monkeypatch):
    with join_team(torch.device("mps")) as team:
        assert team.world == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(SamLiteError, match="cpu 或 cuda"),
        join_team(torch.device("mps")),
    ):
        pass


def test_nonsense_environment_is_explained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(SamLiteError, match="WORLD_SIZE"),
        join_team(torch.device("cpu")),
    ):
        pass
