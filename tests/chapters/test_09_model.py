"""第 9 章：只用读者的部件装出的模型与 sam_lite 一致。"""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.small import SMALL, randomize

import sam_lite
from chapters.common import course
from sam_lite.config import PRESETS
from sam_lite.model import Sam, sam_from_config

STEM = "09_model"
PHOTOS = {
    "coffee": np.s_[:, :],  # 400×600，横的
    "rocket": np.s_[:, 200:440],  # 427×240，裁成竖的
}


@cache
def part(name: str):
    return course.from_chapter(STEM, name)


def assemble(theirs: Sam, config) -> torch.nn.Module:
    """笔记本的模型，装进 sam_lite 那一个的权重；键和次序都要相同。"""
    mine = part("sam_from_config")(config)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return mine.eval()


@pytest.fixture(scope="module")
def shipped() -> tuple[torch.nn.Module, Sam]:
    """装着随包权重的两个模型：读者的，sam_lite 的。"""
    theirs = sam_lite.load("tiny")
    return assemble(theirs, PRESETS[theirs.name]), theirs


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    return ((a - b).abs().max() / b.abs().max()).item()


def assert_same(mine: dict, theirs: dict, logits: torch.Tensor) -> None:
    """分数差在十万分之一以内；掩码相同，除非 logit 就在 0 边上。"""
    assert set(mine) == set(theirs)
    assert gap(mine["low_res_logits"], theirs["low_res_logits"]) <= 1e-5
    assert gap(mine["iou_predictions"], theirs["iou_predictions"]) <= 1e-5
    assert mine["masks"].shape == theirs["masks"].shape
    assert mine["masks"].dtype == torch.bool
    differ = mine["masks"] != theirs["masks"]
    assert (logits[differ].abs() <= 1e-5 * logits.abs().max()).all()
    assert differ.float().mean() <= 1e-5  # 恰好在 0 边上的，十万分之一以内


def every_prompt(image: torch.Tensor, mask_size: tuple[int, int]) -> dict[str, dict]:
    """所有种类的提示，坐标在缩放后的图上。"""
    height, width = image.shape[-2:]
    extent = torch.tensor([width, height])
    points = torch.tensor([[[0.5, 0.3], [0.2, 0.8], [0.6, 0.6]]]) * extent
    boxes = torch.tensor([[0.3, 0.2, 0.8, 0.7], [0.1, 0.5, 0.4, 0.9]])
    boxes = boxes * extent.repeat(2)
    logits = torch.linspace(-8, 8, mask_size[1]).expand(1, 1, *mask_size)
    one = {"point_coords": points[:, :1], "point_labels": torch.ones(1, 1)}
    many = {"point_coords": points, "point_labels": torch.tensor([[1, 0, -1]])}
    mask = {"mask_inputs": logits}
    return {
        "一个点": one,
        "负点": one | {"point_labels": torch.zeros(1, 1)},
        "三个点": many,
        "两组点": {key: value.repeat(2, 1, 1)[:, :, :2] for key, value in many.items()}
        | {"point_labels": torch.tensor([[1, 1, 0], [0, 1, 1]])},
        "两个框": {"boxes": boxes},
        "框和点": many | {"boxes": boxes[:1]},
        "点和掩码": one | mask,
        "框和掩码": {"boxes": boxes} | mask,
        "只有掩码": mask,
        "没有提示": {},
    }


def test_everything_comes_from_the_chapters(shipped) -> None:
    """没有一个部件是 sam_lite 的：不是 torch.nn 的，就是前面某一章的。"""
    mine, _ = shipped
    homes = {type(module).__module__ for module in mine.modules()}
    homes = {home for home in homes if not home.startswith("torch.")}
    chapters = ("02", "03", "05", "06", "07", "08", "09")
    assert {home[:2] for home in homes} == set(chapters), homes


@pytest.mark.parametrize("name", PHOTOS)
def test_same_masks_as_the_package(shipped, name: str) -> None:
    """两张照片、每一种提示：嵌入、logits、IoU、掩码都与 sam_lite 相同。"""
    mine, theirs = shipped
    photo = course.photo(name)[PHOTOS[name]]
    resize = course.from_chapter("01_preprocess", "ResizeLongestSide")
    small = resize(theirs.image_encoder.img_size).apply_image(photo)
    image = torch.from_numpy(small).permute(2, 0, 1).float()
    sizes = image.shape[-2:], photo.shape[:2]
    record = {"image": image, "original_size": photo.shape[:2]}
    with torch.no_grad():
        square = theirs.preprocess(image)
        torch.testing.assert_close(mine.preprocess(image), square, atol=0, rtol=0)
        ours = mine.image_encoder(square[None])
        embedding = theirs.image_encoder(square[None])
        assert gap(ours, embedding) <= 1e-5
        # 编码一次，随后每种提示都走 forward：编码器换成记住的那一份
        for model, kept in ((mine, ours), (theirs, embedding)):
            model.image_encoder.forward = lambda x, kept=kept: kept
        prompts = every_prompt(image, theirs.prompt_encoder.mask_input_size)
        try:
            for prompt in prompts.values():
                for multimask in (True, False):
                    (a,) = mine([record | prompt], multimask)
                    (b,) = theirs([record | prompt], multimask)
                    logits = theirs.postprocess_masks(b["low_res_logits"], *sizes)
                    assert_same(a, b, logits)
        finally:
            for model in (mine, theirs):
                del model.image_encoder.forward


