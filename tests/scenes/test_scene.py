"""检查程序生成的场景：可重复、标签自洽、面积合适、并行与串行一致、报错清楚。"""

import numpy as np
import pytest

from sam_lite.errors import SamLiteError
from sam_lite.scenes import Scene, make_scene
from sam_lite.scenes.objects import MAX_OBJECTS


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in range(80)]


def same(a: Scene, b: Scene) -> bool:
    names = ("image", "labels", "parents")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_same_seed_gives_same_bytes_and_other_seed_differs():
    for seed in (0, 7, 2**40):
        assert same(make_scene(seed), make_scene(seed))
    assert same(make_scene(np.int64(7)), make_scene(7))
    assert not np.array_equal(make_scene(0).image, make_scene(1).image)
    assert not np.array_equal(make_scene(0).labels, make_scene(1).labels)


def test_types_and_shapes(scenes):
    for s in scenes:
        assert s.image.shape == (256, 256, 3) and s.image.dtype == np.uint8
        assert s.labels.shape == (256, 256) and s.labels.dtype == np.uint8
        assert s.parents.shape == (s.num_objects + 1,) and s.parents.dtype == np.uint8
        assert s.masks().shape == (s.num_objects, 256, 256)
        assert s.masks().dtype == bool


def test_labels_are_compact_and_big_enough(scenes):
    for s in scenes:
        assert s.num_objects <= MAX_OBJECTS
        assert set(np.unique(s.labels)) | {0} == set(range(s.num_objects + 1))
        if s.num_objects:
            assert s.masks().sum((1, 2)).min() >= 64


def test_parents_come_first_and_contain_their_parts(scenes):
    nested = 0
    for s in scenes:
        assert s.parents[0] == 0
        for k in range(1, s.num_objects + 1):
            whole = int(s.parents[k])
            assert whole < k
            if whole:
                part, full = s.mask(k), s.mask(whole)
                assert not (part & ~full).any()
                assert part.sum() <= 0.9 * full.sum()
                nested += s.parents[whole] != 0
    assert nested > 0  # 部件的部件也要出现


def test_mask_is_label_plus_descendants():
    labels = np.array([[0, 1, 2, 3, 4]], np.uint8)
    s = Scene(np.zeros((1, 5, 3), np.uint8), labels, np.array([0, 0, 1, 2, 0], "u1"))
    assert s.num_objects == 4
    assert s.mask(1).tolist() == [[False, True, True, True, False]]
    assert s.mask(2).tolist() == [[False, False, True, True, False]]
    assert s.mask(4).tolist() == [[False, False, False, False, True]]
    assert np.array_equal(s.masks()[1], s.mask(2))


def test_top_level_masks_do_not_overlap(scenes):
    for s in scenes:
        top = s.masks()[s.parents[1:] == 0]
        assert top.sum(0).max() == 1
        assert np.array_equal(top.any(0), s.labels > 0)


def test_areas_spread_and_are_mostly_large(scenes):
    every = np.concatenate([s.masks().sum((1, 2)) for s in scenes])
    top = np.concatenate([s.masks()[s.parents[1:] == 0].sum((1, 2)) for s in scenes])
    assert np.mean(every >= 400) > 0.7
    assert np.mean(top >= 400) > 0.95
    assert np.percentile(top, 95) > 10_000 and np.percentile(top, 10) < 2_000


def test_scenes_are_varied(scenes):
    grey = [np.ptp(s.image.astype(int), axis=-1).max() <= 24 for s in scenes]
    assert 0 < sum(grey) < len(scenes) / 2
    assert sum(s.parents.any() for s in scenes) > len(scenes) / 3
    counts = {int((s.parents[1:] == 0).sum()) for s in scenes}
    assert len(counts) >= 6 and max(counts) >= 8
    brightness = [s.image.mean() for s in scenes]
    assert 60 < np.mean(brightness) < 170 and np.std(brightness) > 15


def test_edges_of_masks_lie_on_edges_of_the_picture():
    gain = []
    for seed in range(30):
        s = make_scene(seed)
        grey = s.image.astype(float).mean(-1)
        step = np.abs(np.diff(grey, axis=1))
        edge = np.diff(s.labels.astype(int), axis=1) != 0
        gain.append(step[edge].mean() / step[~edge].mean())
    assert np.median(gain) > 2


@pytest.mark.parametrize("size", [32, 100, 128, 321])
def test_other_sizes(size):
    for seed in range(6):
        s = make_scene(seed, size)
        assert s.image.shape == (size, size, 3) and s.labels.shape == (size, size)
        assert s.labels.max() == s.num_objects
        assert same(s, make_scene(seed, size))


def test_options():
    for seed in range(12):
        s = make_scene(seed, 64, objects=(1, 1), parts=0, groups=0)
        assert s.num_objects <= 1
        many = make_scene(seed, 128, groups=1)
        assert (many.parents[1:] == 0).sum() >= 5


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("seed", {"seed": -1}),
        ("seed", {"seed": 1.5}),
        ("seed", {"seed": True}),
        ("size", {"size": 31}),
        ("size", {"size": "256"}),
        ("objects", {"objects": (0, 3)}),
        ("objects", {"objects": (5, 3)}),
        ("objects", {"objects": (1.5, 3)}),
        ("objects", {"objects": (True, 3)}),
        ("objects", {"objects": 4}),
        ("area", {"area": (0, 0.3)}),
        ("area", {"area": (0.1, 0.9)}),
        ("parts", {"parts": 1.5}),
        ("groups", {"groups": "often"}),
    ],
)
def test_bad_arguments_are_named(name, arguments):
    with pytest.raises(SamLiteError, match=f"{name} 不对：收到"):
        make_scene(**{"seed": 0, **arguments})


def test_bad_labels_of_mask_are_named():
    s = make_scene(0, 64)
    for k in (0, s.num_objects + 1, 1.0):
        with pytest.raises(SamLiteError, match="k 不对"):
            s.mask(k)
