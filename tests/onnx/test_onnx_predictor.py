"""OnnxSamPredictor：和 SamPredictor 问同样的话，得同样的答案；不要 PyTorch。"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from parity.small import SMALL, randomize
from PIL import Image

import sam_lite
from sam_lite.errors import NoImageError, SamLiteError
from sam_lite.model import Sam, sam_from_config
from sam_lite.onnx import predictor as onnx_predictor
from sam_lite.onnx.files import quantize
from sam_lite.onnx.predictor import OnnxSamPredictor
from sam_lite.onnx_export import export_decoder, export_encoder
from sam_lite.predictor import SamPredictor

POINTS, LABELS = np.array([[10.0, 20.0], [70.0, 33.0]]), np.array([1, 0])
BOX = np.array([5.0, 8.0, 60.0, 41.0])
MASK = np.random.default_rng(3).normal(0, 4, (1, 32, 32)).astype(np.float32)
KINDS: dict[str, dict[str, Any]] = {
    "一个点": {"point_coords": POINTS[:1], "point_labels": LABELS[:1]},
    "两个点": {"point_coords": POINTS, "point_labels": LABELS},
    "填充的点": {"point_coords": POINTS, "point_labels": [1, -1]},
    "框": {"box": BOX},
    "写成 (1, 4) 的框": {"box": BOX[None]},
    "点和框": {"point_coords": POINTS, "point_labels": LABELS, "box": BOX},
    "掩码": {"mask_input": MASK},
    "点和掩码": {"point_coords": POINTS, "point_labels": LABELS, "mask_input": MASK},
    "框和掩码": {"box": BOX, "mask_input": MASK},
    "什么也没有": {},
    "几个框": {"box": np.stack([BOX, BOX + 3, BOX - 2])},
    "很多框": {"box": np.tile(BOX, (19, 1)) + np.arange(19)[:, None] / 2},
    "零个框": {"box": np.zeros((0, 4))},
    "几组点": {
        "point_coords": np.stack([POINTS, POINTS + 2]),
        "point_labels": [LABELS] * 2,
    },
    "点数不同的几组": {
        "point_coords": [POINTS, POINTS[:1]],
        "point_labels": [[1, 0], [1]],
    },
    "几组点和框": {
        "point_coords": np.stack([POINTS, POINTS + 2]),
        "point_labels": [LABELS] * 2,
        "box": np.stack([BOX, BOX + 3]),
    },
    "几个框共用掩码": {"box": np.stack([BOX, BOX + 3]), "mask_input": MASK},
    "几个框几张掩码": {
        "box": np.tile(BOX, (11, 1)),
        "mask_input": np.stack([MASK * i for i in range(11)]),
    },
    "几张掩码": {"mask_input": np.stack([MASK, -MASK, MASK / 2])},
}


def picture(height: int = 50, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return coarse.repeat(40, 0).repeat(40, 1)[:height, :width]


@pytest.fixture(scope="module")
def sam() -> Sam:
    return randomize(sam_from_config(SMALL)).eval()


@pytest.fixture(scope="module")
def files(sam: Sam, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    encoder, decoder = folder / "encoder.onnx", folder / "decoder.onnx"
    export_encoder(sam, encoder)
    export_decoder(sam, decoder)
    return encoder, decoder


@pytest.fixture
def pair(sam: Sam, files: tuple[Path, Path]) -> tuple[OnnxSamPredictor, SamPredictor]:
    """两个预测器，同一张图。"""
    pair = OnnxSamPredictor(*files), SamPredictor(sam)
    for predictor in pair:
        predictor.set_image(picture())
    return pair


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        assert type(a) is type(b) and a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


# ---- 同样的答案 ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multimask", [True, False])
def test_every_prompt(pair: tuple, kind: str, multimask: bool) -> None:
    ours, torchs = pair
    options = KINDS[kind] | {"multimask_output": multimask}
    expected = torchs.predict(**options, return_logits=True)
    found = ours.predict(**options, return_logits=True)
    assert_same(found, expected)
    masks = ours.predict(**options)[0]
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, found[0] > 0)


@pytest.mark.parametrize("size", [(50, 80), (80, 50), (64, 64), (3, 200), (200, 150)])
def test_every_size(pair: tuple, size: tuple[int, int]) -> None:
    """大图、小图、极细长的图，横竖都行。"""
    for predictor in pair:
        predictor.set_image(picture(*size))
    ours, torchs = pair
    embedding = ours.get_image_embedding()
    assert isinstance(embedding, np.ndarray) and embedding.dtype == np.float32
    expected = torchs.get_image_embedding().numpy()
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=1e-4)
    for name in ("original_size", "input_size", "is_image_set"):
        assert getattr(ours, name) == getattr(torchs, name)
    prompt = {"point_coords": [[1.5, 2]], "point_labels": [1], "return_logits": True}
    assert_same(ours.predict(**prompt), torchs.predict(**prompt))


def test_picture_formats(pair: tuple) -> None:
    """BGR 和 PIL 图片都收，和 RGB 数组的嵌入一样。"""
    ours, _ = pair
    expected = ours.get_image_embedding()
    ours.set_image(picture()[..., ::-1], "BGR")
    np.testing.assert_array_equal(ours.get_image_embedding(), expected)
    ours.set_image(Image.fromarray(picture()))
    np.testing.assert_array_equal(ours.get_image_embedding(), expected)


def test_batch_of_pictures(pair: tuple) -> None:
    pictures = [picture(), picture(33, 64)]
    prompts = {
        "point_coords_batch": [POINTS[:1], None],
        "point_labels_batch": [LABELS[:1], None],
        "box_batch": [None, [[1, 2, 30, 20], [5, 5, 9, 9]]],
        "return_logits": True,
    }
    results = []
    for predictor in pair:
        predictor.set_images(pictures)
        results.append(predictor.predict_batch(**prompts))
        with pytest.raises(NoImageError, match="predict_batch"):
            predictor.predict(box=BOX)
    for found, expected in zip(*results, strict=True):
        assert isinstance(found, list)
        assert_same(found, expected)


def test_decoder_with_extra_outputs_is_welcome(
    sam: Sam, files: tuple, pair: tuple, tmp_path: Path
) -> None:
    export_decoder(sam, tmp_path / "d.onnx", return_extra_metrics=True)
    predictor = OnnxSamPredictor(files[0], tmp_path / "d.onnx")
    predictor.set_image(picture())
    assert_same(predictor.predict(box=BOX), pair[1].predict(box=BOX))


def test_quantized_files_are_welcome(files: tuple, pair: tuple, tmp_path: Path) -> None:
    """量化的和没有量化的可以混用；结果差不多。"""
    for path in files:
        quantize(path, tmp_path / path.name)
    for encoder in (files[0], tmp_path / files[0].name):
        predictor = OnnxSamPredictor(encoder, str(tmp_path / files[1].name))
        predictor.set_image(picture())
        masks = predictor.predict(box=BOX)[0]
        assert (masks == pair[1].predict(box=BOX)[0]).mean() > 0.8


# ---- 同样的错误 ----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"point_coords": [[100, 20]], "point_labels": [1]},
        {"mask_input": np.zeros((1, 8, 8), np.float32)},
        {"multimask_output": "yes"},
    ],
)
def test_wrong_prompts(pair: tuple, wrong: dict) -> None:
    """错误的话和 SamPredictor 一字不差。"""
    said = []
    for predictor in pair:
        with pytest.raises(SamLiteError) as error:
            predictor.predict(**wrong)
        said.append(str(error.value))
    assert said[0] == said[1]


# ---- 拿错了文件 ----------------------------------------------------------------


def test_swapped_files(files: tuple) -> None:
    with pytest.raises(SamLiteError, match="写反"):
        OnnxSamPredictor(files[1], files[0])


@pytest.mark.parametrize("what", ["weights", "image_size", "model"])
def test_files_that_do_not_belong_together(
    files: tuple, tmp_path: Path, what: str
) -> None:
    """另一份权重、另一个输入边长、另一个型号的解码器，形状即使一样也不收。"""
    changes = {"image_size": 72} if what == "image_size" else {}
    config = SMALL.__class__(**(vars(SMALL) | changes))
    sam = randomize(sam_from_config(config), seed=1 if what == "weights" else 0)
    sam.name = "other" if what == "model" else sam.name
    export_decoder(sam, tmp_path / "d.onnx")
    with pytest.raises(SamLiteError, match="不配对"):
        OnnxSamPredictor(files[0], tmp_path / "d.onnx")


def test_finetuned_decoder_goes_with_the_same_encoder(
    files: tuple, tmp_path: Path
) -> None:
    """只微调过解码器的，编码器还是那一个，配得上。"""
    sam = randomize(sam_from_config(SMALL))
    randomize(sam.mask_decoder, seed=5)
    export_decoder(sam, tmp_path / "d.onnx")
    predictor, expected = (
        OnnxSamPredictor(files[0], tmp_path / "d.onnx"),
        SamPredictor(sam),
    )
    for p in (predictor, expected):
        p.set_image(picture())
    assert_same(predictor.predict(box=BOX)[1:], expected.predict(box=BOX)[1:])


@pytest.mark.parametrize("option", ["return_single_mask", "use_stability_score"])
def test_decoder_with_changed_outputs(
    sam: Sam, files: tuple, tmp_path: Path, option: str
) -> None:
    export_decoder(sam, tmp_path / "d.onnx", **{option: True})
    with pytest.raises(SamLiteError, match=option):
        OnnxSamPredictor(files[0], tmp_path / "d.onnx")


def test_unreadable_files(files: tuple, tmp_path: Path) -> None:
    encoder, decoder = files
    with pytest.raises(SamLiteError, match="没有这个 ONNX 文件.*export-onnx"):
        OnnxSamPredictor(encoder, tmp_path / "missing.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(decoder.read_bytes()[:-1000])
    with pytest.raises(SamLiteError, match="cut.onnx 打不开"):
        OnnxSamPredictor(encoder, cut)
    plain = onnx.load(decoder)
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / "plain.onnx")
    with pytest.raises(SamLiteError, match="不是 sam_lite 导出的"):
        OnnxSamPredictor(encoder, tmp_path / "plain.onnx")
    with pytest.raises(SamLiteError, match="path"):
        OnnxSamPredictor(encoder, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("providers", [["NoSuchProvider"], "CPUExecutionProvider"])
def test_unknown_providers(files: tuple, providers: Any) -> None:
    with pytest.raises(SamLiteError, match="providers.*CPUExecutionProvider"):
        OnnxSamPredictor(*files, providers=providers)


def test_missing_onnxruntime(files: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SamLiteError, match="onnxruntime"):
        OnnxSamPredictor(*files)


# ---- 没有 PyTorch 的环境 ---------------------------------------------------------

CODE = """
import sys

