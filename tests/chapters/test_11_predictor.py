"""第 11 章：笔记本里的预测器与 sam_lite 一致。"""

import numpy as np
import pytest
import torch

from chapters.common import course
from sam_lite.learn.evaluation import deepest_point
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor

STEM = "11_predictor"


SIZES = [(50, 80), (64, 64), (90, 31)]


def photo(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("three", [True, False])
def test_predictor_agrees_with_package(
    small_sam: Sam, size: tuple[int, int], three: bool
) -> None:
    """每个参数都非零的小模型：各种提示，只差浮点舍入，掩码几乎处处相同。"""
    mine = course.from_chapter(STEM, "MyPredictor")(small_sam)
    theirs = SamPredictor(small_sam)
    mine.set_image(photo(*size))
    theirs.set_image(photo(*size))
    assert torch.equal(mine.features, theirs.features)
    assert mine.original_size == theirs.original_size == size
    assert mine.input_size == theirs.input_size
    H, W = size
    points = {"point_coords": np.array([[3, 4], [W - 2, H - 1], [9, 9]])}
    points["point_labels"] = np.array([1, 0, -1])
    box = {"box": np.array([2, 1, W - 3, H - 2])}
    low_res = np.random.default_rng(0).normal(0, 4, (1, 32, 32)).astype(np.float32)
    for prompt in (points, box, points | box, points | box | {"mask_input": low_res}):
        for logits in (True, False):
            options = {"multimask_output": three, "return_logits": logits}
            got = mine.predict(**prompt, **options)
            expected = theirs.predict(**prompt, **options)
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == b.dtype and a.shape == b.shape
                if a.dtype == bool:
                    assert (a != b).mean() < 1e-3
                else:
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_naive_function_gives_the_same_masks(small_sam: Sam) -> None:
    """笔记本开头的笨办法：次次编码，答案与预测器相同。"""
    segment = course.from_chapter(STEM, "segment")
    calls = course.from_chapter(STEM, "count_encodings")(small_sam)
    predictor = SamPredictor(small_sam)
    predictor.set_image(photo(50, 80))
    for point in ((5, 6), (70, 40)):
        got = segment(small_sam, photo(50, 80), point)
        expected = predictor.predict(np.array([point]), np.array([1]))
        assert (got[0] != expected[0]).mean() < 1e-3
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-4)
    assert len(calls) == 3  # 预测器一遍，笨办法一点一遍


def test_batches_agree_with_package(small_sam: Sam) -> None:
    """predict_torch：B 组点和框，与 sam_lite 的相同。"""
    mine = course.from_chapter(STEM, "TorchPredictor")(small_sam)
    theirs = SamPredictor(small_sam)
    mine.set_image(photo(50, 80))
    theirs.set_image(photo(50, 80))
    points, labels = 60 * torch.rand(3, 2, 2), torch.tensor([[1, 0], [1, 1], [0, -1]])
    boxes = torch.tensor([[1.0, 2, 30, 40], [5, 5, 60, 39], [0, 0, 9, 9]])
    for prompt in ((points, labels), (None, None, boxes), (points, labels, boxes)):
        expected = theirs.predict_torch(*prompt, return_logits=True)
        for a, b in zip(mine.predict_torch(*prompt), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_asking_before_an_image_is_refused(small_sam: Sam) -> None:
    mine = course.from_chapter(STEM, "MyPredictor")(small_sam)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="set_image"):
            mine.predict(np.array([[3, 4]]), np.array([1]))
        mine.set_image(photo(50, 80))
        mine.reset_image()
    assert mine.original_size is mine.input_size is None


def test_deepest_agrees_with_package() -> None:
    deepest = course.from_chapter(STEM, "deepest")
    rng = np.random.default_rng(0)
    for size in ((1, 1), (4, 9), (11, 6)):
        for share in (0, 0.3, 0.7, 1):
            mask = rng.random(size) < share
            assert deepest(mask) == pytest.approx(deepest_point(mask))
