"""坏的权重文件：每一种都有自己的中文错误，文件里的代码不执行；映射进内存。"""

import os
import pickle
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parity.small import SMALL, randomize
from safetensors.torch import save as to_safetensors

import sam_lite
from sam_lite.config import TINY
from sam_lite.errors import SamLiteError
from sam_lite.files.reading import is_finite, read_state_dict
from sam_lite.model import sam_from_config

EXECUTED = "executed"  # 坏文件里的代码如果执行了，就会多出这个文件


class Trap:
    """读的时候会执行代码的对象：在 folder 里建一个文件。"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return Path.touch, (self.folder / EXECUTED,)


@pytest.fixture(scope="module")
def good() -> dict[str, torch.Tensor]:
    """尺寸同 tiny 的完好权重。"""
    return randomize(sam_from_config(TINY)).state_dict()


def torch_bytes(content: object, tmp_path: Path, legacy: bool = False) -> bytes:
    path = tmp_path / "scratch"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.unlink()
    return data


def broken_header(data: bytes, header: bytes) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


Maker = Callable[[dict[str, torch.Tensor], Path], bytes]
KEY = "mask_decoder.iou_token.weight"


def with_nan(state: dict, value: float = float("nan")) -> dict:
    tensor = state[KEY].clone()
    tensor[0, 3] = value
    return {**state, KEY: tensor}


# 名字 -> (文件名, 内容, 错误里要有的话)
BAD: dict[str, tuple[str, Maker, str]] = {
    "empty_file": ("a.pth", lambda s, p: b"", "空的"),
    "html_page": ("a.pth", lambda s, p: b"\n<!DOCTYPE html><html></html>", "网页"),
    "some_text": ("a.pth", lambda s, p: b"not weights at all", "不是 torch.save 写的"),
    "truncated_zip": (
        "a.pth",
        lambda s, p: torch_bytes(s, p)[: 3 << 20],
        "没下完整",
    ),
    "truncated_legacy": (
        "a.pth",
        lambda s, p: torch_bytes(s, p, legacy=True)[: 3 << 20],
        "没下完整",
    ),
    "truncated_safetensors": (
        "a.safetensors",
        lambda s, p: to_safetensors(s)[: 3 << 20],
        "没下完整",
    ),
    "code_in_zip": ("a.pth", lambda s, p: torch_bytes({**s, "x": Trap(p)}, p), "代码"),
    "code_in_legacy": (
        "a.pth",
        lambda s, p: torch_bytes({**s, "x": Trap(p)}, p, legacy=True),
        "代码",
    ),
    "code_in_plain_pickle": (
        "a.pth",
        lambda s, p: pickle.dumps({"x": Trap(p)}, protocol=2),
        "代码",
    ),
    "code_in_new_pickle": (
        "a.pth",
        lambda s, p: pickle.dumps({"x": Trap(p)}, protocol=4),
        "代码",
    ),
    "code_named_safetensors": (
        "a.safetensors",
        lambda s, p: torch_bytes({"x": Trap(p)}, p),
        "不是完好的 safetensors",
    ),
    "whole_module": (
        "a.pth",
        lambda s, p: torch_bytes(torch.nn.Linear(2, 2), p),
        r"torch\.nn\.modules\.linear\.Linear",
    ),
    "another_zip": ("a.pth", lambda s, p: zip_of_text(p), "没下完整，或者坏了"),
    "a_list": ("a.pth", lambda s, p: torch_bytes(list(s.values()), p), "里是 list"),
    "one_tensor": ("a.pth", lambda s, p: torch_bytes(s[KEY], p), "里是 Tensor"),
    "empty_dict": ("a.pth", lambda s, p: torch_bytes({}, p), "字典是空的"),
    "numbers": ("a.pth", lambda s, p: torch_bytes({**s, KEY: 0.5}, p), "是 float"),
    "training_checkpoint": (
        "a.pth",
        lambda s, p: torch_bytes({"model": s, "step": 9}, p),
        "在 'model' 那一项里",
    ),
    "integers": (
        "a.pth",
        lambda s, p: torch_bytes({**s, KEY: s[KEY].to(torch.int8)}, p),
        r"torch\.int8",
    ),
    "sparse": (
        "a.pth",
        lambda s, p: torch_bytes({**s, KEY: s[KEY].to_sparse()}, p),
        "sparse",
    ),
    "another_model": (
        "a.pth",
        lambda s, p: torch_bytes({"layer1.0.conv1.weight": torch.zeros(3)}, p),
        r"不是 SAM 的权重.*layer1\.0\.conv1\.weight",
    ),
    "data_parallel": (
        "a.pth",
        lambda s, p: torch_bytes({f"module.{k}": v for k, v in s.items()}, p),
        "DataParallel",
    ),
    "unknown_size": (
        "a.pth",
        lambda s, p: torch_bytes(sam_from_config(SMALL).state_dict(), p),
        r"宽度、层数是 \(24, 3\)，不是已知的型号：tiny \(160, 6\)",
    ),
    "missing_key": (
        "a.pth",
        lambda s, p: torch_bytes({k: v for k, v in s.items() if k != KEY}, p),
        "缺少 1 个：mask_decoder",
    ),
    "extra_key": (
        "a.pth",
        lambda s, p: torch_bytes({**s, "stranger": torch.zeros(2)}, p),
        "多出 1 个：stranger",
    ),
    "wrong_shape": (
        "a.pth",
        lambda s, p: torch_bytes({**s, KEY: torch.zeros(2, 128)}, p),
        r"形状不对 1 个：.*iou_token.*\(2, 128\)，应为 \(1, 128\)",
    ),
    "nan": ("a.pth", lambda s, p: torch_bytes(with_nan(s), p), "NaN.*iou_token"),
    "infinity": (
        "a.pth",
        lambda s, p: torch_bytes(with_nan(s, float("inf")), p),
        "无穷大.*iou_token",
    ),
    "broken_header_json": (
        "a.safetensors",
        lambda s, p: broken_header(to_safetensors(s), b'{"a": [1, 2'),
        "不是完好的 safetensors",
    ),
    "header_beyond_the_file": (
        "a.safetensors",
        lambda s, p: broken_header(
            to_safetensors({"a": torch.zeros(2)}),
            b'{"a":{"dtype":"F32","shape":[999],"data_offsets":[0,3996]}}',
        ),
        "不是完好的 safetensors",
    ),
}


def zip_of_text(tmp_path: Path) -> bytes:
    with zipfile.ZipFile(tmp_path / "scratch", "w") as file:
        file.writestr("hello.txt", "hello")
    return (tmp_path / "scratch").read_bytes()


@pytest.mark.parametrize("name", BAD)
def test_bad_file_has_its_own_error(name, good, tmp_path):
    file, make, words = BAD[name]
    path = tmp_path / file
    path.write_bytes(make(good, tmp_path))
    with pytest.raises(SamLiteError, match=words) as caught:
        sam_lite.load(path)
    assert file in str(caught.value)
    assert "weights_only" not in str(caught.value)  # 不教人关掉它
    assert not (tmp_path / EXECUTED).exists()
    with pytest.raises(SamLiteError):  # 官方的入口也一样
        sam_lite.sam_model_registry["tiny"](checkpoint=path)


def test_absent_and_folder(tmp_path):
    with pytest.raises(SamLiteError, match="没有这个权重文件"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(SamLiteError, match="存在的权重文件"):
        sam_lite.load(tmp_path / "none.pth")
    with pytest.raises(SamLiteError, match="文件夹.*里没有 model.safetensors"):
        sam_lite.load(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows 的权限是另一套")
def test_no_permission(ordinary_user):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "locked.pth"
        path.write_bytes(b"secret")
        path.chmod(0)
        with ordinary_user(), pytest.raises(SamLiteError, match="打不开.*权限"):
            read_state_dict(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_is_finite_is_not_fooled_by_overflowing_sums(dtype):
    """和溢出不等于含无穷大；真的含就一定认得出，正负无穷大相抵也不例外。"""
    big = torch.full((4096,), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(big)
    inf = float("inf")
    for bad in ([inf], [-inf], [inf, -inf], [float("nan")]):
        tensor = big.clone()
        tensor[7 : 7 + len(bad)] = torch.tensor(bad, dtype=dtype)
        assert not is_finite(tensor)


def test_loading_is_memory_mapped_and_not_initialised(good, tmp_path, monkeypatch):
    """float32 的文件直接映射成参数，不另占内存；造模型时一个随机数也不取。"""
    for name in ("normal_", "uniform_", "kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(torch.nn.init, name, lambda t, *a, **k: refuse(t))
    torch.save(good, tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(to_safetensors(good))
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        sam = sam_lite.load(path)
        assert not sam.training
        assert all(p.requires_grad and not p.is_meta for p in sam.parameters())
        assert not any(b.is_meta for b in sam.buffers())
        if sys.platform == "linux":
            assert mapped(path) > 0.9 * path.stat().st_size


def refuse(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.is_meta, "造模型时做了随机初始化"
    return tensor


def mapped(path: Path) -> int:
    """这个文件有多少字节映射在本进程里。"""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            start, end = line.split()[0].split("-")
            total += int(end, 16) - int(start, 16)
    return total


def test_training_a_mapped_model_leaves_the_file_alone(good, tmp_path):
    """映射是私有的：改了参数，文件不变。"""
    path = tmp_path / "a.pth"
    torch.save(good, path)
    before = path.read_bytes()
    sam = sam_lite.load(path)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(1)
    assert path.read_bytes() == before


def test_a_mapped_file_can_be_replaced(good, tmp_path):
    """存回正映射着的文件：改名换掉，模型手里的还是原来的数。"""
    path = tmp_path / "a.safetensors"
    path.write_bytes(to_safetensors(good))
    sam = sam_lite.load(path)
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight.add_(1)
    sam_lite.weights.save(sam, path, torch.float32)
    again = sam_lite.load(path).state_dict()
    for name, tensor in sam.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_wrong_model_type_names_the_right_one(good, tmp_path):
    torch.save(good, tmp_path / "a.pth")
    with pytest.raises(SamLiteError, match=r"是 tiny 的权重，不是 vit_b 的.*\"tiny\""):
        sam_lite.sam_model_registry["vit_b"](checkpoint=tmp_path / "a.pth")
