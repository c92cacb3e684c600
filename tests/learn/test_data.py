"""data：混着画、存成文件、增强、挑物体；同样的号数总是同样的题。"""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.small import SMALL

from sam_lite import SamLiteError
from sam_lite.config import TrainConfig
from sam_lite.learn import data
from sam_lite.learn.data import Mixture, SceneExamples, Shards, batches, draw_shards
from sam_lite.model import sam_from_config
from sam_lite.scenes import Scene, make_scene
from sam_lite.scenes.stickers import bundled_stickers
from sam_lite.training import collate

CONFIG = TrainConfig(batch=3, prompts=4, min_area=20)


class Plain:
    """第 number 张就是种子为 number 的场景；能送进别的进程。"""

    def __getitem__(self, number):
        return make_scene(number, 64)


def examples(source=None, **changes):
    return SceneExamples(
        source or Plain(), sam_from_config(replace(SMALL, **changes)), CONFIG
    )


def equal(one, two):
    return torch.equal(one[0], two[0]) and all(map(torch.equal, one[1], two[1]))


# ---- 边训练边画 ----------------------------------------------------------------


def note_scenes(monkeypatch):
    """不真的画，只记下要画的是哪一种、哪个种子、哪一套贴纸。"""
    seen = []
    monkeypatch.setattr(
        data, "make_scene", lambda seed, size, content: seen.append((content, seed))
    )
    monkeypatch.setattr(
        data,
        "make_sticker_scene",
        lambda seed, size, collection: seen.append((collection, seed)),
    )
    return seen


def test_the_shares_are_kept_and_seeds_are_for_training(monkeypatch):
    """一比一比二；种子都在一千万以下，几乎不重；号数相同就相同，种子不同就不同。"""
    seen = note_scenes(monkeypatch)
    mixture = Mixture(1, 1, 2, 64)
    for number in range(800):
        mixture[number]
    kinds = [kind for kind, _ in seen]
    counts = [kinds.count(k) for k in (data.BASE, data.RICH, mixture.collection)]
    assert sum(counts) == 800 and counts == pytest.approx([200, 200, 400], abs=60)
    seeds = [seed for _, seed in seen]
    assert min(seeds) >= 0 and max(seeds) < 10_000_000 and len(set(seeds)) > 790
    mixture[799], Mixture(1, 1, 2, 64, seed=1)[799]
    assert seen[800] == seen[799] != seen[801]


def test_a_scene_comes_out_the_same_every_time():
    for number in range(4):
        one, two = (Mixture(size=64)[number] for _ in range(2))
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.labels, two.labels)


def test_exam_stickers_never_appear():
    """留作打分的贴纸，训练的混合里一样也没有，画出来的名字里也没有。"""
    whole = bundled_stickers()
    held = {s.zh for s in whole.stickers if s.exam}
    mixture = Mixture(0, 0, 1, 64, whole)
    left = {s.zh for s in mixture.collection.stickers}
    assert len(held) > 20 and not held & left
    assert len(mixture.collection.stickers) == sum(not s.exam for s in whole.stickers)
    names = {zh for number in range(12) for zh, _ in mixture[number].names}
    assert names & left and not names & held
    only_held = replace(whole, stickers=tuple(s for s in whole.stickers if s.exam))
    with pytest.raises(SamLiteError, match="没有训练用的贴纸"):
        Mixture(0, 0, 1, 64, only_held)


@pytest.mark.parametrize("shares", [(0, 0, 0), (-1, 1, 1), (1, float("nan"), 1)])
def test_nonsense_shares_are_refused(shares):
    with pytest.raises(SamLiteError, match="mix"):
        Mixture(*shares)


# ---- 先画好存着 ----------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_give_back_what_was_drawn(tmp_path, workers):
    """存两个文件，再接着画一个：逐位是原来那些场景；挑哪张由号数定。"""
    counts = [n for n, _ in zip(draw_shards(Plain(), tmp_path, workers, 3), range(2))]
    assert counts == [3, 3]
    next(draw_shards(Plain(), tmp_path, 0, 3))
    shards = Shards(tmp_path)
    assert len(shards) >= 9
    for number, scene in enumerate(shards.scenes[:6]):
        truth = make_scene(number, 64)
        assert np.array_equal(scene.image, truth.image)
        assert np.array_equal(scene.labels, truth.labels)
        assert np.array_equal(scene.parents, truth.parents)
    assert len({id(shards[number]) for number in range(200)}) == len(shards)
    again, other = Shards(tmp_path), Shards(tmp_path, seed=1)
    picks = [[s[n].image.sum() for n in range(9)] for s in (shards, again, other)]
    assert picks[0] == picks[1] != picks[2]


