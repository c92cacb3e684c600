"""每一道练习：空着的报未作答，答案通过，表里的每一种错误正好得到它的提示。

错误答案和提示只写在 chapters/checks/ 的表里，这里拿来照样试一遍，经过笔记本里的检查格。
"""

import re

import numpy as np
import pytest
import torch

from chapters.common import (
    NOTEBOOKS,
    chapter,
    checks,
    course,
    exercises,
    solution,
    tagged,
)
from chapters.common import verdict as asked

EVERY = [(path.stem, exercise) for path in NOTEBOOKS for exercise in exercises(path)]
every = pytest.mark.parametrize(("stem", "exercise"), EVERY, ids=lambda value: value)


def source_of(answer: object, stem: str, exercise: str) -> str:
    """一份错误答案的代码；值就写成检查格里那个名字的赋值。"""
    if isinstance(answer, str) and "def " in answer:
        return answer
    (check,) = tagged(chapter(stem), "check", exercise)
    name = re.search(r", (\w+)\)", check["source"])[1]
    return f"{name} = {answer!r}"


@every
def test_blank_is_unanswered(stem, exercise):
    (stub,) = tagged(chapter(stem), "exercise", exercise)
    assert asked(stem, exercise, stub["source"]) == f"{exercise}：未作答\n"


@every
def test_solution_passes(stem, exercise):
    (answer,) = tagged(solution(stem), "solution", exercise)
    assert asked(stem, exercise, answer["source"]) == f"{exercise}：通过\n"


@every
def test_right_answer_of_the_table_passes(stem, exercise):
    table = course.find_checker(exercise)
    right = table.right if hasattr(table, "right") else table.answer()
    said = asked(stem, exercise, source_of(right, stem, exercise))
    assert said == f"{exercise}：通过\n"


@every
def test_each_mistake_gets_its_hint(stem, exercise):
    """一字不差；句号前只许多出“在哪一组输入上”。"""
    rows = list(course.find_checker(exercise))
    assert len(rows) >= 3
    for answer, hint in rows:
        source = source_of(answer, stem, exercise)
        said = asked(stem, exercise, source)
        wanted = f"{exercise}：不对。{hint.rstrip('。')}"
        placed = said.startswith(f"{wanted}（") and said.endswith(("）。\n", "）\n"))
        assert placed or said == f"{exercise}：不对。{checks.sentence(hint)}\n", (
            f"该说“{hint}”，说的却是：{said}\n{source}"
        )


# ---- 认错的办法 ------------------------------------------------------------------

HALVES = checks.Code(
    """
def halves(x, y):
    return x / 2, y / 2
""",
    lambda: {"小的": (np.arange(6.0), 1.5), "大的": (np.arange(9.0) * 7, 40.0)},
    checks.Bug("x 没有除。", "x / 2", "x"),
    checks.Bug("y 没有除。", "y / 2", "y"),
    checks.Wrong("次序反了。", "x / 2, y / 2", "y / 2, x / 2"),
    checks.Wrong("两个都取了整。", "/", "//"),
    checks.Wrong("改动了 x。", "    return x / 2", "    x /= 2\n    return x"),
    form="要返回两样。",
    otherwise="都除以 2。",
    names=("前一半", "后一半"),
    kept=True,
)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x, y: (x * 0.5, y * 0.5), "通过"),
        (lambda x, y: ((x / 2).tolist(), np.float64(y / 2)), "通过"),
        (lambda x, y: (x, y), "不对。还剩 2 处没有改：x 没有除；y 没有除（小的）。"),
        (lambda x, y: (x / 2, y), "不对。还剩 1 处没有改：y 没有除（小的）。"),
        (lambda x, y: (x // 2, 7.0), "不对。两个都取了整（小的）。"),
        (lambda x, y: (x / 3, y / 2), "不对。“前一半”不对：应是 [0.0, 0.5, 1.0, 1.5, "),
        (
            lambda x, y: (x / 2, 7.0),
            "不对。“后一半”不对：应是 0.75，你的是 7（小的）。",
        ),
        (
            lambda x, y: (x[1:], y),
            "不对。“前一半”的形状应是 (6,)，你的是 (5,)（小的）。",
        ),
        (lambda x, y: x, "不对。要返回两样（小的）。"),
        (lambda x, y: (x / 2, y / 2, 0), "不对。要返回两样（小的）。你返回了 3 样。"),
        (lambda x, y: (np.negative(x, out=x), y), "不对。改动了传进来的参数"),
        (lambda x, y: x[99], "运行时出错。IndexError"),
        (lambda x, y: None, "不对。函数没有返回东西：是不是忘了 return？"),
        (lambda x, y: ..., "不对。代码里还有一处 `...` 没有换成你写的。"),
        (lambda x, y: x / ..., "不对。代码里还有一处 `...` 没有换成你写的。"),
    ],
)
def test_answers_are_told_apart(answer, said, monkeypatch, capsys):
    monkeypatch.setattr(course, "find_checker", lambda exercise: HALVES)
    before = torch.get_rng_state(), torch.get_num_threads()
    course.check("ex-99-1", answer)
    assert capsys.readouterr().out.startswith(f"ex-99-1：{said}")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()


def test_edits_must_fit_the_right_answer():
    with pytest.raises(ValueError, match="没有这一段"):
        checks.Wrong("x", "abc", "d").spoil(HALVES.right)
