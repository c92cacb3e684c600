"""第 13 章的练习：对的答案、典型的错误和提示。"""

import io
import warnings

import numpy as np
import onnxruntime as ort
import torch
from checks.common import Code, Part, Values, Wrong
from course import expect
from torch import nn

# ---- 练习 13.1 ------------------------------------------------------------------


class Letters(Values):
    """答案是字母的集合；表里每个字母一项，真的在集合里。"""

    def __call__(self, answer) -> None:
        if not isinstance(answer, set | frozenset | list | tuple | str):
            answer = None  # 样子不对
            return super().__call__(answer)
        got = {str(letter).strip().upper() for letter in answer} - {",", "，", ""}
        expect(got <= set(self.parts), OTHERS)
        return super().__call__({letter: letter in got for letter in self.parts})

    def answer(self, changed=None, value=None) -> set[str]:
        whole = super().answer(changed, value)
        return {letter for letter, there in whole.items() if there}

    def __iter__(self):
        yield 3, self.form
        yield {"G"}, OTHERS
        yield from list(super().__iter__())[1:]


OTHERS = "字母只有 A 到 F。"
ex_13_1 = Letters(
    '答案写成字母的集合，例如 {"A", "B"}。',
    {
        "A": Part(False, "A 不会：x.shape[0] 没有变成整数，reshape 收得下。"),
        "B": Part(True, "漏了一个：len(x) 是 Python 的整数，和 int(x.shape[0]) 一样。"),
        "C": Part(False, "C 不会：clamp 是一个算子，min=0 本来就是常数。"),
        "D": Part(True, "漏了一个：if … else 写在一行里，也还是 if。"),
        "E": Part(False, "E 不会：torch.where 两边都算，逐格挑，图里两边都在。"),
        "F": Part(False, "F 烤进去的是 8，本来就不随输入变，烤进去正好。"),
    },
)

# ---- 描图 --------------------------------------------------------------------


