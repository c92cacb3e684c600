"""第 2 章：笔记本里的 PatchEmbed 与 sam_lite 一致。"""

import inspect

import pytest
import torch

import sam_lite
from chapters.common import checks, course, verdict
from sam_lite import patch_embed

STEM = "02_patch_embed"


@pytest.mark.parametrize(
    "edits",
    [
        ("randn", "rand"),  # 输入全是正数，也抓得住激活函数
        ("randn", "rand", "b.normal_()", "nn.init.normal_(b)"),
        (
            "torch.allclose(got, want, atol=1e-5)",
            "bool((got - want).abs().max() < 1e-4)",
        ),
    ],
)
def test_other_right_ways_pass(edits: tuple[str, ...]) -> None:
    """练习 2.3 有别的写法，也判成通过。"""
    source = checks.Wrong("", *edits).spoil(course.find_checker("ex-02-3").right)
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
