"""场景的成分：开关各管各的，不写就和从前一样；新添的东西标签对得上画面。"""

from dataclasses import asdict, replace

import numpy as np
import pytest

from sam_lite.errors import SamLiteError
from sam_lite.scenes import Scene, make_scene
from sam_lite.scenes.content import (
    BASE,
    RICH,
    SceneContent,
)
from sam_lite.scenes.looks import Studio
from sam_lite.scenes.packed import Ground, bricks, pack, scales, stones
from sam_lite.scenes.shapes import NAMELESS, STOUT
from sam_lite.scenes.strokes import GLYPHS, trace

OLD = [name for name, rate in asdict(BASE).items() if rate > 0]
NEW = [name for name, rate in asdict(BASE).items() if rate == 0]
SEEDS = range(12)
# 每张图的每个标签各有多少像素，和三个通道的平均：从前画的
BEFORE = {
    0: (
        [
            33543,
            10582,
            3162,
            2482,
            3582,
            4730,
            788,
            803,
            2282,
            158,
            891,
            525,
            1243,
            677,
            88,
        ],
        [109.136, 85.769, 72.906],
    ),
    5: ([61896, 2913, 428, 299], [159.105, 23.503, 159.88]),
    1000000000: (
        [
            21702,
            1466,
            598,
            267,
            12831,
            2982,
            1599,
            1278,
            10379,
            4663,
            164,
            4345,
            1025,
            691,
            115,
            202,
            1063,
            166,
        ],
        [84.865, 106.339, 134.147],
    ),
    1000000007: (
        [53336, 3694, 3473, 1597, 891, 1850, 236, 185, 274],
        [169.337, 128.865, 100.375],
    ),
}


def only(**rates: float) -> SceneContent:
    """BASE，改几样。"""
    return replace(BASE, **rates)


def same(a: Scene, b: Scene) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values()))


def studio(seed: int = 0, size: int = 128, content: SceneContent = BASE) -> Studio:
    rng, dice = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    return Studio(rng, size, content, dice)


def saturation(image: np.ndarray) -> float:
    """最大与最小的通道差几成。"""
    high, low = image.max(-1).astype(float), image.min(-1).astype(float)
    return float(((high - low) / np.maximum(high, 1)).mean())


# ---- 不写就和从前一样 ------------------------------------------------------------


@pytest.mark.parametrize("seed", BEFORE)
def test_default_draws_what_it_always_drew(seed):
    """评测的场景不能变。比的是平均和像素数：不同的 CPU 在末位上可能差一点。"""
    counts, means = BEFORE[seed]
    scene = make_scene(seed)
    found = np.bincount(scene.labels.ravel())
    assert len(found) == len(counts) and np.abs(found - counts).max() <= 2
    assert np.abs(scene.image.mean((0, 1)) - means).max() < 0.02


def test_default_is_base_and_options_win_over_content():
    for seed in SEEDS:
        assert same(make_scene(seed, 64), make_scene(seed, 64, content=BASE))
        content = only(parts=1, groups=1)
        given = make_scene(seed, 64, parts=1, groups=1)
        assert same(given, make_scene(seed, 64, content=content))


def test_same_seed_gives_same_bytes():
    for seed in SEEDS:
        assert same(
            make_scene(seed, 96, content=RICH), make_scene(seed, 96, content=RICH)
        )


# ---- 每样开关都有用 ---------------------------------------------------------------


def test_names_are_split_into_old_and_new():
    assert len(OLD) == 8 and len(NEW) == 7  # 一向画的，和 RICH 里新添的
    assert all(getattr(RICH, name) > 0 for name in asdict(RICH))


@pytest.mark.parametrize("name", [*OLD, *NEW])
def test_each_switch_changes_scenes_and_stays_deterministic(name):
    content = only(**{name: 0.0 if name in OLD and name != "groups" else 1.0})
    changed = 0
    for seed in SEEDS:
        scene = make_scene(seed, 96, content=content)
        assert same(scene, make_scene(seed, 96, content=content))
        changed += not same(scene, make_scene(seed, 96))
    assert changed >= 6


