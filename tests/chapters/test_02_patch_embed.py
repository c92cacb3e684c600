"""第 2 章：笔记本里的 PatchEmbed 与 sam_lite 一致，练习的检查说得出错在哪里。"""

import inspect

import pytest
import torch

import sam_lite
from chapters.common import assert_verdicts, course, verdict
from sam_lite import patch_embed

STEM = "02_patch_embed"

HEAD_3 = """
@torch.no_grad()
def is_right(embed):
    w, b = embed.proj.weight, embed.proj.bias
    (C, c, p, q), saved = w.shape, b.clone()
"""


def cut(order: str, sizes: str = "H // p, W // p, C * p * p") -> str:
    lines = (
        "B, C, H, W = x.shape",
        "x = x.reshape(B, C, H // p, p, W // p, p)",
        f"return x.permute({order}).reshape(B, {sizes})",
    )
    return "def cut(x, p):\n" + "".join(f"    {line}\n" for line in lines)


def judge(
    batch: int = 2,
    rows: int = 3,
    cols: int = 4,
    noise: str = "randn",
    change: str = "b.normal_()",
    compare: str = "torch.allclose(got, want, atol=1e-5)",
    crash: str = "return False",
) -> str:
    """一份 is_right，每个参数去掉一个要点。"""
    lines = (
        f"x = torch.{noise}({batch}, c, {rows} * p, {cols} * q)",
        change,
        f"parts = x.reshape({batch}, c, {rows}, p, {cols}, q)",
        "parts = parts.permute(0, 2, 4, 1, 3, 5)",
        "want = parts.flatten(3) @ w.reshape(C, -1).T + b",
        "try:",
        "    got = embed(x)",
        "except RuntimeError:",
        f"    {crash}",
        "b.copy_(saved)",
        f"return got.shape == want.shape and {compare}",
    )
    return HEAD_3 + "".join(f"    {line}\n" for line in lines)


def drop(body: str) -> str:
    head = "def dropped(height, width, p):\n    rows, cols = height // p, width // p\n"
    return head + f"    return {body}\n"


def resize(before: str, after: str, how: str = 'mode="bilinear"') -> str:
    lines = (
        "C, (H, W), (h, w) = pos.shape[-1], grid_hw, pos.shape[1:3]",
        f"x = F.interpolate({before}, (H, W), {how})",
        f"return {after}",
    )
    return "def resize_pos(pos, grid_hw):\n" + "".join(
        f"    {line}\n" for line in lines
    )


IN, OUT = "pos.permute(0, 3, 1, 2)", "x.permute(0, 2, 3, 1)"
USED = "rows * cols * p * p"
RIGHT = f"height * width - {USED}"

WRONG = {
    "ex-02-1": [
        (cut("0, 1, 2, 3, 4, 5"), "漏了 permute"),
        (cut("0, 2, 4, 3, 5, 1"), "通道排到了最后"),
        (cut("0, 2, 4, 1, 5, 3"), "转置"),
        (cut("0, 4, 2, 1, 3, 5", "W // p, H // p, C * p * p"), "行数和列数弄反"),
        (cut("0, 2, 4, 1, 3, 5", "-1, C * p * p"), "摊成一串"),
        (cut("0, 4, 2, 1, 3, 5"), "别的块的数"),
        (cut("0, 2, 4, 3, 1, 5"), "块里的次序不对"),
        (
            "def cut(x, p):\n"
            "    B, C, H, W = x.shape\n"
            "    columns = F.unfold(x, p, stride=p)\n"
            "    return columns.reshape(B, H // p, W // p, C * p * p)\n",
            "忘了 transpose",
        ),
        ("def cut(x, p):\n    return x.shape\n", "一个张量"),
    ],
    "ex-02-2": [
        ("counts = (256, 4096, 984320, 5242880)", "一个通道"),
        ("counts = (1280, 4096, 984320, 5242880)", "和型号无关"),
        ("counts = (768, 64, 984320, 5242880)", "一边的块数"),
        ("counts = (768, 4097, 984320, 5242880)", "分类词元"),
        ("counts = (768, 4096, 983040, 5242880)", "漏了偏置"),
        ("counts = (768, 4096, 983808, 5242880)", "每个输出一个"),
        ("counts = (768, 4096, 590592, 5242880)", "vit_b 的宽"),
        ("counts = (768, 4096, 984320, 5244160)", "多了一行"),
        ("counts = (768, 4096, 984320, 3145728)", "1280 宽"),
        ("counts = (768, 4096, 984320, 81920)", "每个词元一行"),
        ("counts = (768, 4096)", "四个整数"),
    ],
    "ex-02-3": [
        (judge(compare="True"), "只看形状不够"),
        (judge(batch=1), "批量要大于 1"),
        (judge(change="pass"), "改成随机数"),
        (judge(noise="ones"), "只看形状不够"),
        (judge(rows=3, cols=3, compare="True"), "放过了"),
        (judge(crash="raise"), "形状对不上也判成 False"),
        (judge().replace("@torch.no_grad()\n", ""), "不能就地改"),
        (judge().replace("b.clone()", "b.clone()\n    c = 3"), "别写死"),
        (judge(compare="torch.equal(got, 0 * want)"), "冤枉了对的"),
        (judge(compare="(got - want).abs().max() < 1e-5"), "True 或 False"),
    ],
    "ex-02-4": [
        (drop(f"cols, rows, {RIGHT}"), "弄反了"),
        (drop(f"-(-height // p), -(-width // p), {RIGHT}"), "向上取整"),
        (drop("rows, cols, height * (width % p) + width * (height % p)"), "数了两遍"),
        (
            drop("rows, cols, rows * p * (width % p) + cols * p * (height % p)"),
            "漏了右下角",
        ),
        (drop("rows, cols, height * width - rows * cols"), "只减了块数"),
        (drop("rows, cols, 0"), "扔掉的像素数不对"),
        (drop("rows, cols"), "三个整数"),
    ],
    "ex-02-5": [
        (resize("pos", "x"), "忘了先 permute"),
        (resize(IN, "x"), "通道挪回最后"),
        (resize("pos.permute(0, 3, 2, 1)", OUT), "数值不对"),
        (resize(IN, "x.permute(0, 3, 2, 1)"), "高和宽弄反"),
        (resize(IN, OUT, 'mode="bilinear", align_corners=True'), "align_corners"),
        (resize(IN, OUT, 'mode="nearest"'), "最近邻"),
        (resize("pos.reshape(1, C, h, w)", OUT), "挪到前面要用 permute"),
        (resize(IN, "x.reshape(1, H, W, C)"), "挪回最后要用 permute"),
        ("def resize_pos(pos, grid_hw):\n    return grid_hw\n", "一个张量"),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)


@pytest.mark.parametrize(
    "source",
    [
        judge(noise="rand"),  # 输入全是正数，也抓得住激活函数
        judge(noise="rand", change="nn.init.normal_(b)"),
        judge(compare="bool((got - want).abs().max() < 1e-4)"),
    ],
)
def test_other_right_ways_pass(source: str) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        assert "通过" in verdict(STEM, "ex-02-3", source)


def test_signature_is_the_packages() -> None:
    """参数的名字、次序、默认值都相同。"""
    mine = inspect.signature(course.from_chapter(STEM, "PatchEmbed")).parameters
    ours = inspect.signature(patch_embed.PatchEmbed).parameters
    assert [(p.name, p.default) for p in mine.values()] == [
        (p.name, p.default) for p in ours.values()
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (2, 3), "stride": (2, 3), "embed_dim": 5},
        {"kernel_size": (4, 2), "stride": (4, 2), "in_chans": 1, "embed_dim": 7},
        {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2), "embed_dim": 4},
    ],
)
def test_class_agrees_with_package(options: dict) -> None:
    """sam_lite 的权重装得进去，键一个不多一个不少，输出相同。"""
    ours = patch_embed.PatchEmbed(**options)
    mine = course.from_chapter(STEM, "PatchEmbed")(**options)
    mine.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, options.get("in_chans", 3), 8, 12)
    torch.testing.assert_close(mine(x), ours(x))


