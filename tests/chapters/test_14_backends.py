"""第 14 章：笔记本里的写法与 sam_lite 一致。"""

import json
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from chapters.common import CHAPTERS, course
from sam_lite.backends import BACKENDS
from sam_lite.ops.attention import attention_tiled

STEM = "14_backends"


def part(name: str):
    return course.from_chapter(STEM, name)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("n, H, W, d", [(3, 5, 4, 6), (1, 2, 7, 3)])
def test_attention_by_rows(n, H, W, d, rows) -> None:
    q, k, v = torch.randn(3, n, H * W, d)
    rel = torch.randn(n, H, W, H), torch.randn(n, H, W, W)
    mine = part("attention_by_rows")(q, k, v, 0.3, *rel, rows)
    theirs = attention_tiled(q[None], k[None], v[None], 0.3, *(t[None] for t in rel))
    torch.testing.assert_close(mine, theirs[0], atol=1e-5, rtol=1e-4)
    whole = part("attention_whole")(q, k, v, 0.3, *rel)
    torch.testing.assert_close(whole, theirs[0], atol=1e-5, rtol=1e-4)


def test_linear_by_convolution() -> None:
    x, weight, bias = torch.randn(7, 5), torch.randn(3, 5), torch.randn(3)
    mine = part("linear_by_convolution")(x, weight, bias)
    torch.testing.assert_close(mine, F.linear(x, weight, bias))


@pytest.mark.parametrize("bits, dtype", [(7, torch.bfloat16), (10, torch.float16)])
def test_round_mantissa(bits, dtype) -> None:
    """不溢出的数，7 位就是 bfloat16，10 位就是 float16。"""
    x = torch.randn(1000) * 10 + torch.randn(1000).sign() * 0.01
    x = torch.cat([x, torch.tensor([0.0, 257.0, 2049.0, -1.0])])
    assert torch.equal(part("round_mantissa")(x, bits), x.to(dtype).float())


def test_redirect_hands_over_and_complains() -> None:
    old, new = "t14_old", "t14_new"
    real = types.ModuleType(new)
    real.three = 3
    sys.modules[new] = real
    finder = part("Redirect")(old, new)
    sys.meta_path.insert(0, finder)
    try:
        found = __import__(old)
        assert found.three == 3 and found.__name__ == new
        with pytest.raises(NotImplementedError, match="没有 four"):
            found.four  # noqa: B018
        assert finder.find_spec(old + "er") is None
        assert finder.find_spec(old + ".sub") is not None
    finally:
        sys.meta_path.remove(finder)
        for name in (old, new):
            sys.modules.pop(name, None)


def test_recorded_figures_are_whole() -> None:
    """记录值有机器、日期，每个后端都有；快路在 vit_b 上确实快。"""
    text = (CHAPTERS / "recorded" / "backends.json").read_text("utf-8")
    recorded = json.loads(text)
    assert recorded["机器"] and recorded["日期"] and recorded["版本"]
    seconds = recorded["vit_b 编码一张 1024 的图，秒"]
    assert set(seconds) == set(BACKENDS) == set(recorded["vit_b 与 eager 的误差"])
    assert seconds["fused"] < seconds["eager"]
    tiles = recorded["vit_b 一个全局层的注意力，毫秒"]
    best = min(
        curve := tiles["分块，每块分数的个数是 2 的几次方"], key=lambda p: curve[p]
    )
    assert best == "21"  # ops.attention.TILE


def test_recorded_oneflow_figures_are_those_measured() -> None:
    """OneFlow 的记录值就是 benchmarks/oneflow.md 里的；早先量的另放，写明没有重量。"""
    text = (CHAPTERS / "recorded" / "backends.json").read_text("utf-8")
    flow = json.loads(text)["OneFlow"]
    page = (CHAPTERS.parent / "benchmarks" / "oneflow.md").read_text("utf-8")
    assert flow["日期"] in page
    lines = [line.strip("|").split("|") for line in page.splitlines() if "|" in line]
    rows = {cells[0].strip(): cells[1:] for cells in lines}
    errors = flow["与 PyTorch 最大的绝对误差"]
    found = [float(rows[f"`{name}`"][0]) for name in ("tiny", "vit_b")]
    assert list(errors.values()) == found
    seconds = [round(float(x), 1) for x in rows["vit_b 编码一张照片"][:2]]
    assert list(flow["vit_b 编码一张，秒"].values()) == seconds
    assert any("没有重量" in name for name in flow)


HEAD = """
from contextlib import contextmanager
import sys

@contextmanager
def redirected(old, new):
    names = [n for n in list(sys.modules) if n == old or n.startswith(old + ".")]
    kept = {n: sys.modules.pop(n) for n in names}
    finder = Redirect(old, new)
    sys.meta_path.insert(0, finder)
"""
TAIL = """
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for n in [n for n in sys.modules if n == old or n.startswith(old + ".")]:
            del sys.modules[n]
        sys.modules.update(kept)
"""


def whole(head: str = HEAD, tail: str = TAIL, *swap: str) -> str:
    source = head + tail
    for a, b in zip(swap[::2], swap[1::2]):
        assert a in source, a
        source = source.replace(a, b)
    return source
