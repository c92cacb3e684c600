"""图库：名单上的每一幅，自带的小权重都分得准；真值和种类都对。"""

import sys

import numpy as np
import pytest

import sam_lite
from chapters.common import CHAPTERS
from sam_lite.errors import SamLiteError

sys.path.insert(0, str(CHAPTERS))
import gallery  # noqa: E402

NAMES = list(gallery.entries())


@pytest.fixture(scope="module")
def predictor():
    return sam_lite.SamPredictor(sam_lite.load("tiny"))


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_weights_are_right(predictor, name):
    picture = gallery.take(name)
    assert picture.truth.shape == picture.image.shape[:2] and picture.truth.any()
    predictor.set_image(picture.image)
    masks, scores, _ = predictor.predict(**picture.prompt)
    assert picture.iou(masks, scores) >= gallery.LEAST


def test_there_are_enough_of_every_kind():
    kinds = [entry["kind"] for entry in gallery.entries().values()]
    assert len(NAMES) >= 40
    assert {"thing", "group", "member", "nested", "photo"} <= set(kinds)


def test_one_click_reaches_several_layers():
    """“点……得到……”同一个点至少对着两样东西，一样在另一样里面，看的是不同的掩码。"""
    nested = [e for e in gallery.entries().values() if e["kind"] == "nested"]
    places = {(e["seed"], str(e["points"])) for e in nested}
    for seed, points in places:
        same = [e for e in nested if (e["seed"], str(e["points"])) == (seed, points)]
        assert len(same) >= 2 and len({e["pick"] for e in same}) == len(same)
        truths = sorted((gallery.take(e["name"]).truth for e in same), key=np.sum)
        assert all(not (a & ~b).any() for a, b in zip(truths, truths[1:], strict=False))


def test_unknown_name_lists_the_others():
    with pytest.raises(SamLiteError, match=NAMES[0]):
        gallery.take("没有这一幅")
