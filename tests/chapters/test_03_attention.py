"""第 3 章：笔记本里的类与函数和 sam_lite 一致，练习的检查说得出错在哪里。"""

import pytest
import torch

from chapters.common import assert_verdicts, course
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


GOOD = ("(127, 64)", "(27, 64)")


def merge(body: str) -> str:
    lines = f"    B, n, N, d = out.shape\n    return {body}\n"
    return f"def merge_heads(out, H, W):\n{lines}"


MEND_HEAD = """
def fixed_bias(q, rel_pos_h, rel_pos_w, H, W):
    i, j = torch.arange(H), torch.arange(W)
"""
ROW, COLUMN = "i[:, None] - i[None, :]", "j[:, None] - j[None, :]"
ADD = "rel_h[..., :, None] + rel_w[..., None, :]"
ADD_TURNED = "rel_h[..., None, :] + rel_w[..., :, None]"


def mend(query: str = "q", row: str = ROW, column: str = COLUMN, add: str = ADD) -> str:
    lines = (
        f"R_h = rel_pos_h[{row} + H - 1]",
        f"R_w = rel_pos_w[{column} + W - 1]",
        f"r_q = ({query}).reshape(-1, H, W, q.shape[-1])",
        'rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, R_h)',
        'rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, R_w)',
        f"return ({add}).reshape(-1, H * W, H * W)",
    )
    return MEND_HEAD + "".join(f"    {line}\n" for line in lines)


def silence(condition: str, body: str, result: str = "encoder") -> str:
    return f"""
def silence_global(encoder):
    with torch.no_grad():
        for block in encoder.blocks:
            if {condition}:
                {body}
    return {result}
"""


BOTH = "block.attn.rel_pos_h.zero_(); block.attn.rel_pos_w.zero_()"


def fold(
    query: str, rows: str = "j // W", columns: str = "j % W", key: str = "k"
) -> str:
    return f"""
def fold_bias(q, k, rel_h, rel_w, scale):
    H, W = rel_h.shape[-1], rel_w.shape[-1]
    j = torch.arange(H * W)
    places = torch.cat([F.one_hot({rows}, H), F.one_hot({columns}, W)], dim=1)
    places = places.to(k.dtype).expand(len(k), -1, -1)
    return torch.cat([{query}], dim=-1), torch.cat([{key}, places], dim=-1)
"""


WRONG = {
    "ex-03-1": [
        (sizes("(127, 768)", "(27, 768)", "92672"), "一个头那么宽"),
        (sizes("(128, 64)", "(28, 64)", "92672"), "多了一行"),
        (sizes("(64, 64)", "(14, 64)", "92672"), "负的偏移"),
        (sizes("(64, 127)", "(64, 27)", "92672"), "行列写反"),
        (sizes("(4096, 64)", "(196, 64)", "92672"), "按偏移存"),
        (sizes("(127, 64)", "(127, 64)", "92672"), "窗口层的表"),
        (sizes(*GOOD, "46336"), "高、宽两张表"),
        (sizes(*GOOD, "92672 * 12"), "乘了头数"),
        (sizes(*GOOD, "12 * 2 * 127 * 64"), "窗口层的表短得多"),
        (sizes(*GOOD, "19712"), "忘了乘层数"),
        (sizes(*GOOD, "7"), "每层两张"),
        ("sizes = 92672", "三项"),
    ],
    "ex-03-2": [
        (merge("out.reshape(B, H, W, n * d)"), "没有先 permute"),
        (merge("out.permute(0, 2, 3, 1).reshape(B, H, W, n * d)"), "交错"),
        (merge("out.permute(0, 2, 1, 3).reshape(B, N, n * d)"), "还原成高、宽"),
        (merge("out.permute(0, 2, 1, 3).reshape(B, W, H, n * d)"), "弄反"),
        (
            merge("out.permute(0, 2, 1, 3).reshape(B, W, H, n * d).transpose(1, 2)"),
            "先行后列",
        ),
    ],
    "ex-03-3": [
        (mend("q * q.shape[-1] ** -0.5"), "没有缩放的 q"),
        (mend(row="i[None, :] - i[:, None]"), "高的方向还是键减查询"),
        (mend(column="j[None, :] - j[:, None]"), "宽的方向成了键减查询"),
        (mend(add=ADD_TURNED), "先行后列"),
        (
            mend("q * q.shape[-1] ** -0.5", "i[None, :] - i[:, None]", add=ADD_TURNED),
            "；高的方向",
        ),
        (mend(add="rel_h[..., :, None] - rel_w[..., None, :]"), "不是原来那三处"),
    ],
    "ex-03-4": [
        (silence("True", BOTH), "窗口 Block 也被清了"),
        (silence("block.window_size > 0", BOTH), "清的是窗口"),
        (
            silence("block.window_size == 0", "block.attn.rel_pos_h.zero_()"),
            "rel_pos_w",
        ),
        (silence("block.window_size == 0", BOTH, "None"), "忘了返回"),
        (silence("block.window_size == 0", "block.attn.rel_pos_h * 0"), "什么也没有变"),
        (
            silence("block.window_size == 0", BOTH + "; block.attn.proj.bias.zero_()"),
            "多动了",
        ),
        (
            "import copy\n"
            + silence("block.window_size == 0", BOTH).replace(
                "    with", "    encoder = copy.deepcopy(encoder)\n    with"
            ),
            "副本",
        ),
        (
            silence(
                "block.window_size == 0",
                "block.attn.rel_pos_h.add_(1); block.attn.rel_pos_w.add_(1)",
            ),
            "不是零",
        ),
    ],
    "ex-03-5": [
        (fold("q, rel_h, rel_w"), "忘了乘 scale"),
        (fold("q * scale, rel_h * scale, rel_w * scale"), "偏置也被乘了"),
        (fold("q * scale, rel_h, rel_w", key="k * scale"), "两遍"),
        (fold("q * scale, rel_h, rel_w", "j % H", "j // H"), "行号列号"),
        (fold("q * scale, rel_w, rel_h"), "one-hot"),
        (fold("q * scale, rel_h"), "形状都应是"),
    ],
}


def test_exercises():
    assert_verdicts(STEM, WRONG)
