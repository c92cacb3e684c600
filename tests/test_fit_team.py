"""fit_team：两个进程一起微调，与一个进程相同。"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sam_lite import SamLiteError
from sam_lite.learn.team import Team, join_team

ROOT = Path(__file__).parent.parent

# 每个进程：同样的小模型、同样的六张图，第 0 个把结果存下
CHILD = """
import os, sys
import torch
sys.path[:0] = {paths!r}
torch.set_num_threads(1)
from parity.small import SMALL, randomize
from sam_lite import training
from sam_lite.config import FitConfig
from sam_lite.learn.fit_parts import Best
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


def test_two_processes_equal_one(tmp_path, monkeypatch):
    """五张训练照片，每步三张：一个进程分到两张、另一个一张，末一步各一张。"""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "child.py"
    paths = [str(ROOT), str(ROOT / "tests")]
    script.write_text(CHILD.format(paths=paths), "utf-8")
    children = start(script, tmp_path / "one", 1) + start(script, tmp_path / "two", 2)
    assert [child.wait(180) for child in children] == [0, 0, 0]
    history, state = torch.load(tmp_path / "one", weights_only=True)
    assert len(history) == 3
    differing = 0
    for rank in "01":
        theirs, values = torch.load(tmp_path / f"two{rank}", weights_only=True)
        for mine, row in zip(history[1:], theirs[1:], strict=True):
            assert mine["loss"] == pytest.approx(row["loss"], rel=1e-4)
            assert mine["box"] == pytest.approx(row["box"], abs=0.01)
        for name, value in state.items():
            torch.testing.assert_close(values[name], value, rtol=1e-4, atol=1e-5)
            differing += not torch.equal(value, values[name])
    assert differing  # 相加的次序不同，总有最后一位不同的；全同说明没有分着算


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
