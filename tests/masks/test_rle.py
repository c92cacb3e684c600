import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam_lite import SamLiteError
from sam_lite.masks.rle import (
    area_from_rle,
    coco_decode_rle,
    coco_encode_rle,
    mask_to_rle_pytorch,
    rle_to_mask,
)


def test_columns_first_and_zeros_first():
    mask = torch.tensor([[0, 1, 1], [1, 1, 0]], dtype=torch.bool)
    # 先列后行：0 1 | 1 1 | 1 0
    assert mask_to_rle_pytorch(mask[None]) == [{"size": [2, 3], "counts": [1, 4, 1]}]


def test_each_mask_starts_afresh():
    """空的、满的、第一格就是 1 的挨在一起，谁也不接着谁。"""
    masks = torch.zeros(5, 3, 2, dtype=torch.bool)
    masks[1] = True
    masks[2, 0, 0] = True
    masks[4, 2, 1] = True
    counts = [rle["counts"] for rle in mask_to_rle_pytorch(masks)]
    assert counts == [[6], [0, 6], [0, 1, 5], [6], [5, 1]]
    assert mask_to_rle_pytorch(masks[:0]) == []


sizes = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9))


@given(sizes, st.floats(0, 1), st.integers(0, 99))
def test_round_trip(size, density, seed):
    masks = np.random.default_rng(seed).random(size) < density
    rles = mask_to_rle_pytorch(torch.from_numpy(masks))
    assert len(rles) == len(masks)
    for mask, rle in zip(masks, rles, strict=True):
        np.testing.assert_array_equal(rle_to_mask(rle), mask)
        assert area_from_rle(rle) == mask.sum()
        assert all(length > 0 for length in rle["counts"][1:])
        assert coco_decode_rle(coco_encode_rle(rle)) == rle


def test_rle_of_another_size_is_refused():
    with pytest.raises(SamLiteError, match="counts 不对.*合计 5.*H×W = 6"):
        rle_to_mask({"size": [2, 3], "counts": [2, 3]})


# 由 pycocotools 2.0 的 frPyObjects 算出
COCO = [
    ([0, 3, 9], "039"),
    ([5, 2, 1, 4], "5212"),
    ([12], "<"),
    ([40, 100, 60, 1000, 20, 3000, 500, 31, 32], "X1T3l1Tl0hN`n1P?WSM\\A"),
]


@pytest.mark.parametrize(("counts", "text"), COCO, ids=str)
def test_coco_strings(counts, text):
    rle = {"size": [1, sum(counts)], "counts": counts}
    assert coco_encode_rle(rle) == {"size": rle["size"], "counts": text}
    assert coco_decode_rle(coco_encode_rle(rle)) == rle
