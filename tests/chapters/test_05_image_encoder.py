"""第 5 章：笔记本里的类与 sam_lite 一致，练习的检查说得出错在哪里。"""

from functools import partial

import pytest
import torch
from torch import nn

from chapters.common import assert_verdicts, course, load, shake
from sam_lite import image_encoder
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config

STEM = "05_image_encoder"
NORM = partial(nn.LayerNorm, eps=1e-6)


def part(name: str):
    return course.from_chapter(STEM, name)


def test_mlp_block() -> None:
    theirs = shake(image_encoder.MLPBlock(6, 15))
    mine = load(part("MLPBlock")(6, 15), theirs)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(mine(x), theirs(x))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_layer_norm_2d(scale: float) -> None:
    """数值很小时 eps 也看得见。"""
    theirs = shake(image_encoder.LayerNorm2d(7))
    mine = load(part("LayerNorm2d")(7), theirs)
    x = scale * torch.randn(2, 7, 3, 5)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-5, rtol=1e-4)
    loop = part("norm_by_loop")(x, theirs.weight, theirs.bias)
    torch.testing.assert_close(loop, theirs(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ratio", [4.0, 2.5])
@pytest.mark.parametrize("window", [0, 2, 3, 5])
@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
def test_block(grid: tuple[int, int], window: int, ratio: float) -> None:
    options = {"window_size": window, "input_size": grid}
    theirs = image_encoder.Block(
        12, 3, ratio, norm_layer=NORM, use_rel_pos=True, **options
    )
    mine = load(part("Block")(12, 3, ratio, **options), shake(theirs))
    x = torch.randn(2, *grid, 12)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)
    if window == 0:
        mine = load(part("GlobalBlock")(12, 3, ratio, grid), theirs)
        torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "size, patch, window, indexes, channels",
    [(48, 8, 4, (1,), 3), (40, 8, 2, (), 1), (32, 4, 0, (0, 1), 3)],
)
def test_encoder(size, patch, window, indexes, channels) -> None:
    """窗口整除、不整除、全是全局，和不同的输入通道。"""
    options = {
        "img_size": size,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": 12,
        "depth": 3,
        "num_heads": 3,
        "mlp_ratio": 2.0,
        "out_chans": 5,
        "window_size": window,
        "global_attn_indexes": indexes,
    }
    theirs = image_encoder.ImageEncoderViT(**options, norm_layer=NORM, use_rel_pos=True)
    mine = load(part("ImageEncoderViT")(**options), shake(theirs))
    x = torch.randn(2, channels, size, size)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)
    assert mine(x).is_contiguous() and mine.img_size == size


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_the_same_keys_and_shapes(name: str) -> None:
    """四个型号都装得进 encoder_like 造出的编码器；缺省值就是 vit_b。"""
    with torch.device("meta"):
        theirs = sam_from_config(PRESETS[name]).image_encoder
        mine = part("encoder_like")(theirs)
        expected = {k: v.shape for k, v in theirs.state_dict().items()}
        assert {k: v.shape for k, v in mine.state_dict().items()} == expected
        assert [b.window_size for b in mine.blocks] == [
            b.window_size for b in theirs.blocks
        ]
        if name == "vit_b":
            default = part("ImageEncoderViT")().state_dict()
            assert {k: v.shape for k, v in default.items()} == expected


def test_stream_is_the_sum_of_its_parts() -> None:
    """walk 的起点加全部贡献，过颈部就是编码器的输出。"""
    encoder = shake(
        image_encoder.ImageEncoderViT(
            32, 8, 3, 12, 3, 3, use_rel_pos=True, window_size=3, norm_layer=NORM
        )
    )
    image = torch.randn(1, 3, 32, 32)
    start, parts, stream = part("walk")(encoder, image)
    total = start + sum(a + m for a, m in parts)
    torch.testing.assert_close(total, stream[-1], atol=1e-3, rtol=1e-4)
    out = encoder.neck(stream[-1].permute(0, 3, 1, 2))
    torch.testing.assert_close(out, encoder(image), atol=1e-4, rtol=1e-4)


BODY = 12 * 768**2 + 13 * 768
SMALL, LARGE = BODY + 2 * 27 * 64, BODY + 2 * 127 * 64


def forward(*lines: str, result: str = "x + block.mlp(block.norm2(x))") -> str:
    body = "".join(f"    {line}\n" for line in ("w = block.window_size", *lines))
    return f"def fixed_forward(block, x):\n{body}    return {result}\n"


CUT = "t, hw = window_partition(block.norm1(x), w)"
PASTE = "a = window_unpartition(block.attn(t), w, hw, x.shape[1:3])"


def half(*lines: str, out: str = "x.permute(0, 3, 1, 2)") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"def first_half(grid, neck):\n{body}    return {out}\n"


MATRIX = "x = F.linear(grid, neck[0].weight[:, :, 0, 0])"


def layer_norm(weight="neck[1].weight", bias="neck[1].bias", eps=", 1e-6") -> str:
    return f"x = F.layer_norm(x, x.shape[-1:], {weight}, {bias}{eps})"


BY_HAND = (
    "x = x - x.mean(-1, keepdim=True)",
    "x = x / (x.var(-1, keepdim=True) + 1e-6).sqrt()",
    "x = x * neck[1].weight + neck[1].bias",
)


def truth(*values: bool) -> str:
    keys = ("全部乘 10", "全部加 5", "每个通道加一个各自的数", "每一格乘一个各自的正数")
    return f"unchanged = {dict(zip(keys, values, strict=True))}"


