"""第 4 章的练习怎么检查。"""

import torch
from course import answered, expect

from sam_lite.windows import window_partition, window_unpartition


def ex_04_1(answer) -> None:
    """窗口 12：一边 6 个窗口，补到 72，右下角的窗口里剩 4×4 个真词元。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "要三个整数：(窗口数, 补上的词元数, 右下角窗口里的真词元数)。",
    )
    windows, padding, corner = answer
    expect(windows != 25, "窗口数向下取整了：余下的 4 格也要有窗口装。")
    expect(windows != 6, "6 是一边的窗口数，整张网格是它的平方。")
    expect(windows == 36, "窗口数不对：一边要 64 ÷ 12 向上取整个窗口，再平方。")
    expect(padding != 8, "8 是一边补的格数，问的是一共补了多少个词元。")
    expect(padding != 64, "只数了右下角那一块 8×8：右边和下边的两条也是补的。")
    expect(padding != 1024, "右边和下边各数了一条，漏了右下角那一块。")
    expect(padding != 5184, "5184 是补完以后的总数，减去原来的 4096。")
    expect(padding == 72 * 72 - 64 * 64, "补上的词元数不对：补到 72×72，减去 64×64。")
    expect(corner != 48, "48 是边上的窗口；角上的窗口在高、宽两个方向都只剩 4 格。")
    expect(corner != 144, "右下角的窗口不全是真词元：大部分是补的。")
    expect(corner == 16, "角上的窗口不对：两个方向都只剩 64 - 5×12 格。")


def ex_04_2(answer) -> None:
    """逐格核对：把格子的编号切成窗口，看它落在哪里。"""
    for H, W, w in ((6, 8, 2), (5, 7, 3), (9, 4, 4), (64, 64, 14)):
        cells = torch.arange(1, H * W + 1).reshape(1, H, W, 1)
        windows, (Hp, Wp) = window_partition(cells, w)
        for row, col in ((0, 0), (H - 1, W - 1), (H // 2, W - 1), (H - 1, W // 3)):
            got = answered(answer(row, col, W, w))
            expect(
                isinstance(got, (tuple, list)) and len(got) == 3,
                "要返回三个整数：(窗口号, 窗口里第几行, 窗口里第几列)。",
            )
            spot = (windows[..., 0] == row * W + col + 1).nonzero()[0].tolist()
            where = f"W={W}、w={w}，第 {row} 行第 {col} 列"
            n, i, j = got
            expect([i, j] == spot[1:], inside_hint([i, j], spot[1:], where))
            expect(n == spot[0], number_hint(n, row, col, (H, W, Wp, w), where))


def inside_hint(got, right, where: str) -> str:
    """窗口里的位置错在哪里。"""
    if got == right[::-1]:
        return f"窗口里的行和列弄反了：{where}。"
    return f"窗口里的位置不对：{where}应该是 {tuple(right)}，用取余。"


def number_hint(n: int, row: int, col: int, sizes, where: str) -> str:
    """窗口号错在哪里。"""
    H, W, Wp, w = sizes
    if n == (row // w) * (W // w) + col // w:
        return f"一行的窗口数向下取整了：{where}，要按补零之后的宽算。"
    if n == (col // w) * -(-H // w) + row // w:
        return f"窗口号数成先列后行了：{where}。"
    if n == (row // w) * W + col // w:
        return f"前面每行有 {Wp // w} 个窗口，不是 {W} 个：{where}。"
    return f"窗口号不对：{where}应该是 {(row // w) * (Wp // w) + col // w}。"


def ex_04_3(answer) -> None:
    """高宽不等、要补零、批量大于 1 的网格，拼回来要和原来一样。"""
    for B, H, W, w in ((2, 5, 11, 4), (1, 4, 4, 2), (2, 6, 8, 2), (2, 7, 5, 3)):
        x = torch.randn(B, H, W, 3)
        windows, pad_hw = window_partition(x, w)
        got = answered(answer(windows, w, pad_hw, (H, W)))
        case = f"网格 {H}×{W}、窗口 {w}"
        expect(
            isinstance(got, torch.Tensor) and got.shape[-1] == 3 and got.dim() == 4,
            f"要返回 (B, H, W, C) 的张量：{case}。",
        )
        expect(
            tuple(got.shape[1:3]) != pad_hw or pad_hw == (H, W),
            f"忘了裁掉补上的部分：{case}，拼回来是 {pad_hw[0]}×{pad_hw[1]}。",
        )
        expect(got.shape == x.shape, f"形状 {tuple(got.shape)} 不对：{case}。")
        expect(torch.equal(got, x), paste_hint(windows, w, pad_hw, got, case))


def paste_hint(windows, w: int, pad_hw, got, case: str) -> str:
    """形状对而内容不对：和几种典型的错法比一比。"""
    (Hp, Wp), (H, W) = pad_hw, got.shape[1:3]
    C = windows.shape[-1]
    swapped = windows.reshape(-1, Wp // w, Hp // w, w, w, C)
    swapped = swapped.permute(0, 1, 3, 2, 4, 5).reshape(-1, Hp, Wp, C)
    full = window_unpartition(windows, w, pad_hw, pad_hw)
    long = windows.reshape(-1, Hp, Wp, C)
    if torch.equal(got, full[:, -H:, -W:]):
        return f"裁错了边：零补在右边和下边，真格子在左上角。{case}。"
    if torch.equal(got, swapped[:, :H, :W]):
        return f"窗口的行数和列数还是反的：行数由高决定。{case}。"
    if torch.equal(got, swapped[:, -H:, -W:]):
        return f"两处错误都还在。{case}。"
    if torch.equal(got, long[:, :H, :W]):
        return f"漏了 permute：窗口被当成了长条。{case}。"
    return f"内容不对：{case}，和原来的网格逐格比一比。"


def ex_04_4(answer) -> None:
    """用两种假的注意力：原样返回的查往返，求平均的查窗口切在哪里。"""
    for B, H, W, w, shift in ((1, 6, 8, 2, 1), (2, 7, 9, 4, 2), (1, 5, 8, 3, 1)):
        x = torch.randn(B, H, W, 3)
        case = f"网格 {H}×{W}、窗口 {w}、错开 {shift}"
        got = answered(answer(x, lambda windows: windows, w, shift))
        expect(
            isinstance(got, torch.Tensor) and got.shape == x.shape,
            f"形状不对，要和进来时一样：{case}。",
        )
        expect(torch.equal(got, x), roll_hint(x, got, shift, case))
        got = answer(x, average, w, shift)
        right = attend_rolled(x, w, (-shift, -shift))
        close = torch.allclose(got, right, atol=1e-5)
        expect(close, direction_hint(x, got, w, shift, case))


def average(windows: torch.Tensor) -> torch.Tensor:
    """每个窗口里人人都变成平均值。"""
    return windows.mean((1, 2), keepdim=True).expand_as(windows)


def attend_rolled(x, w: int, move: tuple[int, int]) -> torch.Tensor:
    """滚 move，在窗口里求平均，再滚回来。"""
    windows, pad_hw = window_partition(x.roll(move, dims=(1, 2)), w)
    out = window_unpartition(average(windows), w, pad_hw, x.shape[1:3])
    return out.roll((-move[0], -move[1]), dims=(1, 2))


def roll_hint(x, got, shift: int, case: str) -> str:
    """注意力原样返回时，出来应该和进来一样。"""
    if torch.equal(got, x.roll((-shift, -shift), dims=(1, 2))):
        return f"忘了滚回去：{case}。"
    if torch.equal(got, x.roll((-2 * shift, -2 * shift), dims=(1, 2))):
        return f"滚回去的方向反了，又往左上滚了一次：{case}。"
    if torch.equal(got, x + x):
        return "多加了残差：这里只要注意力那一支，不把 x 加回来。"
    return f"滚出去和滚回来没有抵消：{case}，注意力原样返回时，输出要等于输入。"


def direction_hint(x, got, w: int, shift: int, case: str) -> str:
    """往返抵消了，可是窗口切的地方不对。"""
    moves = {
        (0, 0): f"窗口没有错开：{case}，滚动要在切窗口之前。",
        (shift, shift): f"滚反了，往左上滚是负的：{case}。",
        (-shift, 0): f"只滚了高，没有滚宽：{case}。",
        (0, -shift): f"只滚了宽，没有滚高：{case}。",
    }
    for move, hint in moves.items():
        if torch.allclose(got, attend_rolled(x, w, move), atol=1e-5):
            return hint
    if torch.equal(got, x):
        return "没有用上 attn：把切好的窗口交给它。"
    return (
        f"窗口切的地方不对：{case}，先滚，再切（补零在滚之后），roll 要给 dims=(1, 2)。"
    )


def ex_04_5(answer) -> None:
    """窗口 10 到 20 里最省的是 13：只补到 65。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        "要两个整数：(边长, 补零后一共多少个词元)。",
    )
    side, tokens = answer
    expect(side != 10, "只数了分数表：窗口越小它越省，可是线性层要为补的词元付钱。")
    expect(side != 16, "不用补零不等于最省：窗口大，分数表也大。每个边长都算一遍。")
    expect(side != 14, "14 不是为省钱选的：它要补 804 个词元，在这一段里只排中间。")
    expect(side != 11, "很接近，11 补得略多一些：把两笔加起来再比一次。")
    expect(side != 20, "找成最大的了，或者窗口数向下取整了。")
    expect(side == 13, "边长不对：对 10 到 20 每个边长，把两笔开销加起来比。")
    expect(tokens != 2704, "窗口数向下取整了：64 ÷ 13 余下的格子也要有窗口装。")
    expect(tokens != 4096, "4096 是补零之前的词元数，问的是补零之后。")
    expect(tokens == 65 * 65, "词元数不对：一边补到 13 的倍数，再平方。")
