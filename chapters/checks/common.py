"""练习的检查共用的：一道题写成一张表，表里有对的答案和典型的错误。

check_NN.py 里的 ``ex_NN_1`` 就是第 NN 章第 1 题的表，检查和测试都读它：

* 答案是几个数、形状、真假的，用 Values：每一项写对的值，和“错的值 -> 提示”。
* 答案是函数的，用 Code：写一份对的代码，和几种典型的错误。一种错误是一行
  ``Wrong(提示, 原来的一段, 改成的一段)``，把对的代码改错。检查拿同样的输入去问读者的
  函数和每一份改错的代码，结果与哪一份的一样，就说那一条提示。

想添一种错误，添一行就够：提示不用在别处再写，测试也会自动去试它。
"""

import ast
import copy
import functools
import inspect
import itertools
import linecache
import math
import numbers
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from course import Mistake, Unanswered, answered, expect
from torch import nn

NAMES = {"np": np, "torch": torch, "F": F, "nn": nn, "math": math}  # 代码里可以直接用


def sentence(hint: str, where: str = "") -> str:
    """提示写成一句：句号之前补上在哪一组输入上。"""
    where = f"（{where}）" if where else ""
    return hint + where if hint[-1] in "？！" else hint.rstrip("。") + where + "。"


# ---- 几个值 --------------------------------------------------------------------


@dataclass(frozen=True)
class Like:
    """一类错的值：example 是其中一个，fits 认出这一类。"""

    example: Any
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Part:
    """答案里的一项：对的值、认不出错在哪里时的提示、错的值 -> 提示。

    within 是容许的误差；rough 是相对误差。
    """

    right: Any
    otherwise: str
    wrong: Mapping[Any, str] = field(default_factory=dict)
    within: float = 0
    rough: float = 0

    def same(self, a: Any, b: Any) -> bool:
        if isinstance(a, numbers.Number) and isinstance(b, numbers.Number):
            return math.isclose(a, b, rel_tol=self.rough, abs_tol=self.within)
        return bool(a == b)

    def hint(self, value: Any, name: str) -> str | None:
        """值错了就返回提示；对的返回 None。"""
        if isinstance(self.right, bool) and not isinstance(value, bool):
            return f"“{name}”要填 True 或 False。"
        for wrong, hint in self.wrong.items():
            if isinstance(wrong, Like) and wrong.fits(value):
                return hint
        if self.same(value, self.right):
            return None
        for wrong, hint in self.wrong.items():
            if not isinstance(wrong, Like) and self.same(value, wrong):
                return hint
        return self.otherwise


class Values:
    """答案是几个值：parts 是列表，答案就是元组；是字典，答案就是同样键的字典。

    form 是答案的样子不对时的提示；whole 是“整个答案 -> 提示”，比各项先看。
    """

    def __init__(self, form: str, parts: Any, whole: Mapping[Any, str] | None = None):
        self.form, self.whole = form, whole or {}
        self.named = isinstance(parts, dict)
        self.parts = parts if self.named else dict(enumerate(parts))

    def __call__(self, answer: Any) -> None:
        answer = plain(answer)
        if not self.named and isinstance(answer, tuple):
            answer = dict(enumerate(answer))
        fits = isinstance(answer, dict) and set(answer) == set(self.parts)
        expect(fits, self.form)
        for value in answer.values():
            for one in value if isinstance(value, tuple) else [value]:
                answered(one)
        pairs = [(part, answer[name]) for name, part in self.parts.items()]
        for values, hint in self.whole.items():
            alike = all(p.same(x, y) for (p, x), y in zip(pairs, values, strict=True))
            expect(not alike, sentence(hint))
        hints = [
            (part.hint(answer[name], str(name)), part.otherwise)
            for name, part in self.parts.items()
        ]
        wrong = [(hint == other, hint) for hint, other in hints if hint is not None]
        if wrong:  # 认得出的先说
            raise Mistake(sentence(min(wrong, key=lambda one: one[0])[1]))

    def answer(self, changed: Any = None, value: Any = None) -> Any:
        """对的答案；给了 changed 就把那一项换成 value。"""
        values = {name: part.right for name, part in self.parts.items()}
        if changed is not None:
            values[changed] = value
        return values if self.named else tuple(values.values())

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        """表里的每一个错误答案，和它该得到的提示。"""
        yield ({} if self.named else 7), self.form
        for values, hint in self.whole.items():
            yield values, hint
        for name, part in self.parts.items():
            for wrong, hint in part.wrong.items():
                value = wrong.example if isinstance(wrong, Like) else wrong
                yield self.answer(name, value), hint
            strange = -777
            if isinstance(part.right, bool):
                strange = not part.right
            elif isinstance(part.right, tuple):
                strange = (-777,) * len(part.right)
            if part.hint(strange, "") == part.otherwise:
                yield self.answer(name, strange), part.otherwise


