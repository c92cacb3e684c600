"""换后端的图像编码器：结果一样，原来的模型不动，用不了的说得出为什么。"""

import functools
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
from torch import nn

from sam_lite import SamLiteError, SamPredictor, backends, cli
from sam_lite.backends import BACKENDS, available, compare, prepare, why_not
from sam_lite.cli import backends as cli_backends
from sam_lite.decoding.embedding_file import fingerprints

EXACT = ("eager", "fused")


def image_for(sam) -> torch.Tensor:
    side = sam.image_encoder.img_size
    return torch.randn(2, 3, side, side)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture
def dynamo(monkeypatch) -> None:
    """torch.compile 只描图，不调用 C++ 编译器；有一处断开就报错。"""
    plain = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", plain)
    monkeypatch.setattr(backends, "why_not", lambda name: "")
    yield
    torch.compiler.reset()


# ---- 结果 --------------------------------------------------------------------


@pytest.mark.parametrize("backend", EXACT)
@torch.no_grad()
def test_same_embedding(backend, small_sam):
    x = image_for(small_sam)
    found = prepare(small_sam, backend)(x)
    torch.testing.assert_close(found, small_sam.image_encoder(x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_bfloat16_is_close_and_comes_back_as_float32(small_sam):
    x = image_for(small_sam)
    found = prepare(small_sam, "bfloat16")(x)
    assert found.dtype == torch.float32
    assert 1e-5 < relative(found, small_sam.image_encoder(x)) < 0.1


@torch.no_grad()
def test_compiled_in_one_piece(dynamo, small_sam):
    x = image_for(small_sam)[:1]
    found = prepare(small_sam, "compile")(x)
    torch.testing.assert_close(found, small_sam.image_encoder(x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_exported(small_sam):
    """一张、两张都算；跑完第二张，第一张的结果还在（不是同一块内存）。"""
    if why_not("onnxruntime"):
        pytest.skip(why_not("onnxruntime"))
    x = image_for(small_sam)
    encoder = prepare(small_sam, "onnxruntime")
    right = small_sam.image_encoder(x)
    torch.testing.assert_close(encoder(x), right, atol=1e-4, rtol=1e-3)
    kept = encoder(x[:1])
    encoder(x[1:])
    torch.testing.assert_close(kept, right[:1], atol=1e-4, rtol=1e-3)


# ---- 原来的模型不动 ------------------------------------------------------------


@pytest.mark.parametrize("backend", (*EXACT, "bfloat16", "compile", "onnxruntime"))
def test_the_model_is_left_alone(backend, small_sam, dynamo):
    if backend == "onnxruntime":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    before = {k: v.clone() for k, v in small_sam.state_dict().items()}
    flags = [m.fused for m in small_sam.modules() if hasattr(m, "fused")]
    prepare(small_sam, backend)
    after = small_sam.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(v.dtype == before[k].dtype for k, v in after.items())
    assert [m.fused for m in small_sam.modules() if hasattr(m, "fused")] == flags


@pytest.mark.parametrize("backend, fused", [("eager", False), ("fused", True)])
def test_full_precision_shares_the_weights(backend, fused, small_sam):
    encoder = prepare(small_sam, backend).run.__self__
    pairs = zip(encoder.parameters(), small_sam.image_encoder.parameters(), strict=True)
    assert encoder is not small_sam.image_encoder and all(a is b for a, b in pairs)
    flags = {m.fused for m in encoder.modules() if hasattr(m, "fused")}
    assert flags == {fused}


# ---- 放回模型里 ----------------------------------------------------------------


def test_goes_back_into_the_predictor(small_sam, tmp_path):
    """预测、嵌入的存取都照常；再换一个后端，从原来的换起。"""
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    point = {"point_coords": np.array([[20, 30]]), "point_labels": np.array([1])}
    predictor = SamPredictor(small_sam)
    predictor.set_image(photo)
    right = predictor.predict(**point)[2]
    mark = fingerprints(small_sam)

    small_sam.image_encoder = prepare(small_sam, "bfloat16")
    predictor.set_image(photo)
    assert np.abs(predictor.predict(**point)[2] - right).max() > 0
    predictor.save_embedding(tmp_path / "half.safetensors")

    small_sam.image_encoder = prepare(small_sam, "eager")
    assert fingerprints(small_sam) == mark
    predictor.load_embedding(tmp_path / "half.safetensors", photo)
    predictor.set_image(photo)
    np.testing.assert_allclose(predictor.predict(**point)[2], right, atol=1e-3)


def test_state_dict_is_the_original(small_sam):
    before = small_sam.image_encoder.state_dict()
    after = prepare(small_sam, "bfloat16").state_dict()
    assert {f"encoder.{k}" for k in before} == set(after)
    assert {v.dtype for v in after.values()} == {torch.float32}


def test_no_gradients(small_sam):
    assert not prepare(small_sam, "fused")(image_for(small_sam)).requires_grad


# ---- 用不了的 ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fuesd", "", None])
def test_unknown_name(name, small_sam):
    with pytest.raises(SamLiteError, match="backend 不对.*onnxruntime"):
        prepare(small_sam, name)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_missing_package(missing, small_sam, monkeypatch):
    def version(name: str) -> str:
        if name == missing:
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(backends, "version", version)
    with pytest.raises(SamLiteError, match=f"要用 {missing}：pip install"):
        prepare(small_sam, "onnxruntime")
    assert "onnxruntime" not in available()


@pytest.mark.parametrize(
    "system, compiler", [("Windows", "cl"), ("Darwin", "clang++"), ("Linux", "g++")]
)
def test_no_compiler(system, compiler, small_sam, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(backends.platform, "system", lambda: system)
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    with pytest.raises(SamLiteError, match=rf"找不到 {compiler.replace('+', '.')}"):
        prepare(small_sam, "compile")
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(
        backends.shutil, "which", lambda name: "here" if name == "my-compiler" else None
    )
    assert why_not("compile") == "" and "compile" in available()


def test_compiler_fails(small_sam, monkeypatch):
    def broken(encoder: nn.Module, dynamic: bool):
        def run(x):
            raise RuntimeError("no Python.h\n第二行不必说")

        return run

    monkeypatch.setattr(backends, "why_not", lambda name: "")
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(SamLiteError, match="编译失败：no Python.h$"):
        prepare(small_sam, "compile")


def test_export_wants_float32(small_sam, monkeypatch):
    monkeypatch.setattr(backends, "why_not", lambda name: "")
    with pytest.raises(SamLiteError, match="bfloat16.*应为 CPU 上的 float32"):
        prepare(small_sam.bfloat16(), "onnxruntime")


# ---- 比一比 --------------------------------------------------------------------


def test_compare(small_sam):
    photo = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    rows = compare(small_sam, photo, ["eager", "fused", "bfloat16"], rounds=3)
    assert [row.backend for row in rows] == ["eager", "fused", "bfloat16"]
    assert rows[0].speedup == 1 and rows[0].error == 0
    assert rows[1].error < 1e-5 < rows[2].error < 0.1
    assert all(row.seconds > 0 and row.preparing > 0 for row in rows)


def test_compare_by_ratio_within_a_round(small_sam, monkeypatch):
    """机器忽快忽慢时，比值在同一轮里算。"""
    marks = [0, 0, 0, 0]  # 准备两个
    for one, two in ((2, 1), (20, 10), (6, 12)):  # 三轮，两个后端各几秒
        start = marks[-1]
        marks += [start, start + one, start + one, start + one + two]
    clock = iter(marks)
    monkeypatch.setattr(backends.time, "perf_counter", lambda: next(clock))
    photo = np.zeros((30, 50, 3), np.uint8)
    first, second = compare(small_sam, photo, ["eager", "fused"], rounds=3)
    # 比值的中位数是 2；中位数的比值是 0.6，那样算就错了
    assert (first.seconds, second.seconds, second.speedup) == (6, 10, 2)


def test_compare_checks_its_input(small_sam):
    with pytest.raises(SamLiteError, match="rounds"):
        compare(small_sam, np.zeros((8, 8, 3), np.uint8), ["eager"], rounds=0)
    with pytest.raises(SamLiteError, match="image"):
        compare(small_sam, np.zeros((8, 8), np.uint8), ["eager"])


def test_available_names_versions():
    found = available()
    assert list(found) == [name for name in BACKENDS if not why_not(name)]
    assert found["fused"].startswith("torch ")


# ---- 命令 --------------------------------------------------------------------


def test_command_prints_a_row_each(small_sam, monkeypatch, capsys):
    predictor = SamPredictor(small_sam)
    monkeypatch.setattr(cli_backends.cli_model, "load_predictor", lambda a: predictor)
    options = ["--only", "fused,bfloat16", "--rounds", "1"]
    assert cli.main(["backends", *options]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert "输入边长 64" in title
    assert [row.split()[0] for row in rows] == ["fused", "bfloat16"]
    assert "是 fused 的 1.00 倍速，误差 0e+00" in rows[0]


def test_command_skips_compiling_and_says_what_is_missing(
    small_sam, monkeypatch, capsys
):
    asked = []
    predictor = SamPredictor(small_sam)
    monkeypatch.setattr(cli_backends.cli_model, "load_predictor", lambda a: predictor)
    missing = {"onnxruntime": "没有装"}
    monkeypatch.setattr(cli_backends, "why_not", lambda name: missing.get(name, ""))
    row = backends.Row("eager", 1, 1, 0, 0)
    monkeypatch.setattr(cli_backends, "compare", lambda *a: asked.append(a[2]) or [row])
    assert cli.main(["backends"]) == 0
    assert asked == [["eager", "fused", "bfloat16"]]
    assert "onnxruntime  不能用：没有装" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words", [(["missing.jpg"], "missing.jpg"), (["--only", "cuda"], "cuda")]
)
def test_command_errors_are_one_line(arguments, words, capsys):
    assert cli.main(["backends", *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