def test_a_damaged_shard_is_named(tmp_path):
    with pytest.raises(SamLiteError, match="没有画好的场景"):
        Shards(tmp_path)
    next(draw_shards(Plain(), tmp_path, 0, 2))
    path = tmp_path / "scenes-000000.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-100], bytes(flipped), b"", b"not a zip"):
        path.write_bytes(damaged)
        with pytest.raises(SamLiteError, match="scenes-000000.npz 坏了.*再画一次"):
            Shards(tmp_path)


def test_shards_of_two_sizes_are_refused(tmp_path):
    next(draw_shards(Plain(), tmp_path, 0, 1))
    next(draw_shards(Mixture(1, 0, 0, 32), tmp_path, 0, 1))
    with pytest.raises(SamLiteError, match="scenes-000001.npz"):
        Shards(tmp_path)


# ---- 几个进程画 ----------------------------------------------------------------


def test_workers_draw_what_one_process_draws():
    """自己画、别的进程画、两个训练进程分着算，同一步同一张都逐位相同。"""
    made = examples()
    alone, helped = (batches(made, 3, range(3), 5, n) for n in (0, 1))
    part = batches(made, 3, range(1, 3, 2), 5, 0)
    for step in (5, 6):
        whole = next(alone)
        assert equal(whole, next(helped))
        assert equal(whole, collate([made[3 * step + i] for i in range(3)]))
        images, targets = next(part)
        assert torch.equal(images, whole[0][1:2])
        assert torch.equal(targets.points, whole[1].points[4:8])
    assert not torch.equal(made[0][0], made[1][0])


DYING = """
import os, signal, sys
from sam_lite.learn import data

class Dying(data.Mixture):
    def __getitem__(self, number):
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)

if __name__ == "__main__":
    with data.patient_workers():
        for count in data.draw_shards(Dying(1, 0, 0, 64), sys.argv[1], 1, 2):
            print(count, flush=True)
"""


def test_a_dead_worker_is_told_at_once(tmp_path):
    """系统内存不够会杀掉画场景的进程：马上说，不干等；画好的都完好。"""
    (tmp_path / "draw.py").write_text(DYING, encoding="utf-8")
    command = [sys.executable, tmp_path / "draw.py", tmp_path]
    options = {"capture_output": True, "encoding": "utf-8", "timeout": 100}
    done = subprocess.run(command, **options)
    assert done.returncode == 1 and "画场景的进程意外死了" in done.stderr
    assert len(Shards(tmp_path)) == 4


class Broken:
    def __getitem__(self, number):
        raise SamLiteError("磁盘满了。")


def test_an_error_in_a_worker_is_one_sentence():
    with pytest.raises(SamLiteError) as caught, data.patient_workers():
        next(batches(examples(Broken()), 1, range(1), 0, 1))
    assert str(caught.value) == "磁盘满了。"


# ---- 场景变成题目 --------------------------------------------------------------


def test_targets_are_masks_of_the_scene(monkeypatch):
    """不增强、不填充时，答案是某个物体（连同部件）的平均池化，点在里面。"""
    monkeypatch.setattr(data, "augment", lambda image, labels, zoom, g: (image, labels))
    monkeypatch.setattr(data, "photo_size", lambda S, g: (S, S))
    seen_parts = False
    for number in range(4):
        scene = make_scene(number, 64)
        image, targets = examples()[number]
        assert np.array_equal(image[0].byte().permute(1, 2, 0).numpy(), scene.image)
        masks = scene.masks()
        pooled = F.avg_pool2d(torch.from_numpy(masks)[:, None].float(), 2)
        for b in range(CONFIG.prompts):
            error = (pooled - targets.masks[b]).abs().amax((1, 2, 3))
            k = int(error.argmin())
            assert error[k] < 1e-6
            x, y = targets.points[b, 0].int().tolist()
            assert masks[k][y, x]
            seen_parts |= (scene.parents == k + 1).any()
    assert seen_parts


