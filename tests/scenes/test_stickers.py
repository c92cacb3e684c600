"""贴纸场景：可重复，真值自洽，留作打分的绝不混进训练，图集和表对得上，报错清楚。"""

import csv
import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sam_lite
from sam_lite import SamLiteError
from sam_lite.scenes import Scene
from sam_lite.scenes.objects import MAX_OBJECTS, MIN_PIXELS_AT_256
from sam_lite.scenes.stickers import (
    ATLAS_COLUMNS,
    ATLAS_SIDE,
    GROUP_NAMES,
    Collection,
    Sticker,
    Thing,
    anchors,
    bundled_stickers,
    listed,
    make_group,
    make_sticker_scene,
    read_collection,
)

ASSETS = Path(sam_lite.__file__).parent / "assets"
STICKERS = {s.en: s for s in bundled_stickers().stickers}
SEEDS = range(60)
GROUP_WORDS = tuple(zh[0] for zh, _ in GROUP_NAMES.values())  # 戴、拿、叼、盛、装


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_sticker_scene(seed, 128) for seed in SEEDS]


@pytest.fixture(scope="module")
def exams() -> list[Scene]:
    return [make_sticker_scene(seed, 128, exam=True) for seed in SEEDS]


def groups(scene: Scene) -> list[int]:
    """组没有自己的像素。"""
    own = np.bincount(scene.labels.ravel(), minlength=len(scene.parents))
    return [k for k in range(1, len(own)) if own[k] == 0]


def seen(scenes: list[Scene]) -> Counter:
    """单独的东西的英文名，各出现几次。"""
    return Counter(
        scene.names[k - 1][1]
        for scene in scenes
        for k in range(1, len(scene.parents))
        if k not in groups(scene)
    )


def digest(scene: Scene) -> str:
    parts = (scene.image.tobytes(), scene.labels.tobytes(), scene.parents.tobytes())
    return hashlib.sha256(b"".join(parts) + repr(scene.names).encode()).hexdigest()


# ---- 可重复 ---------------------------------------------------------------------


def test_same_seed_gives_same_bytes_in_another_process():
    code = (
        "from scenes.test_stickers import digest, make_sticker_scene as make;"
        "print(*(digest(make(s, 96, exam=s == 2)) for s in range(3)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ASSETS.parents[1]}:{Path(__file__).parents[1]}"},
        capture_output=True,
        text=True,
    )
    here = [digest(make_sticker_scene(s, 96, exam=s == 2)) for s in range(3)]
    assert done.stdout.split() == here, done.stderr
    assert len({*here, digest(make_sticker_scene(2, 96))}) == 4


# ---- 真值 -----------------------------------------------------------------------


def test_labels_parents_and_names_agree(scenes):
    least = MIN_PIXELS_AT_256 * 128**2 / 256**2
    for scene in scenes:
        count = scene.num_objects
        assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
        assert scene.labels.shape == (128, 128) and scene.labels.dtype == np.uint8
        assert scene.labels.max() <= count < MAX_OBJECTS
        assert len(scene.names) == count and all(map(all, scene.names))
        assert (scene.parents[1:] < np.arange(1, count + 1)).all()
        assert scene.parents[0] == 0
        assert all(mask.sum() >= least for mask in scene.masks())
    assert sum(bool(scene.names) for scene in scenes) == len(scenes)


def test_a_group_is_the_union_of_its_members(scenes):
    """两样以上，没有自己的像素；它的名字里有成员的名字。"""
    every = [(scene, k) for scene in scenes for k in groups(scene)]
    assert len(every) > 10
    for scene, k in every:
        members = np.flatnonzero(scene.parents == k)
        assert len(members) >= 2
        union = np.any([scene.mask(int(m)) for m in members], axis=0)
        np.testing.assert_array_equal(scene.mask(k), union)
        zh, _ = scene.names[k - 1]
        assert zh.startswith(GROUP_WORDS)
        assert sum(scene.names[m - 1][0] in zh for m in members) >= 2


def test_nested_things_lie_on_their_parent(scenes):
    """贴在别的东西身上的，算它的部件。"""
    nested = 0
    for scene in scenes:
        whole = set(groups(scene))
        for k in range(1, len(scene.parents)):
            parent = int(scene.parents[k])
            if parent and parent not in whole:
                nested += 1
                assert not (scene.mask(k) & ~scene.mask(parent)).any()
    assert nested > 0


# ---- 打分的与训练的分开 -----------------------------------------------------------


def test_exam_stickers_never_train(scenes, exams):
    trained, asked = seen(scenes), seen(exams)
    assert len(trained) > 60 and len(asked) > 40
    assert not [name for name in trained if STICKERS[name].exam]
    assert not [name for name in asked if not STICKERS[name].exam]