def skip(
    test: str = "j != i",
    start: str = "encoder.patch_embed(image) + encoder.pos_embed",
    out: str = "encoder.neck(x.permute(0, 3, 1, 2))",
) -> str:
    return f"""
def skip_block(encoder, image, i):
    x = {start}
    for j, block in enumerate(encoder.blocks):
        if {test}:
            x = block(x)
    return {out}
"""


WRONG = {
    "ex-05-1": [
        (f"sizes = ({BODY}, {BODY})", "忘了两张相对位置表"),
        (f"sizes = ({LARGE}, {SMALL})", "次序反了"),
        (f"sizes = ({BODY + 27 * 64}, {LARGE})", "只加了一张"),
        (f"sizes = ({BODY + 2 * 27 * 768}, {LARGE})", "一个头那么宽"),
        (f"sizes = ({SMALL}, {BODY + 2 * 128 * 64})", "不是 127 行"),
        (f"sizes = ({SMALL}, {BODY + 2 * 64 * 64})", "不是 127 行"),
        (f"sizes = ({SMALL - 3 * 768}, {LARGE - 3 * 768})", "qkv 忘了偏置"),
        (f"sizes = ({SMALL - 9 * 768}, {LARGE - 9 * 768})", "线性层的偏置"),
        (f"sizes = ({SMALL - 4 * 768}, {LARGE - 4 * 768})", "忘了两个规范化"),
        (f"sizes = ({SMALL - 2 * 768}, {LARGE - 2 * 768})", "每个有 weight 和 bias"),
        (f"sizes = ({SMALL - 8 * 768**2 - 5 * 768}, {LARGE})", "忘了 MLP"),
        (f"sizes = ({SMALL}, {SMALL})", "全局层不对"),
        ("sizes = 7_000_000", "两个整数"),
    ],
    "ex-05-2": [
        (
            forward(
                "t, hw = window_partition(x, w)",
                "t = t + block.attn(block.norm1(t))",
                "x = window_unpartition(t, w, hw, x.shape[1:3])",
            ),
            "先切窗口、后规范化",
        ),
        (forward("x = x + block.attn(block.norm1(x))"), "忘了切窗口"),
        (
            forward(CUT, PASTE, "x = block.norm1(x) + a"),
            "流被改写",
        ),
        (forward(CUT, PASTE, "x = a"), "忘了注意力的残差"),
        (
            forward(CUT, PASTE, "x = x + a", result="block.mlp(block.norm2(x))"),
            "忘了 MLP 的残差",
        ),
        (forward(CUT, PASTE, result="x + a"), "忘了 MLP 这一半"),
        (
            forward(CUT.replace("block.norm1(x)", "x"), PASTE, "x = x + a"),
            "忘了 norm1",
        ),
        (
            forward(CUT, PASTE, "x = x + a", result="x + block.mlp(x)"),
            "忘了 norm2",
        ),
        (
            forward(CUT, PASTE, result="x + a + block.mlp(block.norm2(x))"),
            "注意力之前的流",
        ),
        (forward("x = x + block.attend(block.norm1(x))"), "不要调用"),
        (forward(CUT, PASTE, result="(x + a).flatten(1, 2)"), "形状"),
    ],
    "ex-05-3": [
        (half(MATRIX, layer_norm(), out="x"), "通道还在最后"),
        (half(MATRIX, layer_norm(), out="x.permute(0, 3, 2, 1)"), "弄反了"),
        (half(MATRIX), "忘了规范化"),
        (half(MATRIX, layer_norm("None", "None")), "忘了 weight 和 bias"),
        (half(MATRIX, layer_norm(bias="None")), "忘了 bias"),
        (half(MATRIX, layer_norm(weight="None")), "忘了 weight"),
        (half(MATRIX, layer_norm(eps="")), "1e-5"),
        (half(MATRIX, *BY_HAND), "unbiased=False"),
        (
            half(MATRIX, out="x.reshape(len(x), -1, *x.shape[1:3])"),
            "reshape",
        ),
        (
            half(MATRIX, layer_norm(), out="x.reshape(len(x), -1, *x.shape[1:3])"),
            "数值不同",
        ),
        (half(out="neck[1](neck[0](grid.permute(0, 3, 1, 2)))"), "不要调用"),
        (half(MATRIX, out="x.permute(3, 0, 1, 2)"), "形状"),
    ],
    "ex-05-4": [
        (truth(False, True, False, True), "标准差也大了十倍"),
        (truth(True, False, False, True), "均值也多了 5"),
        (truth(True, True, True, True), "BatchNorm 的道理"),
        (truth(True, True, False, False), "自己的倍数自己除掉"),
        ("unchanged = {'全部乘 10': True}", "四个键"),
        (truth(1, True, False, True), "True 或 False"),
    ],
    "ex-05-5": [
        (skip("True"), "什么也没有跳过"),
        (skip(start="encoder.patch_embed(image)"), "位置编码"),
        (skip(out="x.permute(0, 3, 1, 2)"), "忘了颈部"),
        (skip(out="x"), "都忘了"),
        (skip("j < i"), "continue"),
        (skip("j == i"), "反了"),
        (skip("j + 1 != i"), "没有跳过"),
        (skip("j != 3 - i"), "层号从 0 数"),
        (
            "def skip_block(encoder, image, i):\n"
            "    del encoder.blocks[i]\n"
            "    return encoder(image)\n",
            "改坏了",
        ),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)
