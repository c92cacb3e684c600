"""第 13 章：导出的文件查过、对过、配得上，写不好就一点不写。"""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from parity.small import SMALL, randomize

from sam_lite import cli, onnx_export
from sam_lite.cli import export_onnx as cli_onnx
from sam_lite.errors import SamLiteError
from sam_lite.masks.measure import calculate_stability_score
from sam_lite.model import Sam, sam_from_config
from sam_lite.onnx import files as onnx_files
from sam_lite.onnx.files import quantize
from sam_lite.onnx_export import (
    DECODER_INPUTS,
    OPSETS,
    SamOnnxModel,
    decoder_examples,
    export_decoder,
    export_encoder,
)
from sam_lite.preprocess import ResizeLongestSide

OUTPUTS = ["masks", "iou_predictions", "low_res_masks"]
EXTRA = ["masks", "iou_predictions", "stability_scores", "areas", "low_res_masks"]


def run(path: Path, inputs: dict[str, Any]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {k: np.asarray(v) for k, v in inputs.items()})


@pytest.fixture(scope="module")
def sam() -> Sam:
    return randomize(sam_from_config(SMALL)).eval()


@pytest.fixture(scope="module")
def folder(sam: Sam, tmp_path_factory) -> Path:
    """导出一次，各个测试共用：encoder.onnx 和 decoder.onnx。"""
    folder = tmp_path_factory.mktemp("onnx")
    assert export_encoder(sam, folder / "encoder.onnx") < 1e-5
    assert export_decoder(sam, folder / "decoder.onnx") < 1e-5
    return folder


def example(B: int, N: int, masks: int, size: tuple[int, int]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(B + 10 * N)
    kinds = torch.tensor([1.0, 0.0, -1.0, 2.0, 3.0]).repeat(N)[:N]
    tensors = (
        torch.randn(1, 32, 8, 8, generator=generator),
        torch.rand(B, N, 2, generator=generator) * 64,
        kinds.repeat(B, 1),
        torch.randn(max(1, masks), 1, 32, 32, generator=generator) * 5,
        torch.tensor([float(masks > 0)]),
        torch.tensor(size, dtype=torch.float32),
    )
    return dict(zip(DECODER_INPUTS, tensors, strict=True))


# ---- 两个文件 ------------------------------------------------------------------


@pytest.mark.parametrize("name, inputs", [("encoder", 1), ("decoder", 6)])
def test_file_is_checked_and_named(folder: Path, name: str, inputs: int) -> None:
    """格式过得了完整的检查，默认算子集是 17，元数据说得出它是什么。"""
    model = onnx.load(folder / f"{name}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [x.version for x in model.opset_import if x.domain == ""] == [17]
    assert len(model.graph.input) == inputs
    facts = {p.key: p.value for p in model.metadata_props}
    assert facts["part"] == name and facts["model"] == "small"
    assert facts["image_size"] == "64" and len(facts["weights"]) == 64
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]


def test_shapes_in_the_files(folder: Path) -> None:
    """输入、输出的名字同官方；组数、点数、掩码张数、照片的高宽能变，其余定死。"""

    def shapes(name: str) -> dict[str, list]:
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        return {x.name: x.shape for x in session.get_inputs()} | {
            "outputs": [x.name for x in session.get_outputs()]
        }

    assert shapes("encoder") == {
        "image": ["height", "width", 3],
        "outputs": ["image_embeddings"],
    }
    assert shapes("decoder") == {
        "image_embeddings": [1, 32, 8, 8],
        "point_coords": ["num_groups", "num_points", 2],
        "point_labels": ["num_groups", "num_points"],
        "mask_input": ["num_masks", 1, 32, 32],
        "has_mask_input": [1],
        "orig_im_size": [2],
        "outputs": OUTPUTS,
    }


@pytest.mark.parametrize("size", [(64, 64), (64, 1), (41, 64), (64, 37), (7, 64)])
def test_encoder_takes_any_picture(sam: Sam, folder: Path, size: tuple) -> None:
    """uint8 的照片直接进去，和模型自己的预处理、编码相同。"""
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    (found,) = run(folder / "encoder.onnx", {"image": image})
    with torch.no_grad():
        x = sam.preprocess(image.permute(2, 0, 1).float())
        expected = sam.image_encoder(x[None]).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(65, 64), (64, 80)])
