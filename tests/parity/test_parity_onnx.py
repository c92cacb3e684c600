"""导出的 ONNX：SamOnnxModel 和官方的相同，文件和 PyTorch 的相同。"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import sam_lite
from parity.official import assert_near, ours, sam_pair, theirs
from parity.small import randomize
from sam_lite.config import VIT_B
from sam_lite.model import Sam, sam_from_config
from sam_lite.onnx_export import DECODER_INPUTS, export_decoder, export_encoder
from sam_lite.viz import read_photo

PHOTO = Path(sam_lite.__file__).parent / "assets" / "photos" / "coffee.jpg"
OPTIONS = list(itertools.product([False, True], repeat=3))


def inputs(B: int, kinds: list[int], has_mask: float) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(B)
    return (
        torch.randn(1, 32, 8, 8),
        torch.rand(B, len(kinds), 2) * 64,
        torch.tensor([kinds] * B, dtype=torch.float32),
        torch.randn(1, 1, 32, 32) * 5,
        torch.tensor([has_mask]),
        torch.tensor([50.0, 80.0]),
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kinds", [[1, -1], [1, 0, -1], [2, 3], [1, 0, 2, 3]])
@pytest.mark.parametrize("B, has_mask", [(1, 0.0), (1, 1.0), (3, 1.0)])
def test_onnx_model(options: tuple, kinds: list, B: int, has_mask: float) -> None:
    """同样的选项、同样的输入，每一项输出都和官方的 SamOnnxModel 相同。"""
    our, their = sam_pair()
    args = inputs(B, kinds, has_mask)
    expected = theirs.SamOnnxModel(their, *options)(*args)
    found = ours.SamOnnxModel(our, *options)(*args)
    assert len(found) == len(expected) == (5 if options[2] else 3)
    assert [x.dtype for x in found] == [x.dtype for x in expected]
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        b = b.nan_to_num(0.0)  # 空掩码的稳定性分数，官方是 NaN，这里是 0
        scale = float(b.abs().max().clamp(min=1.0))
        # 数像素得来的两项：恰在阈值上的像素可以差一个
        counted = (i in (2, 3) and len(found) == 5) or (i == 1 and options[1])
        limit = scale * (1e-2 if counted else 1e-5)
        assert (a.double() - b.double()).abs().max() <= limit, i


def compare(sam: Sam, folder: Path, picture: np.ndarray, exact: float = 1e-4) -> None:
    """导出 sam 的两个文件，各种提示都问一遍，和 SamPredictor 逐项比较。"""
    files = folder / "encoder.onnx", folder / "decoder.onnx"
    export_encoder(sam, files[0])
    export_decoder(sam, files[1])
    their, our = sam_lite.SamPredictor(sam), sam_lite.OnnxSamPredictor(*files)
    their.set_image(picture)
    our.set_image(picture)
    features = torch.from_numpy(our.get_image_embedding())
    assert_near(features, their.get_image_embedding(), exact)
    h, w = picture.shape[:2]
    points, labels = (
        np.array([[0.4 * w, 0.6 * h], [0.1 * w, 0.2 * h]]),
        np.array([1, 0]),
    )
    box = np.array([0.1 * w, 0.2 * h, 0.8 * w, 0.7 * h])
    low_res = their.predict(box=box)[2][:1]
    for prompts in (
        {"point_coords": points[:1], "point_labels": labels[:1]},
        {"point_coords": points, "point_labels": labels, "multimask_output": False},
        {"box": box, "multimask_output": False},
        {"point_coords": points, "point_labels": labels, "box": box},
        {"point_coords": points[:1], "point_labels": labels[:1], "mask_input": low_res},
        {"box": np.stack([box, box / 2])},
        {"mask_input": low_res},
    ):
        expected = their.predict(**prompts, return_logits=True)
        assert_near(our.predict(**prompts, return_logits=True), expected, exact)


def test_shipped_weights(tmp_path: Path) -> None:
    """自带的小权重、一张真照片：各种提示，嵌入、掩码、分数、低分辨率 logits。"""
    compare(sam_lite.load("tiny"), tmp_path, read_photo(PHOTO))


@pytest.fixture
def _all_cores() -> Iterator[None]:
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_all_cores")
def test_vit_b_layout(tmp_path: Path) -> None:
    """vit_b 的尺寸，编码器只留一层窗口、一层全局，输入 512，随机权重。"""
    config = replace(VIT_B, depth=2, global_attn_indexes=(1,), image_size=512)
    sam = sam_from_config(config)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    compare(randomize(sam).eval(), tmp_path, coarse.repeat(50, 0).repeat(50, 1))


def test_official_inputs_fit_the_file(tmp_path: Path) -> None:
    """照官方笔记本的写法喂 ONNX 文件：输入的名字、形状、类型都照旧。"""
    our, their = sam_pair()
    export_decoder(our, tmp_path / "decoder.onnx", return_single_mask=True)
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx")
    args = inputs(1, [1, -1], 0.0)
    feed = {k: v.numpy() for k, v in zip(DECODER_INPUTS, args, strict=True)}
    found = [torch.from_numpy(x) for x in session.run(None, feed)]
    expected = theirs.SamOnnxModel(their, True)(*args)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b, 1e-4)