def test_batch_of_different_sizes(shipped) -> None:
    """几张大小不同的照片一起交进去，编码器也真的走一遍。"""
    mine, theirs = shipped
    side = theirs.image_encoder.img_size
    resize = course.from_chapter("01_preprocess", "ResizeLongestSide")(side)
    records = []
    for name in PHOTOS:
        photo = course.photo(name)[PHOTOS[name]]
        image = torch.from_numpy(resize.apply_image(photo)).permute(2, 0, 1).float()
        box = torch.tensor([[0.2, 0.2, 0.7, 0.8]]) * side * 0.5
        records.append({"image": image, "original_size": photo.shape[:2], "boxes": box})
    with torch.no_grad():
        for record, a, b in zip(records, mine(records, True), theirs(records, True)):
            sizes = record["image"].shape[-2:], record["original_size"]
            logits = theirs.postprocess_masks(b["low_res_logits"], *sizes)
            assert_same(a, b, logits)


@pytest.mark.parametrize("multimask", [True, False])
def test_random_weights(multimask: bool) -> None:
    """每个参数都是非零随机数的小模型：没有训练出来的巧合替错误打掩护。"""
    theirs = randomize(sam_from_config(SMALL)).eval()
    mine = assemble(theirs, SMALL)
    noise = torch.Generator().manual_seed(3)
    records = []
    for shape, original in (((48, 64), (96, 131)), ((64, 37), (50, 29))):
        image = 255 * torch.rand(3, *shape, generator=noise)
        records.append({"image": image, "original_size": original})
    for kind in every_prompt(records[0]["image"], (32, 32)):
        batch = [r | every_prompt(r["image"], (32, 32))[kind] for r in records]
        with torch.no_grad():
            pairs = zip(mine(batch, multimask), theirs(batch, multimask), strict=True)
        for a, b in pairs:
            assert gap(a["low_res_logits"], b["low_res_logits"]) < 1e-4, kind
            assert gap(a["iou_predictions"], b["iou_predictions"]) < 1e-4, kind
            assert (a["masks"] != b["masks"]).float().mean() < 1e-3, kind


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset(name: str) -> None:
    """四个型号的键、形状和参数个数都与 sam_lite 相同。"""
    with torch.device("meta"):
        mine = part("sam_from_config")(PRESETS[name])
        theirs = sam_from_config(PRESETS[name])
    expected = {key: t.shape for key, t in theirs.state_dict().items()}
    assert {key: t.shape for key, t in mine.state_dict().items()} == expected
    count = part("count")
    assert count(mine) == sum(p.numel() for p in theirs.parameters())
    assert sum(t.numel() for t in mine.state_dict().values()) == count(mine) + (
        PRESETS[name].prompt_embed_dim
    )


def test_mean_and_std_are_not_in_the_file(shipped) -> None:
    mine, theirs = shipped
    assert not [key for key in mine.state_dict() if "pixel" in key]
    for key in ("pixel_mean", "pixel_std"):
        assert key in dict(mine.named_buffers())
        assert torch.equal(getattr(mine, key), getattr(theirs, key))
    assert mine.mask_threshold == theirs.mask_threshold
    assert mine.image_format == theirs.image_format


@pytest.mark.parametrize(
    "side, input_size, original_size",
    [(64, (43, 64), (100, 150)), (64, (64, 21), (30, 10)), (96, (96, 96), (40, 40))],
)
def test_postprocess(side, input_size, original_size) -> None:
    theirs = Sam(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity())
    theirs.image_encoder.img_size = side
    low = torch.randn(2, 3, side // 4, side // 4)
    mine = part("postprocess")(low, side, input_size, original_size)
    assert torch.equal(mine, theirs.postprocess_masks(low, input_size, original_size))
    shell = part("Sam")(theirs.image_encoder, None, None)
    assert torch.equal(mine, shell.postprocess_masks(low, input_size, original_size))


@pytest.mark.parametrize("n, new", [(6, 25), (7, 3), (2, 9), (1, 4)])
def test_stretch_by_loop(n: int, new: int) -> None:
    row = torch.randn(n)
    fast = F.interpolate(row[None, None], new, mode="linear", align_corners=False)
    torch.testing.assert_close(part("stretch_by_loop")(row, new), fast[0, 0])
