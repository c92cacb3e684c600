"""第 14 章的练习怎么检查。"""

import ast
import importlib
import inspect
import sys
import textwrap
import types

import torch
from course import answered, expect

# ---- 练习 14.1 ------------------------------------------------------------------

OLD, NEW = "ex14_old", "ex14_new"


def ex_14_1(redirected) -> None:
    """造两个玩具库，进去、出来、中途抛错各试一遍。"""
    toys = {name: types.ModuleType(name) for name in NAMES}
    for name, toy in toys.items():
        toy.whoami = name
    finders, modules = list(sys.meta_path), dict(sys.modules)
    sys.modules.update(toys)
    try:
        try_inside(redirected)
        look_outside(toys, finders, "出来以后")
        try:
            with redirected(OLD, NEW):
                importlib.import_module(OLD)
                raise KeyError("with 里面出的错")
        except KeyError:
            pass
        else:
            expect(False, "with 里面的错被吞掉了：用 try、finally，不要 except。")
        look_outside(toys, finders, "with 里面抛错以后")
    finally:  # 不管答案怎样，把环境还给读者
        sys.meta_path[:] = finders
        for name in set(sys.modules) - set(modules):
            del sys.modules[name]
        sys.modules.update(modules)


NAMES = (OLD, f"{OLD}.sub", f"{OLD}er", NEW, f"{NEW}.sub", f"{NEW}.more")


def try_inside(redirected) -> None:
    """在 with 里，名字要换过；只是开头相同的别的库不换。"""
    with answered(redirected(OLD, NEW)):
        found = importlib.import_module(OLD)
        expect(
            found.whoami == NEW,
            "import 到的还是原来的：登记簿在查找器前面，先收起 old 那几行。",
        )
        found = importlib.import_module(f"{OLD}.sub")
        expect(
            found.whoami == f"{NEW}.sub",
            "子模块没有换：登记簿上 old.… 的各行也要收起。",
        )
        expect(
            sys.modules.get(f"{OLD}er") is not None,
            "收起得太多：名字只是开头相同的库（old 后面没有点）不归你管。",
        )
        importlib.import_module(f"{OLD}.more")  # 登记簿上原来没有的
        other = types.SimpleNamespace(find_spec=lambda *_: None)
        sys.meta_path.insert(0, other)  # 别人后来插的
    expect(
        other in sys.meta_path,
        "摘错了：with 里别人又插了一个，pop(0) 摘的是它。用 remove 摘自己的。",
    )
    sys.meta_path.remove(other)


def look_outside(toys, finders, when: str) -> None:
    expect(
        list(sys.meta_path) == finders,
        f"{when}，meta_path 和原来不同：把自己插的查找器摘掉（只摘自己的）。",
    )
    expect(
        f"{OLD}.more" not in sys.modules,
        f"{when}，登记簿上还有替身 {OLD}.more：替身要全删，不只是盖掉原来有的。",
    )
    for name in (OLD, f"{OLD}.sub"):
        expect(
            name in sys.modules,
            f"{when}，登记簿上没有 {name} 了：收起的忘了放回去。",
        )
        expect(
            sys.modules[name] is toys[name],
            f"{when}，登记簿上的 {name} 还是替身：先删替身，再放回收起的。",
        )


# ---- 练习 14.2 ------------------------------------------------------------------


def embed(x, labels, negative, positive, nowhere):
    """题里的函数，在副本上算。"""
    x = x.clone()
    x[labels == -1] = nowhere
    x[labels == 0] += negative
    x[labels == 1] += positive
    return x


def ex_14_2(portable_embed) -> None:
    """几种标签，包括一种也没有的；再看源码里有没有不许的写法。"""
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(4, generator=generator) for _ in range(3)]
    for labels in (
        torch.tensor([[1, 0, -1], [0, 1, 1]]),
        torch.tensor([[1, 1, 1]]),
        torch.tensor([[-1, 5, 0, 0, 1]]),
    ):
        x = torch.randn(*labels.shape, 4, generator=generator)
        before, right = x.clone(), embed(x, labels, *vectors)
        out = answered(portable_embed(x, labels, *vectors))
        expect(torch.equal(x, before), "调用者的 x 被改掉了：用 torch.where 造新的。")
        expect(out.shape == right.shape, f"形状是 {tuple(out.shape)}，应与 x 相同。")
        expect(out.dtype == right.dtype, "类型变了：where 的两边都要是 float32 张量。")
        swapped = embed(x, labels, vectors[1], vectors[0], vectors[2])
        expect(not torch.equal(out, swapped) or torch.equal(swapped, right), SWAPPED)
        padded = right.clone()
        padded[labels == -1] += x[labels == -1]
        same = torch.allclose(out, padded, atol=1e-6)
        expect(
            not same or torch.equal(padded, right),
            "填充词元是整个换成 nowhere，不是在原来的上面加。",
        )
        expect(torch.allclose(out, right, atol=1e-6), "结果与题里的函数不同。")
    look_at_source(portable_embed)