def test_encoder_refuses_a_picture_too_large(folder: Path, size: tuple) -> None:
    """比输入边长大的照片报错，不会悄悄裁掉一条。"""
    with pytest.raises(Exception, match="onnx|ONNX|Concat|negative|shape"):
        run(folder / "encoder.onnx", {"image": np.zeros((*size, 3), np.uint8)})


@pytest.mark.parametrize(
    "B, N, masks, size",
    [
        (1, 1, 0, (50, 80)),
        (1, 7, 1, (301, 200)),
        (4, 2, 1, (64, 64)),
        (3, 3, 3, (301, 200)),
    ],
)
def test_decoder_takes_any_prompts(
    sam: Sam, folder: Path, B: int, N: int, masks: int, size: tuple
) -> None:
    """点数、组数、掩码张数、原图大小都和描图时不同，结果仍与 PyTorch 相同。"""
    inputs = example(B, N, masks, size)
    found = run(folder / "decoder.onnx", inputs)
    expected = SamOnnxModel(sam, False)(**inputs)
    assert found[0].shape == (B, 4, *size)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-4)


def test_mask_input_matters_only_when_declared(folder: Path) -> None:
    """has_mask_input 是 0 时 mask_input 给什么都一样，是 1 时就不一样。"""
    inputs = example(2, 2, 1, (50, 80))
    other = inputs | {"mask_input": -inputs["mask_input"]}
    none = {"has_mask_input": torch.zeros(1)}
    low_res = [
        run(folder / "decoder.onnx", x)[2]
        for x in (inputs, other, inputs | none, other | none)
    ]
    assert np.abs(low_res[0] - low_res[1]).max() > 0.01
    np.testing.assert_array_equal(low_res[2], low_res[3])


# ---- 选项 --------------------------------------------------------------------


def test_extra_metrics_have_their_right_names(sam: Sam, tmp_path: Path) -> None:
    """官方的脚本给五个输出写错了名字；这里名字和数对得上。"""
    path = tmp_path / "decoder.onnx"
    export_decoder(sam, path, return_extra_metrics=True)
    inputs = example(2, 3, 0, (50, 80))
    session = onnxruntime.InferenceSession(path)
    assert [x.name for x in session.get_outputs()] == EXTRA
    found = dict(zip(EXTRA, run(path, inputs), strict=True))
    masks = torch.from_numpy(found["masks"])
    np.testing.assert_array_equal(found["areas"], (masks > 0).sum((-1, -2)))
    expected = calculate_stability_score(masks, 0.0, 1.0)
    np.testing.assert_allclose(found["stability_scores"], expected, atol=1e-6)


@pytest.mark.parametrize("N, chosen", [(2, "best of 1-3"), (3, "0")])
def test_single_mask(sam: Sam, tmp_path: Path, N: int, chosen: str) -> None:
    """一个点加填充，从后三张里挑分数最高的；点再多，就用第 0 张。"""
    path = tmp_path / "decoder.onnx"
    export_decoder(sam, path, return_single_mask=True)
    inputs = example(3, N, 0, (50, 80))
    masks, scores, low_res = run(path, inputs)
    assert masks.shape == (3, 1, 50, 80) and scores.shape == (3, 1)
    full, every, small = SamOnnxModel(sam, False)(**inputs)
    best = every[:, 1:].argmax(1) + 1 if chosen != "0" else torch.zeros(3, dtype=int)
    rows = torch.arange(3)
    pairs = ((masks, full), (scores, every), (low_res, small))
    for found, expected in pairs:
        np.testing.assert_allclose(found[:, 0], expected[rows, best], atol=1e-4)


def test_stability_score_replaces_the_iou(sam: Sam, tmp_path: Path) -> None:
    """分数那一项换成低分辨率掩码的稳定性分数。"""
    path = tmp_path / "decoder.onnx"
    export_decoder(sam, path, use_stability_score=True)
    _, scores, low_res = run(path, example(2, 3, 0, (50, 80)))
    expected = calculate_stability_score(torch.from_numpy(low_res), 0.0, 1.0)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_gelu_approximate_is_undone(sam: Sam, folder: Path, tmp_path: Path) -> None:
    """近似式写进文件（没有 erf），结果差一点；模型自己的 GELU 用完还原。"""
    export_encoder(sam, tmp_path / "e.onnx", gelu_approximate=True)

    def operators(path: Path) -> set[str]:
        return {node.op_type for node in onnx.load(path).graph.node}

    assert "Erf" in operators(folder / "encoder.onnx")
    assert "Erf" not in operators(tmp_path / "e.onnx")
    gelus = [m.approximate for m in sam.modules() if isinstance(m, torch.nn.GELU)]
    assert set(gelus) == {"none"}
    image = {"image": np.full((64, 50, 3), 90, np.uint8)}
    a, b = run(folder / "encoder.onnx", image)[0], run(tmp_path / "e.onnx", image)[0]
    assert 1e-5 < np.abs(a - b).max() < 0.1


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_every_declared_opset_works(sam: Sam, tmp_path: Path, opset: int) -> None:
    for export in (export_encoder, export_decoder):
        assert export(sam, tmp_path / "m.onnx", opset=opset) < 1e-5
        model = onnx.load(tmp_path / "m.onnx")
        assert [x.version for x in model.opset_import if x.domain == ""] == [opset]


