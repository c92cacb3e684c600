"""第 6 章：笔记本里的类与 sam_lite 一致，练习的检查说得出错在哪里。"""

import itertools

import pytest
import torch
from torch import nn

from chapters.common import assert_verdicts, course, load, shake
from sam_lite import prompt_encoder
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config

STEM = "06_prompt_encoder"


def part(name: str):
    return course.from_chapter(STEM, name)


@pytest.mark.parametrize("grid, size", [((4, 6), (32, 48)), ((5, 3), (70, 30))])
def test_position_encoding(grid, size) -> None:
    theirs = prompt_encoder.PositionEmbeddingRandom(7)
    mine = load(part("PositionEmbeddingRandom")(7), theirs)
    torch.testing.assert_close(mine(grid), theirs(grid), atol=1e-4, rtol=0)
    coords = torch.rand(2, 3, 2) * 30
    torch.testing.assert_close(
        mine.forward_with_coords(coords, size),
        theirs.forward_with_coords(coords, size),
        atol=1e-4,
        rtol=0,
    )
    matrix = theirs.positional_encoding_gaussian_matrix
    loop = part("code_by_loop")(0.2, 0.9, matrix)
    expected = theirs._pe_encoding(torch.tensor([0.2, 0.9]))
    torch.testing.assert_close(loop, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [None, 0.0, -2.0, 3.0])
def test_scale(scale) -> None:
    """None、零、负数都当作 1；矩阵是 buffer，不是参数。"""
    layer = part("PositionEmbeddingRandom")(4000, scale)
    std = layer.positional_encoding_gaussian_matrix.std()
    assert float(std) == pytest.approx(scale if scale == 3.0 else 1.0, rel=0.1)
    assert not list(layer.parameters()) and layer.state_dict()


