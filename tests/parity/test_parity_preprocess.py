"""预处理与官方逐项对照：缩放、点和框的换算、归一化、填充、后处理。"""

import numpy as np
import pytest
import torch

from parity.official import assert_near, ours, sam_pair, theirs

SIZES = [(50, 80), (80, 50), (64, 64), (33, 97), (301, 200), (1, 9), (7, 640)]


def transforms(target: int = 64) -> tuple:
    return ours.ResizeLongestSide(target), theirs.ResizeLongestSide(target)


@pytest.mark.parametrize("size", SIZES)
def test_apply_image(size: tuple[int, int]) -> None:
    """放大和缩小都得到与官方完全相同的像素。"""
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    our, their = transforms()
    result, expected = our.apply_image(picture), their.apply_image(picture)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(
        our.apply_image(picture[:, ::-1]), their.apply_image(picture[:, ::-1])
    )


@pytest.mark.parametrize("size", [(50, 80), (80, 50), (301, 200)])
def test_apply_image_torch(size: tuple[int, int]) -> None:
    """张量版的缩放与官方相同，一批两张。"""
    pictures = torch.rand(2, 3, *size) * 255
    our, their = transforms()
    assert_near(our.apply_image_torch(pictures), their.apply_image_torch(pictures))


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2)])
@pytest.mark.parametrize("size", [(50, 80), (301, 200), (33, 97)])
def test_apply_coords(size: tuple[int, int], shape: tuple[int, ...]) -> None:
    """点坐标的 numpy 版与张量版都与官方相同，且不改动传入的数组。"""
    our, their = transforms()
    for points in (
        np.random.default_rng(0).uniform(0, 50, shape),
        np.random.default_rng(0).integers(1, 50, shape),
    ):
        before = points.copy()
        expected = their.apply_coords(points, size)
        assert_near(our.apply_coords(points, size), expected, 1e-12)
        tensor = torch.from_numpy(points)
        expected = their.apply_coords_torch(tensor, size)
        assert_near(our.apply_coords_torch(tensor, size), expected, 1e-7)
        np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (6, 4)])
def test_apply_boxes(shape: tuple[int, ...]) -> None:
    """框的两种版本都与官方相同，一个框也返回二维。"""
    our, their = transforms()
    boxes = np.random.default_rng(0).uniform(0, 50, shape)
    expected = their.apply_boxes(boxes, (50, 80))
    assert_near(our.apply_boxes(boxes, (50, 80)), expected, 1e-12)
    tensor = torch.from_numpy(boxes)
    expected = their.apply_boxes_torch(tensor, (50, 80))
    assert_near(our.apply_boxes_torch(tensor, (50, 80)), expected, 1e-7)


def test_get_preprocess_shape() -> None:
    """一千种高宽算出的目标尺寸都与官方相同（四舍五入的方式也相同）。"""
    sizes = np.random.default_rng(0).integers(1, 4000, (1000, 2)).tolist()
    for height, width in [*sizes, (3, 2), (2, 1024), (1024, 2047)]:
        for target in (64, 1024):
            our = ours.ResizeLongestSide.get_preprocess_shape(height, width, target)
            their = theirs.ResizeLongestSide.get_preprocess_shape(height, width, target)
            # 极细长的图，官方把短边舍成 0，随后就崩；我们至少留一个像素
            assert our == (max(1, their[0]), max(1, their[1]))
            assert all(type(n) is int for n in our)


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (64, 25), (31, 17)])
def test_sam_preprocess(size: tuple[int, int]) -> None:
    """归一化和右下填充与官方相同：单张、成批、uint8 都行。"""
    our, their = sam_pair()
    for picture in (
        torch.rand(3, *size) * 255,
        torch.rand(2, 3, *size) * 255,
        torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8),
    ):
        assert_near(our.preprocess(picture), their.preprocess(picture))


@pytest.mark.parametrize("original", [(100, 160), (20, 32), (64, 64), (37, 160)])
def test_postprocess_masks(original: tuple[int, int]) -> None:
    """去填充并放回原尺寸，与官方相同。"""
    our, their = sam_pair()
    masks = torch.randn(2, 3, 32, 32)
    size = ours.ResizeLongestSide.get_preprocess_shape(*original, 64)
    expected = their.postprocess_masks(masks, size, original)
    assert_near(our.postprocess_masks(masks, size, original), expected)