def plain(value: Any) -> Any:
    """列表、数组、张量都换成元组和 Python 的数，好比较。"""
    if isinstance(value, np.ndarray | torch.Tensor | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(plain(one) for one in value)
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


# ---- 一个函数 ------------------------------------------------------------------


class Wrong:
    """一种典型的错误：提示，和对的代码里“原来的一段, 改成的一段”，可以有几对。

    只给一段就是整份代码。几种写法一个提示的，写几行。
    """

    def __init__(self, hint: str, *edits: str):
        self.hint, self.edits = hint, edits

    def spoil(self, source: str) -> str:
        """改错之后的代码。错误：要改的一段不在里面时抛 ValueError。"""
        if len(self.edits) == 1:
            return self.edits[0]
        for old, new in zip(self.edits[::2], self.edits[1::2], strict=True):
            if old not in source:
                raise ValueError(f"对的代码里没有这一段：{old}")
            source = source.replace(old, new)
        return source


class Bug(Wrong):
    """题目给的代码里的一处错，要读者改：检查说出还剩哪几处。"""


@dataclass
class Seen:
    """一次调用的结果，和拆开的各面：(名字, 哪一面, 值)，先样子，后数值。

    抛的错也是结果。
    """

    value: Any
    faces: list[tuple[str, str, Any]]


class Code:
    """答案是函数：拿几组输入去问，结果与对的代码比，再与每一种改错的比。

    参数：
        right: 对的代码，最后定义的函数是答案；np、torch、F、nn、math 可以直接用。
        cases: 返回几组输入的函数：{在哪里: 参数}，或参数的列表。
        wrongs: 典型的错误，Wrong 或 Bug；前面的先认。
        ask: 怎样问，``ask(函数, *参数) -> 结果``；结果是字典时，键是各项的名字。
        form: 返回的东西样子不对（几样、是不是张量）时的提示。
        otherwise: 认不出是哪一种错误时的提示。
        names: 返回几样时各样的名字。
        forbid: 不许用的名字 -> 提示；``"for"`` 是循环和推导式。
        kept: 不许改动参数；dtypes: 类型也要相同；grad: 不关梯度。
        close: 两个数组怎样算相同；不给就看 atol。
        exact: 每组只答真假或一两个数的题：全部的组都一样，才算那种错误。
        many: 剩下不止一处 Bug 时说的话；不给就把剩下的都说出来。
    """

    def __init__(
        self,
        right: str,
        cases: Callable[[], Any],
        *wrongs: Wrong,
        ask: Callable[..., Any] | None = None,
        form: str = "返回的东西样子不对。",
        otherwise: str = "结果不对。",
        names: Sequence[str] = (),
        forbid: Mapping[str, str] | None = None,
        kept: bool = False,
        dtypes: bool = False,
        grad: bool = False,
        close: Callable[[Any, Any], bool] | None = None,
        atol: float = 1e-4,
        exact: bool = False,
        many: str = "",
    ):
        self.right, self.cases, self.wrongs = right, cases, wrongs
        self.ask, self.form, self.otherwise = ask, form, otherwise
        self.names, self.forbid = names, forbid or {}
        self.kept, self.dtypes, self.grad = kept, dtypes, grad
        self.close, self.atol, self.exact, self.many = close, atol, exact, many

    def __call__(self, answer: Callable[..., Any]) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # 张量都很小，线程多了反而慢
        try:
            with torch.random.fork_rng(devices=[]):  # 不碰读者的随机数
                self.compare(answer)
        finally:
            torch.set_num_threads(threads)

    @functools.cached_property
    def known(self) -> tuple[dict, dict]:
        """几组输入，和对的结果；只算一次。"""
        torch.manual_seed(0)
        cases = self.cases()
        cases = cases if isinstance(cases, dict) else dict(enumerate(cases))
        want = self.results(load(self.right), cases)
        for seen in want.values():
            if isinstance(seen.value, Exception):
                raise seen.value
        return cases, want

    @functools.cached_property
    def mistakes(self) -> list[tuple[str, dict]]:
        """每一种错误的提示，和它的结果；只算一次。"""
        return [(hint, self.spoiled(source, *self.known)) for source, hint in self]

    def compare(self, answer: Callable[..., Any]) -> None:
        """与对的、与每一种错的比；不对就抛 Mistake。"""
        cases, want = self.known
        got = self.results(answer, cases, want)
        steps = {c: self.first_step(got[c], want[c]) for c in cases}
        bad = {c: step for c, step in steps.items() if step is not None}
        if not bad:
            used = used_names(answer)
            for name, hint in self.forbid.items():
                expect(name not in used, hint)
            return
        case, step = next(iter(bad.items()))
        where = case if isinstance(case, str) else ""
        for hint, seen in self.mistakes:
            if all(self.first_step(got[c], seen[c]) is None for c in cases):
                raise Mistake(sentence(hint, where))
        for cases in () if self.exact else (bad, [case]):  # 不全像的，看先错的那一面
            if cases == [case] and is_small(got[case].faces[step : step + 1]):
                break  # 一个小小的数，碰巧也会一样
            for hint, seen in self.mistakes:
                if all(
                    self.errs_alike(got[c], seen[c], want[c], bad[c]) for c in cases
                ):
                    raise Mistake(sentence(hint, where))
        self.complain(got[case], want[case], step, where)

    # ---- 表里的错误 ----

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """每一份改错的代码，和它的提示；Bug 还有几处一起剩下的。"""
        for wrong in self.wrongs:
            if not isinstance(wrong, Bug):
                yield wrong.spoil(self.right), wrong.hint
        bugs = [wrong for wrong in self.wrongs if isinstance(wrong, Bug)]
        for n in range(1, len(bugs) + 1):
            for left in itertools.combinations(bugs, n):
                source = self.right
                for bug in left:
                    source = bug.spoil(source)
                said = "；".join(bug.hint.rstrip("。") for bug in left)
                said = self.many if n > 1 and self.many else said
                yield source, f"还剩 {n} 处没有改：{said}"

    def spoiled(self, source: str, cases: dict, want: dict) -> dict:
        """改错的代码的结果；用了不许用的东西，就没有结果。"""
        try:
            return self.results(load(source), cases, want)
        except (Mistake, Unanswered):
            return {case: Seen(None, []) for case in cases}

    # ---- 结果 ----

    def results(self, function: Any, cases: dict, want: dict | None = None) -> dict:
        """函数在每一组输入上的结果；有了对的，就照它的样子换写法。"""
        found = {}
        torch.manual_seed(1)  # 代码里要是用了随机数，几份也是同样的
        for case, args in cases.items():
            given = copy.deepcopy(args)
            try:
                with torch.set_grad_enabled(self.grad):
                    ask = self.ask or (lambda function, *args: function(*args))
                    value = ask(function, *given)
                    expect(value is not None, NO_RETURN)
                    expect(value is not ..., LEFT_OVER)
            except (Mistake, Unanswered):
                raise
            except Exception as error:
                expect("ellipsis" not in str(error), LEFT_OVER)
                value = error
            if want is not None:
                value = fit(value, want[case].value)
            faces = list(self.faces(value, ""))
            if self.kept:
                faces.append(("", "touched", not unchanged(args, given)))
            found[case] = Seen(value, faces)
        return found

    def faces(self, value: Any, name: str) -> Iterator[tuple[str, str, Any]]:
        if isinstance(value, Exception):
            yield name, "error", f"{type(value)}{value}"
        elif isinstance(value, dict):
            yield name, "keys", sorted(map(str, value))
            for key, one in value.items():
                yield from self.faces(one, str(key))
        elif isinstance(value, tuple | list):
            yield name, "length", len(value)
            for i, one in enumerate(value):
                known = i < len(self.names) and not name
                yield from self.faces(one, self.names[i] if known else name)
        elif isinstance(value, np.ndarray | torch.Tensor):
            torchy = isinstance(value, torch.Tensor)
            array = value.detach().numpy() if torchy else value
            yield name, "type", "张量" if torchy else "数组"
            yield name, "shape", array.shape
            kind = str(array.dtype) if self.dtypes else array.dtype.kind == "b"
            yield name, "dtype", kind
            yield name, "value", array
        else:
            number = isinstance(value, numbers.Number)
            yield name, "type", "数" if number else type(value).__name__
            yield name, "value", value

    def first_step(self, a: Seen, b: Seen) -> int | None:
        """两个结果从第几面起不同；全同是 None。"""
        for i in range(max(len(a.faces), len(b.faces))):
            if not self.alike_at(i, a, b):
                return i
        return None

    def errs_alike(self, got: Seen, seen: Seen, want: Seen, step: int) -> bool:
        """也是从这一面起错，错得也一样。"""
        same = self.alike_at(step, got, seen)
        return same and self.first_step(seen, want) == step

    def alike_at(self, i: int, a: Seen, b: Seen) -> bool:
        """第 i 面相同吗；有一个没有这一面，就不同。"""
        if i >= min(len(a.faces), len(b.faces)):
            return False
        return self.alike(a.faces[i], b.faces[i])

    def alike(self, a: tuple, b: tuple) -> bool:
        (_, kind, x), (_, other, y) = a, b
        if kind != other:
            return False
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            if x.shape != y.shape:
                return False
            if self.close is not None:
                return self.close(x, y)
            if x.dtype.kind == y.dtype.kind == "f":
                x, y = x.astype(float), y.astype(float)
                return np.allclose(x, y, self.atol, self.atol, equal_nan=True)
            return np.array_equal(x, y)
        if isinstance(x, float) and isinstance(y, numbers.Real):
            close = math.isclose(x, y, rel_tol=self.atol, abs_tol=1e-9)
            return close or (math.isnan(x) and math.isnan(y))
        return bool(x == y)

    # ---- 认不出的 ----

    def complain(self, got: Seen, want: Seen, step: int, where: str) -> None:
        """哪一种都不像：说出从哪里起不同。"""
        if isinstance(got.value, Exception):
            raise got.value
        name, kind, value = got.faces[step]
        _, wanted_kind, wanted = want.faces[step]
        if got.faces[-1][1:] == ("touched", True) and kind in ("value", "touched"):
            raise Mistake("改动了传进来的参数：先复制，或算出新的。")
        if kind == wanted_kind == "length" and name:
            said = f"“{name}”应有 {wanted} 项，你的有 {value} 项"
            raise Mistake(sentence(said, where) + self.otherwise)
        if kind != wanted_kind or kind in ("type", "length", "keys"):
            count = f"你返回了 {value} 样。" if kind == "length" else ""
            raise Mistake(sentence(self.form, where) + count)
        label = f"“{name}”" if name else ""
        if kind in ("shape", "dtype"):
            word = "形状" if kind == "shape" else "类型"
            if isinstance(wanted, bool):
                value, wanted = (
                    "布尔" if flag else "数值，不是布尔" for flag in (value, wanted)
                )
            of = "的" if label else ""
            said = f"{label}{of}{word}应是 {wanted}，你的是 {value}"
            raise Mistake(sentence(said, where))
        shown = show(wanted) and f"应是 {show(wanted)}，你的是 {show(value)}"
        detail = "：".join(filter(None, [label and f"{label}不对", shown]))
        if detail:
            raise Mistake(sentence(detail, where) + self.otherwise)
        raise Mistake(sentence(self.otherwise, where))


NO_RETURN = "函数没有返回东西：是不是忘了 return？"
LEFT_OVER = "代码里还有一处 `...` 没有换成你写的。"


def used_names(function: Any) -> set[str]:
    """函数的代码里用到的名字和属性，有循环的还有 "for"；看不到源代码时是空的。"""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return set()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.While | ast.comprehension):
            found.add("for")
        found |= {getattr(node, "id", ""), getattr(node, "attr", "")}
    return found


