"""第 13 章：笔记本里的解码器与 sam_lite 一致。"""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from chapters.common import chapter, course, tagged
from sam_lite.attention import set_fused
from sam_lite.model import Sam
from sam_lite.onnx.graphs import SamOnnxModel

STEM = "13_onnx_export"


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