@pytest.mark.parametrize("opset", [11, 21, 17.5])
def test_unknown_opset(sam: Sam, tmp_path: Path, opset: Any) -> None:
    with pytest.raises(SamLiteError, match="opset.*12 到 20"):
        export_decoder(sam, tmp_path / "m.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


# ---- 描图 --------------------------------------------------------------------


def test_model_is_left_as_it_was(sam: Sam, folder: Path, tmp_path: Path) -> None:
    """导出之后，注意力仍走融合算子，权重不变，也不留下警告的设置。"""
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    filters = list(warnings.filters)
    export_decoder(sam, tmp_path / "m.onnx")
    assert all(m.fused for m in sam.modules() if hasattr(m, "fused"))
    assert all(torch.equal(before[k], v) for k, v in sam.state_dict().items())
    assert warnings.filters == filters


def test_burnt_number_is_an_error(sam: Sam, tmp_path: Path) -> None:
    """描图时想把随输入变的数变成普通的数，就是错误，不是一句会被忽略的警告。"""

    class Burnt(SamOnnxModel):
        def _embed_points(self, coords, labels):
            if coords.shape[1] > 2:  # 描出来的图里只有一条路
                coords = coords * 2
            return super()._embed_points(coords, labels)

    examples = decoder_examples(sam)
    with pytest.raises(SamLiteError, match="烤进图里"):
        onnx_export.export(
            Burnt(sam, False),
            tmp_path / "m.onnx",
            examples,
            OUTPUTS,
            {},
            opset=17,
            gelu_approximate=False,
        )
    assert not list(tmp_path.iterdir())
    assert all(m.fused for m in sam.modules() if hasattr(m, "fused"))


def test_wrong_file_is_never_written(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """与 PyTorch 对不上就不写，旧的文件还在。"""
    path = tmp_path / "decoder.onnx"
    path.write_bytes(b"old")
    calls = []
    true_forward = SamOnnxModel.forward

    def drifting(self, *args, **kwargs):  # 描图之后，模块变了一点
        calls.append(1)
        masks, iou, low_res = true_forward(self, *args, **kwargs)
        return masks, iou + 1e-3 * (len(calls) > 1), low_res

    monkeypatch.setattr(SamOnnxModel, "forward", drifting)
    with pytest.raises(SamLiteError, match="iou_predictions.*相对误差"):
        export_decoder(sam, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size", [(3, 1000), (1000, 3), (683, 1024), (1, 1)])
@pytest.mark.parametrize("side", [64, 1024])
def test_size_is_rounded_like_the_preprocessing(size: tuple, side: int) -> None:
    found = SamOnnxModel.resize_longest_image_size(torch.tensor(size), side)
    expected = ResizeLongestSide.get_preprocess_shape(*size, side)
    assert tuple(found.tolist()) == expected


@pytest.mark.parametrize("size", [(3296, 2575), (915, 1952)])
def test_size_needs_double_precision(size: tuple) -> None:
    """边长 1008：单精度在这些大小上差一个像素，这里不差。"""
    found = SamOnnxModel.resize_longest_image_size(torch.tensor(size), 1008)
    expected = ResizeLongestSide.get_preprocess_shape(*size, 1008)
    assert tuple(found.tolist()) == expected
    scale = torch.tensor(1008.0) / max(size)
    single = (torch.tensor(size, dtype=torch.float32) * scale + 0.5).floor()
    assert tuple(single.int().tolist()) != expected


@pytest.mark.parametrize("change", ["half", "meta"])
def test_only_float32_on_the_cpu(tmp_path: Path, change: str) -> None:
    sam = sam_from_config(SMALL)
    sam = sam.half() if change == "half" else sam.to("meta")
    with pytest.raises(SamLiteError, match="CPU 上的 float32"):
        export_encoder(sam, tmp_path / "m.onnx")


def test_missing_library(
    sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SamLiteError, match=r"sam-lite\[onnx\]"):
        export_encoder(sam, tmp_path / "m.onnx")


# ---- 写文件 ------------------------------------------------------------------


def test_unwritable_folder(
    sam: Sam, tmp_path: Path, ordinary_user: Callable[[], AbstractContextManager]
) -> None:
    with pytest.raises(SamLiteError, match="没有文件夹"):
        export_encoder(sam, tmp_path / "nowhere" / "m.onnx")
    tmp_path.chmod(0o555)
    with ordinary_user(), pytest.raises(SamLiteError, match="没有权限"):
        export_encoder(sam, tmp_path / "m.onnx")
    tmp_path.chmod(0o755)


def test_large_network_keeps_its_weights_beside(
    sam: Sam, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """超过上限时权重另存一个文件，结果一样；少了它，读的人看得懂为什么。"""
    path, data = tmp_path / "e.onnx", tmp_path / "e.onnx.data"
    data.write_bytes(b"stale")
    monkeypatch.setattr(onnx_files, "LARGEST_FILE", 10_000)
    export_encoder(sam, path)
    assert path.stat().st_size < data.stat().st_size
    image = {"image": np.full((64, 50, 3), 90, np.uint8)}
    expected = run(folder / "encoder.onnx", image)[0]
    np.testing.assert_array_equal(run(path, image)[0], expected)

    quantize(path, tmp_path / "small.onnx")
    data.unlink()
    with pytest.raises(SamLiteError, match=r"e\.onnx\.data"):
        quantize(path, tmp_path / "again.onnx")


# ---- 量化 --------------------------------------------------------------------


def test_quantized_is_small_and_near(folder: Path, tmp_path: Path) -> None:
    """矩阵乘法变成整数的，元数据还在，结果和原来差不多而不相同。"""
    for name in ("encoder", "decoder"):
        quantize(folder / f"{name}.onnx", tmp_path / f"{name}.onnx")
        before, after = (onnx.load(f / f"{name}.onnx") for f in (folder, tmp_path))
        assert "MatMulInteger" in {node.op_type for node in after.graph.node}
        kept = [{p.key: p.value for p in m.metadata_props} for m in (before, after)]
        assert kept[0].items() <= kept[1].items()
    image = {"image": np.random.default_rng(0).integers(0, 255, (64, 50, 3), np.uint8)}
    a, b = (run(f / "encoder.onnx", image)[0] for f in (folder, tmp_path))
    assert 1e-4 < np.abs(a - b).max() / np.abs(a).max() < 0.2


def test_quantize_refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not an ONNX file")
    for name in ("bad.onnx", "missing.onnx"):
        with pytest.raises(SamLiteError, match=name):
            quantize(tmp_path / name, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


# ---- 命令 --------------------------------------------------------------------


def test_command_writes_all_files(
    sam: Sam,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(cli_onnx, "load", lambda name, image_size: sam)
    out = tmp_path / "a" / "b"
    options = ["--quantize", "--return-extra-metrics", "--opset", "18"]
    assert cli.main(["export-onnx", "--out", str(out), *options]) == 0
    names = [
        f"sam_small_{p}{q}.onnx" for p in ("decoder", "encoder") for q in ("", "_int8")
    ]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    said = capsys.readouterr().out
    assert said.count("与 PyTorch 的相对误差") == 2 and all(n in said for n in names)
    session = onnxruntime.InferenceSession(out / "sam_small_decoder_int8.onnx")
    assert [x.name for x in session.get_outputs()] == EXTRA
    assert "18" in str(onnx.load(out / names[0]).opset_import)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--opset", "99"], "opset 不对"),
        (["--checkpoint", "missing.pth"], "missing.pth"),
        (["--model", "vit_x"], "vit_x"),
    ],
)
def test_command_errors_are_one_line(
    tmp_path: Path, arguments: list, words: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["export-onnx", "--out", str(tmp_path), *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_command_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["export-onnx", "--out", str(tmp_path / "file")]) == 1
    assert "已经是一个文件" in capsys.readouterr().err
    assert cli.main(["export-onnx"]) == 2
