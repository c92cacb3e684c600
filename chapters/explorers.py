"""可以拖的图：几个滑块和一张图，拖一拖，比看一张画好的图明白。

一章一个函数，收那一章里你写的函数，交回一块面板；写在格子的最后一行就显示出来。没有
Python 的地方（GitHub、导出的网页）留下一张图。
"""

import base64
import io
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image


class Panel(widgets.VBox):
    """控件在上，图在下；控件一变就重画。

    参数：
        draw: 按名字收各个控件的值，返回 matplotlib 的 Figure。
        knobs: 名字 -> 控件。
    """

    def __init__(
        self, draw: Callable[..., Figure], **knobs: widgets.ValueWidget
    ) -> None:
        self._draw, self._knobs = draw, knobs
        self._picture, self._words = widgets.Image(format="png"), widgets.Label()
        for knob in knobs.values():
            knob.observe(self._redraw, "value")
        super().__init__([*knobs.values(), self._picture, self._words])
        self._redraw()

    def _redraw(self, _: Any = None) -> None:
        try:
            figure = self._draw(**{name: k.value for name, k in self._knobs.items()})
            self._picture.value, self._words.value = to_png(figure), ""
        except Exception as error:  # 拖滑块时的错误没有格子可以报
            self._words.value = f"画不出来：{type(error).__name__}：{error}"

    def __repr__(self) -> str:
        values = "，".join(f"{k.description} {k.value}" for k in self._knobs.values())
        return f"Panel（{values}）"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """控件之外再给一张 PNG，静态的网页上显示它。"""
        text = base64.b64encode(self._picture.value).decode("ascii")
        return super()._repr_mimebundle_(**kwargs) | {"image/png": text}


def to_png(figure: Figure) -> bytes:
    """画好的图变成 256 色的 PNG。"""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    with Image.open(buffer) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def slider(
    text: str, value: float, low: float, high: float, log: bool = False
) -> widgets.ValueWidget:
    """一个滑块，松手才重画；全是整数就是整数滑块，log 是按十的几次方。"""
    options: dict[str, Any] = {
        "description": text,
        "continuous_update": False,
        "style": {"description_width": "13em"},
        "layout": {"width": "32em"},
    }
    if log:
        ends = {"min": np.log10(low), "max": np.log10(high), "step": 0.1}
        return widgets.FloatLogSlider(value, **ends, **options)
    if all(isinstance(number, int) for number in (value, low, high)):
        return widgets.IntSlider(value, min=low, max=high, **options)
    return widgets.FloatSlider(value, min=low, max=high, step=0.01, **options)


def menu(text: str, names: dict[str, Any]) -> widgets.Dropdown:
    """一个下拉菜单：显示名字，给出对应的值。"""
    style, layout = {"description_width": "13em"}, {"width": "32em"}
    options = list(names.items())
    return widgets.Dropdown(
        options=options, description=text, style=style, layout=layout
    )


# ---- 各章 --------------------------------------------------------------------


def attended_region(spread: Callable[..., list[torch.Tensor]]) -> Panel:
    """第 4 章：窗口多大、几层、全局放在哪里，一格的消息传到哪里。

    参数：
        spread: 那一章的 spread(plan, spot)，网格 16×20。
    """
    H, W = 16, 20

    def draw(window: int, depth: int, whole: int, row: int, col: int) -> Figure:
        plan = [0 if n + 1 == whole else window for n in range(depth)]
        arrival = np.full((H, W), np.nan)  # 第几层之后传到
        layers = list(enumerate(spread(plan, (row, col)), start=1))
        for n, changed in reversed(layers):
            arrival[changed.numpy()] = n
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        ax = figure.subplots()
        heat = ax.imshow(arrival, cmap="viridis_r", vmin=1, vmax=6)
        ax.plot(col, row, "o", color="#b8352e", ms=8, mec="white")
        for place in range(window, max(H, W), window):
            ax.axvline(place - 0.5, color="#66727f", lw=1)
            ax.axhline(place - 0.5, color="#66727f", lw=1)
        count = -(-H // window) * -(-W // window)  # 窗口个数，向上取整
        ax.set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5), xticks=[], yticks=[])
        ax.set_title(
            f"{depth} 层之后传到 {np.isfinite(arrival).sum()} 格，一共 {H * W} 格\n"
            f"一层分数表：窗口 {count * window**4:,} 格，全局 {(H * W) ** 2:,} 格",
            fontsize=10,
        )
        figure.colorbar(heat, ax=ax, label="第几层之后传到", ticks=range(1, 7))
        return figure

    return Panel(
        draw,
        window=slider("窗口边长", 6, 2, 20),
        depth=slider("几层", 4, 1, 6),
        whole=slider("全局在第几层（0 没有）", 3, 0, 6),
        row=slider("改动的格：行", 8, 0, H - 1),
        col=slider("改动的格：列", 7, 0, W - 1),
    )