def flatness(content: SceneContent) -> float:
    """左右两个像素完全一样的占几成。"""
    steps = [np.diff(make_scene(s, 128, content=content).image, axis=1) for s in SEEDS]
    return float(np.mean([(step == 0).all(-1).mean() for step in steps]))


def test_flat_surfaces_without_textures_shading_camera_and_clutter():
    """四样都关：颜色只在边上变；开哪一样，哪一样就让它不平。"""
    bare = only(textures=0, shading=0, camera=0, clutter=0)
    least = flatness(bare)
    assert least > 0.85
    for name in ("textures", "shading", "camera", "clutter"):
        assert flatness(replace(bare, **{name: 1})) < least - 0.02, name


def test_no_parts_no_groups_no_thin_shapes():
    assert not any(
        make_scene(s, 96, content=only(parts=0)).parents.any() for s in SEEDS
    )
    many = [make_scene(s, content=only(groups=1)).num_objects for s in SEEDS]
    assert min(many) >= 5
    assert set(NAMELESS) - set(STOUT) == {"capsule", "ring", "stroke"}


def test_natural_colours_are_duller_and_move_nothing():
    every = [[], []]
    for seed in range(20):
        for values, content in zip(every, (BASE, only(natural=1)), strict=True):
            scene = make_scene(seed, 96, content=content)
            values.append(saturation(scene.image))
        assert np.array_equal(scene.labels, make_scene(seed, 96).labels)
    assert np.mean(every[1]) < 0.75 * np.mean(every[0])


def test_grain_changes_only_the_picture():
    for seed in SEEDS:
        grainy = make_scene(seed, 96, content=only(grain=1))
        assert np.array_equal(grainy.labels, make_scene(seed, 96).labels)


@pytest.mark.parametrize("name", ["letters", "slender"])
def test_additions_leave_the_rest_alone(name):
    """添上的东西盖住一些，别的物体还在原处。"""
    more = 0
    for seed in SEEDS:
        before, after = make_scene(seed), make_scene(seed, content=only(**{name: 1}))
        more += after.num_objects - before.num_objects
        old, new = before.labels > 0, after.labels > 0
        assert (old & new).sum() > 0.97 * old.sum()  # 血管的细枝不算物体
    assert more > 2 * len(SEEDS)


def test_cropped_objects_leave_the_picture():
    """碰到画面边上的大物多得多。"""

    def touching(content: SceneContent) -> int:
        total = 0
        for seed in range(20):
            masks = make_scene(seed, 96, content=content).masks()
            border = masks[:, 0].any(1) | masks[:, -1].any(1)
            border |= masks[:, :, 0].any(1) | masks[:, :, -1].any(1)
            total += int((border & (masks.mean((1, 2)) > 0.08)).sum())
        return total

    assert touching(only(cropped=1)) > 1.5 * touching(BASE)


def test_packed_and_tissue_fill_the_picture():
    packed = [make_scene(s, content=only(packed=1)) for s in SEEDS]
    assert np.median([s.num_objects for s in packed]) >= 25
    tissue = [make_scene(s, content=only(tissue=1)) for s in SEEDS]
    assert np.median([s.labels.astype(bool).mean() for s in tissue]) > 0.4
    assert any(s.parents.any() for s in tissue)  # 腔是部件


@pytest.mark.parametrize("name", NEW)
def test_labels_stay_tidy(name):
    """标签排紧、够大、不超过四十个，部件在整体里面，边长不同也行。"""
    for seed in range(6):
        for size in (40, 256):
            s = make_scene(seed, size, content=only(**{name: 1}))
            assert s.num_objects <= 40
            assert set(np.unique(s.labels)) | {0} == set(range(s.num_objects + 1))
            assert (s.parents < np.arange(len(s.parents))).sum() == s.num_objects
            if s.num_objects:
                assert s.masks().sum((1, 2)).min() >= 64 * size**2 / 256**2


