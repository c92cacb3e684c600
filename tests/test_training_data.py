"""training_data：取样、增强、提示，都与场景的真值对账。"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.small import SMALL

from sam_lite.config import TrainConfig
from sam_lite.learn import data as training_data
from sam_lite.model import sam_from_config
from sam_lite.scenes import Scene, make_scene
from sam_lite.scenes.bank import MAX_LABELS, SceneBank


def scene_batch(seeds=(0, 1)) -> tuple[training_data.Batch, list[Scene]]:
    """不经增强的一批，好与场景的真值对账。"""
    scenes = [make_scene(seed, 64) for seed in seeds]
    labels = torch.stack([torch.from_numpy(s.labels).long() for s in scenes])
    parents = torch.zeros(len(scenes), MAX_LABELS, dtype=torch.uint8)
    for row, scene in zip(parents, scenes, strict=True):
        row[: len(scene.parents)] = torch.from_numpy(scene.parents)
    images = torch.zeros(len(scenes), 3, 64, 64)
    sizes = torch.full((len(scenes), 2), 64.0)
    member = training_data.membership(parents)
    return training_data.Batch(images, labels, member, sizes), scenes


def test_membership_equals_scene_masks():
    """归属表乘标号图，就是场景自己给出的掩码（部件也算在整体里）。"""
    batch, scenes = scene_batch(range(8))
    assert any(scene.parents.any() for scene in scenes)
    for i, scene in enumerate(scenes):
        for k in range(1, scene.num_objects + 1):
            ours = batch.member[i, k][batch.labels[i]].bool().numpy()
            np.testing.assert_array_equal(ours, scene.mask(k))


@pytest.mark.parametrize("grid", [16, 32, 64])
def test_targets_are_pooled_masks_with_points_inside(grid):
    """目标是某个物体掩码的平均池化；点落在它里面，框贴着它；一格是 4、2、1 个像素。"""
    batch, scenes = scene_batch()
    g = torch.Generator().manual_seed(3)
    config = TrainConfig(prompts=5, min_area=20)
    targets = training_data.choose_targets(batch, grid, config, g)
    assert targets.masks.shape == (10, 1, grid, grid)
    for b in range(10):
        scene = scenes[b // 5]
        whole = torch.from_numpy(scene.masks())[:, None].float()
        pooled = F.avg_pool2d(whole, 64 // grid)
        error = (pooled - targets.masks[b]).abs().amax((1, 2, 3))
        k = int(error.argmin())
        assert error[k] < 1e-6
        mask = scene.mask(k + 1)
        x, y = targets.points[b, 0].int().tolist()
        assert mask[y, x]
        ys, xs = np.nonzero(mask)
        tight = torch.tensor([xs.min(), ys.min(), xs.max(), ys.max()])
        sides = (tight[2:] - tight[:2]).repeat(2)
        assert ((targets.boxes[b] - tight).abs() <= 0.45 * sides + 1e-4).all()


def test_resize_keeps_image_and_labels_together():
    """64 缩到 48：标签还是原来那些，位置对得上；图像抗锯齿，细线淡成灰，不会漏掉。"""
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[:, 16:48, 8:40] = 7
    images = (labels[:, None] * 20.0).expand(2, 3, 64, 64)
    small, small_labels = training_data.resize(images, labels, 48)
    assert small.shape == (2, 3, 48, 48) and set(small_labels.unique().tolist()) == {
        0,
        7,
    }
    assert (small_labels[:, 12:36, 6:30] == 7).all()
    assert (small_labels == 7).sum() == 2 * 24 * 24
    assert ((small[:, 0] > 70) == (small_labels == 7)).all()
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::4] = 100.0
    grey, _ = training_data.resize(stripes, labels[:1], 16)
    assert grey.min() > 15 and grey.max() < 35
    same = training_data.resize(images, labels, 64)
    assert torch.equal(same[0], images) and torch.equal(same[1], labels)


def test_a_picture_does_not_depend_on_who_draws_it(tmp_path):
    """第 1、2 张由别人画，与自己三张一起画，逐位相同；三张各不相同。"""
    bank = SceneBank(tmp_path, 4, 64)
    list(bank.fill(workers=1))
    sam = sam_from_config(replace(SMALL, image_size=48))
    config = TrainConfig(batch=3, prompts=2, min_area=20)
    whole = training_data.draw_batch(bank, sam, config, 5, range(3))
    part = training_data.draw_batch(bank, sam, config, 5, [1, 2])
    assert whole[0].images.shape == (3, 3, 48, 48)
    assert whole[1].masks.shape == (6, 1, 24, 24)
    for all_three, two, own in zip(whole, part, (1, 2), strict=True):
        for name, value in vars(all_three).items():
            assert torch.equal(value[own:], vars(two)[name]), name
    other = training_data.draw_batch(bank, sam, config, 6, range(3))[0].images
    pictures = [*whole[0].images, *other]
    for i, picture in enumerate(pictures):
        assert not any(torch.equal(picture, other) for other in pictures[:i])


def test_corrective_points_of_a_batch_use_their_own_numbers():
    """一批里的第二张图，与单独一张时补在同样的地方。"""
    g = torch.Generator().manual_seed(0)
    masks = (torch.rand(4, 1, 8, 8, generator=g) > 0.5).float()
    logits = torch.randn(4, 1, 8, 8, generator=g)
    empty, inside = torch.zeros(4, 1), torch.ones(4, 1, 8, 8, dtype=torch.bool)

    def find(rows, seeds):
        targets = training_data.Targets(masks[rows], *[empty[rows]] * 4, inside[rows])
        own = [torch.Generator().manual_seed(seed) for seed in seeds]
        return training_data.corrective_batch(logits[rows], targets, 4, own)

    both, second = find(slice(0, 4), (1, 2)), find(slice(2, 4), (2,))
    for whole, part in zip(both, second, strict=True):
        assert len(whole) == 4 and torch.equal(whole[2:], part)


def test_rounds_are_one_half_of_the_time():
    g = torch.Generator().manual_seed(0)
    found = torch.tensor([training_data.draw_rounds(3, g) for _ in range(2000)])
    shares = [(found == n).float().mean().item() for n in (1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.04)


def test_tight_boxes_by_hand():
    """第 1–2 行、第 3–5 列有像素：框是 (3, 1, 5, 2)。"""
    rows = torch.tensor([[[0, 1, 1, 0, 0, 0, 0, 0]]])
    columns = torch.tensor([[[0, 0, 0, 1, 1, 1, 0, 0]]])
    box = training_data.tight_boxes(rows.bool(), columns.bool())
    assert box.tolist() == [[[3, 1, 5, 2]]]


def test_corrective_points_land_on_errors():
    """漏掉的地方给正点，多出的地方给负点。"""
    truth = torch.zeros(2, 1, 4, 4)
    truth[:, :, 1, 2] = 1  # 物体是 (x=2, y=1) 这一格
    logits = torch.full((2, 1, 4, 4), -5.0)
    logits[1, 0, 1, 2] = logits[1, 0, 3, 0] = 5.0  # 第二组找对了，还多了一格
    empty = torch.zeros(2, 1)
    inside = torch.ones_like(truth, dtype=torch.bool)
    targets = training_data.Targets(truth, empty, empty, empty, empty, inside)
    g = torch.Generator().manual_seed(0)
    points, labels = training_data.corrective_points(logits, targets, 16, g)
    assert labels.tolist() == [[1.0], [0.0]]
    assert (points[:, 0] // 16).int().tolist() == [[2, 1], [0, 3]]


def test_augment_keeps_image_and_labels_together():
    """图像就是标签画出来的时候，增强之后两者仍然对得上。"""
    labels = torch.zeros(4, 64, 64, dtype=torch.long)
    labels[:, 10:40, 5:30] = 1
    images = (labels[:, None] * 200.0).expand(4, 3, 64, 64)
    g = torch.Generator().manual_seed(1)
    moved, moved_labels = training_data.augment(images, labels, 0.55, g)
    assert moved_labels.float().mean() > 0.02
    for image, label in zip(moved, moved_labels, strict=True):
        inside, outside = image.mean(0)[label == 1], image.mean(0)[label == 0]
        assert inside.median() > outside.median() + 80


def test_padded_sizes_look_like_photos():
    """有正方形，有横有竖，短边不小于一半；长边总是满的。"""
    g = torch.Generator().manual_seed(0)
    sizes = training_data.padded_sizes(400, 64, g)
    assert (sizes.max(dim=1).values == 64).all() and sizes.min() >= 32
    assert 0.2 < (sizes == 64).all(dim=1).float().mean() < 0.4
    assert (sizes[:, 0] < 64).sum() > (sizes[:, 1] < 64).sum() > 20
    inside = training_data.inside_mask(torch.tensor([[2.0, 3.0]]), 4)
    assert inside[0].int().sum(dim=1).tolist() == [3, 3, 0, 0]


def test_prompts_stay_inside_the_photo():
    """右边一半是填充：框不伸进去，纠正的点也不落进去。"""
    g = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.0, 0.0, 31.0, 63.0]]).repeat(50, 1)
    moved = training_data.jitter_boxes(boxes, torch.tensor([[64.0, 32.0]] * 50), g)
    assert moved.min() >= 0 and moved[:, 2].max() <= 31 and moved[:, 3].max() <= 63
    truth = torch.zeros(50, 1, 4, 4)
    truth[:, :, 0, 0] = 1
    inside = training_data.inside_mask(torch.tensor([[4.0, 2.0]] * 50), 4)[:, None]
    empty = torch.zeros(50, 1)
    targets = training_data.Targets(truth, empty, empty, empty, empty, inside)
    everywhere = torch.full((50, 1, 4, 4), 5.0)
    points, labels = training_data.corrective_points(everywhere, targets, 16, g)
    assert points[..., 0].max() < 32 and (labels == 0).all()