def test_class_takes_the_models_weights() -> None:
    """随包模型的那一层换成笔记本里的类，编码器的输出不变。"""
    encoder = sam_lite.load("tiny").image_encoder
    proj = encoder.patch_embed.proj
    x = torch.randn(1, 3, encoder.img_size, encoder.img_size)
    with torch.no_grad():
        expected = encoder(x)
        mine = course.from_chapter(STEM, "PatchEmbed")(
            proj.kernel_size, proj.stride, embed_dim=proj.out_channels
        )
        mine.load_state_dict(encoder.patch_embed.state_dict(), strict=True)
        encoder.patch_embed = mine
        torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("name", ["patches_by_loop", "patches_by_unfold"])
def test_cut_and_multiply_equals_package(name: str) -> None:
    """两种切块乘上同一个矩阵，都等于 sam_lite 的 PatchEmbed。"""
    cut = course.from_chapter(STEM, name)
    ours = patch_embed.PatchEmbed((2, 2), (2, 2), embed_dim=5)
    x = torch.randn(2, 3, 4, 6)
    got = cut(x, 2) @ ours.proj.weight.reshape(5, -1).T + ours.proj.bias
    torch.testing.assert_close(got, ours(x))


def test_broken_variants_keep_the_shape_and_spoil_the_content() -> None:
    """正文里故意改坏的两种，正方形网格上形状都对，内容都不对。"""
    ours = patch_embed.PatchEmbed((2, 2), (2, 2), embed_dim=5)
    x = torch.randn(1, 3, 8, 8)
    for name in ("Careless", "Swapped"):
        broken = course.from_chapter(STEM, name)((2, 2), (2, 2), embed_dim=5)
        broken.load_state_dict(ours.state_dict())
        assert broken(x).shape == ours(x).shape
        assert not torch.allclose(broken(x), ours(x), atol=1e-2)


def test_bare_attention_follows_the_order() -> None:
    """没有位置编码，打乱次序只换次序；加上以后就不是了。"""
    look = course.from_chapter(STEM, "look_around")
    x, order = torch.randn(12, 8), torch.randperm(12)
    torch.testing.assert_close(look(x[order]), look(x)[order])
    pos = torch.randn(12, 8)
    assert not torch.allclose(look(x[order] + pos), look(x + pos)[order], atol=1e-2)


def test_computed_table_fades_with_distance() -> None:
    """参照的位置表：自己与自己最像，越远越不像，行和列的作用相同。"""
    table = course.from_chapter(STEM, "computed_table")(10)
    alike = torch.cosine_similarity(table[0, 0], table, dim=-1)
    torch.testing.assert_close(alike, alike.T)
    assert alike[0, 0] > alike[0, 1] > alike[0, 3] > alike[3, 3]
