"""第 15 章：笔记本里的损失、取样与 sam_lite 一致，练习的检查说得出错在哪里。

长的训练不在这里重跑，只剪出函数来用。
"""

import pytest
import torch
import torch.nn.functional as F

from chapters.common import assert_verdicts, course
from sam_lite import training

STEM = "15_training"


def noisy(
    sides: str = "(x1 - x0, y1 - y0) * 2",
    ends: str = "(size[1] - 1, size[0] - 1) * 2",
    shift: str = "max(-20, min(20, 0.1 * side * draw))",
    moved: str = "max(0, min(end, value + shift))",
) -> str:
    return (
        "def noisy_box(box, noise, size):\n    x0, y0, x1, y1 = box\n"
        f"    sides, ends, moved = {sides}, {ends}, []\n"
        "    for value, side, draw, end in zip(box, sides, noise, ends):\n"
        f"        shift = {shift}\n        moved.append({moved})\n"
        "    return moved\n"
    )


def loss(body: str) -> str:
    return (
        f"def ambiguous_loss(losses):\n    three = losses[:, 1:]\n    return {body}\n"
    )


def combined(body: str) -> str:
    return (
        "def combine(gradients, counts):\n"
        "    total = sum(n * g for n, g in zip(counts, gradients))\n"
        f"    return {body}\n"
    )


LEAST, MEAN = "three.min(dim=1).values", "three.mean(dim=1)"

WRONG = {
    "ex-15-1": [
        ("three_dice = (81 / 1041, 1 / 41, 61 / 81)", "损失是 1 减它"),
        ("three_dice = (1 - 80 / 1040, 1.0, 1 - 60 / 80)", "忘了各加 1"),
        ("three_dice = (1 - 41 / 1041, 1 - 1 / 41, 1 - 31 / 81)", "交没有乘 2"),
        ("three_dice = (1 - 41 / 1001, 1 - 1 / 41, 1 - 31 / 51)", "那是 IoU"),
        ("three_dice = (1 - 1921 / 1961, 0.98, 0.25)", "背景"),
        ("three_dice = (0.5, 0.5, 0.5)", "各几个像素"),
        ("three_dice = 0.92", "三个数"),
    ],
    "ex-15-2": [
        (noisy(shift="max(-20, min(20, side * draw))"), "不是整个边长"),
        (noisy(shift="0.1 * side * draw"), "最多 20 像素"),
        (noisy(sides="(y1 - y0, x1 - x0) * 2"), "宽和高弄反"),
        (noisy(sides="(x1 - x0,) * 4"), "y 要用高"),
        (noisy(moved="value + shift"), "框出了图"),
        (noisy(moved="min(end, value + shift)"), "夹到 0"),
        (noisy(ends="(size[0] - 1, size[1] - 1) * 2"), "上限由宽定"),
        (noisy(ends="(size[1], size[0]) * 2"), "宽减 1"),
        (noisy(moved="max(0, min(end, value - shift))"), "应是"),
        (noisy().replace("return moved", "return moved[:2]"), "四个数"),
    ],
    "ex-15-3": [
        (loss("losses.min() + 0.5 * losses.mean()"), "形状"),
        (loss(f"three.min() + 0.05 * {MEAN}"), "各取各的"),
        (loss(f"{LEAST} + 0.05 * three.mean()"), "平均也要各组各的"),
        (
            loss("losses.min(dim=1).values + 0.05 * losses.mean(dim=1)"),
            "第 0 张也算进去",
        ),
        (loss(f"losses.min(dim=1).values + 0.05 * {MEAN}"), "混进了第 0 张"),
        (loss(f"{LEAST} + 0.05 * losses.mean(dim=1)"), "平均里混进"),
        (loss(f"{LEAST} + 0.5 * {MEAN}"), "不是一半"),
        (loss(LEAST), "漏了平均"),
        (loss(f"{LEAST} + 0.05 * three.sum(dim=1)"), "不是总和"),
        (loss(f"three.max(dim=1).values + 0.05 * {MEAN}"), "最小的"),
    ],
    "ex-15-4": [
        ("bill = (216, 86400, 300)", "除不尽"),
        ("bill = (225, 86400, 300)", "12 遍合起来"),
        ("bill = (1800, 86400, 300)", "同时算一步"),
        ("bill = (456, 86400, 300)", "不是 8 张"),
        ("bill = (19, 86400, 300)", "乘 12 遍"),
        ("bill = (300, 86400, 300)", "步数不对"),
        ("bill = (228, 28800, 300)", "问 3 轮"),
        ("bill = (228, 7200, 300)", "每遍都要重新问"),
        ("bill = (228, 216000, 300)", "不是全部 20 个"),
        ("bill = (228, 691200, 300)", "不乘 8"),
        ("bill = (228, 87552, 300)", "按照片数"),
        ("bill = (228, 1, 300)", "组数不对"),
        ("bill = (228, 86400, 3600)", "只有第一遍"),
        ("bill = (228, 86400, 2400)", "一块显卡编码"),
        ("bill = (228, 86400, 0)", "每张照片一次"),
        ("bill = 228", "三个整数"),
    ],
    "ex-15-5": [
        (combined("sum(gradients) / len(gradients)"), "一样重"),
        (combined("total"), "没有除以总张数"),
        (combined("total / len(counts)"), "不是进程数"),
        (combined("sum(gradients) / sum(counts)"), "没有乘张数"),
        (combined("sum(gradients)"), "也没有除"),
        (combined("-total / sum(counts)"), "不对"),
        (combined("torch.stack(gradients)"), "形状"),
        (combined("0.0"), "张量"),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)


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