class Blocked:
    names = {"torch", "safetensors", "onnx", "scipy", "skimage", "matplotlib"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"这里没有 {name}")

sys.meta_path.insert(0, Blocked())
import numpy as np
import sam_lite
from sam_lite import OnnxSamPredictor, SamLiteError

predictor = OnnxSamPredictor("encoder.onnx", "decoder.onnx")
predictor.set_image(np.load("picture.npy"))
result = predictor.predict(np.array([[10.0, 20.0]]), np.array([1]), return_logits=True)
np.savez("result.npz", *result)
try:
    predictor.predict(box=[9, 9, 1, 1])
except SamLiteError as error:
    print(error)
try:
    sam_lite.load("tiny")
except ImportError as error:
    print(error)
print(sorted(Blocked.names & set(sys.modules)))
"""


def test_runs_without_torch(files: tuple, pair: tuple, tmp_path: Path) -> None:
    """另开一个进程，挡住 torch、safetensors 等等，照样分割，错误也照样是中文。"""
    for path in files:
        shutil.copy(path, tmp_path)
    np.save(tmp_path / "picture.npy", picture())
    root = str(Path(sam_lite.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "左上角在前" in said[0] and "torch" in said[1] and said[2] == "[]"
    result = np.load(tmp_path / "result.npz")
    expected = pair[1].predict(POINTS[:1], LABELS[:1], return_logits=True)
    assert_same([result[f"arr_{i}"] for i in range(3)], expected)


def test_package_imports_torch_only_when_needed() -> None:
    code = (
        "import sys, sam_lite; before = 'torch' in sys.modules; "
        "sam_lite.viz; middle = 'torch' in sys.modules; sam_lite.SamPredictor; "
        "print(before, middle, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "True"]


def test_every_public_name_resolves() -> None:
    """顶层的名字用到才导入，但一个不少；没有的名字照常是 AttributeError。"""
    assert set(sam_lite.__all__) <= set(dir(sam_lite))
    assert all(getattr(sam_lite, name) for name in sam_lite.__all__)
    assert sam_lite.weights.load is sam_lite.load
    assert sam_lite.OnnxSamPredictor is onnx_predictor.OnnxSamPredictor
    for name in ("nothing", "_nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match=name):
            getattr(sam_lite, name)
