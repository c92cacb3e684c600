"""几个进程一起训练：与一个进程相同，只有第一个写文件，叫停停在同一步。"""

import os
import sys
from pathlib import Path

import pytest
import torch
from test_fit_team import start

from sam_lite import SamLiteError
from sam_lite.learn.team import start_others

ROOT = Path(__file__).parent.parent

# 每个进程：同样的小模型，走四步，第 1 个进程在第二步之后叫停，再接着走完
CHILD = """
import os, sys
import torch
sys.path[:0] = {paths!r}
torch.set_num_threads(1)
from parity.small import SMALL
from sam_lite import training
from sam_lite.config import TrainConfig
from sam_lite.learn.team import join_team
from sam_lite.model import sam_from_config
from sam_lite.scenes.bank import SceneBank
from sam_lite.learn.trainer import Trainer
from sam_lite.learn.exam import Exam
from sam_lite.learn.files import Checkpoints

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
            bank = SceneBank({bank!r}, 6, 64)
            run = Trainer(sam, bank, config, sys.argv[1] + ".run", team=team)
            if rank == "1":
                Checkpoints.save = None  # 第 1 个进程写文件就出错
                run.curve.write = None
            assert run.resume() == (turn == 1) and run.step == 2 * turn
            asked = rank == str(team.world - 1) and turn == 0
            exam = Exam(1e-9, 2, team)  # 每步都考
            run.run(stop=lambda: asked and run.step == 2, exam=exam)
            assert run.step == 2 * turn + 2
            team.gather([])
    torch.save(sam.state_dict(), sys.argv[1] + os.environ.get("RANK", ""))
"""


def test_two_processes_equal_one(tmp_path, monkeypatch):
    """每步三张图：一个进程分到两张，另一个一张；中途由第二个叫停、续跑。"""
    from sam_lite.scenes.bank import SceneBank

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    bank = str(tmp_path / "bank")
    list(SceneBank(bank, 6, 64).fill(workers=1))
    script = tmp_path / "child.py"
    paths = [str(ROOT), str(ROOT / "tests")]
    script.write_text(CHILD.format(paths=paths, bank=bank), "utf-8")
    children = start(script, tmp_path / "one", 1) + start(script, tmp_path / "two", 2)
    assert [child.wait(240) for child in children] == [0, 0, 0]
    state = torch.load(tmp_path / "one", weights_only=True)
    differing = 0
    for rank in "01":
        theirs = torch.load(tmp_path / f"two{rank}", weights_only=True)
        for name, value in state.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=2e-5)
            differing += not torch.equal(value, theirs[name])
    assert differing  # 全同说明没有分着算


NOTE = """
import os, sys, time
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
with open(os.path.join(sys.argv[1], os.environ["RANK"]), "w") as file:
    file.write(" ".join(os.environ[name] for name in names))
    file.write(" " + str(os.getpgrp() == int(sys.argv[3])))
time.sleep(float(sys.argv[2]))
"""


def test_other_processes_are_told_how_to_join(tmp_path, monkeypatch):
    """第 1、2 个进程各跑一遍，等它们走完；自己是第 0 个，出来时环境恢复原样。

    它们另成一组，终端的 Ctrl-C 不会发给它们。
    """
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dict(os.environ)
    threads = torch.get_num_threads()
    group = str(os.getpgrp())
    with start_others(3, [sys.executable, "-c", NOTE, str(tmp_path), "0", group]):
        assert os.environ["RANK"] == "0" and os.environ["WORLD_SIZE"] == "3"
        assert not (tmp_path / "0").exists()
    assert dict(os.environ) == before
    torch.set_num_threads(threads)
    for rank in "12":
        assert (tmp_path / rank).read_text() == f"{rank} {rank} 3 127.0.0.1 1 False"


def test_other_processes_are_stopped_when_something_fails(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    command = [sys.executable, "-c", NOTE, str(tmp_path), "600", "0"]
    with pytest.raises(KeyboardInterrupt), start_others(2, command):
        raise KeyboardInterrupt
    assert "WORLD_SIZE" not in os.environ  # 没有等上十分钟


def test_torchrun_and_processes_do_not_go_together(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(SamLiteError, match="processes.*WORLD_SIZE"),
        start_others(2, []),
    ):
        pass