def fourier_similarity(
    fourier_code: Callable[..., torch.Tensor], cell_centres: Callable[..., torch.Tensor]
) -> Panel:
    """第 6 章：频率的标准差、个数、点的位置，各怎样改变相似度。

    参数：
        fourier_code: 那一章的 fourier_code(coords, matrix)。
        cell_centres: 那一章的 cell_centres(h, w)。
    """
    numbers = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    centres = cell_centres(30, 40)  # (30, 40, 2)

    def draw(scale: float, count: int, x: float, y: float) -> Figure:
        matrix = scale * numbers[:, :count]  # (2, 频率个数)
        code = fourier_code(torch.tensor([x, y]), matrix)
        alike = fourier_code(centres, matrix) @ code / count  # (30, 40)
        across = torch.stack([torch.linspace(0, 1, 301), torch.full((301,), y)], -1)
        curve = fourier_code(across, matrix) @ code / count  # (301,)
        bell = torch.exp(-2 * (np.pi * scale * 2 * (across[:, 0] - x)) ** 2)
        figure = Figure(figsize=(8.6, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(alike, vmin=-1, vmax=1, cmap="RdBu_r", extent=(0, 1, 1, 0))
        left.set_aspect(0.75)
        left.plot(x, y, "kx", ms=8)
        left.axhline(y, color="k", lw=0.5)
        left.set(title="每一格与叉的相似度", xticks=[], yticks=[])
        right.plot(across[:, 0], curve, color="#b9650f", label=f"{count} 个频率")
        right.plot(across[:, 0], bell, "--", color="#66727f", label="无穷多个")
        right.axvline(x, color="#b8352e", lw=0.8)
        right.set(title="沿着横线", xlabel="x", ylim=(-1.05, 1.05))
        right.legend(fontsize=8, loc="lower right")
        return figure

    return Panel(
        draw,
        scale=slider("scale（标准差）", 1.0, 0.1, 10.0, log=True),
        count=slider("频率个数", 128, 1, 256),
        x=slider("叉的 x", 0.3, 0.0, 1.0),
        y=slider("叉的 y", 0.6, 0.0, 1.0),
    )


def token_attention(
    transformer: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    tokens: dict[str, int],
    show: Callable[..., None],
) -> Panel:
    """第 7 章：一个词元在某一层、某一个头里看图像的哪里。

    参数：
        transformer: 你的 TwoWayTransformer。
        inputs: 它的三个输入。
        tokens: 词元的名字 -> 第几个。
        show: 画份额的函数，show(ax, 份额 (h·w,), 标题)。
    """
    tables: dict[str, torch.Tensor] = {}  # 名字 -> (头, 词元, h·w)
    hooks = []
    for name, part in transformer.named_modules():
        if name.endswith("token_to_image"):

            def keep(module: Any, args: Any, name: str = name) -> None:
                tables[name] = module.table(*args[:2])[0]

            hooks.append(part.register_forward_pre_hook(keep))
    with torch.no_grad():
        transformer(*inputs)
    for hook in hooks:
        hook.remove()
    titles = {
        "最后一眼" if "final" in name else f"第 {name.split('.')[1]} 层": name
        for name in tables
    }

    def draw(layer: str, token: int, head: int) -> Figure:
        share = tables[layer][:, token]  # (头, h·w)
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        show(left, share[head], f"第 {head} 个头，最多的一格占 {share[head].max():.0%}")
        mean = share.mean(0)
        show(right, mean, f"{len(share)} 个头平均，最多的一格占 {mean.max():.0%}")
        return figure

    heads = len(next(iter(tables.values())))
    return Panel(
        draw,
        layer=menu("哪一次", titles),
        token=menu("哪个词元", tokens),
        head=slider("哪个头", 0, 0, heads - 1),
    )
