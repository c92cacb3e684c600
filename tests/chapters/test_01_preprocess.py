"""第 1 章：笔记本里的部件与 sam_lite 相同；练习的检查认得典型的错。"""

import numpy as np
import pytest
import torch

from chapters.common import assert_verdicts, course
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

PHOTO = """
def to_photo(logits, input_size, original_size):
    {h}, {w} = input_size
    x = {cut}
    x = F.interpolate(x, original_size, mode="bilinear", align_corners={align})
    return x {end}
"""
CUT, HARD = "logits[..., :h, :w]", "(logits[..., :h, :w] > 0).float()"

CENTERED = """
def centered_coords(coords, original_size, side):
    new_h, new_w = get_preprocess_shape(*original_size, side)
    shift = np.array([(side - new_w) // 2, (side - new_h) // 2])
    resize = ResizeLongestSide(side)
    return {value}
"""

GAP = "def half_pixel_gap(old, new):\n    s = new / old\n    return {}"


def boxes(scale=XY, sign="/", end=CLIP):
    return BOXES.format(scale=scale, sign=sign, end=end)


def photo(h="h", w="w", cut=CUT, align="False", end="> 0"):
    return PHOTO.format(h=h, w=w, cut=cut, align=align, end=end)


# 只对 (N, 2) 成立的写法
FIRST_AXIS = """np.stack([
        coords[:, 0] * new_w / original_size[1] + shift[0],
        coords[:, 1] * new_h / original_size[0] + shift[1],
    ], axis=1)"""
MOVED = "resize.apply_coords(coords, original_size)"

WRONG = {
    "ex-01-1": [
        ("answer_1 = (683, 1024, 0, 341)", "高和宽弄反"),
        ("answer_1 = (1024, 682, 342, 0)", "取整"),
        ("answer_1 = (1024, 682.67, 341.33, 0)", "整数"),
        ("answer_1 = (1024, 683, 0, 341)", "右和下弄反"),
        ("answer_1 = (1024, 1024, 0, 0)", "拉满"),
        ("answer_1 = (1536, 1024, 0, 0)", "最短边"),
        ("answer_1 = (1024, 683, 170, 0)", "不居中"),
        ("answer_1 = (1024, 683)", "四个整数"),
        ("answer_1 = 683", "四个整数"),
    ],
    "ex-01-2": [
        (boxes(sign="*"), "方向反了"),
        (boxes("new_h / old_h, new_w / old_w"), "高和宽弄反"),
        (boxes("side / max(old_h, old_w),"), "没取整的倍数"),
        (boxes(end="corners.reshape(-1, 4)"), "没有裁"),
        (boxes(end="corners.clip(0, (old_h, old_w)).reshape(-1, 4)"), "界限弄反"),
        (boxes(end="corners.clip(0, (old_w, old_h))"), "形状"),
        (
            boxes().replace("    old_h", "    boxes *= 1.5\n    old_h", 1),
            "传进来的数组",
        ),
        (boxes(end=CLIP + " + 1"), "数值不对"),
    ],
    "ex-01-3": [
        (photo(h="w", w="h"), "高和宽弄反"),
        (photo(cut="logits"), "忘了裁"),
        (photo(cut=HARD, end="> 0.5"), "阈值取早"),
        (photo(align="True"), "align_corners"),
        (photo(cut=HARD, align="True", end="> 0.5"), "阈值取早"),
        (photo(end="> 0.5"), "阈值不对"),
        (photo(end=""), "还没有变成掩码"),
        (photo(end="> 0").replace("return x", "return x[0]"), "形状"),
    ],
    "ex-01-4": [
        (CENTERED.format(value=MOVED), "没有平移"),
        (CENTERED.format(value=MOVED + " + shift[::-1]"), "平移弄反"),
        (CENTERED.format(value=MOVED + " + 2 * shift"), "全部填充"),
        (CENTERED.format(value=MOVED + " - shift"), "方向反了"),
        (
            CENTERED.format(value="resize.apply_coords(coords + shift, original_size)"),
            "太早",
        ),
        (
            CENTERED.format(value=MOVED + " + (side - np.array([new_w, new_h])) / 2"),
            "往下取整",
        ),
        (
            CENTERED.format(value="coords * (side / max(original_size)) + shift"),
            "没取整的倍数",
        ),
        (CENTERED.format(value=FIRST_AXIS), "最后一维"),
        (CENTERED.format(value=MOVED + "[0]"), "形状"),
    ],
    "ex-01-5": [
        (GAP.format("0.5 - 0.5 * s"), "单位不对"),
        (GAP.format("0.5 - 0.5 / s"), "正负反了"),
        (GAP.format("0.5 * s - 0.5"), "倍数反了"),
        (GAP.format("(0.5 - 0.5 * s) * s"), "换算的方向"),
        (GAP.format("0.5 / s"), "只有一边"),
        (GAP.format("0"), "数值不对"),
    ],
}


def test_exercises_know_their_mistakes():
    assert_verdicts(STEM, WRONG)
