"""bank：画好的场景存得对，断了能接着画。"""

import json
import os
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from sam_lite import SamLiteError
from sam_lite.scenes import bank as scene_bank
from sam_lite.scenes import make_scene
from sam_lite.scenes.bank import SceneBank
from sam_lite.scenes.content import BASE


def test_bank_holds_the_scenes(tmp_path):
    bank = SceneBank(tmp_path, 3, 64, first_seed=5)
    assert len(bank) == 3 and len(bank.ready()) == 0
    list(bank.fill(workers=1))
    scene = make_scene(6, 64)
    np.testing.assert_array_equal(bank.images[1], scene.image)
    np.testing.assert_array_equal(bank.labels[1], scene.labels)
    np.testing.assert_array_equal(
        bank.parents[1, 1 : len(scene.parents)], scene.parents[1:]
    )


def test_bank_goes_on_after_a_break(tmp_path):
    """画了两张就断：再打开，只补第三张。"""
    bank = SceneBank(tmp_path, 3, 64)
    drawing = bank.fill(workers=1)
    assert [next(drawing), next(drawing)] == [0, 1]
    drawing.close()
    again = SceneBank(tmp_path, 3, 64)
    assert again.ready().tolist() == [0, 1]
    assert list(again.fill(workers=1)) == [2]


def test_bank_is_never_rewritten(tmp_path):
    """已有的素材库：要得少、要得小就照用；要得多、大、换种子都是错误，内容不动。"""
    list(SceneBank(tmp_path, 3, 64).fill(workers=1))
    assert len(SceneBank(tmp_path, 2, 64)) == 3
    assert SceneBank(tmp_path, 3, 32).images.shape == (3, 64, 64, 3)
    for count, size, seed in ((4, 64, 0), (3, 96, 0), (3, 64, 7)):
        with pytest.raises(SamLiteError, match="换一个目录"):
            SceneBank(tmp_path, count, size, seed)
    assert len(SceneBank(tmp_path, 3, 64).ready()) == 3


def test_bank_knows_what_was_drawn(tmp_path):
    """画的成分记在 bank.json 里；换一种成分是错误，说清哪几样；从前的就是 BASE。"""
    content = replace(BASE, letters=1.0, parts=0.0)
    bank = SceneBank(tmp_path, 2, 64, 5, content)
    list(bank.fill(workers=1))
    scene = make_scene(6, 64, content=content)
    np.testing.assert_array_equal(bank.images[1], scene.image)
    np.testing.assert_array_equal(bank.labels[1], scene.labels)
    card = tmp_path / "bank.json"
    found = json.loads(card.read_text("utf-8"))
    assert found["content"] == asdict(content)
    assert len(SceneBank(tmp_path, 2, 64, 5, content)) == 2
    words = "parts 原来是 0.0，要的是 0.5；letters 原来是 1.0，要的是 0.0"
    with pytest.raises(SamLiteError, match=f"成分不同：{words}。换一个目录"):
        SceneBank(tmp_path, 2, 64, 5)
    del found["content"]
    card.write_text(json.dumps(found), "utf-8")
    assert len(SceneBank(tmp_path, 2, 64, 5)) == 2
    with pytest.raises(SamLiteError, match="成分不同"):
        SceneBank(tmp_path, 2, 64, 5, content)
    card.write_text(json.dumps(found | {"content": {"dragons": 1}}), "utf-8")
    with pytest.raises(SamLiteError, match="已损坏"):
        SceneBank(tmp_path, 2, 64, 5)


def test_broken_bank_is_a_clear_error(tmp_path):
    SceneBank(tmp_path, 2, 64)
    (tmp_path / "labels.npy").write_bytes(b"broken")
    with pytest.raises(SamLiteError, match="labels.npy"):
        SceneBank(tmp_path, 2, 64)


