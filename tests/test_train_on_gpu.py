"""tools/train_on_gpu.py：几秒钟里画、训练、存成几片，再从几片接着来。"""

import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parity.small import SMALL, randomize

from sam_lite import SamLiteError
from sam_lite.cli import train as cli_train
from sam_lite.config import TrainConfig
from sam_lite.files.reading import read_state_dict
from sam_lite.learn.data import Mixture
from sam_lite.learn.loop import Loop, SceneGradients
from sam_lite.model import sam_from_config

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

import train_on_gpu  # noqa: E402

LINE = "--minutes 0.15 --draw-minutes 0.001 --batch 1 --workers 0 --each 2 --device cpu"
WEIGHTS = "sam_lite_tiny.safetensors"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cli_train, "TINY", replace(SMALL, depth=1))
    monkeypatch.setattr(train_on_gpu, "SCENE_SIZE", 64)
    monkeypatch.setattr(train_on_gpu, "PIECE", 100_000)


def run(out, *more):
    shape = ["--size", "64", "--patch", "8", "--window", "3"]
    return train_on_gpu.main(["--out", str(out), *LINE.split(), *shape, *more])


def steps(text):
    return int(re.search(r"走了 (\d+) 步", text)[1]), int(
        re.search(r"共 (\d+) 步", text)[1]
    )


def test_a_run_goes_on_from_the_pieces_of_another(tmp_path, capsys):
    """按时停；几片都不超过上限；接着来时步数接着数，权重从滑动平均那份往前走。"""
    begun = time.monotonic()
    assert run(tmp_path / "one") == 0
    assert time.monotonic() - begun < 60
    walked, total = steps(capsys.readouterr().out)
    assert walked == total >= 1
    pieces = sorted((tmp_path / "one").glob("state-*.bin"))
    assert len(pieces) > 1
    assert all(piece.stat().st_size <= 100_000 for piece in pieces)
    before = read_state_dict(tmp_path / "one" / WEIGHTS)
    assert {v.dtype for v in before.values()} == {torch.float16}
    assert run(tmp_path / "two", "--start", str(tmp_path / "one"), "--seed", "1") == 0
    more, both = steps(capsys.readouterr().out)
    assert both == walked + more and more >= 1
    after = read_state_dict(tmp_path / "two" / WEIGHTS)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_what_is_packed_comes_back(tmp_path):
    """权重原样，滑动平均差一点舍入，动量是 bfloat16 的精度；少一片就说。"""

    def fresh(seed):
        torch.manual_seed(seed)
        sam = randomize(sam_from_config(SMALL), seed)
        config = TrainConfig(optimizer="muon", batch=1, prompts=2, min_area=20)
        gradients = SceneGradients(sam, config, Mixture(1, 0, 0, 64))
        return Loop(sam, config, gradients)

    old, new = fresh(0), fresh(1)
    for _ in range(2):
        old.train_step()
    train_on_gpu.pack(old, tmp_path)
    train_on_gpu.unpack(new, tmp_path)
    assert new.step == 2 and new.elapsed == 0
    for name, value in old.sam.state_dict().items():
        assert torch.equal(value, new.sam.state_dict()[name]), name
        mean = new.result.state_dict()[name]
        torch.testing.assert_close(mean, old.result.state_dict()[name].half().float())
    for a, b in zip(old.optimizers, new.optimizers, strict=True):
        theirs = b.state_dict()["state"]
        for key, values in a.state_dict()["state"].items():
            for name, value in values.items():
                torch.testing.assert_close(
                    theirs[key][name], value, rtol=0.01, atol=1e-12
                )
    next(tmp_path.glob("state-*.bin")).unlink()
    with pytest.raises(SamLiteError, match="不全或坏了"):
        train_on_gpu.unpack(new, tmp_path)


def test_too_much_to_carry_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(train_on_gpu, "MOST", 1000)
    with pytest.raises(SamLiteError, match="超过了"):
        run(tmp_path / "one")
    assert (tmp_path / "one" / WEIGHTS).is_file()
