"""第 4 章的练习：对的答案、典型的错误和提示。"""

import torch
from checks.common import Bug, Code, Part, Values, Wrong

from sam_lite.windows import window_partition

ex_04_1 = Values(
    "要三个整数：(窗口数, 补上的词元数, 右下角窗口里的真词元数)。",
    [
        Part(
            36,
            "窗口数不对：一边要 64 ÷ 12 向上取整个窗口，再平方。",
            {
                25: "窗口数向下取整了：余下的 4 格也要有窗口装。",
                6: "6 是一边的窗口数，整张网格是它的平方。",
            },
        ),
        Part(
            72 * 72 - 64 * 64,
            "补上的词元数不对：补到 72×72，减去 64×64。",
            {
                8: "8 是一边补的格数，问的是一共补了多少个词元。",
                64: "只数了右下角那一块 8×8：右边和下边的两条也是补的。",
                1024: "右边和下边各数了一条，漏了右下角那一块。",
                5184: "5184 是补完以后的总数，减去原来的 4096。",
            },
        ),
        Part(
            16,
            "角上的窗口不对：两个方向都只剩 64 - 5×12 格。",
            {
                48: "48 是边上的窗口；角上的窗口在高、宽两个方向都只剩 4 格。",
                144: "右下角的窗口不全是真词元：大部分是补的。",
            },
        ),
    ],
)


