"""命令 ``sam-lite verify``：是什么、是不是官方的、完不完好。"""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from parity.small import randomize

from sam_lite import cli
from sam_lite.config import TINY
from sam_lite.files.official import OFFICIAL_FILES, OfficialFile
from sam_lite.model import sam_from_config

KEY = "mask_decoder.iou_token.weight"


@pytest.fixture(scope="module")
def state():
    return randomize(sam_from_config(TINY)).state_dict()


@pytest.fixture
def file(state, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    return path


def verify(capsys, path) -> str:
    assert cli.main(["verify", str(path)]) == 0
    return capsys.readouterr().out


def rejects(capsys, path) -> str:
    """退出码 1，标准错误只有一行，点了文件的名；返回这一行。"""
    assert cli.main(["verify", str(path)]) == 1
    out, err = capsys.readouterr()
    assert "全部对上" not in out
    assert err.startswith("sam-lite：") and err.count("\n") == 1
    assert Path(path).name in err
    return err


def test_shipped_model_by_name(capsys):
    out = verify(capsys, "tiny")
    assert "型号：tiny，输入边长 192" in out
    assert "张量：230 个，float16" in out
    assert "参数：2,918,304 个" in out
    assert "不是官方文件，哈希不在表里" in out
    assert "全部对上" in out


def test_report_of_a_file(capsys, file):
    out = verify(capsys, file)
    for kind in ("md5", "sha256"):
        assert hashlib.new(kind, file.read_bytes()).hexdigest() in out
    assert f"大小：{file.stat().st_size:,} 字节" in out
    parts = {"prompt_encoder": 3_276, "mask_decoder": 756_340}
    parts["image_encoder"] = 2_918_304 - sum(parts.values())
    for part, number in parts.items():
        assert f"{part} {number:,} 个" in out
    assert "float32" in out


def test_official_file_is_recognised_by_its_hash(capsys, file, monkeypatch):
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    row = OfficialFile("any.pth", file.stat().st_size, "", sha256)
    monkeypatch.setitem(OFFICIAL_FILES, "vit_l", row)
    assert "来源：是官方的 vit_l" in verify(capsys, file)


@pytest.mark.parametrize("what", ["half", "code", "other", "nan", "missing", "none"])
def test_bad_files_are_one_line(capsys, file, state, tmp_path, what):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    path = tmp_path / "bad.pth"
    contents = {
        "half": file.read_bytes()[: file.stat().st_size // 2],
        "code": pickle.dumps({"a": Trap()}, protocol=2),
    }
    if what in contents:
        path.write_bytes(contents[what])
    elif what != "none":
        states = {
            "other": {"a": torch.zeros(3)},
            "nan": state | {KEY: state[KEY] * float("nan")},
            "missing": {k: v for k, v in state.items() if k != KEY},
        }
        torch.save(states[what], path)
    rejects(capsys, path)
    assert not (tmp_path / "executed").exists()