@pytest.mark.parametrize("grid, size", [((4, 6), (32, 48)), ((5, 3), (70, 30))])
@pytest.mark.parametrize("given", list(itertools.product((True, False), repeat=3)))
def test_prompt_encoder(grid, size, given) -> None:
    """点、框、掩码有和没有的八种组合，批量 2。"""
    theirs = shake(prompt_encoder.PromptEncoder(12, grid, size, 8))
    mine = load(part("PromptEncoder")(12, grid, size, 8), theirs)
    points = torch.rand(2, 3, 2) * 30, torch.tensor([[1, 0, -1], [-1, 1, 0]])
    boxes, masks = torch.rand(2, 4) * 30, torch.randn(2, 1, 4 * grid[0], 4 * grid[1])
    prompts = [x if on else None for x, on in zip((points, boxes, masks), given)]
    kept = [points[0].clone(), points[1].clone(), boxes.clone()]
    for a, b in zip(mine(*prompts), theirs(*prompts), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for a, b in zip((*points, boxes), kept, strict=True):
        assert torch.equal(a, b), "传进去的提示被改动了"
    dense_pe = theirs.get_dense_pe()
    torch.testing.assert_close(mine.get_dense_pe(), dense_pe, atol=1e-4, rtol=0)
    assert mine.mask_input_size == theirs.mask_input_size
    assert mine.input_image_size == theirs.input_image_size


def test_activation_is_used() -> None:
    theirs = shake(prompt_encoder.PromptEncoder(8, (2, 3), (16, 24), 8, nn.ReLU))
    mine = load(part("PromptEncoder")(8, (2, 3), (16, 24), 8, nn.ReLU), theirs)
    mask = torch.randn(1, 1, 8, 12)
    expected = theirs(None, None, mask)[1]
    torch.testing.assert_close(
        mine(None, None, mask)[1], expected, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_fits(name: str) -> None:
    """四个型号的权重都装得进 encoder_like 造出的编码器。"""
    theirs = sam_from_config(PRESETS[name]).prompt_encoder if name == "tiny" else None
    if theirs is None:
        with torch.device("meta"):
            shapes = sam_from_config(PRESETS[name]).prompt_encoder
        sizes = shapes.image_embedding_size, shapes.input_image_size
        channels = shapes.mask_downscaling[3].out_channels
        theirs = prompt_encoder.PromptEncoder(shapes.embed_dim, *sizes, channels)
    mine = part("encoder_like")(theirs)
    for key, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[key], value)


DICT = {
    "一组 4 个点": (1, 5, 256),
    "5 个框，一起问": (5, 2, 256),
    "一组 2 个点和 1 个框": (1, 4, 256),
    "三组点，各 1、4、2 个，用 pad_points 补齐": (3, 5, 256),
    "一张掩码和 1 个点": (1, 2, 256),
}


def shapes(**changes) -> str:
    """正确的字典，换掉一项：第几项 = 形状。"""
    names = list(DICT)
    return f"shapes = {DICT | {names[int(k[1:])]: v for k, v in changes.items()}}"


def with_coords(*lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"def mended_with_coords(layer, coords_input, image_size):\n{body}"


CODE = "return layer._pe_encoding({})"
EXTENT = "extent = torch.tensor([image_size[1], image_size[0]])"


def tokens(
    half="0.5",
    blank="code = code * (labels != -1)[..., None]",
    kinds="[encoder.not_a_point_embed, *encoder.point_embeddings]",
    row="labels.long() + 1",
    result="code + table[{}]",
) -> str:
    return (
        "def all_tokens(encoder, coords, labels):\n"
        f"    code = encoder.pe_layer.forward_with_coords(coords + {half}, "
        "encoder.input_image_size)\n"
        f"    {blank}\n"
        f"    table = torch.cat([kind.weight for kind in {kinds}])\n"
        f"    return {result.format(row)}\n"
    )


def prompt(*lines: str, out: str = "x[0]") -> str:
    start = (
        "H, W = mask.shape",
        "s = side / max(H, W)",
        "h, w = round(H * s), round(W * s)",
        "x = torch.tensor(mask, dtype=torch.float)[None, None]",
    )
    body = "".join(f"    {line}\n" for line in (*start, *lines))
    return f"def mask_prompt(mask, side, strength=10.0):\n{body}    return {out}\n"


SHRINK = "x = F.interpolate(x, (h, w), mode='bilinear')"
SIGN = "x = torch.where(x > 0.5, strength, -strength)"
PAD = "x = F.pad(x, (0, side - w, 0, side - h), value=-strength)"

WRONG = {
    "ex-06-1": [
        (shapes(_0=(1, 4, 256)), "补一个填充"),
        (shapes(_1=(1, 10, 256)), "批量"),
        (shapes(_1=(5, 3, 256)), "不补填充"),
        (shapes(_2=(1, 5, 256)), "不补填充"),
        (shapes(_2=(1, 3, 256)), "两个词元"),
        (shapes(_3=(3, 4, 256)), "补一个填充"),
        (shapes(_4=(1, 3, 256)), "不产生词元"),
        (shapes(_0=(1, 5, 64)), "每个词元 256"),
        (shapes(_0=5), "三个整数"),
    ],
    "ex-06-2": [
        ("likeness_at_16 = (0.926, 0.981)", "次序反了"),
        ("likeness_at_16 = (0.9952, 0.9809)", "整条边长是 2"),
        ("likeness_at_16 = (0.5397, 0.2912)", "忘了平方"),
        ("likeness_at_16 = (0.9622, 0.8572)", "不是 (2π)²"),
        ("likeness_at_16 = (0.998, 0.9922)", "漏了 π²"),
        ("likeness_at_16 = (0.981, 0.981)", "不会相同"),
        ("likeness_at_16 = (0.981, 0.9)", "边长 512"),
        ("likeness_at_16 = 0.981", "两个数"),
    ],
    "ex-06-3": [
        (
            with_coords(
                "c = coords_input",
                "c[..., 0] /= image_size[0]",
                "c[..., 1] /= image_size[1]",
                CODE.format("c"),
            ),
            "次序反了",
        ),
        (
            with_coords(
                "c = coords_input",
                "c[..., 0] /= image_size[1]",
                "c[..., 1] /= image_size[0]",
                CODE.format("c"),
            ),
            "原地改掉",
        ),
        (with_coords(CODE.format("coords_input / torch.tensor(image_size)")), "次序反"),
        (with_coords(EXTENT, CODE.format("(coords_input + 0.5) / extent")), "0.5"),
        (with_coords(EXTENT, CODE.format("(coords_input / extent).flip(-1)")), "弄反"),
        (with_coords(CODE.format("coords_input")), "忘了除以"),
        (with_coords(EXTENT, CODE.format("2 * coords_input / extent - 1")), "多挪"),
        (
            with_coords("return layer.forward_with_coords(coords_input, image_size)"),
            "只许用",
        ),
        (with_coords("return coords_input"), "形状"),
    ],
    "ex-06-4": [
        (tokens(half="0.0"), "忘了加 0.5"),
        (tokens(blank="pass"), "留着位置编码"),
        (
            tokens(
                kinds="[encoder.not_a_point_embed] + "
                "[encoder.point_embeddings[i] for i in (1, 0, 2, 3)]"
            ),
            "负点和正点",
        ),
        (
            tokens(
                kinds="[encoder.not_a_point_embed] + "
                "[encoder.point_embeddings[i] for i in (0, 1, 3, 2)]"
            ),
            "左上角和右下角",
        ),
        (
            tokens(result="code + table[{}] * (labels < 2)[..., None]"),
            "没有加种类，只剩位置",
        ),
        (
            tokens(
                kinds="[encoder.not_a_point_embed] + "
                "[encoder.point_embeddings[i] for i in (0, 1, 0, 1)]"
            ),
            "框角用了点的种类",
        ),
        (tokens(row="labels.long()"), "这些标签"),
        (tokens(result="F.pad(code + table[{}], (0, 0, 0, 1))"), "多了一个词元"),
        (
            "def all_tokens(encoder, coords, labels):\n"
            "    return encoder._embed_points(coords, labels, False)\n",
            "不要调用",
        ),
        (tokens(half="0.5 + coords.mul_(1.1) * 0"), "原地改掉"),
    ],
    "ex-06-5": [
        (
            prompt("x = F.interpolate(x, (side, side))", SIGN),
            "缩成了正方形",
        ),
        (prompt(SHRINK, SIGN, PAD.replace("-strength", "0.0")), "−strength"),
        (
            prompt(SHRINK, "x = (x > 0.5).float()", PAD.replace("-strength", "0.0")),
            "还是 0 和 1",
        ),
        (
            prompt(SHRINK, SIGN, PAD.replace("0, side - w, 0, side - h", "A, 0, B, 0"))
            .replace("A", "side - w")
            .replace("B", "side - h"),
            "补在了左边",
        ),
        (prompt(SHRINK, SIGN, PAD, out="x[0].transpose(1, 2)"), "高和宽弄反"),
        (prompt(SHRINK, SIGN.replace("> 0.5", "< 0.5"), PAD), "正负反了"),
        (
            prompt(SHRINK, SIGN, PAD.replace("-strength", "strength")),
            "也当成了物体",
        ),
        (prompt(SHRINK, SIGN, PAD, out="x[0, 0]"), "少了最前面"),
        (prompt(SHRINK, SIGN, PAD, out="x"), "形状"),
        (prompt(SHRINK, SIGN, PAD, out="x[0].double()"), "float32"),
        (
            prompt(SHRINK, SIGN.replace("strength", "10.0"), PAD),
            "strength = 4",
        ),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)
