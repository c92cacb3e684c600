"""第 4 章：笔记本里的函数与 sam_lite 一致，练习的检查说得出错在哪里。"""

import pytest
import torch

from chapters.common import assert_verdicts, course
from sam_lite import windows

STEM = "04_windows"

HEAD_3 = """
def mended_unpartition(windows, window_size, pad_hw, hw):
    (Hp, Wp), (H, W) = pad_hw, hw
    w, C = window_size, windows.shape[-1]
"""
HEAD_4 = """
def shifted_attention(x, attn, window_size, shift):
    hw, dims = x.shape[1:3], (1, 2)
"""


def find(body: str) -> str:
    return f"def find_window(row, col, W, w):\n    return {body}\n"


def mend(grid: str, order: str, crop: str) -> str:
    lines = (
        f"x = windows.reshape(-1, {grid}, w, w, C)",
        f"x = x.permute({order}).reshape(-1, Hp, Wp, C)",
        f"return x[:, {crop}]",
    )
    return HEAD_3 + "".join(f"    {line}\n" for line in lines)


def shift(before: str, after: str, attend: str = "attn(windows)") -> str:
    lines = (
        f"x = {before}",
        "windows, pad_hw = window_partition(x, window_size)",
        f"out = window_unpartition({attend}, window_size, pad_hw, hw)",
        f"return {after}",
    )
    return HEAD_4 + "".join(f"    {line}\n" for line in lines)


OUT = "x.roll((-shift, -shift), dims=dims)"
BACK = "out.roll((shift, shift), dims=dims)"
RIGHT = "0, 1, 3, 2, 4, 5"

WRONG = {
    "ex-04-1": [
        ("counts = (25, 1088, 16)", "向下取整"),
        ("counts = (6, 1088, 16)", "一边的窗口数"),
        ("counts = (36, 8, 16)", "一边补的格数"),
        ("counts = (36, 64, 16)", "右下角那一块"),
        ("counts = (36, 1024, 16)", "漏了右下角"),
        ("counts = (36, 5184, 16)", "补完以后的总数"),
        ("counts = (36, 1088, 48)", "边上的窗口"),
        ("counts = (36, 1088, 144)", "大部分是补的"),
        ("counts = 36", "三个整数"),
    ],
    "ex-04-2": [
        (find("(row // w) * (W // w) + col // w, row % w, col % w"), "向下取整"),
        (find("(row // w) * -(-W // w) + col // w, col % w, row % w"), "弄反了"),
        (find("(row // w) * W + col // w, row % w, col % w"), "前面每行"),
        (find("(row // w) * -(-W // w) + col // w, row, col"), "用取余"),
        (find("(row // w) * -(-W // w) + col // w"), "三个整数"),
    ],
    "ex-04-3": [
        (mend("Wp // w, Hp // w", RIGHT, "-H:, -W:"), "两处错误都还在"),
        (mend("Hp // w, Wp // w", RIGHT, "-H:, -W:"), "裁错了边"),
        (mend("Wp // w, Hp // w", RIGHT, ":H, :W"), "行数和列数还是反的"),
        (mend("Hp // w, Wp // w", "0, 1, 2, 3, 4, 5", ":H, :W"), "漏了 permute"),
        (mend("Hp // w, Wp // w", RIGHT, ":, :"), "忘了裁掉"),
        (mend("Hp // w, Wp // w", RIGHT, ":W, :H"), "形状"),
    ],
    "ex-04-4": [
        (shift(OUT, "out"), "忘了滚回去"),
        (shift(OUT, OUT.replace("x.", "out.")), "方向反了"),
        (shift("x", "out"), "没有错开"),
        (
            shift(
                OUT.replace("-shift", "shift"),
                BACK.replace("shift", "-shift"),
            ),
            "滚反了",
        ),
        (
            shift("x.roll(-shift, dims=1)", "out.roll(shift, dims=1)"),
            "只滚了高",
        ),
        (
            shift("x.roll(-shift, dims=2)", "out.roll(shift, dims=2)"),
            "只滚了宽",
        ),
        (
            shift(OUT.replace("x.", "(x0 := x)."), BACK + " + x0"),
            "多加了残差",
        ),
        (shift(OUT, BACK, attend="windows"), "没有用上 attn"),
        (shift("x.roll(-shift)", "out.roll(shift)"), "要给 dims"),
    ],
    "ex-04-5": [
        ("cheapest = (10, 4900)", "只数了分数表"),
        ("cheapest = (16, 4096)", "不等于最省"),
        ("cheapest = (14, 4900)", "不是为省钱"),
        ("cheapest = (11, 4356)", "很接近"),
        ("cheapest = (13, 2704)", "向下取整"),
        ("cheapest = (13, 4096)", "补零之前"),
        ("cheapest = 13", "两个整数"),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 14])
@pytest.mark.parametrize("grid", [(6, 8), (7, 5), (1, 9), (16, 16)])
def test_functions_agree_with_package(grid: tuple[int, int], size: int) -> None:
    """笔记本里的切和拼，与 sam_lite 的逐格相同，批量 1 和 3。"""
    cut = course.from_chapter(STEM, "window_partition")
    paste = course.from_chapter(STEM, "window_unpartition")
    for batch in (1, 3):
        x = torch.randn(batch, *grid, 2)
        expected, padded = windows.window_partition(x, size)
        got, pad_hw = cut(x, size)
        assert pad_hw == padded and torch.equal(got, expected)
        # 窗口里过了注意力就不再是零：拼回时用任意的值，才查得出裁剪
        out = torch.randn_like(expected)
        back = windows.window_unpartition(out, size, padded, grid)
        assert torch.equal(paste(out, size, pad_hw, grid), back)


def test_loop_is_the_standard() -> None:
    """笔记本里的笨办法，与 sam_lite 在能整除的网格上相同。"""
    loop = course.from_chapter(STEM, "partition_by_loop")
    x = torch.randn(2, 6, 9, 4)
    assert torch.equal(loop(x, 3), windows.window_partition(x, 3)[0])


def test_attention_written_out_agrees_with_package() -> None:
    """逐步写开的注意力与 sam_lite 相同；遮住填充以后，填充的份额是零。"""
    from sam_lite.attention import Attention

    attend = course.from_chapter(STEM, "attend")
    layer = Attention(8, 2, True, True, False, (3, 3))
    ones, _ = windows.window_partition(torch.ones(1, 4, 5, 1), 3)
    real = ones.reshape(-1, 9) > 0
    x, _ = windows.window_partition(torch.randn(1, 4, 5, 8), 3)
    with torch.no_grad():
        out, weights = attend(layer, x)
        torch.testing.assert_close(out, layer(x))
        assert (weights[~real[:, None, None, :].expand_as(weights)] > 0).all()
        weights = attend(layer, x, real)[1]
    assert (weights[~real[:, None, None, :].expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
