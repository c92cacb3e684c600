"""第 4 章：笔记本里的函数与 sam_lite 一致。"""

import pytest
import torch

from chapters.common import course
from sam_lite import windows

STEM = "04_windows"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 14])
@pytest.mark.parametrize("grid", [(6, 8), (7, 5), (1, 9), (16, 16)])
def test_functions_agree_with_package(grid: tuple[int, int], size: int) -> None:
    """笔记本里的切和拼，与 sam_lite 的逐格相同，批量 1 和 3。"""
    cut = course.from_chapter(STEM, "window_partition")
    paste = course.from_chapter(STEM, "window_unpartition")
    for batch in (1, 3):
        x = torch.randn(batch, *grid, 2)
        expected, padded = windows.window_partition(x, size)
        got, pad_hw = cut(x, size)
        assert pad_hw == padded and torch.equal(got, expected)
        # 窗口里过了注意力就不再是零：拼回时用任意的值，才查得出裁剪
        out = torch.randn_like(expected)
        back = windows.window_unpartition(out, size, padded, grid)
        assert torch.equal(paste(out, size, pad_hw, grid), back)


def test_loop_is_the_standard() -> None:
    """笔记本里的笨办法，与 sam_lite 在能整除的网格上相同。"""
    loop = course.from_chapter(STEM, "partition_by_loop")
    x = torch.randn(2, 6, 9, 4)
    assert torch.equal(loop(x, 3), windows.window_partition(x, 3)[0])


def test_attention_written_out_agrees_with_package() -> None:
    """逐步写开的注意力与 sam_lite 相同；遮住填充以后，填充的份额是零。"""
    from sam_lite.attention import Attention

    attend = course.from_chapter(STEM, "attend")
    layer = Attention(8, 2, True, True, False, (3, 3))
    ones, _ = windows.window_partition(torch.ones(1, 4, 5, 1), 3)
    real = ones.reshape(-1, 9) > 0
    x, _ = windows.window_partition(torch.randn(1, 4, 5, 8), 3)
    with torch.no_grad():
        out, weights = attend(layer, x)
        torch.testing.assert_close(out, layer(x))
        assert (weights[~real[:, None, None, :].expand_as(weights)] > 0).all()
        weights = attend(layer, x, real)[1]
    assert (weights[~real[:, None, None, :].expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