def is_small(faces: list) -> bool:
    """这一面是一个数、真假或几个元素的东西，认不出是哪种错误。"""
    (_, kind, value) = faces[0] if faces else ("", "", "")
    large = isinstance(value, str) or (isinstance(value, np.ndarray) and value.size > 3)
    return kind == "value" and not large


def load(source: str) -> Any:
    """执行一份代码，返回里面最后定义的函数。"""
    found: dict[str, Any] = dict(NAMES)
    name = f"<练习 {hash(source)}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    exec(compile(source, name, "exec"), found)  # 登记过，inspect 就看得到源代码
    return [value for value in found.values() if callable(value)][-1]


def fit(value: Any, like: Any) -> Any:
    """照对的结果 like 的样子换一换写法：列表换数组，零维的数组换成数。"""
    if isinstance(like, np.ndarray):
        loose = isinstance(value, list | tuple | torch.Tensor | numbers.Number)
        try:
            return np.asarray(value) if loose else value
        except (ValueError, TypeError, RuntimeError):
            return value
    if isinstance(like, tuple | list):
        flat = all(isinstance(one, numbers.Number) for one in like)
        if (
            flat
            and isinstance(value, np.ndarray | torch.Tensor)
            and np.ndim(value) == 1
        ):
            value = value.tolist()
        if not isinstance(value, tuple | list) or len(value) != len(like):
            return value
        return [fit(a, b) for a, b in zip(value, like, strict=True)]
    if isinstance(like, dict) and isinstance(value, dict) and set(like) == set(value):
        return {key: fit(value[key], like[key]) for key in like}
    if isinstance(like, numbers.Number | str) and hasattr(value, "item"):
        return value.item() if np.size(value) == 1 else value
    return value


def unchanged(before: Any, after: Any) -> bool:
    """参数有没有被改动；模块比它的权重。"""
    if isinstance(before, nn.Module):
        before, after = before.state_dict(), after.state_dict()
    if isinstance(before, dict):
        before, after = [*before, *before.values()], [*after, *after.values()]
    if isinstance(before, tuple | list):
        return len(before) == len(after) and all(map(unchanged, before, after))
    if isinstance(before, torch.Tensor | np.ndarray):
        return bool((before == after).all())
    return True  # 别的东西看不出来


def show(value: Any) -> str:
    """短的结果写出来；长的不写。"""
    if isinstance(value, np.ndarray):
        return str(value.round(3).tolist()) if value.size <= 8 else ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 80 else ""


# ---- 造输入 --------------------------------------------------------------------


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """每个参数都换成不为零的随机数：零会把错误藏起来。"""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=noise))
    return module.eval()