SWAPPED = "标签 0 是负点、加 negative，1 是正点、加 positive：两个弄反了。"


IN_PLACE = ("masked_fill_", "masked_scatter_", "index_put_")


def look_at_source(function) -> None:
    """不许带掩码的原地写法，where 里不许有 Python 的数。"""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        assigns = isinstance(node, (ast.Assign, ast.AugAssign))
        called = ""
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
        by_mask = assigns and any(isinstance(t, ast.Subscript) for t in targets)
        expect(
            not by_mask and called not in IN_PLACE,
            "还有 x[mask] = … 这样的原地写法：OneFlow 遇到空的掩码会出错。",
        )
        if called == "where":
            values = [*node.args, *(k.value for k in node.keywords)]
            bare = [v.operand if isinstance(v, ast.UnaryOp) else v for v in values]
            expect(
                not any(isinstance(v, ast.Constant) for v in bare),
                "where 里有 Python 的数：那边会变成 float64，用 torch.zeros_like。",
            )


# ---- 练习 14.3 ------------------------------------------------------------------

FLOPS, BYTES = 400e9, 20e9
N, C = 4096, 768
TABLE = 12 * N * N


def ex_14_3(milliseconds) -> None:
    """三步的毫秒数，容许差 2%；常见的错各有各的数。"""
    expect(
        isinstance(milliseconds, (tuple, list)) and len(milliseconds) == 3,
        "要三个数：(第一步, 第二步, 第三步)，毫秒。",
    )
    flops, size = 2 * N * C * C, 4 * (2 * N * C + C * C)
    mistakes = (
        (
            (flops / 2 / FLOPS, "第一步：一次乘加是 2 次运算。"),
            (size / BYTES, "第一步：两个时间取长的，它卡在乘法器上。"),
            (flops / FLOPS + size / BYTES, "第一步：取长的那个，不是相加。"),
        ),
        (
            (3 * N * C / BYTES, "第二步：一个 float32 是 4 个字节。"),
            (8 * N * C / BYTES, "第二步：读两个，还要写一个，一共搬三份。"),
            (N * C / FLOPS, "第二步：它卡在内存上，要按字节算。"),
        ),
        (
            (4 * TABLE / BYTES, "第三步：读一遍，还要写一遍。"),
            (8 * N * N / BYTES, "第三步：忘了 12 个头。"),
            (12 * TABLE / BYTES, "第三步：原地乘一个常数，只有一张表，读一遍写一遍。"),
            (TABLE / FLOPS, "第三步：它卡在内存上，要按字节算。"),
            (2 * TABLE / BYTES, "第三步：一个 float32 是 4 个字节。"),
        ),
    )
    right = (flops / FLOPS, 12 * N * C / BYTES, 8 * TABLE / BYTES)
    for step, (got, true, wrong) in enumerate(zip(milliseconds, right, mistakes), 1):
        got = float(answered(got))
        expect(not near(got, true), f"第 {step} 步的单位是秒：要毫秒。")
        for value, hint in wrong:
            expect(not near(got, value * 1000), hint)
        expect(near(got, true * 1000), f"第 {step} 步不对：运算和字节各是多少？")


def near(a: float, b: float) -> bool:
    return abs(a - b) <= max(0.02 * b, 0.06 if b > 0.5 else 0)


# ---- 练习 14.4 ------------------------------------------------------------------


def account(scores, values):
    """一块键的账：(m, s, a)。"""
    m = scores.amax(dim=-1)
    shares = (scores - m[:, None]).exp()
    return m, shares.sum(dim=-1), shares @ values


