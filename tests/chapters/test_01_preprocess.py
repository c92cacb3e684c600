"""第 1 章：笔记本里的部件与 sam_lite 相同。"""

import numpy as np
import pytest
import torch

from chapters.common import course
from sam_lite import preprocess

STEM = "01_preprocess"
SIZES = [(4, 7), (7, 4), (303, 384), (1025, 2048), (20, 20), (1, 3000)]


def test_shapes_are_those_of_the_package():
    """取整、横竖、放大缩小、细条，与包里一样。"""
    mine = course.from_chapter(STEM, "ResizeLongestSide")
    for size in SIZES:
        for side in (10, 256, 1024):
            wanted = preprocess.ResizeLongestSide.get_preprocess_shape(*size, side)
            assert mine.get_preprocess_shape(*size, side) == wanted


@pytest.mark.parametrize("size", [(4, 7), (33, 97), (120, 50)])
@pytest.mark.parametrize("side", [10, 64])
def test_resize_longest_side_is_that_of_the_package(size, side):
    """图像逐个像素相同，点和框相等，几种形状都行。"""
    random = np.random.default_rng(0)
    mine = course.from_chapter(STEM, "ResizeLongestSide")(side)
    theirs = preprocess.ResizeLongestSide(side)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(mine.apply_image(image), theirs.apply_image(image))
    for shape in [(2,), (5, 2), (3, 5, 2)]:
        points = random.uniform(0, size[::-1], shape)
        wanted = theirs.apply_coords(points, size)
        np.testing.assert_allclose(mine.apply_coords(points, size), wanted)
    for shape in [(4,), (3, 4)]:
        boxes = random.uniform(0, 50, shape)
        wanted = theirs.apply_boxes(boxes, size)
        np.testing.assert_allclose(mine.apply_boxes(boxes, size), wanted)


@pytest.mark.parametrize("size", [(4, 6), (6, 4), (8, 8)])
def test_normalize_and_pad_is_that_of_the_package(size):
    mine = course.from_chapter(STEM, "normalize_and_pad")
    mean = torch.tensor(course.from_chapter(STEM, "PIXEL_MEAN")).reshape(3, 1, 1)
    std = torch.tensor(course.from_chapter(STEM, "PIXEL_STD")).reshape(3, 1, 1)
    x = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0))
    wanted = preprocess.normalize_and_pad(
        x,
        torch.tensor(preprocess.PIXEL_MEAN).reshape(3, 1, 1),
        torch.tensor(preprocess.PIXEL_STD).reshape(3, 1, 1),
        8,
    )
    torch.testing.assert_close(mine(x, mean, std, 8), wanted, rtol=0, atol=0)


BOXES = """
def restore_boxes(boxes, original_size, side):
    old_h, old_w = original_size
    new_h, new_w = get_preprocess_shape(old_h, old_w, side)
    scale = np.array(({scale}))
    corners = boxes.reshape(-1, 2, 2) {sign} scale
    return {end}
"""
CLIP = "corners.clip(0, (old_w, old_h)).reshape(-1, 4)"
XY = "new_w / old_w, new_h / old_h"


def boxes(scale=XY, sign="/", end=CLIP):
    return BOXES.format(scale=scale, sign=sign, end=end)
