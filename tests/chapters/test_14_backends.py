"""第 14 章：笔记本里的写法与 sam_lite 一致，练习的检查说得出错在哪里。"""

import json
import sys
import types

import pytest
import torch
import torch.nn.functional as F

from chapters.common import CHAPTERS, assert_verdicts, course
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

CARELESS = """
    yield
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


WHERE = "torch.where((labels == {})[..., None], {}, x)"


def embed(*steps: str, out: str = "x") -> str:
    body = "".join(f"    {step}\n" for step in steps)
    head = "def portable_embed(x, labels, negative, positive, nowhere):\n"
    return f"{head}{body}    return {out}\n"


def step(label: int, value: str) -> str:
    return "x = " + WHERE.format(label, value)


NONE = step(-1, "nowhere.expand_as(x)")
NEG, POS = step(0, "x + negative"), step(1, "x + positive")


def merge(*lines: str, out: str = "m, s1 * f1 + s2 * f2, a1 * g1 + a2 * g2") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return (
        "def merge(one, two):\n    (m1, s1, a1), (m2, s2, a2) = one, two\n"
        "    m = torch.maximum(m1, m2)\n    f1, f2 = (m1 - m).exp(), (m2 - m).exp()\n"
        f"    g1, g2 = f1[:, None], f2[:, None]\n{body}    return {out}\n"
    )


def count(first: str, second: str) -> str:
    head = "def multiplications(T, P, C, n, d):\n"
    return f"{head}    return {first}, {second}\n"


IMAGE, TOKENS = "P * C * n * d + n * T * d * P", "n * T * d * C + n * T * C * P"

WRONG = {
    "ex-14-1": [
        (whole(HEAD, TAIL, "{n: sys.modules.pop(n)", "{n: sys.modules[n]"),
         "登记簿在查找器前面"),
        (whole(HEAD, TAIL, 'if n == old or n.startswith(old + ".")]\n    kept',
               "if n == old]\n    kept"), "子模块没有换"),
        (whole(HEAD, TAIL, 'n.startswith(old + ".")', "n.startswith(old)"),
         "收起得太多"),
        (whole(HEAD, TAIL, "        sys.meta_path.remove(finder)\n", ""), "摘掉"),
        (whole(HEAD, TAIL, "        sys.modules.update(kept)\n", ""), "忘了放回去"),
        (whole(HEAD, TAIL, "sys.meta_path.remove(finder)", "sys.meta_path.pop(0)"),
         "摘错了"),
        (whole(HEAD, TAIL, "            del sys.modules[n]\n", "            pass\n"),
         "替身要全删"),
        (HEAD + CARELESS, "抛错以后"),
        (whole(HEAD, TAIL, "    finally:", "    except KeyError:\n        pass\n"
               "    finally:"), "被吞掉了"),
    ],
    "ex-14-2": [
        (embed("x[labels == -1] = nowhere", NEG, POS), "被改掉了"),
        (embed("x = x.clone()", "x[labels == -1] = nowhere", NEG, POS), "原地写法"),
        (embed(NONE, step(1, "x + negative"), step(0, "x + positive")), "弄反了"),
        (embed(step(-1, "x + nowhere"), NEG, POS), "整个换成"),
        (embed(NONE, NEG), "结果与题里"),
        (embed(NONE, NEG, POS, "y = torch.where(labels == 9, 0.0, 1.0)"),
         "Python 的数"),
        (embed(NONE, NEG, POS, "y = torch.where(labels == 9, input=x[..., 0], "
               "other=-0.0)"), "Python 的数"),
        (embed("x = x.clone().masked_fill_((labels == -1)[..., None], 0.0)",
               step(-1, "nowhere.expand_as(x)"), NEG, POS), "原地写法"),
        (embed(NONE, NEG, POS, out="x.double()"), "类型变了"),
        (embed(NONE, NEG, POS, out="x.flatten(1)"), "形状"),
    ],
    "ex-14-3": [
        ("milliseconds = (6.0, 1.9, 80.5)", "一次乘加是 2 次"),
        ("milliseconds = (1.4, 1.9, 80.5)", "取长的"),
        ("milliseconds = (13.5, 1.9, 80.5)", "不是相加"),
        ("milliseconds = (12.1, 0.47, 80.5)", "4 个字节"),
        ("milliseconds = (12.1, 1.26, 80.5)", "一共搬三份"),
        ("milliseconds = (12.1, 0.0079, 80.5)", "卡在内存"),
        ("milliseconds = (12.1, 1.9, 40.3)", "还要写一遍"),
        ("milliseconds = (12.1, 1.9, 6.7)", "忘了 12 个头"),
        ("milliseconds = (12.1, 1.9, 120.8)", "只有一张表"),
        ("milliseconds = (12.1, 1.9, 0.5)", "按字节算"),
        ("milliseconds = (12.1, 1.9, 20.1)", "4 个字节"),
        ("milliseconds = (0.0121, 1.9, 80.5)", "要毫秒"),
        ("milliseconds = (12.1, 1.9, 300)", "第 3 步不对"),
        ("milliseconds = 12.1", "三个数"),
    ],
    "ex-14-4": [
        (merge(out="m, s1 + s2, a1 + a2"), "没有折算"),
        (merge("f1, f2 = 1 / f1, 1 / f2"), "折算反了"),
        (merge(out="m, s1 * f1 + s2 * f2, a1 + a2"), "a 没有折算"),
        (merge("s = s1 * f1 + s2 * f2",
               out="m, s, (a1 * g1 + a2 * g2) / s[:, None]"), "不除分母"),
        (merge("m = torch.minimum(m1, m2)"), "取两个里大的"),
        (merge("f1 = torch.ones_like(f1)"), "s 不对"),
        (merge("a1 *= g1", out="m, s1 * f1 + s2 * f2, a1 + a2 * g2"), "被改了"),
        (merge("e = (m1.exp() / m.exp())",
               out="m, s1 * e + s2 * f2, a1 * g1 + a2 * g2"), "溢出"),
        (merge(out="a1 * g1 + a2 * g2"), "三样"),
    ],
    "ex-14-5": [
        (count(TOKENS, IMAGE), "次序反了"),
        (count("P * C * n * d", TOKENS), "漏了打分"),
        (count("n * (P * C * n * d + T * d * P)", TOKENS), "不必乘 n"),
        (count("P * C * d + n * T * d * P", TOKENS), "W 的宽是"),
        (count(IMAGE, "n * T * C * P"), "漏了投影"),
        (count(IMAGE, "n * T * d * C + T * C * P"), "打分要做 n 次"),
        (count(IMAGE, "n * T * d * C + n * T * d * P"), "打分的宽是 C"),
        (count("1", TOKENS), "先投影图像的次数"),
        (count(IMAGE, "1"), "先投影词元的次数"),
        ("def multiplications(T, P, C, n, d):\n    return T\n", "两个数"),
    ],
}  # fmt: skip


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)
