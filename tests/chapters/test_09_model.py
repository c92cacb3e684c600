"""第 9 章：只用读者的部件装出的模型与 sam_lite 一致，练习的检查说得出错在哪里。"""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.small import SMALL, randomize

import sam_lite
from chapters.common import assert_verdicts, course
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


PLACES, TABLE = (128**2 - 64**2) * 768, 2 * 64 * 64


def masks(*lines: str, out: str = "x > 0") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    head = "def to_masks(low_res, side, input_size, original_size):\n"
    return f"{head}{body}    return {out}\n"


def grow(size: str, x: str = "x", align: bool = False) -> str:
    return f'x = F.interpolate({x}, {size}, mode="bilinear", align_corners={align})'


UP, CUT, END = (
    grow("(side, side)", "low_res"),
    "x = x[..., : input_size[0], : input_size[1]]",
    grow("original_size"),
)
UP_ALIGNED = grow("(side, side)", "low_res", align=True)
END_ALIGNED = grow("original_size", align=True)
SOFT, HARD = "x = low_res.sigmoid()", "x = (low_res > 0).float()"
WIDE = grow("(1024, 1024)")
WHOLE = "x = x[..., : original_size[0], : original_size[1]]"
EARLY = "x = low_res[..., : input_size[0] // 4, : input_size[1] // 4]"
CEIL = "x = low_res[..., : -(-input_size[0] // 4), : -(-input_size[1] // 4)]"


KEYS = (
    "编码器的头数写成 6",
    "解码器的头数写成 4",
    "窗口写成 7",
    "全局层写成 (3, 5, 8, 11)",
    "提示编码器的 input_image_size 写成 (512, 512)",
    "pixel_std 写成 (1, 1, 1)",
)
RIGHT = (True, False, True, True, False, False)


def flipped(i: int) -> str:
    values = [not v if j == i else v for j, v in enumerate(RIGHT)]
    return f"caught = {dict(zip(KEYS, values, strict=True))}"


def best(*lines: str, image: str = "", out: str = "chosen") -> str:
    body = "".join(f"        {line}\n" for line in lines)
    return f"""
def best_masks(sam, photos, boxes):
    side = sam.image_encoder.img_size
    records = [to_record(p, b, side) for p, b in zip(photos, boxes)]
    chosen = []
    {image}
    for one in sam(records, multimask_output=True):
        masks, iou = one["masks"], one["iou_predictions"]
        rows = torch.arange(len(iou))
{body}
    return {out}
"""


PICK = "chosen.append(masks[rows, iou.argmax(1)])"


def spoiled(change: str) -> str:
    """改坏第一个字典再问。"""
    return best(PICK, image=f"r, p, b = records[0], photos[0], boxes[0]; {change}")


WRONG = {
    "ex-09-1": [
        (f"extra = ({PLACES}, 0, 0)", "忘了全局层的相对位置表"),
        (f"extra = ({8 * TABLE}, 0, 0)", "忘了绝对位置"),
        (f"extra = ({PLACES + 4 * TABLE}, 0, 0)", "两张相对位置表"),
        (f"extra = ({PLACES + 24 * TABLE}, 0, 0)", "只有 4 个全局层"),
        (f"extra = ({PLACES + 96 * TABLE}, 0, 0)", "一个头那么宽"),
        (f"extra = ({128**2 * 768 + 8 * 255 * 64}, 0, 0)", "多出几个，不是一共"),
        (f"extra = ({64 * 768 + 8 * TABLE}, 0, 0)", "边长的平方"),
        ("extra = (1, 0, 0)", "逐样列出"),
        (f"extra = ({PLACES + 8 * TABLE}, 256, 0)", "提示编码器的数不对"),
        (f"extra = ({PLACES + 8 * TABLE}, 0, 9)", "掩码解码器的数不对"),
        ("extra = 9_502_720", "三个整数"),
    ],
    "ex-09-2": [
        (masks(SOFT, WIDE, WHOLE, END, out="x > 0.5"), "还剩：1024"),
        (masks(SOFT, WIDE, WHOLE, END, out="x > 0.5"), "original_size，"),
        (masks(SOFT, WIDE, WHOLE, END, out="x > 0.5"), "sigmoid 还在"),
        (masks(SOFT, grow("(side, side)"), CUT, END, out="x > 0.5"), "还剩：sigmoid"),
        (masks(grow("(1024, 1024)", "low_res"), CUT, END), "要用 side。"),
        (masks(UP, WHOLE, END), "还剩：裁成了"),
        (masks(UP, END), "没有裁掉填充"),
        (masks(grow("original_size", "low_res")), "没有裁掉填充"),
        (masks(EARLY, grow("(side, side)"), END), "裁得太早"),
        (masks(EARLY, END), "裁得太早"),
        (masks(CEIL, END), "裁得太早"),
        (masks("x = low_res", CUT, END), "没有裁掉填充"),
        (masks(UP_ALIGNED, CUT, END_ALIGNED), "align_corners"),
        (masks(HARD, grow("(side, side)"), CUT, END, out="x > 0.5"), "取阈值在放大"),
        (masks(UP, CUT, END, out="x"), "布尔"),
        (masks(UP, CUT), "形状"),
        (masks(UP, CUT, END, out="x > 0.5"), "次序"),
        (masks(UP, CUT, END, out="(x > 0)[0]"), "形状"),
    ],
    "ex-09-3": [
        (flipped(0), "每行一个头那么宽"),
        (flipped(1), "没有相对位置表"),
        (flipped(2), "有几行"),
        (flipped(3), "第 2 层和第 3 层"),
        (flipped(4), "坐标的除数"),
        (flipped(5), "state_dict"),
        ("caught = {}", "六个键"),
        (f"caught = {dict.fromkeys(KEYS, 1)}", "True 或 False"),
    ],
    "ex-09-4": [
        (best("chosen.append(masks)"), "三张都留下"),
        (best("chosen.append(masks[:, iou.argmax(1)])"), "一对下标"),
        (best("chosen.append(masks[:, :1])"), "多出一维"),
        (best("chosen.append(masks[:, 0])"), "总是第 0 张"),
        (best("chosen.append(masks[rows, iou.argmin(1)])"), "最低"),
        (best("chosen.append(masks[:, iou.mean(0).argmax()])"), "同一个序号"),
        (best("chosen.append(masks[:, iou[0].argmax()])"), "第一个框的序号"),
        (best("chosen.append(masks[0, iou[0].argmax()])"), "只剩一张"),
        (best(PICK.replace("])", "].float())")), "布尔"),
        (best("chosen.append(masks[rows, iou.argmax(1).flip(0)])"), "第 1 维"),
        (best(PICK, out="chosen[0]"), "列表"),
        (best(PICK).replace("True", "False"), "multimask_output"),
        (best(PICK, image="sam(records[:1], True)"), "不止一次"),
        (best(PICK, image="records = records[:1]"), "每张照片一个字典"),
        (spoiled("r['original_size'] = r['original_size'][::-1]"), "先高后宽"),
        (spoiled("r['image'] = r['image'].permute(1, 2, 0)"), "image 的形状"),
        (spoiled("r['image'] = r['image'] / 255"), "不要自己规范化"),
        (spoiled("r['boxes'] = torch.tensor(b)"), "随图缩放"),
        (spoiled("r['boxes'] = r['boxes'] + 1"), "框不对"),
        ("def best_masks(sam, photos, boxes):\n    return [1, 2]\n", "没有调用 sam"),
    ],
}


def test_checks_name_the_likely_mistake() -> None:
    assert_verdicts(STEM, WRONG)
