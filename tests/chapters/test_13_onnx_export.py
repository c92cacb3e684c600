"""第 13 章：笔记本里的解码器与 sam_lite 一致，练习的检查说得出错在哪里。"""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from chapters.common import assert_verdicts, chapter, course, tagged
from sam_lite.attention import set_fused
from sam_lite.model import Sam
from sam_lite.onnx.graphs import FixedSizes, SamOnnxModel

STEM = "13_onnx_export"


def mean(body: str) -> str:
    return f"def masked_mean(x, valid):\n    {body}\n"


def pack(
    pad: str = "box is None",
    kinds: str = "[2, 3]",
    first: bool = True,
    back: str = "coords[None], kinds[None]",
) -> str:
    """可以弄错的地方：补不补点、角的标签、次序、形状和类型。"""
    order = (
        "parts = own + extra" if first else "parts = extra + own"
    )  # 点在前还是后补的在前
    return (
        "def pack(points, labels, box):\n"
        "    own = [] if points is None else [(points, labels)]\n"
        "    extra = []\n"
        f"    if {pad}:\n        extra.append((np.zeros((1, 2)), [-1]))\n"
        "    if box is not None:\n"
        f"        extra.insert(0, (np.reshape(box, (2, 2)), {kinds}))\n"
        f"    {order}\n"
        "    coords = np.concatenate([np.zeros((0, 2))] + [p for p, _ in parts])\n"
        "    kinds = np.concatenate([np.zeros(0)] + [k for _, k in parts])\n"
        "    coords, kinds = coords.astype(np.float32), kinds.astype(np.float32)\n"
        f"    return {back}\n"
    )


def rows(
    low: str = "np.minimum(0, w.min(axis=1, keepdims=True))",
    high: str = "np.maximum(0, w.max(axis=1, keepdims=True))",
    scale: str = "(high - low) / 255",
    q: str = "np.clip(np.round(w / scale) + zero, 0, 255).astype(np.uint8)",
    back: str = "q, scale, zero",
) -> str:
    return (
        "def quantize_rows(w):\n"
        f"    low, high = {low}, {high}\n    scale = {scale}\n"
        f"    zero = np.round(-low / scale)\n    q = {q}\n    return {back}\n"
    )


