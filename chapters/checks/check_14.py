"""第 14 章的练习：对的答案、典型的错误和提示。"""

import ast
import importlib
import inspect
import sys
import textwrap
import types

import torch
from checks.common import Code, Part, Values, Wrong
from course import answered

# ---- 练习 14.1 ------------------------------------------------------------------

OLD, NEW = "ex14_old", "ex14_new"
NAMES = (OLD, f"{OLD}.sub", f"{OLD}er", NEW, f"{NEW}.sub", f"{NEW}.more")


def redirect_toys(redirected):
    """造几个玩具库，进去、出来、中途抛错各试一遍；逐项记下看到的。"""
    toys = {name: types.ModuleType(name) for name in NAMES}
    for name, toy in toys.items():
        toy.whoami = name
    finders, modules = list(sys.meta_path), dict(sys.modules)
    sys.modules.update(toys)
    try:
        seen = look_inside(redirected)
        seen |= look_outside(toys, finders, "出来以后")
        seen["with 里的错"] = "被吞掉了"
        try:
            with redirected(OLD, NEW):
                importlib.import_module(OLD)
                raise KeyError("with 里面出的错")
        except KeyError:
            seen["with 里的错"] = "出来了"
        return seen | look_outside(toys, finders, "抛错以后")
    finally:  # 不管答案怎样，把环境还给读者
        sys.meta_path[:] = finders
        for name in set(sys.modules) - set(modules):
            del sys.modules[name]
        sys.modules.update(modules)


def look_inside(redirected) -> dict[str, object]:
    """在 with 里，名字要换过；只是开头相同的别的库不换。"""
    with answered(redirected(OLD, NEW)):
        seen = {"import 到的": importlib.import_module(OLD).whoami}
        seen["import 到的子模块"] = importlib.import_module(f"{OLD}.sub").whoami
        seen["开头相同的库还在"] = sys.modules.get(f"{OLD}er") is not None
        importlib.import_module(f"{OLD}.more")  # 登记簿上原来没有的
        other = types.SimpleNamespace(find_spec=lambda *_: None)
        sys.meta_path.insert(0, other)  # 别人后来插的
    seen["别人的查找器还在"] = other in sys.meta_path
    if other in sys.meta_path:
        sys.meta_path.remove(other)
    return seen


def look_outside(toys, finders, when: str) -> dict[str, object]:
    seen = {
        f"{when}，meta_path 照旧": list(sys.meta_path) == finders,
        f"{when}，还有替身 {OLD}.more": f"{OLD}.more" in sys.modules,
    }
    for name in (OLD, f"{OLD}.sub"):
        found = sys.modules.get(name)
        words = "没有" if found is None else "原来的" if found is toys[name] else "替身"
        seen[f"{when}，登记簿上的 {name}"] = words
    return seen


