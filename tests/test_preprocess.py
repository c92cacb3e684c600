"""第 1 章：缩放、填充，以及点和框跟着图走。"""

import numpy as np
import pytest
import torch

from sam_lite.errors import SamLiteError
from sam_lite.preprocess import (
    PIXEL_MEAN,
    PIXEL_STD,
    ResizeLongestSide,
    check_original_size,
    normalize_and_pad,
)


@pytest.mark.parametrize(
    "size, expected",
    [((50, 100), (32, 64)), ((100, 50), (64, 32)), ((20, 20), (64, 64))],
)
def test_longest_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """最长边变成 64，另一边按比例；大图缩小，小图放大。"""
    picture = np.zeros((*size, 3), dtype=np.uint8)
    assert ResizeLongestSide(64).apply_image(picture).shape == (*expected, 3)
    tensor = torch.zeros(2, 3, *size)
    assert ResizeLongestSide(64).apply_image_torch(tensor).shape == (2, 3, *expected)


def test_point_follows_picture() -> None:
    """原图上一个白点，缩放后最亮的地方正是换算出来的坐标。"""
    picture = np.zeros((120, 200, 3), dtype=np.uint8)
    picture[80:84, 150:154] = 255
    transform = ResizeLongestSide(100)
    small = transform.apply_image(picture)[..., 0].astype(float)
    ys, xs = np.mgrid[: small.shape[0], : small.shape[1]]
    found = np.array([(xs * small).sum(), (ys * small).sum()]) / small.sum()
    expected = transform.apply_coords(np.array([152.0, 82.0]), (120, 200)) - 0.5
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_box_is_two_corners() -> None:
    """框就是两个角点，分别换算；numpy 版与张量版一致。"""
    transform = ResizeLongestSide(100)
    box = np.array([10.0, 20.0, 110.0, 70.0])
    np.testing.assert_allclose(
        transform.apply_boxes(box, (100, 200)), [[5.0, 10.0, 55.0, 35.0]]
    )
    tensor = transform.apply_boxes_torch(torch.from_numpy(box), (100, 200))
    assert tensor.tolist() == [[5.0, 10.0, 55.0, 35.0]]


def test_rounding_gives_two_scales() -> None:
    """高宽各自取整，所以 x、y 的倍数可以略有不同。"""
    corner = ResizeLongestSide(64).apply_coords(np.array([97, 33]), (33, 97))
    np.testing.assert_allclose(corner, [64, 22])  # 33·64/97 = 21.77，取整为 22


def test_normalize_then_pad() -> None:
    """平均颜色变成 0；补的零在右边和下边，不在左上。"""
    mean = torch.tensor(PIXEL_MEAN).reshape(3, 1, 1)
    std = torch.tensor(PIXEL_STD).reshape(3, 1, 1)
    picture = (mean + std).expand(3, 4, 6)
    result = normalize_and_pad(picture, mean, std, 8)
    assert result.shape == (3, 8, 8)
    torch.testing.assert_close(result[:, :4, :6], torch.ones(3, 4, 6))
    assert result[:, 4:].abs().max() == 0 and result[:, :, 6:].abs().max() == 0


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 5, 3)),
        np.zeros((4, 5, 1), dtype=np.uint8),
        np.zeros((0, 5, 3), dtype=np.uint8),
        np.zeros((4, 0, 3), dtype=np.uint8),
        np.zeros((4, 5, 3), dtype=np.int64),
        np.zeros((2, 4, 5, 3), dtype=np.uint8),
    ],
    ids=["浮点彩图", "一个通道", "零高", "零宽", "int64", "一批"],
)
def test_bad_picture(picture: np.ndarray) -> None:
    """Pillow 不认的数组得到说明怎样改的中文错误。"""
    with pytest.raises(SamLiteError, match="image 不对"):
        ResizeLongestSide(64).apply_image(picture)


def test_too_large_tensor() -> None:
    """没缩放就送进来的大图得到明确的错误，而不是被悄悄裁掉。"""
    with pytest.raises(SamLiteError, match="ResizeLongestSide"):
        normalize_and_pad(torch.zeros(3, 4, 9), torch.zeros(1), torch.ones(1), 8)


@pytest.mark.parametrize("size", [(50, 80), (1, 3000), (3000, 1), (1, 1), (97, 33)])
def test_original_size_fits_its_own_resize(size: tuple[int, int]) -> None:
    """原图的大小总能对上它自己缩放的结果，差一个像素也容许；颠倒、加倍不行。"""
    resized = ResizeLongestSide.get_preprocess_shape(*size, 64)
    assert check_original_size("size", list(size), resized, 64) == size
    check_original_size("size", size, (resized[0], resized[1] - 1), 64)
    wrong = [size[::-1]] if size[0] != size[1] else [(1, 2)]
    for other in wrong + ([(size[0], 2 * size[1])] if min(size) > 1 else []):
        with pytest.raises(SamLiteError, match="size 不对.*高在前"):
            check_original_size("size", other, resized, 64)