def select(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return "def select(scores, num_points):\n" + lines


PUSH = "first = scores[:, :1] + {}\nall = torch.cat([first, scores[:, 1:]], 1)\n"
IF = "if num_points < 3:\n    return scores[:, 1:].argmax(1) + 1\n"
IF += "return torch.zeros(len(scores), dtype=torch.long)"

WRONG = {
    "ex-13-1": [
        ('answer_1 = {"D"}', "len(x)"),
        ('answer_1 = {"B"}', "也还是 if"),
        ('answer_1 = {"A", "B", "D"}', "A 不会"),
        ('answer_1 = {"B", "C", "D"}', "C 不会"),
        ('answer_1 = ["B", "D", "E"]', "两边都在"),
        ('answer_1 = "BDF"', "烤进去正好"),
        ("answer_1 = 3", "集合"),
        ('answer_1 = {"G"}', "A 到 F"),
    ],
    "ex-13-2": [
        (mean("return (x * valid).sum(1) / valid.sum(1)"), "NaN"),
        (mean("return (x * valid).mean(1)"), "全部个数"),
        (mean("return x.sum(1) / valid.sum(1).clamp(min=1)"), "混进来"),
        (mean("return (x * valid).sum(1) / (valid.sum(1) + 1)"), "加了 1"),
        (mean("return (x * valid).sum() / valid.sum().clamp(min=1)"), "形状"),
        (
            mean(
                "return torch.stack([(r * v).sum() / v.sum() if v.sum() > 0"
                " else v.sum() for r, v in zip(x, valid)])"
            ),
            "还有 if",
        ),
        (mean("return (x * valid).sum(1).numpy()"), "张量"),
        (mean("return (x * valid).sum(1) / valid.sum(1).clamp(min=3)"), "不对"),
    ],
    "ex-13-3": [
        (pack(pad="False"), "要补一个点"),
        (pack(pad="True"), "不补填充点"),
        (pack(kinds="[3, 2]"), "弄反"),
        (pack(first=False), "次序不对：填充点"),
        (pack(back="coords, kinds"), "最前面一维"),
        (pack(back="coords[None].astype(float), kinds[None]"), "float32"),
        (pack(back="coords[None]"), "两样"),
        (pack(kinds="[1, 1]"), "标签应是"),
        (pack(back="coords[None] * 2, kinds[None]"), "坐标不对"),
        (pack(back="coords[:, None], kinds[:, None]"), "形状应是"),
    ],
    "ex-13-4": [
        (rows("min(0, w.min())", "max(0, w.max())"), "整张表一把"),
        (
            rows(
                "np.minimum(0, w.min(axis=0, keepdims=True))",
                "np.maximum(0, w.max(axis=0, keepdims=True)) + 1e-9",
            ),
            "一列一把",
        ),
        (
            rows(low="w[:, 8:].min(axis=1, keepdims=True)"),
            "0 没有量准",
        ),
        (
            rows("w.min(axis=1, keepdims=True)", "w.max(axis=1, keepdims=True)"),
            "0 没有量准",
        ),
        (
            rows(q="np.clip(np.floor(w / scale) + zero, 0, 255).astype(np.uint8)"),
            "四舍五入",
        ),
        (rows(back="q, scale[:, 0], zero[:, 0]"), "keepdims"),
        (rows(back="q.astype(int), scale, zero"), "uint8"),
        (rows(back="q, scale"), "三样"),
        (
            rows(
                scale="(high - low) / 300",
                q="(np.round(w / scale) + zero).astype(np.int64).astype(np.uint8)",
            ),
            "绕了一圈",
        ),
        (rows(scale="(high - low) / 128"), "格子太大"),
    ],
    "ex-13-5": [
        (select(IF), "还有 if"),
        (select("return scores.argmax(1)"), "也参加了比较"),
        (select("return scores[:, 1:].argmax(1)"), "少加了 1"),
        (select("return scores[:, 1:].argmax(1) + 1"), "应当用第 0 张"),
        (
            select("return torch.zeros(len(scores), dtype=torch.long)"),
            "应从后三张里挑",
        ),
        (
            select(PUSH.format("(num_points - 3.5) * 1000") + "return all.argmax(1)"),
            "应当用第 0 张",
        ),
        (
            select(PUSH.format("(num_points - 2.5) * 12") + "return all.argmax(1)"),
            "不够大",
        ),
        (
            select(PUSH.format("(num_points - 2.5) * 1000") + "return all.argmax()"),
            "dim=1",
        ),
        (
            select(PUSH.format("(num_points - 2.5) * 1000") + "return all.amax(1)"),
            "整数",
        ),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)


# ---- 练习 13.1 的答案是试出来的 ----------------------------------------------------


FORWARDS = {
    "A": lambda x: x.reshape(x.shape[0], -1),
    "B": lambda x: x / len(x),
    "C": lambda x: x.clamp(min=0),
    "D": lambda x: x * 2 if x.max() > 3 else x,
    "E": lambda x: torch.where(x > 3, x * 2, x),
    "F": lambda x: x + torch.ones(2, 4).sum(),
}


def test_the_letters_of_the_first_exercise_are_true() -> None:
    """题面里的六行就是这六个函数；真的描一遍，错的正好是 B 和 D。"""
    (question,) = tagged(chapter(STEM), "exercise-text", "ex-13-1")
    for line in ("x.reshape(x.shape[0], -1)", "x / len(x)", "x.clamp(min=0)"):
        assert line in question["source"]
    export, run = (course.from_chapter(STEM, name) for name in ("export", "run"))
    other = torch.arange(15.0).reshape(3, 5) - 4
    wrong = set()
    for letter, function in FORWARDS.items():
        module = nn.Module()
        module.forward = function
        axes = {"x": {0: "B", 1: "N"}}
        model, _ = export(module, (torch.ones(2, 4),), ["x"], ["y"], axes)
        found = run(model, x=other.numpy())[0]
        expected = function(other).numpy()
        if found.shape != expected.shape or not np.allclose(found, expected):
            wrong.add(letter)
    assert wrong == {"B", "D"}


# ---- 与 sam_lite 对账 ------------------------------------------------------------


CASES = [
    (1, 2, 0, (40, 60)),
    (3, 5, 1, (70, 33)),
    (2, 3, 2, (9, 64)),
    (2, 0, 1, (64, 64)),
]


@pytest.mark.parametrize("case", CASES)
def test_decoder_agrees_with_package(small_sam: Sam, case: tuple) -> None:
    """每个参数都非零的小模型：组数、点数、掩码、大小各不相同。"""
    inputs_for = course.from_chapter(STEM, "inputs_for")
    mine = course.from_chapter(STEM, "MyOnnxDecoder")(small_sam)
    theirs = SamOnnxModel(small_sam, return_single_mask=False)
    args = inputs_for(small_sam, *case)
    for a, b in zip(mine(*args), theirs(*args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_exported_decoder_agrees_in_other_shapes(small_sam: Sam) -> None:
    """照笔记本的办法描图，换一种形状仍与 PyTorch 相同，也没有烤死的警告。"""
    names = ("export", "inputs_for", "largest_difference", "INPUTS", "OUTPUTS", "AXES")
    export, inputs_for, difference, *spec = (
        course.from_chapter(STEM, name) for name in names
    )
    mine = course.from_chapter(STEM, "MyOnnxDecoder")(small_sam)
    set_fused(small_sam, False)
    args = inputs_for(small_sam, 2, 3, 2, (40, 60))
    with FixedSizes(everywhere=False):
        model, burnt = export(mine, args, *spec)
    assert not burnt
    onnx.checker.check_model(model, full_check=True)
    for case in CASES:
        assert difference(model, mine, inputs_for(small_sam, *case, seed=1)) < 1e-4


def test_loop_and_where_agree(small_sam: Sam) -> None:
    loop = course.from_chapter(STEM, "embed_by_loop")
    fast = course.from_chapter(STEM, "embed_points")
    labels = torch.tensor([[3.0, 2, 1, 0, -1, 1]])
    coords = 64 * torch.rand(1, 6, 2)
    encoder = small_sam.prompt_encoder
    expected = loop(encoder, coords, labels)
    torch.testing.assert_close(fast(encoder, coords, labels), expected)


@pytest.mark.parametrize("widths", [(3, 4, 2), (5, 1, 6)])
def test_runtime_by_hand(widths: tuple[int, int, int]) -> None:
    """最笨的运行环境和 PyTorch 一致；不认得的运算说得出名字。"""
    export, by_hand = (course.from_chapter(STEM, n) for n in ("export", "run_by_hand"))
    a, b, c = widths
    mlp = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))
    x = torch.randn(7, a)
    model, _ = export(mlp, (x,), ["x"], ["y"])
    found = by_hand(model, x=x.numpy())[0]
    np.testing.assert_allclose(found, mlp(x).detach(), rtol=1e-4, atol=1e-5)
    model, _ = export(nn.Sigmoid(), (x,), ["x"], ["y"])
    with pytest.raises(NotImplementedError, match="Sigmoid"):
        by_hand(model, x=x.numpy())


def test_one_ruler_is_within_half_a_step() -> None:
    quantize_all = course.from_chapter(STEM, "quantize_all")
    w = np.random.default_rng(0).normal(0, 2, (5, 9))
    for table in (w, np.abs(w) + 1, -np.abs(w) - 1):
        q, scale, zero = quantize_all(table)
        assert q.dtype == np.uint8
        back = (q.astype(float) - zero) * scale
        assert np.abs(back - table).max() <= 0.75 * scale
        assert (0 - zero + zero) * scale == 0 and 0 <= zero <= 255


def test_ancestors_walks_backwards() -> None:
    """0 -> 1 -> 3，2 -> 3：从 3 的输入往回走，走得到 0、1、2。"""
    ancestors = course.from_chapter(STEM, "ancestors")
    make = onnx.helper.make_node
    nodes = [
        make("Relu", ["x"], ["a"]),
        make("Relu", ["a"], ["b"]),
        make("Relu", ["y"], ["c"]),
        make("Add", ["b", "c"], ["d"]),
        make("Relu", ["d"], ["e"]),
    ]
    assert ancestors(nodes, ["b", "c"]) == {0, 1, 2}
    assert ancestors(nodes, ["b"]) == {0, 1}
    assert ancestors(nodes, ["x"]) == set()


def test_before_looks_at_the_names() -> None:
    before = course.from_chapter(STEM, "before")
    make = onnx.helper.make_node
    nodes = [
        make("Relu", ["x"], ["a"], name="/loose"),
        make("Relu", ["a"], ["b"], name="/head/Relu"),
        make("Relu", ["b"], ["c"], name="/after"),
    ]
    assert before(nodes, "head") == {0} and before(nodes, "after") == {0, 1}