def trace(function, args, names, axes):
    """描图；返回能跑的函数，和说有东西要烤进去的警告有几句。"""
    module = nn.Module()
    module.forward = function
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.onnx.export(
            module,
            args,
            file,
            input_names=names,
            output_names=["y"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    burnt = sum(
        w.category is torch.jit.TracerWarning
        and "torch.tensor results" not in str(w.message)  # torch.tensor(常数) 无妨
        for w in said
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(file.getvalue(), options)

    def run(*inputs):
        known = {x.name for x in session.get_inputs()}  # 没有用到的输入不在图里
        feed = {n: x.numpy() for n, x in zip(names, inputs) if n in known}
        return torch.from_numpy(session.run(None, feed)[0])

    return run, burnt


# ---- 练习 13.2 ------------------------------------------------------------------


def rows(B: int, N: int, empty: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """随机的数和有效与否；无效处放着很大的数。empty 为真时第 0 行一个有效的也没有。"""
    valid = (torch.rand(B, N) > 0.4).float()
    valid[:, 0] = 1
    if empty:
        valid[0] = 0
    return torch.where(valid == 1, torch.randn(B, N) + 3, torch.tensor(1e6)), valid


def averages() -> dict[str, tuple]:
    """先在 PyTorch 里算，再描图换形状算；有的行一个有效的也没有。"""
    first = rows(3, 4, False)
    cases = {"": (first, None), "有一行一个有效的也没有": (rows(3, 4, True), None)}
    for B, N, empty in ((2, 7, True), (5, 3, True), (1, 9, False)):
        cases[f"ONNX 里换成形状 {(B, N)}"] = rows(B, N, empty), first
    return cases


def average(masked_mean, given, traced):
    """traced 是描图用的输入；没有就不描。"""
    if traced is None:
        return masked_mean(*given)
    axes = {name: {0: "B", 1: "N"} for name in ("x", "valid")}
    run, burnt = trace(masked_mean, traced, ["x", "valid"], axes)
    return {"描图时烤进去": "有" if burnt else "没有", "平均": run(*given)}


BURNT = "描图时有东西要烤进去：还有 if，或者把张量变成了 Python 的数。"
MIXED = "无效处的数混进来了：先乘 valid，或换成 0，再相加。"
TOTAL, COUNT = "(x * valid).sum(1)", "valid.sum(1).clamp(min=1)"
ex_13_2 = Code(
    f"""
def masked_mean(x, valid):
    return {TOTAL} / {COUNT}
""",
    averages,
    Wrong("有 NaN：一个有效的也没有的那行，是 0 除以 0。", ".clamp(min=1)", ""),
    Wrong("除的是全部个数 N，应除以有效的个数。", COUNT, "x.shape[1]"),
    Wrong("分母加了 1，别的行也变小了：用 clamp(min=1)。", COUNT, "(valid.sum(1) + 1)"),
    Wrong(MIXED, TOTAL, "x.sum(1)"),
    Wrong(MIXED, TOTAL, "x.sum(1)", COUNT, "x.shape[1]"),
    Wrong("形状应是 (B,)，每行一个：sum 要 dim=1。", "sum(1)", "sum()"),
    Wrong(
        BURNT,
        f"{TOTAL} / {COUNT}",
        "torch.stack([(r * v).sum() / v.sum() if v.sum() > 0 else v.sum()"
        " for r, v in zip(x, valid)])",
    ),
    ask=average,
    form="要返回一个张量，形状 (B,)。",
    otherwise="平均数不对。",
)

# ---- 练习 13.3 ------------------------------------------------------------------


def prompts() -> dict[str, tuple]:
    """只有点、只有框、都有；点的个数不同，标签有正有负。"""
    rng = np.random.default_rng(0)
    cases = {}
    for N, boxes in ((1, 0), (3, 0), (0, 1), (2, 1)):
        points = rng.uniform(0, 60, (N, 2)) if N else None
        labels = np.array([1, 0, 1][:N]) if N else None
        box = np.array([5.0, 9.0, 40.0, 33.0]) if boxes else None
        cases[f"{N} 个点、{boxes} 个框"] = points, labels, box
    return cases


PAD = "(np.zeros((1, 2)), [-1])"
OUT = "coords[None].astype(np.float32), kinds[None].astype(np.float32)"
ex_13_3 = Code(
    f"""
def pack(points, labels, box):
    parts = [] if points is None else [(points, labels)]
    if box is not None:
        parts.append((np.reshape(box, (2, 2)), [2, 3]))
    if box is None:
        parts.append({PAD})
    coords = np.concatenate([p for p, _ in parts])
    kinds = np.concatenate([k for _, k in parts])
    return {OUT}
""",
    prompts,
    Wrong(
        "没有框的时候，末尾要补一个点 (0, 0)、标签 -1。",
        "if box is None:",
        "if not parts:",
    ),
    Wrong("有框就不补填充点了：提示编码器里也是这样。", "if box is None:", "if True:"),
    Wrong("框的标签弄反了：左上角是 2，右下角是 3。", "[2, 3]", "[3, 2]"),
    Wrong(
        "次序不对：点在前，框的两个角在后。",
        "parts.append((np.reshape",
        "parts.insert(0, (np.reshape",
    ),
    Wrong(
        "次序不对：填充点补在最后。", f"parts.append({PAD})", f"parts.insert(0, {PAD})"
    ),
    Wrong("少了最前面一维：形状是 (1, M, 2) 和 (1, M)。", "[None]", ""),
    Wrong("多出的一维要在最前面：(1, M, 2) 和 (1, M)。", "[None]", "[:, None]"),
    Wrong("两样都要 float32。", "coords[None].astype(np.float32)", "coords[None]"),
    Wrong("两样都要 float32。", "kinds[None].astype(np.float32)", "kinds[None]"),
    Wrong("框的两个角各有自己的标签：左上角 2，右下角 3。", "[2, 3]", "[1, 1]"),
    Wrong(
        "坐标不对：坐标已经搬好了，照抄就行；填充点是 (0, 0)。",
        "return coords",
        "return 2 * coords",
    ),
    Wrong("要返回两样：point_coords 和 point_labels。", OUT, "coords[None]"),
    form="要返回两样：point_coords 和 point_labels。",
    otherwise="坐标照抄，标签照抄，填充点是 (0, 0)、-1。",
    names=("point_coords", "point_labels"),
    dtypes=True,
)

# ---- 练习 13.4 ------------------------------------------------------------------


def weights() -> list[tuple]:
    """各行大小悬殊；有一行全是正数，有一行全是负数；有的行里有 0。"""
    rng = np.random.default_rng(1)
    w = rng.normal(0, 1, (5, 60)) * [[1.0], [0.01], [30.0], [0.2], [5.0]]
    w[3], w[4] = np.abs(w[3]) + 0.3, -np.abs(w[4]) - 2
    w[:3, 7] = 0.0
    return [(w,)]


def measured(quantize_rows, w):
    """量得准不准；刻度怎样取有几种写法，不逐个数比。"""
    got = quantize_rows(w)
    if not isinstance(got, tuple | list) or len(got) != 3:
        return got
    q, scale, zero = (np.asarray(x) for x in got)
    seen = {"q 的形状": q.shape, "q 的类型": str(q.dtype), "scale 的形状": scale.shape}
    seen["zero 的形状"] = zero.shape
    if scale.shape != (5, 1) or zero.shape != (5, 1) or q.shape != w.shape:
        return seen | {"绕了一圈": None}
    back = (q.astype(float) - zero) * scale
    error = np.abs(back - w)
    on_scale = (
        np.array_equal(zero, np.round(zero)) and ((zero >= 0) & (zero <= 255)).all()
    )
    exact = on_scale and not back[:3, 7].any()
    best = (np.maximum(w.max(1), 0) - np.minimum(w.min(1), 0)) / 255
    return seen | {
        "绕了一圈": "有"
        if (np.delete(error, 7, axis=1) >= 20 * scale).any()
        else "没有",
        "0 量准了": "是" if exact else "不是",
        "格子太大": "是" if (scale[:, 0] >= 1.05 * best).any() else "不是",
        "误差超过半格": "是" if (error > 0.75 * scale).any() else "不是",
    }


LOW = "np.minimum(0, w.min(axis=1, keepdims=True))"
HIGH = "np.maximum(0, w.max(axis=1, keepdims=True))"
STEP, CLIP = "(high - low) / 255", "np.clip(np.round(w / scale) + zero, 0, 255)"
INEXACT = "0 没有量准：最小值要和 0 取小的，最大值要和 0 取大的，zero 要是整数。"
ex_13_4 = Code(
    f"""
def quantize_rows(w):
    low, high = {LOW}, {HIGH}
    scale = {STEP}
    zero = np.round(-low / scale)
    q = {CLIP}.astype(np.uint8)
    return q, scale, zero
""",
    weights,
    Wrong("q 要是 uint8。", "return q", "return q.astype(int)"),
    Wrong(
        "scale 只有一个：还是整张表一把尺子。",
        "axis=1, keepdims=True",
        "",
        "return q, scale, zero",
        "return q, np.array([scale]), np.array([zero])",
    ),
    Wrong("scale 只有一个：还是整张表一把尺子。", "axis=1, keepdims=True", ""),
    Wrong("一列一把了：沿着列取最小、最大，要 axis=1。", "axis=1", "axis=0"),
    Wrong(
        "scale 和 zero 的形状应是 (5, 1)：keepdims=True。",
        "q, scale, zero",
        "q, scale[:, 0], zero[:, 0]",
    ),
    Wrong(
        "有的数差得很远：多半是转成 uint8 之前没有 clip，绕了一圈。",
        STEP,
        "(high - low) / 300",
        CLIP,
        "(np.round(w / scale) + zero).astype(np.int64)",
    ),
    Wrong(
        INEXACT,
        LOW,
        "w.min(axis=1, keepdims=True)",
        HIGH,
        "w.max(axis=1, keepdims=True)",
    ),
    Wrong(INEXACT, LOW, "w.min(axis=1, keepdims=True)"),
    Wrong(INEXACT, "np.round(-low / scale)", "-low / scale"),
    Wrong("格子太大：一格是（最大 − 最小）/ 255。", "/ 255", "/ 128"),
    Wrong("格子太大：一格是（最大 − 最小）/ 255。", "/ 255", "/ 200"),
    Wrong(
        "误差超过了半格多：取刻度要四舍五入（np.round），不是舍去。",
        "np.round(w / scale)",
        "np.floor(w / scale)",
    ),
    Wrong("要返回三样：q、scale、zero。", "return q, scale, zero", "return q, scale"),
    ask=measured,
    form="要返回三样：q、scale、zero。",
    otherwise="一行一把尺子：scale 是（最大 − 最小）/ 255，zero 是 0 的刻度。",
)

# ---- 练习 13.5 ------------------------------------------------------------------


def scored() -> dict[str, tuple]:
    """先在 PyTorch 里问两种点数，再描图，换点数和组数。"""
    first = torch.tensor(
        [[0.9, 0.2, 0.7, 0.1], [0.1, 0.8, 0.3, 0.85], [-4.9, 1.0, -2.0, 4.9]]
    )
    cases = {f"{N} 个点": (first, torch.tensor(N), None) for N in (2, 3)}
    for B, N in ((4, 1), (2, 2), (5, 3), (1, 6)):
        scores, points = 10 * torch.rand(B, 4) - 5, torch.zeros(B, N, 2)
        cases[f"ONNX 里换成 {N} 个点、{B} 组"] = scores, points, first
    return cases


def selected(select, scores, points, traced):
    """traced 是描图用的分数；没有就不描。"""
    if traced is None:
        got = torch.as_tensor(select(scores, points))
        return "不是整数" if got.is_floating_point() else got

    def ask(scores, points):
        return select(scores, points.shape[1])

    axes = {"scores": {0: "B"}, "points": {0: "B", 1: "N"}}
    args = traced, torch.zeros(3, 2, 2)
    run, burnt = trace(ask, args, ["scores", "points"], axes)
    return {"描图时烤进去": "有" if burnt else "没有", "第几张": run(scores, points)}


FIRST = "(num_points - 2.5) * 1000"
RAW = "torch.cat([first, scores[:, 1:]], 1).argmax(1)"
THREE = "应当用第 0 张；分界在 2 和 3 之间，点数到 3 就不挑了。"
ex_13_5 = Code(
    f"""
def select(scores, num_points):
    first = scores[:, :1] + {FIRST}
    return {RAW}
""",
    scored,
    Wrong("第 0 张也参加了比较，只能从后三张里挑。", RAW, "scores.argmax(1)"),
    Wrong(
        "少加了 1：后三张里的第几张，还要换成四张里的第几张。",
        RAW,
        "scores[:, 1:].argmax(1)",
    ),
    Wrong(
        "用了第 0 张，应从后三张里挑。",
        RAW,
        "0 * scores[:, 0].long()",
    ),
    Wrong(THREE, RAW, "scores[:, 1:].argmax(1) + 1"),
    Wrong(THREE, "2.5", "3.5"),
    Wrong("有的组没有用第 0 张：加上去的数不够大，压不过分数的差别。", "1000", "12"),
    Wrong(BURNT, RAW, f"{RAW} if num_points < 3 else torch.zeros(len(scores)).long()"),
    Wrong(
        "用了第 0 张，应从后三张里挑。",
        RAW,
        "torch.zeros(len(scores), dtype=torch.long)",
    ),
    Wrong("形状应是 (B,)：argmax 要 dim=1。", "argmax(1)", "argmax()"),
    Wrong("要返回整数：第几张，不是分数。", "argmax(1)", "amax(1)"),
    ask=selected,
    form="要返回整数的张量：每组第几张。",
    otherwise="两个点以内从后三张里挑，三个点起用第 0 张。",
)