def places() -> dict[str, tuple]:
    return {
        f"W={W}、w={w}，第 {row} 行第 {col} 列": (row, col, W, w)
        for H, W, w in ((6, 8, 2), (5, 7, 3), (9, 4, 4), (64, 64, 14))
        for row, col in ((0, 0), (H - 1, W - 1), (H // 2, W - 1), (H - 1, W // 3))
    }


ex_04_2 = Code(
    """
def find_window(row, col, W, w):
    per_row = -(-W // w)
    return (row // w) * per_row + col // w, row % w, col % w
""",
    places,
    Wrong("一行的窗口数向下取整了：要按补零之后的宽算。", "-(-W // w)", "W // w"),
    Wrong("窗口里的行和列弄反了。", "row % w, col % w", "col % w, row % w"),
    Wrong("前面每行有 ⌈W / w⌉ 个窗口，不是 W 个。", "-(-W // w)", "W"),
    Wrong(
        "窗口号数成先列后行了。",
        "(row // w) * per_row + col // w",
        "(col // w) * per_row + row // w",
    ),
    Wrong("窗口里的位置不对：用取余。", "row % w, col % w", "row, col"),
    Wrong("窗口里的位置不对：用取余。", "row % w, col % w", "row // w, col // w"),
    form="要返回三个整数：(窗口号, 窗口里第几行, 窗口里第几列)。",
    otherwise="把格子一个一个数进窗口里核对。",
    names=("窗口号", "窗口里第几行", "窗口里第几列"),
)


def pasted() -> dict[str, tuple]:
    """高宽不等、要补零、批量大于 1 的网格。"""
    cases = {}
    for B, H, W, w in ((2, 5, 11, 4), (1, 4, 4, 2), (2, 6, 8, 2), (2, 7, 5, 3)):
        windows, pad_hw = window_partition(torch.randn(B, H, W, 3), w)
        cases[f"网格 {H}×{W}、窗口 {w}"] = windows, w, pad_hw, (H, W)
    return cases


BORROWED = "结果对了，可是调用了现成的 window_unpartition：把题里这一份改好。"
ex_04_3 = Code(
    """
def mended_unpartition(windows, window_size, pad_hw, hw):
    (Hp, Wp), (H, W) = pad_hw, hw
    w, C = window_size, windows.shape[-1]
    x = windows.reshape(-1, Hp // w, Wp // w, w, w, C)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, Hp, Wp, C)
    return x[:, :H, :W]
""",
    pasted,
    Bug("裁错了边：零补在右边和下边，真格子在左上角。", ":H, :W", "-H:, -W:"),
    Bug(
        "窗口的行数和列数还是反的：行数由高决定。",
        "Hp // w, Wp // w",
        "Wp // w, Hp // w",
    ),
    Wrong("漏了 permute：窗口被当成了长条。", ".permute(0, 1, 3, 2, 4, 5)", ""),
    Wrong("忘了裁掉补上的部分：照 hw 裁。", "[:, :H, :W]", ""),
    Wrong("形状不对：高和宽裁反了，hw 是 (高, 宽)。", ":H, :W", ":W, :H"),
    Wrong(
        BORROWED,
        "from sam_lite.windows import window_unpartition\n"
        "def mended_unpartition(windows, window_size, pad_hw, hw):\n"
        "    return window_unpartition(windows, window_size, pad_hw, hw)\n",
    ),
    forbid={"window_unpartition": BORROWED},
    form="要返回 (B, H, W, C) 的张量。",
    many="窗口怎样排、零补在哪边，一处一处看。",  # 不把答案念出来
    otherwise="内容不对：和原来的网格逐格比一比。",
)


def average(windows: torch.Tensor) -> torch.Tensor:
    """假的注意力：每个窗口里人人都变成平均值，看得出窗口切在哪里。"""
    return windows.mean((1, 2), keepdim=True).expand_as(windows)


def grids() -> dict[str, tuple]:
    return {
        f"网格 {H}×{W}、窗口 {w}、错开 {shift}": (torch.randn(B, H, W, 3), w, shift)
        for B, H, W, w, shift in ((1, 6, 8, 2, 1), (2, 7, 9, 4, 2), (1, 5, 8, 3, 1))
    }


def through_both(attention, x, w, shift):
    """两种假的注意力：原样返回的查往返，求平均的查窗口切在哪里。"""
    whole = attention(x, lambda windows: windows, w, shift)
    return [whole, attention(x, average, w, shift)]


AWAY, HOME = (
    "x.roll((-shift, -shift), dims=dims)",
    "out.roll((shift, shift), dims=dims)",
)
ex_04_4 = Code(
    f"""
from sam_lite.windows import window_partition, window_unpartition
def shifted_attention(x, attn, window_size, shift):
    hw, dims = x.shape[1:3], (1, 2)
    windows, pad_hw = window_partition({AWAY}, window_size)
    out = window_unpartition(attn(windows), window_size, pad_hw, hw)
    return {HOME}
""",
    grids,
    Wrong("忘了滚回去。", HOME, "out"),
    Wrong("滚回去的方向反了，又往左上滚了一次。", HOME, AWAY.replace("x.", "out.")),
    Wrong("窗口没有错开：滚动要在切窗口之前。", AWAY, "x", HOME, "out"),
    Wrong(
        "滚反了，往左上滚是负的。",
        "(-shift, -shift)",
        "(shift, shift)",
        HOME,
        "out.roll((-shift, -shift), dims=dims)",
    ),
    Wrong(
        "只滚了高，没有滚宽。", AWAY, "x.roll(-shift, 1)", HOME, "out.roll(shift, 1)"
    ),
    Wrong(
        "只滚了宽，没有滚高。", AWAY, "x.roll(-shift, 2)", HOME, "out.roll(shift, 2)"
    ),
    Wrong("多加了残差：这里只要注意力那一支，不把 x 加回来。", HOME, f"x + {HOME}"),
    Wrong("没有用上 attn：把切好的窗口交给它。", "attn(windows)", "windows"),
    Wrong(
        "窗口切的地方不对：先滚，再切（补零在滚之后），roll 要给 dims=(1, 2)。",
        AWAY,
        "x.roll(-shift)",
        HOME,
        "out.roll(shift)",
    ),
    ask=through_both,
    form="要返回一个张量，形状和进来时一样。",
    otherwise="滚出去和滚回来要抵消，窗口要切在错开的地方：先滚，再切。",
)

ex_04_5 = Values(
    "要两个整数：(边长, 补零后一共多少个词元)。",
    [
        Part(
            13,
            "边长不对：对 10 到 20 每个边长，把两笔开销加起来比。",
            {
                10: "只数了分数表：窗口越小它越省，可是线性层要为补的词元付钱。",
                16: "不用补零不等于最省：窗口大，分数表也大。每个边长都算一遍。",
                14: "14 不是为省钱选的：它要补 804 个词元，在这一段里只排中间。",
                11: "很接近，11 补得略多一些：把两笔加起来再比一次。",
                20: "找成最大的了，或者窗口数向下取整了。",
            },
        ),
        Part(
            65 * 65,
            "词元数不对：一边补到 13 的倍数，再平方。",
            {
                2704: "窗口数向下取整了：64 ÷ 13 余下的格子也要有窗口装。",
                4096: "4096 是补零之前的词元数，问的是补零之后。",
            },
        ),
    ],
)