def test_a_fifth_of_each_kind_is_kept_out():
    kinds = Counter(s.kind for s in STICKERS.values())
    kept = Counter(s.kind for s in STICKERS.values() if s.exam)
    assert {k: round(n / 5) for k, n in kinds.items()} == kept


# ---- 图集和表 --------------------------------------------------------------------


def test_atlas_is_small_and_holds_every_row():
    path = ASSETS / "stickers.webp"
    assert path.stat().st_size <= 1_600_000
    width, height = Image.open(path).size
    rows = list(
        csv.DictReader((ASSETS / "stickers.csv").read_text("utf-8").split("\n"))
    )
    assert len(rows) == len(STICKERS) > 200  # 英文名也就不重复
    assert width == ATLAS_COLUMNS * ATLAS_SIDE
    assert height == -(-len(rows) // ATLAS_COLUMNS) * ATLAS_SIDE
    for row in rows:
        assert 20 <= int(row["width"]) <= ATLAS_SIDE, row
        assert 20 <= int(row["height"]) <= ATLAS_SIDE, row


def test_every_sticker_has_a_picture_and_names():
    for s in STICKERS.values():
        solid = np.asarray(s.picture.getchannel("A")) > 128
        assert solid.mean() > 0.1, s.en
        assert all((s.code, s.zh, s.en, s.kind)), s
        assert any("一" <= c <= "鿿" for c in s.zh), s.zh
        # 裁到不透明的部分：四边都碰得到，邻格的东西没有混进来
        assert solid[:3].any() and solid[-3:].any(), s.en
        assert solid[:, :3].any() and solid[:, -3:].any(), s.en
    assert len({s.code for s in STICKERS.values()}) == len(STICKERS)
    assert len({s.zh for s in STICKERS.values()}) == len(STICKERS)


def test_licence_stands_beside_the_atlas():
    text = (ASSETS / "STICKERS.md").read_text("utf-8")
    for words in ("MIT License", "Copyright (c) Microsoft Corporation", "CLDR"):
        assert words in text
    notice = (ASSETS.parents[1] / "NOTICE").read_text("utf-8")
    assert "Fluent UI Emoji" in notice


def test_anchors_are_of_a_known_kind_and_inside_the_picture():
    hosts = {"", "face", "hand", "mouth", "bowl", "bag"}
    roles = {"", "hat", "glasses", "filling", "held"}
    for texts, known in (
        ({s.host for s in STICKERS.values()}, hosts),
        ({s.role for s in STICKERS.values()}, roles),
    ):
        found = [anchors(text) for text in texts]
        assert {kind for kind, _ in found} == known
        assert all(0 <= v <= 1 for _, numbers in found for v in numbers)


# ---- 组的摆法 --------------------------------------------------------------------


def group(host: str, *items: str, seed: int = 0) -> tuple[Thing, list[np.ndarray]]:
    """一组，和每层的不透明处，(3h, 3w) bool；主人在正中的一块。"""
    rng = np.random.default_rng(seed)
    thing = make_group(rng, STICKERS[host], [STICKERS[item] for item in items])
    return thing, [np.array(x.picture.getchannel("A")) > 128 for x in thing.layers]


def middle(mask: np.ndarray) -> tuple[float, float]:
    """重心，按主人的高、宽算的 (x, y)。"""
    rows, columns = np.nonzero(mask)
    h, w = mask.shape[0] / 3, mask.shape[1] / 3
    return columns.mean() / w - 1, rows.mean() / h - 1


@pytest.mark.parametrize("seed", range(5))
def test_hats_sit_on_heads_and_glasses_on_eyes(seed):
    thing, (_, hat, glasses) = group("bear", "top hat", "glasses", seed=seed)
    assert thing.name == ("戴礼帽和眼镜的熊", "bear wearing top hat and glasses")
    bottom = np.flatnonzero(hat.any(1)).max() / (hat.shape[0] / 3) - 1
    assert 0.1 < bottom < 0.25  # 熊的帽檐在 0.15
    x, y = middle(glasses)
    assert abs(x - 0.5) < 0.03 and abs(y - 0.43) < 0.05  # 眼睛的高度


@pytest.mark.parametrize("host", [s.en for s in STICKERS.values() if "bag" in s.host])
def test_things_in_a_bag_stick_out_behind_it(host):
    """看不见里面的容器：整个都在装的东西前面，它们只从上面露头。"""
    thing, (bag, *fruit) = group(host, "tangerine", "pear", "tangerine")
    whole, _ = group(host, "tangerine")
    assert np.array_equal(
        np.asarray(thing.layers[0].picture), np.asarray(whole.layers[0].picture)
    )
    assert not any((bag & one).any() for one in fruit)
    assert all(one.sum() > 100 for one in fruit)
    assert thing.name[0] == f"装着橘子和梨的{STICKERS[host].zh}"


@pytest.mark.parametrize("host", ["bowl with spoon", "empty nest"])
def test_things_in_a_bowl_stand_before_its_back_and_behind_its_front(host):
    thing, (bowl, one) = group(host, "pear")
    _, (rim, _, _) = anchors(STICKERS[host].host)
    edge = round(bowl.shape[0] / 3 * (1 + rim))
    assert (bowl & one)[:edge].sum() > 100 and not (bowl & one)[edge:].any()


@pytest.mark.parametrize("item", [s.en for s in STICKERS.values() if "held" in s.role])
@pytest.mark.parametrize("host", ["dog", "T-Rex"])
def test_held_things_touch_the_hand_and_reach_outwards(host, item):
    _, (body, thing) = group(host, item)
    _, (x, y) = anchors(STICKERS[host].host)
    h, w = body.shape[0] / 3, body.shape[1] / 3
    rows, columns = np.nonzero(thing)
    away = np.hypot(columns - (1 + x) * w, rows - (1 + y) * h).min()
    assert away < 0.06 * w
    assert middle(thing)[0] < x + 0.05  # 手在左边，往左伸


def test_group_names_list_each_thing_once():
    assert listed(["桃"], "、", "和") == "桃"
    assert listed(["桃", "梨", "桃", "蛋"], "、", "和") == "桃、梨和蛋"


# ---- 换一套 ----------------------------------------------------------------------


def a_folder(path: Path) -> Path:
    """一个整理好的小文件夹：一样训练，一样打分，一张背景。"""
    (path / "things").mkdir(parents=True)
    (path / "grounds").mkdir()
    text = "file,zh,en,kind,exam,host,role\n"
    for i, en in enumerate(("cat", "duck")):
        STICKERS[en].picture.save(path / "things" / f"{i}.webp")
        text += f"{i}.webp,名,{en},,{'1' * i},,\n"
    (path / "things.csv").write_text(text, "utf-8")
    Image.new("RGB", (90, 70), (9, 200, 9)).save(path / "grounds" / "1.jpg")
    return path


def test_a_folder_gives_things_and_grounds(tmp_path):
    collection = read_collection(a_folder(tmp_path / "set"))
    assert [(s.en, s.exam) for s in collection.stickers] == [
        ("cat", False),
        ("duck", True),
    ]
    assert collection.stickers[0].picture.mode == "RGBA"
    assert collection.grounds[0].size == (90, 70)
    assert {
        n for s in range(8) for n in make_sticker_scene(s, 64, collection).names
    } == {("名", "cat")}


@pytest.mark.parametrize(
    "broken", ["nothing", "no table", "no picture", "no column", "old anchors"]
)
def test_a_folder_that_is_none_says_what_to_do(tmp_path, broken):
    folder = a_folder(tmp_path / "set")
    if broken == "nothing":
        folder = tmp_path / "elsewhere"
    elif broken == "no table":
        (folder / "things.csv").unlink()
    elif broken == "no picture":
        (folder / "things" / "1.webp").write_bytes(b"RIFF")
    else:
        change = ("role", "job") if broken == "no column" else ("cat,,,", "cat,,,hands")
        text = (folder / "things.csv").read_text("utf-8")
        (folder / "things.csv").write_text(text.replace(*change), "utf-8")
    mend = f"{folder} 不是整理好的贴纸.*tools/stickers.py fetch {folder}"
    with pytest.raises(SamLiteError, match=mend):
        read_collection(folder)


# ---- 错误 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"seed": -1}, "seed 不对：收到 -1，应为整数，不小于 0"),
        ({"seed": 1.5}, "seed 不对：收到 1.5"),
        ({"size": 16}, "size 不对：收到 16，应为整数，不小于 32"),
        ({"size": True}, "size 不对：收到 True"),
        ({"collection": "runs/stickers"}, "collection 不对：收到 'runs/stickers'"),
        ({"collection": Collection(())}, "collection 不对：收到没有一样合用的"),
        ({"exam": 1}, "exam 不对：收到 1，应为 True 或 False"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(SamLiteError, match=words):
        make_sticker_scene(**{"seed": 0, "size": 64, **arguments})


def test_a_collection_without_exam_things_cannot_set_an_exam():
    sticker: Sticker = STICKERS["cat"]
    assert make_sticker_scene(0, 64, Collection((sticker,))).names
    with pytest.raises(SamLiteError, match="至少一样贴纸"):
        make_sticker_scene(0, 64, Collection((sticker,)), exam=True)