def test_a_bank_half_made_is_made_again(tmp_path, monkeypatch):
    """建到第二个文件时死了：同一条命令重建，没有剩下的文件。"""
    real, seen = scene_bank.atomic_file, []

    def dies(path):
        seen.append(path)
        if path.name == "labels.npy":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(scene_bank, "atomic_file", dies)
    with pytest.raises(KeyboardInterrupt):
        SceneBank(tmp_path, 3, 64)
    assert (tmp_path / "images.npy").exists()
    assert not (tmp_path / "bank.json").exists()
    monkeypatch.undo()
    (tmp_path / ".images.npy.0123abcd.tmp").write_bytes(b"half")
    assert len(list(SceneBank(tmp_path, 3, 64).fill(workers=1))) == 3
    names = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert names == {"bank.json", "images.npy", "labels.npy", "parents.npy"}


def test_files_of_somebody_else_are_never_touched(tmp_path):
    """目录里本来就有 images.npy：不是自己的半成品，拒绝。"""
    np.save(tmp_path / "images.npy", np.zeros(3))
    before = (tmp_path / "images.npy").read_bytes()
    with pytest.raises(SamLiteError, match="换一个空目录"):
        SceneBank(tmp_path, 3, 64)
    assert (tmp_path / "images.npy").read_bytes() == before


def test_no_room_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**9, 10**9, 30_000))
    with pytest.raises(SamLiteError, match=r"只剩 0.0 MB，场景要 0.0 MB：再腾出"):
        SceneBank(tmp_path, 3, 64)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_room_counts_only_what_is_still_to_draw(tmp_path, monkeypatch):
    """画了一半、磁盘快满：只要装得下剩下的就接着画。"""
    bank = SceneBank(tmp_path, 4, 64)
    each = 64 * 64 * 4 + scene_bank.MAX_LABELS
    drawing = bank.fill(workers=1)
    assert [next(drawing), next(drawing)] == [0, 1]
    drawing.close()
    assert bank.missing_bytes() <= 2 * each
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**9, 10**9, 2 * each))
    assert list(bank.fill(workers=1)) == [2, 3]


@pytest.mark.parametrize(
    "error, text",
    [
        (OSError(28, "No space left on device"), "磁盘满了"),
        (SamLiteError("画场景的进程意外死了。"), "进程意外死了"),
    ],
)
def test_a_failure_while_drawing_keeps_what_is_drawn(
    tmp_path, monkeypatch, error, text
):
    bank = SceneBank(tmp_path, 3, 64)
    real = scene_bank.make_scenes

    def two_then_fail(seeds, size, workers, **options):
        stream = real(seeds, size, workers, **options)
        yield next(stream)
        yield next(stream)
        raise error

    monkeypatch.setattr(scene_bank, "make_scenes", two_then_fail)
    with pytest.raises(SamLiteError, match=f"{text}.*画好的 2 张都留着"):
        list(bank.fill(workers=1))
    monkeypatch.undo()
    assert list(SceneBank(tmp_path, 3, 64).fill(workers=1)) == [2]
    np.testing.assert_array_equal(
        SceneBank(tmp_path, 3, 64).images[1], make_scene(1, 64).image
    )


def test_pictures_reach_the_disk_before_they_count_as_drawn(tmp_path, monkeypatch):
    """断电时写回的次序说不准：图落盘之后才记“画好了”。"""
    bank, flags = SceneBank(tmp_path, 3, 64), []
    fsync = os.fsync

    def seen(handle):
        flags.append(np.load(tmp_path / "parents.npy")[:, 0].tolist())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(scene_bank, "COMMIT_EVERY", 2)
    list(bank.fill(workers=1))
    two, three = [1, 1, 0], [1, 1, 1]
    assert flags == [[0, 0, 0], [0, 0, 0], two, two, two, three]


def test_wrong_shapes_are_a_clear_error(tmp_path):
    """文件是好的，却不是这个素材库的。"""
    SceneBank(tmp_path, 2, 64)
    np.save(tmp_path / "labels.npy", np.zeros((5, 64, 64), np.uint8))
    with pytest.raises(SamLiteError, match="labels.npy"):
        SceneBank(tmp_path, 2, 64)


def test_a_finished_bank_can_be_read_only(tmp_path):
    """画好了就只读：共用的素材库不会被训练改动，也不用锁。"""
    list(SceneBank(tmp_path, 2, 64).fill(workers=1))
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    bank = SceneBank(tmp_path, 2, 64)
    assert list(bank.fill()) == []
    with pytest.raises(ValueError, match="read-only"):
        bank.images[0] = 0
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before
