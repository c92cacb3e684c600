"""第 15 章：笔记本里的损失、取样与 sam_lite 一致。

长的训练不在这里重跑，只剪出函数来用。
"""

import pytest
import torch
import torch.nn.functional as F

from chapters.common import course
from sam_lite import training

STEM = "15_training"


@pytest.mark.parametrize("balanced", [0.0, 0.4, 1.0])
def test_losses_agree_with_package(balanced: float) -> None:
    mine = course.from_chapter(STEM, "my_losses")
    torch.manual_seed(0)
    logits = 3 * torch.randn(6, 4, 7, 9)
    target = (torch.rand(6, 1, 7, 9) < torch.rand(6, 1, 1, 1)).float()
    target[0], target[1] = 0, 1  # 空的和满的，份额夹在 0.002 和 0.998
    expected = training.mask_losses(logits, target, balanced)
    torch.testing.assert_close(mine(logits, target, balanced), expected)


@pytest.mark.parametrize("multimask", [True, False])
def test_round_loss_agrees_with_package(multimask: bool) -> None:
    mine = course.from_chapter(STEM, "my_round_loss")
    torch.manual_seed(1)
    losses, iou, truth = torch.rand(3, 7, 4)
    unambiguous = (torch.rand(7) < 0.5).float()
    expected = training.round_loss(losses, iou, truth, unambiguous, multimask)
    got = mine(losses, iou, truth, unambiguous, multimask)
    torch.testing.assert_close(got, expected)


def test_clicks_fall_in_the_mask_and_everywhere_in_it() -> None:
    click = course.from_chapter(STEM, "random_click")
    mask = torch.zeros(5, 9, dtype=torch.bool)
    mask[1, 2:8], mask[3, 0] = True, True
    points = click(mask.expand(400, -1, -1), torch.Generator().manual_seed(0))
    wanted = {(x, y) for y, x in mask.nonzero().tolist()}
    assert {tuple(point) for point in points.tolist()} == wanted


def test_correction_agrees_with_package() -> None:
    """只错一格、没有错（物体只有一格）：抽不出别的，必须相同。"""
    correction = course.from_chapter(STEM, "correction")
    truth = torch.zeros(3, 1, 6, 6)
    truth[:2, :, 1:3, 2:5], truth[2, :, 4, 1] = 1, 1
    logits = 20 * truth - 10
    logits[0, 0, 2, 3], logits[1, 0, 5, 0] = -10, 10
    inside = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    g = torch.Generator().manual_seed(0)
    luck = torch.rand(3, 3, generator=g)
    points, labels = training.corrective_points(logits, truth, inside, 1, luck)
    mine = correction(logits[:, 0] > 0, truth[:, 0] > 0, g)
    assert mine[0].tolist() == points[:, 0].tolist() == [[3, 2], [0, 5], [1, 4]]
    assert mine[1].tolist() == labels[:, 0].tolist() == [1, 0, 1]


def test_every_picture_has_a_shape_big_enough() -> None:
    """choose 要有得挑：两个形状里总有一个至少 60 像素，不重叠，颜色分得开。"""
    draw = course.from_chapter(STEM, "draw_shapes")
    images, masks = draw(300, torch.Generator().manual_seed(0))
    assert images.shape == (300, 3, 64, 64) and masks.shape == (300, 2, 64, 64)
    assert images.min() >= 0 and images.max() <= 255
    assert not (masks[:, 0] & masks[:, 1]).any()
    assert (masks.sum((2, 3)) >= 60).any(1).all()
    alone = ~masks[:, 1].any((1, 2))
    assert 0.1 < alone.float().mean() < 0.3  # 两成只有一个形状
    front = masks[~alone][:, 1:].float()
    colors = (images[~alone] * front).sum((2, 3)) / front.sum((2, 3))
    nothing = (~masks[~alone].any(1))[:, None].float()
    ground = (images[~alone] * nothing).sum((2, 3)) / nothing.sum((2, 3))
    assert ((colors - ground).abs().amax(1) > 60).all()


def test_choose_takes_the_big_ones_only() -> None:
    choose = course.from_chapter(STEM, "choose")
    masks = torch.zeros(20, 3, 64, 64, dtype=torch.bool)
    masks[:, 0, :3, :3] = True  # 9 像素，不够
    masks[:, 1, 10:20, 10:20] = masks[:, 2, 30:50, 30:50] = True
    areas = choose(masks, torch.Generator().manual_seed(0)).sum((1, 2))
    assert set(areas.tolist()) == {100, 400}


def test_a_few_steps_lower_the_loss_and_touch_every_part() -> None:
    """走几步：损失下降，编码器、提示编码器、解码器都动了。"""
    names = ("draw_shapes", "choose", "random_click", "click_loss", "new_sam", "learn")
    draw, choose, click, loss_of, new_sam, learn = (
        course.from_chapter(STEM, name) for name in names
    )
    sam = new_sam(1)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    g = torch.Generator().manual_seed(5)
    images, masks = draw(12, g)
    target = choose(masks, g)
    points = click(target, g)
    with torch.no_grad():
        first = loss_of(sam, images, target, points, 0.5)
    assert list(learn(sam, draw, 6, 1e-3, 3)) == [1, 2, 3, 4, 5, 6]
    with torch.no_grad():
        assert loss_of(sam, images, target, points, 0.5) < first
    parts = {
        name.split(".")[0]
        for name, value in sam.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert parts == {"image_encoder", "prompt_encoder", "mask_decoder"}


def test_judge_measures_the_first_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """假的 ask：第 0 张恰好是答案，别的全空；IoU 只差边上的插值。"""
    judge = course.from_chapter(STEM, "judge")
    target = torch.zeros(2, 64, 64, dtype=torch.bool)
    target[0, 10:30, 20:50] = target[1, 40:60, 4:24] = True
    small = F.avg_pool2d(target[:, None].float(), 2)
    logits = torch.cat([40 * small - 20, torch.full((2, 3, 32, 32), -9.0)], dim=1)
    world = judge.__wrapped__.__globals__  # 外面一层是 no_grad
    monkeypatch.setitem(world, "ask", lambda *given: (logits, None))
    score, large = judge(None, (torch.zeros(2, 3, 64, 64), target, torch.zeros(2, 2)))
    assert score > 0.95 and large.shape == target.shape
    monkeypatch.setitem(world, "ask", lambda *given: (-logits, None))
    assert judge(None, (torch.zeros(2, 3, 64, 64), target, None))[0] < 0.05


def test_ddp_script_compiles_and_uses_one_total_batch() -> None:
    """脚本是一段字符串，别的工具看不到：至少能编译，每一步轮流分。"""
    script = course.from_chapter(STEM, "SCRIPT")
    compile(script, "ddp.py", "exec")
    assert "slice(rank, None, world)" in script