def test_padding_is_the_mean_and_holds_no_object(monkeypatch):
    """填充规范化之后正好是 0；答案、点都不在里面。"""
    monkeypatch.setattr(data, "photo_size", lambda S, g: (S // 2, S))
    sam = sam_from_config(SMALL)
    image, targets = SceneExamples(Plain(), sam, CONFIG)[0]
    assert not sam.preprocess(image)[:, :, 32:].any()
    assert not targets.masks[:, :, 16:].any() and targets.points[..., 1].max() < 32
    assert targets.inside[0, 0].sum() == 16 * 32


def test_big_objects_are_chosen_more_often_and_tiny_ones_never():
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, :2, :2] = masks[1, :8, :8] = masks[2, :32, :32] = True
    config = TrainConfig(prompts=4000, min_area=20, area_power=0.5)
    g = torch.Generator().manual_seed(0)
    area = data.choose_objects(masks, config, g).flatten(1).sum(1)
    share = (area == 1024).float().mean().item()
    assert set(area.tolist()) == {64, 1024} and share == pytest.approx(0.8, abs=0.03)
    empty = data.choose_objects(masks[:1], config, g)
    assert empty.shape == (4000, 64, 64) and not empty.any()


def test_a_scene_without_objects_is_no_error():
    """裁剪之后一个够大的也不剩：照样有题，valid 是 0。"""

    class Empty:
        def __getitem__(self, number):
            blank = np.zeros((64, 64), np.uint8)
            return Scene(np.zeros((64, 64, 3), np.uint8), blank, np.zeros(1, np.uint8))

    _, targets = examples(Empty())[0]
    assert not targets.valid.any() and targets.points.shape == (4, 1, 2)


def test_resize_keeps_image_and_labels_together():
    """64 缩到 48：标签还是原来那些，位置对得上；图像抗锯齿，细线淡成灰，不会漏掉。"""
    labels = torch.zeros(64, 64)
    labels[16:48, 8:40] = 7
    image = (labels * 20).expand(3, 64, 64)
    small, small_labels = data.resize(image, labels, 48)
    assert small.shape == (3, 48, 48) and set(small_labels.unique().tolist()) == {0, 7}
    assert (small_labels[12:36, 6:30] == 7).all()
    assert (small_labels == 7).sum() == 24 * 24
    assert ((small[0] > 70) == (small_labels == 7)).all()
    stripes = torch.zeros(3, 64, 64)
    stripes[..., ::4] = 100.0
    grey, _ = data.resize(stripes, labels, 16)
    assert grey.min() > 15 and grey.max() < 35
    same = data.resize(image, labels, 64)
    assert torch.equal(same[0], image) and torch.equal(same[1], labels)


def test_augment_keeps_image_and_labels_together():
    """图像就是标签画出来的时候，增强之后两者仍然对得上；每次都不同。"""
    labels = torch.zeros(64, 64)
    labels[10:40, 5:30] = 1
    image = (labels * 200.0).expand(3, 64, 64)
    moved = []
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        picture, label = data.augment(image, labels, 0.55, g)
        assert label.mean() > 0.02 and set(label.unique().tolist()) == {0, 1}
        inside, outside = picture.mean(0)[label == 1], picture.mean(0)[label == 0]
        assert inside.median() > outside.median() + 80
        moved.append(label)
    assert len({label.sum().item() for label in moved}) > 3


def test_photo_sizes_look_like_photos():
    """有正方形，有横有竖，短边不小于一半；长边总是满的。"""
    g = torch.Generator().manual_seed(0)
    sizes = torch.tensor([data.photo_size(64, g) for _ in range(400)])
    assert (sizes.max(dim=1).values == 64).all() and sizes.min() >= 32
    assert 0.2 < (sizes == 64).all(dim=1).float().mean() < 0.4
    assert (sizes[:, 0] < 64).sum() > (sizes[:, 1] < 64).sum() > 20
