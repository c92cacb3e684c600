"""OneFlow 走的路与 PyTorch 走的路结果相同；没有 OneFlow 也测得到。"""

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from files.test_reading import BAD, EXECUTED, Trap
from parity.small import randomize
from safetensors.torch import save_file

from sam_lite import ops
from sam_lite.attention import Attention
from sam_lite.errors import SamLiteError
from sam_lite.files.unpickle import read_pth
from sam_lite.ops import oneflow

STATUS = Path(__file__).parent.parent / "with_oneflow" / "status.py"


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (8, 8)])
def test_folded_attention_equals_the_eager_one(grid, monkeypatch) -> None:
    """OneFlow 的快路，换到 PyTorch 里与易读写法相差不超过 1e-5。"""
    layer = randomize(Attention(24, 3, use_rel_pos=True, input_size=grid))
    x = torch.randn(2, *grid, 24)
    layer.fused = False
    eager = layer(x)
    layer.fused = True
    calls, real = [], oneflow.attention_folded
    spy = lambda *args: calls.append(1) or real(*args)  # noqa: E731
    monkeypatch.setattr(oneflow, "attention_folded", spy)
    monkeypatch.setattr(oneflow, "ACTIVE", True)
    folded = layer(x)
    assert calls
    assert (folded - eager).abs().max() / eager.abs().max() <= 1e-5


def test_folded_attention_matches_rows_with_rows() -> None:
    """行的加项只给同一行的键：把别的都设成零，分数看得出来。"""
    q, v = torch.zeros(1, 1, 6, 1), torch.arange(6.0).reshape(1, 1, 6, 1)
    rel_h, rel_w = torch.zeros(1, 1, 2, 3, 2), torch.zeros(1, 1, 2, 3, 3)
    rel_h[..., 1] = 100.0  # 全看第 1 行：键 3、4、5
    rel_w[..., 2] = 100.0  # 全看第 2 列：键 2、5
    out = oneflow.attention_folded(q, q, v, 1.0, (rel_h, rel_w))
    assert out.flatten().tolist() == [5.0] * 6


@pytest.mark.parametrize("size", [(9, 14), (40, 60)])
def test_pillow_resizes_as_torch_does(size) -> None:
    image = torch.rand(2, 3, 20, 30) * 255
    ours = oneflow.resize_antialiased(image, size)
    torch.testing.assert_close(
        ours, ops.resize_antialiased(image, size), atol=1e-3, rtol=1e-5
    )


def test_numpy_keeps_the_order_of_ties(monkeypatch) -> None:
    scores = torch.randint(0, 5, (200,)).float()
    expected = ops.argsort_descending(scores)
    monkeypatch.setattr(ops.oneflow, "ACTIVE", True)
    assert torch.equal(ops.argsort_descending(scores), expected)


@pytest.mark.parametrize("active", [False, True])
def test_nan_is_seen_wherever_it_stands(active, monkeypatch) -> None:
    monkeypatch.setattr(ops.oneflow, "ACTIVE", active)
    for values in ([float("nan"), 1.0], [1.0, float("nan")]):
        low, high = ops.lowest_highest(torch.tensor(values))
        assert low != low and high != high
    assert ops.lowest_highest(torch.tensor([2.0, -1.0])) == (-1.0, 2.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_safetensors_through_numpy(dtype, tmp_path, monkeypatch) -> None:
    tensors = {"a": torch.randn(2, 3).to(dtype), "b": torch.randn(()).to(dtype)}
    save_file(tensors, tmp_path / "a.safetensors")
    read = oneflow.read_safetensors(tmp_path / "a.safetensors")
    assert {k: v.double().tolist() for k, v in read.items()} == {
        k: v.double().tolist() for k, v in tensors.items()
    }
    metadata = {"format": "pt"}
    plain = {"c": torch.arange(6.0).reshape(2, 3)}
    expected = ops.to_safetensors(plain, metadata)
    assert oneflow.to_safetensors(plain, metadata) == expected


# ---- 不靠 PyTorch 读 .pth ------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_pth_reads_the_same_numbers(dtype, tmp_path) -> None:
    """视图、转置、参数、共用存储、空的、0 维的，一位不差。"""
    whole = torch.randn(4, 6).to(dtype)
    state = {
        "whole": whole,
        "view": whole[1:, 2:],
        "turned": whole.t(),
        "parameter": torch.nn.Parameter(whole[2]),
        "empty": whole[:0],
        "scalar": whole[3, 5],
    }
    torch.save(state, tmp_path / "a.pth")
    arrays = read_pth(tmp_path / "a.pth")
    assert list(arrays) == list(state)
    for name, tensor in state.items():
        wanted = tensor.detach()
        wanted = (wanted.float() if dtype == torch.bfloat16 else wanted).numpy()
        assert arrays[name].shape == wanted.shape
        np.testing.assert_array_equal(arrays[name], wanted)
        assert arrays[name].dtype == wanted.dtype


CODE = ["code_in_zip", "whole_module", "code_in_plain_pickle", "code_in_new_pickle"]


@pytest.mark.parametrize("name", [*CODE, "truncated_zip", "another_zip", "some_text"])
def test_pth_with_code_or_broken_is_refused(name, tmp_path) -> None:
    make = BAD[name][1]
    path = tmp_path / "a.pth"
    path.write_bytes(make({"a": torch.randn(2_000_000)}, tmp_path))
    wanted = pickle.UnpicklingError if name in CODE[:2] else Exception
    with pytest.raises(wanted):
        read_pth(path)
    assert not (tmp_path / EXECUTED).exists()


def test_old_format_is_named(tmp_path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(SamLiteError, match="2020 年以前"):
        read_pth(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["os system", "builtins eval"])
def test_pickled_names_are_a_closed_list(name, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        call = "c" + name.replace(" ", "\n") + "\n(X\x01\0\0\x001tR."
        archive.writestr("a/data.pkl", b"\x80\x02" + call.encode("ascii"))
    with pytest.raises(pickle.UnpicklingError, match="GLOBAL (os|builtins)"):
        read_pth(tmp_path / "a.pth")


def test_tensor_beyond_its_storage_is_refused(tmp_path) -> None:
    """大小比存储大的张量，会读到别处的内存：一定要拒绝。"""
    torch.save({"a": torch.zeros(4)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data[:8] if name.endswith("data/0") else data)
    with pytest.raises((ValueError, TypeError)):
        read_pth(tmp_path / "bad.pth")


def test_trap_would_have_worked(tmp_path) -> None:
    """陷阱真的会执行：上面的测试才有意义。"""
    pickle.loads(pickle.dumps(Trap(tmp_path)))
    assert (tmp_path / EXECUTED).exists()


# ---- make test 的末几行 --------------------------------------------------------


def test_status_tells_whether_it_was_run(tmp_path) -> None:
    def status() -> str:
        command = [sys.executable, str(STATUS), str(tmp_path / "report.json")]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode == 0
        return done.stdout

    assert "没有运行过" in status() and "make test-oneflow" in status()
    facts = {"date": "2026-11-22 22:00", "passed": True, "tests": 29, "minutes": 2.5}
    facts |= {"oneflow": "0.9.0", "torch": "2.9", "largest": {"a": 1e-6, "b": 7e-6}}
    (tmp_path / "report.json").write_text(json.dumps(facts), encoding="utf-8")
    assert "2026-11-22 22:00：全部通过，29 项" in status() and "7.0e-06" in status()
    facts |= {"passed": False}
    (tmp_path / "report.json").write_text(json.dumps(facts), encoding="utf-8")
    assert "有没通过的" in status()
