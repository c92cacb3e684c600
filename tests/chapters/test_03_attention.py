"""第 3 章：笔记本里的类与函数和 sam_lite 一致。"""

import pytest
import torch

from chapters.common import course
from sam_lite import attention, ops

STEM = "03_attention"


def part(name: str):
    return course.from_chapter(STEM, name)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("use_rel_pos", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 3, 20), (1, 5, 4, 20), (3, 1, 3, 20)])
def test_attention_is_the_packages(shape, use_rel_pos, fused):
    """同样的权重，同样的输出；后两种尺寸与表不合，要插值。"""
    options = {"qkv_bias": True, "use_rel_pos": use_rel_pos, "input_size": (2, 3)}
    torch.manual_seed(1)
    theirs = attention.Attention(20, 4, rel_pos_zero_init=False, **options)
    mine = part("Attention")(20, 4, **options)
    mine.load_state_dict(theirs.state_dict())
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.fused = fused
    x = torch.randn(shape)
    torch.testing.assert_close(mine(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_attention_starts_as_the_package_does():
    """缺省的签名、零初值、没有 qkv 偏置、缺了 input_size。"""
    import inspect

    Attention = part("Attention")
    ours, theirs = (inspect.signature(c) for c in (Attention, attention.Attention))
    assert list(ours.parameters) == list(theirs.parameters)
    for name, value in theirs.parameters.items():
        assert ours.parameters[name].default == value.default
    layer = Attention(8, 2, False, True, True, (4, 6))
    assert layer.qkv.bias is None and layer.rel_pos_w.shape == (11, 4)
    assert not layer.rel_pos_h.any()
    with pytest.raises(AssertionError, match="input_size"):
        Attention(8, 2, use_rel_pos=True)


@pytest.mark.parametrize("q_size, k_size, rows", [(3, 3, 5), (4, 4, 9), (6, 2, 5)])
def test_get_rel_pos(q_size, k_size, rows):
    table = torch.randn(rows, 3)
    mine = part("get_rel_pos")(q_size, k_size, table)
    torch.testing.assert_close(mine, attention.get_rel_pos(q_size, k_size, table))


def test_decomposed_rel_pos_with_unequal_grids():
    """查询、键的网格不等的情形也照官方。"""
    q, sizes = torch.randn(2, 6, 5), ((2, 3), (4, 6))
    tables = torch.randn(7, 5), torch.randn(11, 5)
    scores = torch.randn(2, 6, 24)
    mine = scores + part("decomposed_rel_pos")(q, *tables, *sizes)
    theirs = attention.add_decomposed_rel_pos(scores, q, *tables, *sizes)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", ["attention_eager", "attention_fused"])
def test_attention_functions(name):
    q, k, v = torch.randn(2, 6, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    for bias in (None, torch.randn(2, 6, 5)):
        mine = part(name)(q, k, v, 0.3, bias)
        torch.testing.assert_close(mine, getattr(ops, name)(q, k, v, 0.3, bias))


def sizes(rows_h: str, rows_w: str, total: str) -> str:
    return f"sizes = ({rows_h}, {rows_w}, {total})"
