"""第 13 章的练习怎么检查。"""

import io
import warnings

import numpy as np
import onnxruntime as ort
import torch
from course import answered, expect
from torch import nn

# ---- 描图 --------------------------------------------------------------------


class Function(nn.Module):
    """把一个函数包成模块，好拿去描图。"""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args):
        """照原样调用。"""
        return self.function(*args)


def trace(function, args, names, axes):
    """描图；返回能跑的函数，和说有东西要烤进去的警告有几句。"""
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.onnx.export(
            Function(function),
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
        return session.run(None, feed)[0]

    return run, burnt


# ---- 练习 13.1 ------------------------------------------------------------------


def ex_13_1(answer) -> None:
    """B 的 len 和 D 的 if 会烤死；F 烤进去的本来就是常数。"""
    expect(
        isinstance(answer, (set, frozenset, list, tuple, str)),
        '答案写成字母的集合，例如 {"A", "B"}。',
    )
    got = {str(letter).strip().upper() for letter in answer} - {",", "，", ""}
    expect(got <= set("ABCDEF"), "字母只有 A 到 F。")
    expect("B" in got, "漏了一个：len(x) 是 Python 的整数，和 int(x.shape[0]) 一样。")
    expect("D" in got, "漏了一个：if … else 写在一行里，也还是 if。")
    expect("A" not in got, "A 不会：x.shape[0] 没有变成整数，reshape 收得下。")
    expect("C" not in got, "C 不会：clamp 是一个算子，min=0 本来就是常数。")
    expect("E" not in got, "E 不会：torch.where 两边都算，逐格挑，图里两边都在。")
    expect("F" not in got, "F 烤进去的是 8，本来就不随输入变，烤进去正好。")


# ---- 练习 13.2 ------------------------------------------------------------------


def ex_13_2(masked_mean) -> None:
    """先在 PyTorch 里查，再描图换形状查；有的行全是有效的，有的一个也没有。"""
    x, valid = example(3, 4, empty=False)
    got = answered(masked_mean(x.clone(), valid.clone()))
    expect(isinstance(got, torch.Tensor), "要返回一个张量。")
    expect(
        got.shape == (3,), f"形状应是 (B,)，这里是 (3,)，你的是 {tuple(got.shape)}。"
    )
    check_mean(got, x, valid)
    empty = example(3, 4, empty=True)
    check_mean(masked_mean(*empty), *empty)
    axes = {name: {0: "B", 1: "N"} for name in ("x", "valid")}
    run, burnt = trace(masked_mean, (x, valid), ["x", "valid"], axes)
    expect(not burnt, "描图时有东西要烤进去：还有 if，或者把张量变成了 Python 的数。")
    for B, N, none in ((2, 7, True), (5, 3, True), (1, 9, False)):
        other = example(B, N, empty=none)
        found = run(*other)
        expect(found.shape == (B,), "换了形状，ONNX 的输出形状不对：有轴烤死了。")
        check_mean(torch.from_numpy(found), *other, "ONNX 里换了形状以后，")


def example(B: int, N: int, empty: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """随机的数和有效与否；无效处放着很大的数。empty 为真时第 0 行一个有效的也没有。"""
    generator = torch.Generator().manual_seed(10 * B + N)
    valid = (torch.rand(B, N, generator=generator) > 0.4).float()
    valid[:, 0] = 1
    if empty:
        valid[0] = 0
    x = torch.randn(B, N, generator=generator) + 3
    return torch.where(valid == 1, x, torch.tensor(1e6)), valid


def check_mean(got, x, valid, where: str = "") -> None:
    """和逐行算的标准答案比；错了就说像哪一种错法。"""
    count = valid.sum(1)
    right = torch.stack(
        [r[v == 1].mean() if v.any() else torch.tensor(0.0) for r, v in zip(x, valid)]
    )
    expect(
        not got.isnan().any(),
        f"{where}有 NaN：一个有效的也没有的那行，是 0 除以 0。",
    )
    close = torch.allclose(got, right, rtol=1e-4, atol=1e-4)
    total = (x * valid).sum(1)
    if not close and torch.allclose(got, total / x.shape[1], rtol=1e-4):
        expect(False, f"{where}除的是全部个数 N，应除以有效的个数。")
    if not close and torch.allclose(got, total / (count + 1), rtol=1e-3):
        expect(False, f"{where}分母加了 1，别的行也变小了：用 clamp(min=1)。")
    expect(
        close or (got.abs() < 1e4).all(),
        f"{where}无效处的数混进来了：先乘 valid，或换成 0，再相加。",
    )
    expect(close, f"{where}平均数不对。")


# ---- 练习 13.3 ------------------------------------------------------------------


def ex_13_3(pack) -> None:
    """只有点、只有框、都有；点的个数不同，标签有正有负。"""
    rng = np.random.default_rng(0)
    for N, with_box in ((1, False), (3, False), (0, True), (2, True)):
        points = labels = box = None
        if N:
            points = rng.uniform(0, 60, (N, 2))
            labels = np.array([1, 0, 1][:N])
        if with_box:
            box = np.array([5.0, 9.0, 40.0, 33.0])
        given = tuple(None if v is None else v.copy() for v in (points, labels, box))
        got = answered(pack(*given))
        expect(
            isinstance(got, (tuple, list)) and len(got) == 2,
            "要返回两样：point_coords 和 point_labels。",
        )
        check_pack(*(np.asarray(x) for x in got), points, labels, box)


def check_pack(coords, kinds, points, labels, box) -> None:
    """两个输入的形状、类型、内容。"""
    rows = [] if points is None else [points]
    flags = [] if labels is None else [labels]
    rows.append(np.zeros((1, 2)) if box is None else box.reshape(2, 2))
    flags.append([-1] if box is None else [2, 3])
    right, right_kinds = np.concatenate(rows), np.concatenate(flags).astype(float)
    M = len(right)
    what = (
        f"{0 if points is None else len(points)} 个点、{0 if box is None else 1} 个框"
    )
    expect(
        coords.shape not in ((M - 1, 2), (1, M - 1, 2)) or box is not None,
        "没有框的时候，末尾要补一个点 (0, 0)、标签 -1。",
    )
    expect(
        coords.shape not in ((M + 1, 2), (1, M + 1, 2)) or box is None,
        "有框就不补填充点了：提示编码器里也是这样。",
    )
    expect(
        coords.shape != (M, 2) and kinds.shape != (M,),
        "少了最前面一维：形状是 (1, M, 2) 和 (1, M)。",
    )
    expect(
        coords.shape == (1, M, 2) and kinds.shape == (1, M),
        f"{what}：形状应是 {(1, M, 2)} 和 {(1, M)}，"
        f"你的是 {coords.shape} 和 {kinds.shape}。",
    )
    expect(
        coords.dtype == kinds.dtype == np.float32,
        f"两样都要 float32，你的是 {coords.dtype} 和 {kinds.dtype}。",
    )
    same = np.allclose(coords[0], right) and np.array_equal(kinds[0], right_kinds)
    if same:
        return
    if box is not None and sorted(kinds[0]) == sorted(right_kinds):
        expect(
            not (kinds[0][-2:] == [3, 2]).all(),
            "框的标签弄反了：左上角是 2，右下角是 3。",
        )
        expect(
            not (kinds[0][:2] == [2, 3]).all() or points is None,
            "次序不对：点在前，框的两个角在后。",
        )
    if box is None and kinds[0][0] == -1:
        expect(False, "次序不对：填充点补在最后。")
    expect(
        np.array_equal(kinds[0], right_kinds),
        f"{what}：标签应是 {right_kinds.astype(int).tolist()}，"
        f"你的是 {kinds[0].tolist()}。",
    )
    expect(False, f"{what}：坐标不对。坐标已经搬好了，照抄就行；填充点是 (0, 0)。")


# ---- 练习 13.4 ------------------------------------------------------------------


def ex_13_4(quantize_rows) -> None:
    """各行大小悬殊；有一行全是正数，有一行全是负数。"""
    rng = np.random.default_rng(1)
    size = np.array([[1.0], [0.01], [30.0], [0.2], [5.0]])
    w = rng.normal(0, 1, (5, 60)) * size
    w[3], w[4] = np.abs(w[3]) + 0.3, -np.abs(w[4]) - 2
    w[:3, 7] = 0.0
    got = answered(quantize_rows(w.copy()))
    expect(
        isinstance(got, (tuple, list)) and len(got) == 3,
        "要返回三样：q、scale、zero。",
    )
    q, scale, zero = (np.asarray(x) for x in got)
    expect(q.shape == w.shape, f"q 的形状应是 {w.shape}，你的是 {q.shape}。")
    expect(q.dtype == np.uint8, f"q 要是 uint8，你的是 {q.dtype}。")
    expect(scale.size != 1, "scale 只有一个：还是整张表一把尺子。")
    expect(
        scale.shape != (1, 60),
        "一列一把了：沿着列取最小、最大，要 axis=1。",
    )
    expect(
        scale.shape == zero.shape == (5, 1),
        f"scale 和 zero 的形状应是 (5, 1)，你的是 {scale.shape} 和 {zero.shape}："
        "keepdims=True。",
    )
    back = (q.astype(float) - zero) * scale
    error = np.abs(back - w)
    expect(
        (np.delete(error, 7, axis=1) < 20 * scale).all(),
        "有的数差得很远：多半是转成 uint8 之前没有 clip，绕了一圈。",
    )
    on_scale = np.array_equal(zero, np.round(zero)) and (zero >= 0).all()
    expect(
        on_scale and (zero <= 255).all() and np.array_equal(back[:3, 7], np.zeros(3)),
        "0 没有量准：最小值要和 0 取小的，最大值要和 0 取大的，zero 要是整数。",
    )
    right = (np.maximum(w.max(1), 0) - np.minimum(w.min(1), 0)) / 255
    expect(
        (scale[:, 0] < 1.3 * right).all(),
        "格子太大：一格是（最大 − 最小）/ 255。",
    )
    expect(
        (error <= 0.75 * scale).all(),
        "误差超过了半格多：取刻度要四舍五入（np.round），不是舍去。",
    )


# ---- 练习 13.5 ------------------------------------------------------------------


def ex_13_5(select) -> None:
    """先在 PyTorch 里查两种点数，再描图，用别的点数和组数查。"""
    scores = torch.tensor(
        [[0.9, 0.2, 0.7, 0.1], [0.1, 0.8, 0.3, 0.85], [-4.9, 1.0, -2.0, 4.9]]
    )
    for N in (2, 3):
        got = answered(select(scores.clone(), torch.tensor(N)))
        check_selected(torch.as_tensor(got), scores, N)
    axes = {"scores": {0: "B"}, "points": {0: "B", 1: "N"}}

    def ask(scores, points):
        return select(scores, points.shape[1])

    args = (scores, torch.zeros(3, 2, 2))
    run, burnt = trace(ask, args, ["scores", "points"], axes)
    expect(not burnt, "描图时有东西要烤进去：还有 if，或者把点数变成了 Python 的数。")
    generator = torch.Generator().manual_seed(0)
    for B, N in ((4, 1), (2, 2), (5, 3), (1, 6)):
        scores = 10 * torch.rand(B, 4, generator=generator) - 5
        found = run(scores, torch.zeros(B, N, 2))
        check_selected(torch.from_numpy(found), scores, N, "ONNX 里换了点数以后，")


def check_selected(got, scores, N: int, where: str = "") -> None:
    """和带 if 的标准答案比。"""
    B = len(scores)
    expect(
        tuple(got.shape) == (B,),
        f"{where}形状应是 ({B},)，你的是 {tuple(got.shape)}：argmax 要 dim=1。",
    )
    expect(not got.is_floating_point(), "要返回整数：第几张，不是分数。")
    few = scores[:, 1:].argmax(1) + 1
    right = few if N < 3 else torch.zeros(B, dtype=torch.long)
    if torch.equal(got, right):
        return
    points = f"{where}{N} 个点："
    if N < 3:
        expect(
            not torch.equal(got, scores.argmax(1)),
            f"{points}第 0 张也参加了比较，只能从后三张里挑。",
        )
        expect(
            not torch.equal(got, few - 1),
            f"{points}少加了 1：后三张里的第几张，还要换成四张里的第几张。",
        )
        expect(bool(got.any()), f"{points}用了第 0 张，应从后三张里挑。")
        expect(False, f"{points}应是 {right.tolist()}，你的是 {got.tolist()}。")
    expect(
        not torch.equal(got, few),
        f"{points}应当用第 0 张；分界在 2 和 3 之间，点数到 3 就不挑了。",
    )
    expect(
        False,
        f"{points}有的组没有用第 0 张：加上去的数不够大，压不过分数的差别。",
    )
