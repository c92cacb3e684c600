"""cells：确定、边界清楚、细胞不重叠。"""

import hashlib

import numpy as np
import pytest

from sam_lite import SamLiteError
from sam_lite.scenes.cells import LEAST, CellScenes, make_cells


def test_same_seed_same_picture():
    one, two, other = make_cells(3, 96), make_cells(3, 96), make_cells(4, 96)
    digest = [hashlib.sha256(x.tobytes()).hexdigest() for x in (*one, *two)]
    assert digest[:2] == digest[2:]
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("size", [64, 100])
def test_cells_are_apart_and_large_enough(size):
    for seed in range(5):
        picture, masks = make_cells(seed, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        assert masks.dtype == bool and masks.shape[1:] == (size, size)
        assert len(masks) >= 5
        assert masks.sum(0).max() == 1
        assert masks.sum((1, 2)).min() >= LEAST * size * size


def test_contrast_is_low_and_membranes_stand_out():
    """细胞内外的平均亮度差不多，边上的一圈却不同。"""
    inner, outer, edge = [], [], []
    for seed in range(8):
        picture, masks = make_cells(seed, 128)
        grey, any_cell = picture.mean(2), masks.any(0)
        grey = grey / grey.mean()
        rim = any_cell & ~np.logical_and.reduce(
            [np.roll(any_cell, s, a) for s in (1, -1) for a in (0, 1)]
        )
        inner.append(abs(grey[any_cell & ~rim].mean() - grey[~any_cell].mean()))
        outer.append(grey[~any_cell].std())
        edge.append(abs(grey[rim].mean() - grey[~any_cell].mean()))
    assert np.mean(inner) < 0.1
    assert np.mean(edge) > 1.2 * np.mean(inner)


def test_dataset_counts_and_stops():
    cells = CellScenes(2, seed=7, size=64)
    assert len(cells) == len(list(cells)) == 2
    assert np.array_equal(cells[1][0], make_cells(8, 64)[0])
    with pytest.raises(IndexError):
        cells[2]
    with pytest.raises(SamLiteError, match="size"):
        make_cells(0, 16)