REMOVE = "        sys.meta_path.remove(finder)\n"
DELETE = "            del sys.modules[name]\n"
RESTORE = "        sys.modules.update(kept)\n"
ex_14_1 = Code(
    f"""
import sys
from contextlib import contextmanager
import course
Redirect = course.from_chapter("14_backends", "Redirect")
@contextmanager
def redirected(old, new):
    def names():
        return [n for n in list(sys.modules) if n == old or n.startswith(old + ".")]
    kept = {{name: sys.modules.pop(name) for name in names()}}
    finder = Redirect(old, new)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
{REMOVE}        for name in names():
{DELETE}{RESTORE}""",
    lambda: [()],
    Wrong(
        "import 到的还是原来的：登记簿在查找器前面，先收起 old 那几行。",
        "sys.modules.pop(name)",
        "sys.modules[name]",
    ),
    Wrong(
        "子模块没有换：登记簿上 old.… 的各行也要收起。",
        "for name in names()}",
        "for name in [old]}",
    ),
    Wrong(
        "收起得太多：名字只是开头相同的库（old 后面没有点）不归你管。",
        'old + "."',
        "old",
    ),
    Wrong(
        "摘错了：with 里别人又插了一个，pop(0) 摘的是它。用 remove 摘自己的。",
        "remove(finder)",
        "pop(0)",
    ),
    Wrong("meta_path 和原来不同：把自己插的查找器摘掉（只摘自己的）。", REMOVE, ""),
    Wrong(
        "登记簿上还有替身：替身要全删，不只是盖掉原来有的。",
        DELETE,
        "            pass\n",
    ),
    Wrong("登记簿上没有原来的了：收起的忘了放回去。", RESTORE, ""),
    Wrong(
        "登记簿上的还是替身：先删替身，再放回收起的。",
        RESTORE,
        "",
        REMOVE,
        f"{REMOVE}{RESTORE}",
        DELETE,
        '            if name.endswith(".more"):\n'
        "                del sys.modules[name]\n",
        "sys.modules.update(kept)",
        "sys.modules.update({k: v for k, v in kept.items() if k not in sys.modules})",
    ),
    Wrong(
        "with 里面抛错以后，没有还原：用 try、finally。",
        "    finally:\n",
        "    except ZeroDivisionError:\n        pass\n    else:\n",
    ),
    Wrong(
        "with 里面的错被吞掉了：用 try、finally，不要 except。",
        "    finally:",
        "    except KeyError:\n        pass\n    finally:",
    ),
    ask=redirect_toys,
    otherwise="进去、出来、中途抛错，登记簿和查找器各查一遍。",
)

# ---- 练习 14.2 ------------------------------------------------------------------

IN_PLACE = ("masked_fill_", "masked_scatter_", "index_put_", "__setitem__")


def embedded(portable_embed, *args):
    """结果，和源码里有没有不许的写法。"""
    result = portable_embed(*args)
    seen = {"结果": result}
    return seen | look_at_source(portable_embed) if result is not None else None


def look_at_source(function) -> dict[str, object]:
    """带掩码的原地写法，where 里 Python 的数。"""
    seen = {"原地写法": False, "where 里的数": False}
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        assigns = isinstance(node, ast.Assign | ast.AugAssign)
        called = ""
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1]
        by_mask = assigns and any(isinstance(t, ast.Subscript) for t in targets)
        seen["原地写法"] |= by_mask or called in IN_PLACE
        if called == "where":
            values = [*node.args, *(k.value for k in node.keywords)]
            bare = [v.operand if isinstance(v, ast.UnaryOp) else v for v in values]
            seen["where 里的数"] |= any(isinstance(v, ast.Constant) for v in bare)
    return seen


def labelled() -> dict[str, tuple]:
    """几种标签，包括一种也没有的。"""
    cases = {}
    vectors = [torch.randn(4) for _ in range(3)]
    for labels in ([[1, 0, -1], [0, 1, 1]], [[1, 1, 1]], [[-1, 5, 0, 0, 1]]):
        given = torch.tensor(labels)
        cases[f"标签 {labels}"] = torch.randn(*given.shape, 4), given, *vectors
    return cases