def test_edges_of_packed_masks_lie_on_edges_of_the_picture():
    gain = []
    for seed in range(20):
        s = make_scene(seed, content=only(packed=1))
        step = np.abs(np.diff(s.image.astype(float).mean(-1), axis=1))
        edge = np.diff(s.labels.astype(int), axis=1) != 0
        gain.append(step[edge].mean() / step[~edge].mean())
    assert np.median(gain) > 1.5


# ---- 铺法 ------------------------------------------------------------------------


def flat_ground(size: int = 120, unit: float = 20.0) -> Ground:
    g = np.arange(size, dtype=np.float32) + 0.5
    u, v = (
        np.broadcast_to(g[None], (size, size)),
        np.broadcast_to(g[:, None], (size,) * 2),
    )
    return Ground(u / unit, v / unit, np.full((size, size), unit, np.float32))


def test_pack_makes_numbers_compact():
    ids = np.array([[7, 7], [-2, 900]])
    assert pack(ids, ids).ids.tolist() == [[1, 1], [0, 2]]


def test_bricks_have_straight_gaps():
    """每块砖高 20 像素，缝宽 0.2：最里面的像素深 7.5，缝里的在外面 1.5。"""
    cells = bricks(studio(), flat_ground(), 0.2)
    middle, seam = cells.d[10], cells.d[20]
    assert abs(middle.min() + 7.5) < 0.01 and middle.max() > 0
    assert abs(seam.min() - 1.5) < 0.01
    assert (cells.d < 0).mean() > 0.6


def test_stones_are_the_nearest_seeds():
    """不磨圆：距离场为负的像素都归最近的种子，一块石子的像素连成凸形。"""
    cells = stones(studio(3), flat_ground(), 0.1, 0.01, 0.3)
    sharp = stones(studio(3), flat_ground(), 0.1, 0.001, 0.3)
    assert np.isfinite(cells.d).all() and np.isfinite(sharp.d).all()
    for k in range(int(cells.ids.max()) + 1):
        rows = [np.flatnonzero(row) for row in (cells.ids == k)]
        assert all(len(r) == 0 or r[-1] - r[0] + 1 == len(r) for r in rows)
    change = np.diff(cells.ids, axis=1) != 0
    assert cells.d[:, 1:][change].min() > -1.5  # 换石子的地方就是边


def test_scales_cover_the_ground():
    cells = scales(studio(1), flat_ground(), 0.05)
    assert (cells.d < 0).mean() > 0.75 and cells.ids.max() > 40


# ---- 线条 ------------------------------------------------------------------------


def test_trace_covers_the_pixels_of_a_line():
    """一条横线，宽 4 像素，从 x = 10 到 30：盖住 20 × 4，加上两个圆头。"""
    ink = trace(studio(size=64), [np.array([[10.0, 20.0], [30.0, 20.0]])], [4.0])
    assert ink is not None
    full = np.zeros((64, 64))
    full[ink.box] = ink.alpha
    assert abs(full.sum() - (80 + np.pi * 4)) < 8
    assert (full[18:22, 11:29] > 0.9).all() and full[:18].sum() < 1
    outside = trace(studio(size=64), [np.array([[-90.0, 5.0], [-80.0, 5.0]])], [4.0])
    assert outside is None


def test_glyphs_are_centred_and_one_high():
    assert len(GLYPHS) >= 30
    for name, lines in GLYPHS.items():
        spots = np.concatenate(lines)
        assert np.abs(spots).max() <= 0.5 + 1e-9, name
        assert np.ptp(spots[:, 1]) > 0.8, name


# ---- 错误 ------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.1, 1.1, "often", True, None, float("nan")])
def test_bad_rates_are_named(rate):
    with pytest.raises(SamLiteError, match="letters 不对：收到"):
        SceneContent(letters=rate)


def test_bad_content_is_named():
    with pytest.raises(SamLiteError, match="content 不对：收到 'rich'"):
        make_scene(0, 64, content="rich")
