"""第 4 章：切窗与还原。"""

import pytest
import torch

from sam_lite.windows import window_partition, window_unpartition


def test_partition_by_loop() -> None:
    """4×6 的网格切成边长 4 的窗口：逐格核对，补的两列是零。"""
    x = torch.randn(2, 4, 6, 5)
    windows, padded = window_partition(x, 4)
    assert windows.shape == (4, 4, 4, 5) and padded == (4, 8)
    for b in range(2):
        for row in range(4):
            for col in range(8):
                cell = windows[2 * b + col // 4, row, col % 4]
                expected = x[b, row, col] if col < 6 else torch.zeros(5)
                assert torch.equal(cell, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("grid", [(4, 6), (7, 5)])
def test_inverse(grid: tuple[int, int], size: int) -> None:
    """切了再拼，一格不差，不论窗口是否整除网格。"""
    x = torch.randn(3, *grid, 2)
    windows, padded = window_partition(x, size)
    assert padded[0] % size == padded[1] % size == 0
    assert torch.equal(window_unpartition(windows, size, padded, grid), x)


def test_unpartition_by_loop() -> None:
    """还原时每个窗口回到自己的位置（按行先后），填充被裁掉。"""
    windows = torch.randn(6, 2, 2, 3)  # 2 行 3 列个窗口，网格 4×6 裁成 3×5
    x = window_unpartition(windows, 2, (4, 6), (3, 5))
    assert x.shape == (1, 3, 5, 3)
    for row in range(3):
        for col in range(5):
            window = windows[3 * (row // 2) + col // 2]
            assert torch.equal(x[0, row, col], window[row % 2, col % 2])
