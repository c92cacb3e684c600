import numpy as np
import pytest

from sam_lite import SamLiteError
from sam_lite.masks.regions import remove_small_regions


def picture(text: str) -> np.ndarray:
    return np.array([[c == "#" for c in line] for line in text.split()])


RING = picture("####... #..#... #..#..# ####...")


def test_holes_are_filled_only_below_the_area():
    filled, changed = remove_small_regions(RING, 5, "holes")  # 孔有 4 格
    assert changed and filled[1:3, 1:3].all() and filled.sum() == RING.sum() + 4
    same, changed = remove_small_regions(RING, 4, "holes")
    assert not changed and same is RING


def test_islands_are_removed():
    cleaned, changed = remove_small_regions(RING, 2, "islands")
    assert changed and not cleaned[2, 6] and cleaned.sum() == RING.sum() - 1


def test_corners_touch():
    """八个方向都算相邻：斜着挨的两格是一个岛。"""
    diagonal = picture("#... .#.. ....")
    assert not remove_small_regions(diagonal, 2, "islands")[1]


def test_the_largest_island_is_kept_when_all_are_small():
    cleaned, changed = remove_small_regions(picture("##..# ....."), 9, "islands")
    assert changed and cleaned.tolist() == picture("##... .....").tolist()


def test_unknown_mode():
    with pytest.raises(SamLiteError, match="mode 不对.*'hole'"):
        remove_small_regions(RING, 3, "hole")