POINTWISE = "一个点一个点地算，点多了就慢：用 torch.where 一次算完。"
NOWHERE = "nowhere.expand_as(x)"
PYTHON = "where 里有 Python 的数：那边会变成 float64，用 torch.zeros_like。"
PLACE = "还有 x[mask] = … 这样的原地写法：OneFlow 遇到空的掩码会出错。"
NONE = f"x = torch.where(labels == -1, {NOWHERE}, x)"
ex_14_2 = Code(
    f"""
def portable_embed(x, labels, negative, positive, nowhere):
    labels = labels[..., None]
    {NONE}
    x = torch.where(labels == 0, x + negative, x)
    x = torch.where(labels == 1, x + positive, x)
    return x
""",
    labelled,
    Wrong(
        "调用者的 x 被改掉了：用 torch.where 造新的。",
        NONE,
        "x[labels[..., 0] == -1] = nowhere",
    ),
    Wrong(PLACE, NONE, "x = x.clone(); x[labels[..., 0] == -1] = nowhere"),
    Wrong(
        PLACE,
        NONE,
        f"x = x.clone().masked_fill_(labels == -1, 0.0); {NONE}",
    ),
    Wrong(
        PLACE,
        NONE,
        "x = x.clone(); x.__setitem__(labels[..., 0] == -1, nowhere)",
    ),
    Wrong(
        POINTWISE,
        "def portable_embed(x, labels, negative, positive, nowhere):\n"
        "    kinds = {0: negative, 1: positive}\n"
        "    rows = []\n"
        "    for row, marks in zip(x.reshape(-1, x.shape[-1]), labels.flatten()):\n"
        "        row = row + kinds.get(int(marks), torch.zeros_like(row))\n"
        "        rows.append(nowhere if int(marks) == -1 else row)\n"
        "    return torch.stack(rows).reshape(x.shape)\n",
    ),
    Wrong(
        "标签 0 是负点、加 negative，1 是正点、加 positive：两个弄反了。",
        "labels == 0",
        "labels == 7",
        "labels == 1",
        "labels == 0",
        "labels == 7",
        "labels == 1",
    ),
    Wrong("填充词元是整个换成 nowhere，不是在原来的上面加。", NOWHERE, "x + nowhere"),
    Wrong(PYTHON, "return x", "y = torch.where(labels == 9, 0.0, 1.0)\n    return x"),
    Wrong(
        PYTHON,
        "return x",
        "y = torch.where(labels == 9, input=x, other=-0.0)\n    return x",
    ),
    Wrong(
        "类型变了：where 的两边都要是 float32 张量。", "return x", "return x.double()"
    ),
    Wrong("形状变了：应与 x 相同。", "return x", "return x.flatten(1)"),
    ask=embedded,
    forbid={"for": POINTWISE},
    kept=True,
    dtypes=True,
    form="要返回一个张量。",
    otherwise="结果与题里的函数不同。",
)

# ---- 练习 14.3 ------------------------------------------------------------------

FLOPS, BYTES = 400e9, 20e9
N, C = 4096, 768
TABLE = 12 * N * N


def step(number: int, seconds: float, *wrong: tuple[float, str]) -> Part:
    """一步的毫秒数，容许差 2%。"""
    return Part(
        1000 * seconds,
        f"第 {number} 步不对：运算和字节各是多少？",
        {1000 * value: f"第{'一二三'[number - 1]}步：{hint}" for value, hint in wrong}
        | {seconds: f"第 {number} 步的单位是秒：要毫秒。"},
        rough=0.02,
    )


WORK, SIZE = 2 * N * C * C / FLOPS, 4 * (2 * N * C + C * C) / BYTES
ex_14_3 = Values(
    "要三个数：(第一步, 第二步, 第三步)，毫秒。",
    [
        step(
            1,
            WORK,
            (WORK / 2, "一次乘加是 2 次运算。"),
            (SIZE, "两个时间取长的，它卡在乘法器上。"),
            (WORK + SIZE, "取长的那个，不是相加。"),
        ),
        step(
            2,
            12 * N * C / BYTES,
            (3 * N * C / BYTES, "一个 float32 是 4 个字节。"),
            (8 * N * C / BYTES, "读两个，还要写一个，一共搬三份。"),
            (N * C / FLOPS, "它卡在内存上，要按字节算。"),
        ),
        step(
            3,
            8 * TABLE / BYTES,
            (4 * TABLE / BYTES, "读一遍，还要写一遍。"),
            (8 * N * N / BYTES, "忘了 12 个头。"),
            (12 * TABLE / BYTES, "原地乘一个常数，只有一张表，读一遍写一遍。"),
            (TABLE / FLOPS, "它卡在内存上，要按字节算。"),
            (2 * TABLE / BYTES, "一个 float32 是 4 个字节。"),
        ),
    ],
)

# ---- 练习 14.4 ------------------------------------------------------------------


def account(scores, values):
    """一块键的账：(m, s, a)。"""
    m = scores.amax(dim=-1)
    shares = (scores - m[:, None]).exp()
    return m, shares.sum(dim=-1), shares @ values