def ex_14_4(merge) -> None:
    """切成不等的两块、三块，小分数和上百的分数都试。"""
    generator = torch.Generator().manual_seed(0)
    for scale, cut in ((1.0, 3), (1.0, 7), (200.0, 4)):
        scores = torch.randn(9, 10, generator=generator) * scale
        values = torch.randn(10, 4, generator=generator)
        one = account(scores[:, :cut], values[:cut])
        two = account(scores[:, cut:], values[cut:])
        kept = [t.clone() for t in (*one, *two)]
        found = answered(merge(one, two))
        expect(
            isinstance(found, (tuple, list)) and len(found) == 3,
            "要返回三样：(m, s, a)。",
        )
        same = all(torch.equal(a, b) for a, b in zip(kept, (*one, *two)))
        expect(same, "传进来的账被改了：别用 += 和 *=。")
        judge(found, one, two, account(scores, values))
        swapped = answered(merge(two, one))
        close = torch.allclose(swapped[2], found[2], atol=1e-4)
        expect(close, "两块的先后换一换，结果不该变：两边都要折算。")


def judge(found, one, two, right) -> None:
    m, s, a = found
    (m1, s1, a1), (m2, s2, a2) = one, two
    expect(all(torch.isfinite(t).all() for t in found), "溢出了：只对差做 exp。")
    expect(
        m.shape == m1.shape, f"m 的形状是 {tuple(m.shape)}，应为 {tuple(m1.shape)}。"
    )
    expect(torch.equal(m, right[0]), "m 不对：逐个查询取两个里大的，torch.maximum。")
    expect(not torch.allclose(s, s1 + s2), "s 没有折算：旧账是按旧的最大值记的。")
    backwards = s1 * (m - m1).exp() + s2 * (m - m2).exp()
    expect(not torch.allclose(s, backwards), "折算反了：乘 exp(旧的 − 新的)。")
    expect(torch.allclose(s, right[1], rtol=1e-4), "s 不对：两份各自折算，再相加。")
    expect(
        a.shape == a1.shape, f"a 的形状是 {tuple(a.shape)}，应为 {tuple(a1.shape)}。"
    )
    expect(not torch.allclose(a, a1 + a2, atol=1e-5), "a 没有折算：系数同 s 的一样。")
    divided = right[2] / right[1][:, None]
    if not torch.allclose(divided, right[2], atol=1e-4):
        hint = "a 不除分母：除了就没法再并下一块。"
        expect(not torch.allclose(a, divided, atol=1e-5), hint)
    expect(torch.allclose(a, right[2], atol=1e-4), "a 不对：两份各自折算，再相加。")


# ---- 练习 14.5 ------------------------------------------------------------------


def ex_14_5(multiplications) -> None:
    """几组尺寸，和几种数法比。"""
    for T, P, C, n, d in ((7, 4096, 256, 8, 16), (3, 10, 6, 2, 5), (20, 11, 4, 3, 7)):
        answer = answered(multiplications(T, P, C, n, d))
        expect(
            isinstance(answer, (tuple, list)) and len(answer) == 2,
            "要返回两个数：(先投影图像, 先投影词元)。",
        )
        image, tokens = P * C * n * d + n * T * d * P, n * T * d * C + n * T * C * P
        first, second = answer
        where = f"T={T}、P={P}、C={C}、n={n}、d={d} 时"
        expect((first, second) != (tokens, image), f"{where}，两个数的次序反了。")
        expect(first != P * C * n * d, f"{where}，先投影图像的漏了打分那一步。")
        expect(
            first != n * (P * C * n * d + T * d * P),
            f"{where}，投影图像只做一次，各头的都在里面，不必乘 n。",
        )
        expect(first != P * C * d + n * T * d * P, f"{where}，W 的宽是 n·d，不是 d。")
        expect(first == image, f"{where}，先投影图像的次数不对。")
        expect(second != n * T * C * P, f"{where}，先投影词元的漏了投影那一步。")
        expect(
            second != n * T * d * C + T * C * P,
            f"{where}，每个头的 q W 不同，打分要做 n 次。",
        )
        expect(
            second != n * T * d * C + n * T * d * P,
            f"{where}，投影以后词元有 C 个通道，打分的宽是 C，不是 d。",
        )
        expect(second == tokens, f"{where}，先投影词元的次数不对。")