def accounts() -> dict[str, tuple]:
    """切成不等的两块，先后也换一换；小分数和上百的分数都试。"""
    cases = {}
    for scale, cut in ((1.0, 3), (1.0, 7), (200.0, 4)):
        scores, values = torch.randn(9, 10) * scale, torch.randn(10, 4)
        one = account(scores[:, :cut], values[:cut])
        two = account(scores[:, cut:], values[cut:])
        size = "上百的分数" if scale > 1 else f"前一块 {cut} 个键"
        cases[size], cases[f"{size}，两块换个先后"] = (one, two), (two, one)
    return cases


MIX = "s1 * f1 + s2 * f2, a1 * g1 + a2 * g2"
ex_14_4 = Code(
    f"""
def merge(one, two):
    (m1, s1, a1), (m2, s2, a2) = one, two
    m = torch.maximum(m1, m2)
    f1, f2 = (m1 - m).exp(), (m2 - m).exp()
    g1, g2 = f1[:, None], f2[:, None]
    return m, {MIX}
""",
    accounts,
    Wrong("s 没有折算：旧账是按旧的最大值记的。", "s1 * f1 + s2 * f2", "s1 + s2"),
    Wrong(
        "折算反了：乘 exp(旧的 − 新的)。",
        "(m1 - m)",
        "(m - m1)",
        "(m2 - m)",
        "(m - m2)",
    ),
    Wrong("a 没有折算：系数同 s 的一样。", "a1 * g1 + a2 * g2", "a1 + a2"),
    Wrong(
        "a 不除分母：除了就没法再并下一块。",
        "a1 * g1 + a2 * g2",
        "(a1 * g1 + a2 * g2) / (s1 * f1 + s2 * f2)[:, None]",
    ),
    Wrong("m 不对：逐个查询取两个里大的，torch.maximum。", "maximum", "minimum"),
    Wrong(
        "m 不对：逐个查询取两个里大的，torch.maximum。",
        "torch.maximum(m1, m2)",
        "torch.stack([m1, m2]).amax().expand_as(m1)",
    ),
    Wrong(
        "两边都要折算：s 不对，两份各自折算，再相加。",
        "(m1 - m).exp()",
        "torch.ones_like(m)",
    ),
    Wrong("溢出了：只对差做 exp。", "(m1 - m).exp()", "m1.exp() / m.exp()"),
    Wrong("传进来的账被改了：别用 += 和 *=。", "a1 * g1 +", "a1.mul_(g1) +"),
    kept=True,
    form="要返回三样：(m, s, a)。",
    otherwise="两份各自折算，再相加。",
    names=("m", "s", "a"),
)

# ---- 练习 14.5 ------------------------------------------------------------------

IMAGE, TOKENS = "P * C * n * d + n * T * d * P", "n * T * d * C + n * T * C * P"
ex_14_5 = Code(
    f"""
def multiplications(T, P, C, n, d):
    return {IMAGE}, {TOKENS}
""",
    lambda: {
        f"T={T}、P={P}、C={C}、n={n}、d={d} 时": (T, P, C, n, d)
        for T, P, C, n, d in (
            (7, 4096, 256, 8, 16),
            (3, 10, 6, 2, 5),
            (20, 11, 4, 3, 7),
        )
    },
    Wrong("两个数的次序反了。", f"{IMAGE}, {TOKENS}", f"{TOKENS}, {IMAGE}"),
    Wrong("先投影图像的漏了打分那一步。", " + n * T * d * P", ""),
    Wrong("投影图像只做一次，各头的都在里面，不必乘 n。", "P * C * n", "n * P * C * n"),
    Wrong("W 的宽是 n·d，不是 d。", "P * C * n * d", "P * C * d"),
    Wrong("先投影词元的漏了投影那一步。", "n * T * d * C + ", ""),
    Wrong("每个头的 q W 不同，打分要做 n 次。", "n * T * C * P", "T * C * P"),
    Wrong(
        "投影以后词元有 C 个通道，打分的宽是 C，不是 d。",
        "n * T * C * P",
        "n * T * d * P",
    ),
    form="要返回两个数：(先投影图像, 先投影词元)。",
    otherwise="一步一步数：投影几次、打分几次，各乘多大。",
    names=("先投影图像的次数", "先投影词元的次数"),
)
