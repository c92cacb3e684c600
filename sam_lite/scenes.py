"""程序生成的训练场景：一张 RGB 图，加上每个物体精确到像素的掩码。

训练一个小的 SAM 需要大量“图 + 掩码”，而真实标注很贵。这个模块从一个随机种子画出背景、
物体、部件、光照、遮挡和相机噪声；掩码在作画时就已知，所以没有标注误差。
物体的轮廓都写成**有符号距离**（signed distance，内负外正，单位像素）：抗锯齿、阴影、
明暗和标签都从同一个距离场得到。只依赖 numpy 和 pillow。
"""

import bisect
import io
import itertools
import math
import multiprocessing
import numbers
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

MAX_OBJECTS = 40
DECOR = 100  # 部件号从这里起的块只是花纹：画出来，但不给标签
MIN_PIXELS_AT_256 = 64  # 可见像素更少的物体会被丢掉；别的边长按面积折算
CHUNK = 16  # 并行时一个任务画多少张

# 一块写成“形状 中心x 中心y 半宽 半高 角度/度 部件”，坐标在 [-1, 1]，y 向下；后面的
# 盖住前面的。部件 0 属于整体；1、2 … 是各自的部件；负数是“上一个部件的部件”。
Piece = tuple[str, float, float, float, float, float, int]
_TEMPLATE_TEXT = """
person: box -.38 -.2 .09 .4 12 0; box .38 -.2 .09 .4 -12 0; box 0 -.2 .28 .38 0 0;
    box -.14 .55 .12 .45 4 1; box .14 .55 .12 .45 -4 1; ellipse 0 -.76 .17 .21 0 2
bust: ellipse 0 .75 .85 .65 0 0; ellipse 0 -.45 .42 .45 0 1; box 0 .1 .15 .3 0 2;
    ellipse 0 -.33 .3 .4 0 2; tri 0 .6 .15 .35 180 3
mug: ring .5 .05 .34 .09 0 0; box -.12 0 .55 .7 0 0; ellipse -.12 -.6 .5 .16 0 1
saucer: ellipse 0 0 1 .8 0 0; ring .6 0 .17 .06 0 1; ellipse 0 -.05 .58 .5 0 1;
    ellipse 0 -.07 .48 .4 0 -1
cup: ellipse 0 .35 1 .45 0 0; ring .6 -.05 .22 .07 0 1; ellipse 0 0 .56 .5 0 1;
    ellipse 0 -.3 .56 .27 0 1; ellipse 0 -.3 .48 .21 0 -1
rocket: tri 0 .7 .42 .35 0 1; ellipse 0 0 .2 1 0 0; box 0 .25 .19 .6 0 0;
    ellipse 0 -.3 .1 .1 0 2; box 0 .25 .2 .08 0 3
head: tri -.5 -.5 .3 .42 -14 0; tri .5 -.5 .3 .42 14 0; ellipse 0 .15 .8 .68 0 0;
    ellipse -.32 .05 .14 .11 0 1; ellipse .32 .05 .14 .11 0 2;
    ellipse 0 .45 .3 .22 0 3
animal: box -.4 .45 .09 .4 4 0; box .4 .45 .09 .4 -4 0; box .78 -.25 .06 .35 35 0;
    ellipse 0 0 .68 .34 0 0; tri -.78 -.62 .1 .17 -10 0; tri -.56 -.62 .1 .17 10 0;
    ellipse -.67 -.35 .27 .25 0 1
bottle: box 0 -.55 .13 .4 0 0; box 0 .3 .34 .65 0 0; box 0 .3 .34 .25 0 1;
    box 0 -.88 .15 .09 0 2
car: box 0 -.22 .55 .25 0 0; box 0 .08 1 .26 0 0; box -.23 -.25 .2 .15 0 1;
    box .25 -.25 .2 .15 0 2; ellipse -.55 .32 .22 .22 0 3; ellipse .55 .32 .22 .22 0 4
house: box 0 .3 .68 .55 0 0; tri 0 -.5 .9 .4 0 1; box -.3 .2 .17 .17 0 2;
    box .3 .5 .15 .33 0 3
tree: box 0 .6 .11 .4 0 1; ellipse -.3 -.1 .45 .4 0 0; ellipse .32 -.15 .45 .42 0 0;
    ellipse 0 -.5 .45 .42 0 0
bird: tri -.9 -.4 .09 .15 -90 1; tri .72 .2 .2 .4 -70 0; ellipse 0 0 .65 .38 12 0;
    ellipse -.6 -.4 .25 .24 0 0; ellipse .15 0 .42 .2 18 2
mushroom: box 0 .4 .22 .5 0 0; ellipse 0 -.3 .85 .45 0 1; ellipse -.3 -.4 .17 .12 0 -1
flower: ellipse .55 0 .42 .27 0 0; ellipse .17 .52 .42 .27 72 0;
    ellipse -.44 .32 .42 .27 144 0; ellipse -.44 -.32 .42 .27 216 0;
    ellipse .17 -.52 .42 .27 288 0; ellipse 0 0 .28 .28 0 1
"""


def _parse(text: str) -> dict[str, list[Piece]]:
    templates: dict[str, list[Piece]] = {}
    for word in text.replace("\n  ", "").split("\n"):
        if word:
            name, body = word.split(":")
            rows = [row.split() for row in body.split(";")]
            templates[name] = [
                (r[0], *(float(x) for x in r[1:6]), int(r[6])) for r in rows
            ]
    return templates


TEMPLATES = _parse(_TEMPLATE_TEXT)


@dataclass(frozen=True)
class Scene:
    """一张场景图和它的实例标签。

    ``image`` 形状 (H, W, 3)，uint8，RGB；``labels`` 形状 (H, W)，uint8，0 是背景，
    k 是该像素上最靠前的东西；``parents`` 形状 (K + 1,)，uint8，``parents[k]`` 是 k 所属
    整体的标签，0 表示 k 自成一物。部件的标签总是大于它的整体。
    """

    image: np.ndarray
    labels: np.ndarray
    parents: np.ndarray

    @property
    def num_objects(self) -> int:
        """返回物体与部件的总数 K。"""
        return len(self.parents) - 1

    def mask(self, k: int) -> np.ndarray:
        """返回 k 的可见像素，连同它所有的部件，形状 (H, W)，bool。

        ``k`` 不是 1 到 K 的整数时抛出 ValueError。
        """
        _check_int("k", k, 1, self.num_objects)
        member = np.zeros(len(self.parents), bool)
        member[k] = True
        for child in range(k + 1, len(member)):  # 整体的标签总是更小，一遍就够
            member[child] = member[self.parents[child]]
        return member[self.labels]

    def masks(self) -> np.ndarray:
        """返回全部掩码，形状 (K, H, W)，bool；第 k - 1 层是 ``mask(k)``。"""
        out = np.zeros((self.num_objects, *self.labels.shape), bool)
        for k in range(1, self.num_objects + 1):
            out[k - 1] = self.mask(k)
        return out


def _check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    good = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not good or value < low or (high is not None and value > high):
        span = f"不小于 {low} 的整数" if high is None else f"{low} 到 {high} 的整数"
        raise ValueError(f"{name} 应是{span}，收到的是 {value!r}；请改成{span}。")


def _check_range(name: str, value: object, low: float, high: float) -> None:
    good = isinstance(value, (tuple, list)) and len(value) == 2
    good = good and all(isinstance(v, numbers.Real) for v in value)
    if not good or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{name} 应是一对数 (下限, 上限)，且 {low} ≤ 下限 ≤ 上限 ≤ {high}，"
            f"收到的是 {value!r}；例如写成 {name}=({low}, {high})。"
        )


def _check_rate(name: str, value: object) -> None:
    if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(
            f"{name} 是概率，应在 0 到 1 之间，收到的是 {value!r}；"
            f"例如写成 {name}=0.5。"
        )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _pick(rng: np.random.Generator, choices: Sequence, p: Sequence = ()) -> Any:
    # rng.choice 慢，给的又是 float64，会把 float32 的数组一路升格
    if not p:
        return choices[int(rng.integers(len(choices)))]
    # 恰好在边界上时舍入可能多走一步，最后一项接住
    place = bisect.bisect(list(itertools.accumulate(p)), rng.random() * sum(p))
    return choices[min(place, len(p) - 1)]


def _noise(rng: np.random.Generator, size: int, start: int, rough: float) -> np.ndarray:
    """从粗到细逐层放大并加噪，得到 1/f 样的云纹，形状 (size, size)，值域 [0, 1]。"""
    n, gain = start, 1.0
    out = rng.standard_normal((n, n), np.float32)
    while n < size:
        n, gain = min(2 * n, size), gain * rough
        out = np.asarray(Image.fromarray(out).resize((n, n), Image.Resampling.BICUBIC))
        if n < size or start > 4:  # 云纹不必细到像素，省下最贵的一层随机数
            out = out + gain * rng.standard_normal((n, n), np.float32)
    out = out - out.min()
    return out / out.max()


@dataclass(frozen=True)
class _Material:
    """一种表面：两种颜色、花纹、起伏与高光。"""

    colours: np.ndarray  # (2, 3)，值域 [0, 1]
    kind: str
    period: float  # 像素
    angle: float
    sharp: float
    warp: float
    mottle: float
    bulge: float
    relief: float
    gloss: float
    rim: float


@dataclass
class _Studio:
    """画一张图时共用的东西：随机数、画布、标签、光和调色板。"""

    rng: np.random.Generator
    size: int
    light: tuple[float, float, float]
    ambient: float
    chroma: float  # 这张图的饱和度
    hues: list[float]  # 偏好的几种色相
    contrast: float  # 物体与背景的颜色差多少
    fields: list[np.ndarray]  # 几张噪声，物体从里面随机裁切
    labels: np.ndarray
    backdrop: np.ndarray  # (3,) 背景的主色
    canvas: np.ndarray | None = None  # (H, W, 3) float32，值域 [0, 1]
    parents: list[int] = field(default_factory=lambda: [0])

    def colour(self) -> np.ndarray:
        rng = self.rng
        hue = _pick(rng, self.hues) + rng.normal(0, 0.06)
        saturation = min(1.0, self.chroma * rng.uniform(0.2, 1.6))
        value = 0.06 + 0.94 * rng.random() ** 0.7
        rgb = []
        for shift in (0, 2 / 3, 1 / 3):
            wheel = min(1.0, max(0.0, abs((hue + shift) % 1 * 6 - 3) - 1))
            rgb.append(value * (1 - saturation * (1 - wheel)))
        return np.array(rgb, np.float32)

    def material(self, scenic: bool = False) -> _Material:
        rng = self.rng
        first = self.colour()
        if not scenic:
            first = self.backdrop + self.contrast * (first - self.backdrop)
        strength = _pick(rng, [0.15, 0.4, 1.0], p=[0.4, 0.35, 0.25])
        second = first + strength * (self.colour() - first)
        kinds = ["flat", "gradient", "noise", "stripes", "dots", "checker", "speckle"]
        weights = [0.22, 0.16, 0.26, 0.12, 0.06, 0.06, 0.12]
        return _Material(
            colours=np.stack([first, second]).astype("f4"),
            kind=_pick(rng, kinds, p=weights),
            period=_log_uniform(rng, 0.016, 0.25) * self.size,
            angle=rng.uniform(0, math.pi),
            sharp=_log_uniform(rng, 0.5, 8),
            warp=_pick(rng, [0.0, rng.uniform(0, 2), rng.uniform(2, 12)]),
            mottle=_pick(rng, [0.05, 0.3, 0.8]) * rng.uniform(),
            bulge=_pick(rng, [0.0, 0.3, 1.0]) * rng.uniform(0.3, 1.2),
            relief=_pick(rng, [0.0, 1.0], p=[0.6, 0.4]) * rng.uniform(0, 0.1),
            gloss=_pick(rng, [0.0, 1.0], p=[0.65, 0.35]) * rng.uniform(0.1, 0.8),
            rim=_pick(rng, [0.0, 1.0], p=[0.6, 0.4]) * rng.uniform(0.1, 0.7),
        )

    def crop(self, h: int, w: int, smooth: bool = False) -> np.ndarray:
        """从某张噪声里随机裁一块，形状 (h, w)；smooth 时只用最平滑的那张。"""
        rng = self.rng
        noise = self.fields[0] if smooth else _pick(rng, self.fields)
        y, x = rng.integers(self.size - h + 1), rng.integers(self.size - w + 1)
        flip = _pick(rng, [-1, 1])
        return noise[y : y + h, x : x + w][:, ::flip]


def _paint(st: _Studio, mat: _Material, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """给一块区域上色：x (1, w)、y (h, 1) 是像素坐标，返回 (h, w, 3)。"""
    h, w = y.shape[0], x.shape[1]
    noise = st.crop(h, w)
    c, s = math.cos(mat.angle), math.sin(mat.angle)
    a = (c * x + s * y) * (2 * math.pi / mat.period)
    if mat.kind in ("stripes", "dots", "checker"):
        a = a + mat.warp * noise
    if mat.kind == "flat":
        t = np.zeros((h, w), np.float32)
    elif mat.kind == "gradient":
        t = 0.5 + a * (mat.period / (4 * max(h, w)))
    elif mat.kind == "noise":
        t = 0.5 + (noise - 0.5) * (0.5 + mat.sharp)
    elif mat.kind == "speckle":
        t = st.fields[-1][:h, :w] * 2.5 + (noise - 1.5)
    elif mat.kind == "stripes":
        t = 0.5 + mat.sharp * np.sin(a)
    else:
        b = (c * y - s * x) * (2 * math.pi / mat.period) + mat.warp * noise
        wave = np.sin(a) * np.sin(b)
        t = 0.5 + mat.sharp * 2 * (wave if mat.kind == "checker" else wave - 0.5)
    np.clip(t, 0, 1, out=t)
    gain = 1 + mat.mottle * (st.crop(h, w) - 0.5)
    out = np.empty((h, w, 3), np.float32)
    for i in range(3):  # 逐通道写比广播到最后一维快
        low, high = float(mat.colours[0, i]), float(mat.colours[1, i])
        out[..., i] = (low + (high - low) * t) * gain
    return out


def _shade(st: _Studio, mat: _Material, d: np.ndarray, out: np.ndarray) -> None:
    """按距离场 d (h, w) 鼓起一层表面，就地给 out (h, w, 3) 加明暗和高光。"""
    depth = max(2.0, -float(d.min()))
    inside = np.clip(d * (-1 / depth), 0, 1)
    if mat.rim:
        out *= (1 - mat.rim * (1 - inside) ** 4)[..., None]
    if not (mat.bulge or mat.relief):
        return
    height = np.sqrt(inside * (2 - inside)) * (mat.bulge * depth)
    if mat.relief:
        height = height + st.crop(*d.shape) * (mat.relief * st.size)
    gx, gy = np.zeros_like(d), np.zeros_like(d)
    gx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * 0.5
    gy[1:-1] = (height[2:] - height[:-2]) * 0.5
    lx, ly, lz = st.light
    facing = (lz - gx * lx - gy * ly) / np.sqrt(1 + gx * gx + gy * gy)
    np.clip(facing, 0, 1, out=facing)
    bright = 1.15 / (st.ambient + (1 - st.ambient) * max(lz, 0.5))  # 平面略亮于原色
    out *= ((st.ambient + (1 - st.ambient) * facing) * bright)[..., None]
    if mat.gloss:
        out += (mat.gloss * facing**24)[..., None]


def _distance(piece: tuple, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """返回一块形状的近似有符号距离（内负外正），单位与 u、v 相同。"""
    kind, cx, cy, a, b, angle = piece[:6]
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    u, v = u - cx, v - cy
    x, y = c * u + s * v, c * v - s * u
    if kind == "radial":  # b 是半径表：多边形、星形、平滑的团块
        turn = (np.arctan2(y, x) * (len(b) / (2 * math.pi))).astype(np.int32)
        return np.sqrt(x * x + y * y) - a * b[turn]
    x, y = np.abs(x), (y if kind == "tri" else np.abs(y))
    if kind == "ring":  # a 是半径，b 是半个环宽
        return np.abs(np.sqrt(x * x + y * y) - a) - b
    if kind == "tri":
        return np.maximum(y - b, (2 * b * x - a * (y + b)) / math.hypot(2 * b, a))
    if kind == "ellipse":
        k = np.sqrt((x / a) ** 2 + (y / b) ** 2) + 1e-4
        return k * (k - 1) / (np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) + 1e-4)
    r = min(a, b) * (1.0 if kind == "capsule" else 0.25)
    x, y = x - (a - r), y - (b - r)
    outer = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2)
    return outer + np.minimum(np.maximum(x, y), 0) - r


def _radius_table(rng: np.random.Generator) -> np.ndarray:
    """返回 (512,) 的半径表：平滑团块、凹团块、正多边形或星形，最大约 1。"""
    t = np.arange(512, dtype=np.float32) * (2 * math.pi / 512)
    if rng.uniform() < 0.65:
        rough = _pick(rng, [0.12, 0.3, 0.5])
        r = np.ones_like(t)
        for k in range(2, 8):
            wave = rng.normal(0, rough / (k - 1)) * np.cos(k * t + rng.uniform(0, 6.28))
            r += wave.astype("f4")
        r = np.maximum(r, 0.2)
    else:
        n = int(rng.integers(3, 9))
        phase = (t * n / (2 * math.pi)) % 1 - 0.5
        if rng.uniform() < 0.6:
            r = 1 / np.cos(phase * (2 * math.pi / n))
        else:
            r = 1 - rng.uniform(0.3, 1.1) * np.abs(phase)
    return (r / r.max()).astype("f4")


def _any_piece(rng: np.random.Generator, part: int) -> list[tuple]:
    """随机一个无名的形状，充满 [-1, 1]；粗线条由几段胶囊接成。"""
    kinds = ["ellipse", "circle", "box", "capsule"]
    kinds += ["radial", "ring", "stroke", "union"]
    kind = _pick(rng, kinds, p=[0.15, 0.12, 0.16, 0.05, 0.28, 0.06, 0.09, 0.09])
    if kind == "ring":
        w = rng.uniform(0.1, 0.25)
        return [("ring", 0, 0, 1 - w, w, 0, part)]
    if kind == "radial":
        return [("radial", 0, 0, 1, _radius_table(rng), 0, part)]
    if kind == "union":
        spots = rng.uniform(-0.5, 0.5, (3, 2)).tolist()
        both = ["ellipse", "box"]
        return [
            (_pick(rng, both), *at, *rng.uniform(0.25, 0.6, 2).tolist(),
             rng.uniform(0, 180), part)
            for at in spots
        ]  # fmt: skip
    if kind == "stroke":
        heading, turn, width = 0.0, rng.uniform(-0.7, 0.7), rng.uniform(0.1, 0.25)
        x, y, out = 0.0, 0.0, []
        for _ in range(int(rng.integers(3, 7))):
            heading += turn + rng.normal(0, 0.15)
            dx, dy = 0.2 * math.cos(heading), 0.2 * math.sin(heading)
            piece = (x + dx, y + dy, 0.2 + width, width, math.degrees(heading), part)
            out.append(("capsule", *piece))
            x, y = x + 2 * dx, y + 2 * dy
        return [(p[0], p[1] - x / 2, p[2] - y / 2, *p[3:]) for p in out]
    ratio = 1.0 if kind == "circle" else rng.uniform(0.3, 1)
    name = "ellipse" if kind == "circle" else kind
    return [(name, 0, 0, 1, ratio, 0, part)]


def _from_template(rng: np.random.Generator, parts: float) -> tuple[list, list]:
    """取一个模板并抖动它的尺寸；返回 (全部的块, 决定轮廓的块)。"""
    pieces, labelled = [], rng.uniform() < math.sqrt(parts)
    for kind, x, y, a, b, angle, part in TEMPLATES[_pick(rng, list(TEMPLATES))]:
        sx, sy, turn = rng.normal(1, 0.1), rng.normal(1, 0.1), rng.normal(0, 4)
        pieces.append((kind, x, y, a * sx, b * sy, angle + turn, part))
    outline = [p for p in pieces if p[6] >= 0]
    if not labelled:  # 同样的花样也以“没有标注”的面目出现：颜色变了不等于换了物体
        pieces = [(*p[:6], p[6] and abs(p[6]) + DECOR) for p in pieces]
    return pieces, outline


def _design(rng: np.random.Generator, parts: float) -> tuple[list, list]:
    """设计一个物体，返回 (全部的块, 决定轮廓的块)；无名形状带 0 到 3 个部件。"""
    if rng.uniform() < 0.4:
        return _from_template(rng, parts)
    pieces = _any_piece(rng, 0)
    outline = pieces[:]
    if rng.uniform() > parts:
        return pieces, outline
    if rng.uniform() < 0.3:  # 同心的一圈或两圈：盘子、杯口、硬币的边
        pieces.append(("inset", 0, 0, rng.uniform(0.05, 0.4), 0, 0, 1))
        if rng.uniform() < 0.5:
            pieces.append(("inset", 0, 0, rng.uniform(0.45, 0.7), 0, 0, -1))
        return pieces, outline
    for part in range(1, int(rng.integers(1, 4)) + 1):
        scale, (x, y) = rng.uniform(0.2, 0.55), rng.uniform(-0.45, 0.45, 2).tolist()
        if rng.uniform() < 0.2:  # 横贯整体的一条带子
            pieces.append(("box", x, y, 3, 0.4 * scale, rng.uniform(0, 180), part))
            continue
        for kind, px, py, a, b, angle, _ in _any_piece(rng, part):
            b = b if kind == "radial" else b * scale
            spot = (x + px * scale, y + py * scale)
            pieces.append((kind, *spot, a * scale, b, angle, part))
    return pieces, outline


def _union(pieces: list[tuple], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    out = _distance(pieces[0], u, v)
    for piece in pieces[1:]:
        out = np.minimum(out, _distance(piece, u, v))
    return out


def _place(
    st: _Studio, pieces: list[tuple], area: float, at: tuple[float, float], angle: float
) -> tuple[tuple, np.ndarray, np.ndarray, float]:
    """按面积定比例，返回 (画布切片, 像素坐标 x, y, 每单位多少像素)；出界时为空。"""
    c, s = math.cos(angle), math.sin(angle)
    g = np.linspace(-1.6, 1.6, 40, dtype=np.float32)
    inside = _union(pieces, c * g + s * g[:, None], c * g[:, None] - s * g) < 0
    scale = math.sqrt(area / max(float(inside.mean()) * 3.2**2, 0.02))
    scale = min(scale, 0.8 * st.size)
    pad, box = 3 + 0.05 * st.size, []
    for axis, centre in ((1, at[1]), (0, at[0])):
        hit = g[inside.any(axis)] if inside.any() else g[:1]
        low = centre + (float(hit[0]) - 0.1) * scale - pad
        high = centre + (float(hit[-1]) + 0.1) * scale + pad
        box.append(slice(max(0, int(low)), max(0, min(st.size, int(high) + 1))))
    y = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - at[1]
    x = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] - at[0]
    return tuple(box), x, y, scale


def _shadow(st: _Studio, box: tuple, d: np.ndarray) -> None:
    """在 box 处按距离场 d 投下一片模糊的影子，偏移方向与光相反。"""
    blur = _log_uniform(st.rng, 0.008, 0.06) * st.size
    far = st.rng.uniform(0, 0.05) * st.size
    dy, dx = round(-st.light[1] * far), round(-st.light[0] * far)
    dark = np.clip(0.5 - d / (2 * blur), 0, 1) * st.rng.uniform(0.2, 0.8)
    y0, x0 = box[0].start + dy, box[1].start + dx
    h, w = d.shape
    top, left = max(0, -y0), max(0, -x0)
    view = st.canvas[max(0, y0) : max(0, y0 + h), max(0, x0) : max(0, x0 + w)]
    dark = dark[top : top + view.shape[0], left : left + view.shape[1]]
    view *= (1 - dark)[..., None]


def _draw_parts(
    st: _Studio,
    pieces: list[tuple],
    grid: tuple,  # (x, y, u, v, scale)：像素坐标、物体坐标、每单位多少像素
    d: np.ndarray,
    mats: list[_Material],
    paint: np.ndarray,
    ids: np.ndarray,
) -> None:
    """把部件就地画进 paint (h, w, 3) 和 ids (h, w)；d 是整体的距离场。"""
    x, y, u, v, scale = grid
    whole = last = len(st.parents) - 1
    groups = itertools.groupby(pieces, key=lambda p: p[6])
    for (part, group), mat in zip(groups, itertools.cycle(mats), strict=False):
        group = list(group)
        if part == 0:
            continue
        if group[0][0] == "inset":  # 轮廓向内收缩最大深度的 a 倍
            inner = d - group[0][3] * float(d.min())
        else:  # 部件不越出整体
            inner = np.maximum(_union(group, u, v) * scale, d)
        top = _paint(st, mat, x, y)
        _shade(st, replace(mat, relief=0.0, gloss=0.0), inner, top)
        paint += (top - paint) * np.clip(0.5 - inner, 0, 1)[..., None]
        if part < DECOR and len(st.parents) <= MAX_OBJECTS:
            ids[inner < 0] = len(st.parents)
            st.parents.append(last if part < 0 else whole)
            last = len(st.parents) - 1


def _draw(
    st: _Studio,
    design: tuple[list, list],
    area: float,
    at: tuple[float, float],
    angle: float,
    mats: list[_Material],
) -> None:
    """把一个物体连同部件画到画布上，并写好标签；mats[0] 给整体，其余轮流给部件。"""
    rng, (pieces, outline) = st.rng, design
    box, x, y, scale = _place(st, outline, area, at, angle)
    h, w = y.shape[0], x.shape[1]
    if min(h, w) < 4 or len(st.parents) > MAX_OBJECTS:
        return
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    u, v = c * x + s * y, c * y - s * x
    wobble = _pick(rng, [0.0, 0.15, 0.35], p=[0.4, 0.4, 0.2])
    if wobble:  # 轻轻扭曲坐标，轮廓就不再像尺规画的；偶尔用粗糙的噪声，像毛边
        furry = rng.uniform() < 0.2
        u = u + wobble * (st.crop(h, w, smooth=not furry) - 0.5)
        v = v + wobble * (st.crop(h, w, smooth=not furry) - 0.5)
    d = _union(outline, u, v) * scale
    if rng.uniform() < 0.7:
        _shadow(st, box, d)
    paint = _paint(st, mats[0], x, y)
    ids = np.full(d.shape, len(st.parents), np.uint8)
    st.parents.append(0)
    _draw_parts(st, pieces, (x, y, u, v, scale), d, mats[1:], paint, ids)
    _shade(st, mats[0], d, paint)
    view = st.canvas[box]
    view += (paint - view) * np.clip(0.5 - d * rng.uniform(0.4, 1), 0, 1)[..., None]
    np.copyto(st.labels[box], ids, where=d < 0)


def _background(st: _Studio) -> np.ndarray:
    """画背景，返回 (size, size, 3) float32：花纹、地平线、失焦的杂物或光斑。"""
    rng, n = st.rng, st.size
    g = np.arange(n, dtype=np.float32)
    x, y = g[None], g[:, None]
    mat = st.material(scenic=True)
    st.backdrop = mat.colours.mean(0)
    out = _paint(st, mat, x, y)
    kind = _pick(rng, ["plain", "horizon", "clutter"], p=[0.45, 0.2, 0.35])
    if kind == "horizon":
        line = rng.uniform(0.3, 0.8) * n + rng.normal(0, 0.2) * (x - n / 2)
        line = line + _pick(rng, [0, 0.3]) * n * (st.fields[0][:1] - 0.5)
        near = _paint(st, st.material(scenic=True), x, y)
        out += (near - out) * np.clip(y - line, 0, 1)[..., None]
    if kind == "clutter":
        picture = Image.fromarray((np.clip(out, 0, 1) * 255).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        for _ in range(int(rng.integers(5, 40))):
            fill = tuple((st.colour() * 255).astype(int).tolist())
            cx, cy = rng.uniform(-0.1, 1.1, 2) * n
            w, h = _log_uniform(rng, 0.02, 0.3) * n, _log_uniform(rng, 0.02, 0.3) * n
            if rng.uniform() < 0.5:
                pen.ellipse((cx - w, cy - h, cx + w, cy + h), fill)
            else:
                spots = rng.uniform(-1, 1, (4, 2)) * [w, h] + [cx, cy]
                pen.polygon([tuple(p) for p in spots.tolist()], fill)
        blur = _log_uniform(rng, 0.012, 0.08) * n
        # 模糊后没有细节，在一半大小上做就够，快三倍
        picture = picture.reduce(2).filter(ImageFilter.GaussianBlur(blur / 2))
        picture = picture.resize((n, n), Image.Resampling.BILINEAR)
        out = np.asarray(picture).astype(np.float32) / 255
    return out


def _camera(st: _Studio, grey: bool) -> np.ndarray:
    """把画布变成照片：照明不匀、偏色、对比度、模糊、噪声、JPEG；返回 uint8。"""
    rng, n, out = st.rng, st.size, st.canvas
    g = np.linspace(-1, 1, n, dtype=np.float32)
    x, y = g[None], g[:, None]
    if rng.uniform() < 0.5:
        tilt = rng.normal(0, 0.15, 2).tolist()
        fall = 1 + tilt[0] * x + tilt[1] * y - rng.uniform(0, 0.3) * (x * x + y * y)
        out = out * fall[..., None]
    # 像相机那样自动曝光：平均亮度落在一个合理的范围里
    gain = min(4.0, max(0.4, rng.uniform(0.22, 0.6) / (float(out.mean()) + 0.01)))
    cast = (gain * (1 + rng.normal(0, 0.06, 3))).astype("f4")
    out = np.clip(out * (255 * cast) + rng.uniform(-8, 16), 0, 255)
    if grey:
        out = np.repeat(out.mean(-1, keepdims=True), 3, -1)
    picture = Image.fromarray(out.astype(np.uint8))
    if rng.uniform() < 0.5:
        gamma = _log_uniform(rng, 0.65, 1.5)
        curve = [round(255 * (i / 255) ** gamma) for i in range(256)]
        picture = picture.point(curve * 3)
    blur = _pick(rng, [0.0, 0.6, 1.0, 1.6], p=[0.45, 0.25, 0.2, 0.1]) * n / 256
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    if rng.uniform() < 0.7:
        noise = rng.standard_normal((n, n), np.float32) * _log_uniform(rng, 0.8, 12)
        mirrored = (noise, noise if grey else noise[::-1], noise if grey else noise.T)
        out = np.asarray(picture) + np.stack(mirrored, -1)
        picture = Image.fromarray(np.clip(out, 0, 255, out=out).astype(np.uint8))
    if rng.uniform() < 0.3:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(35, 95)))
        picture = Image.open(file)
    return np.array(picture)


def _tidy(labels: np.ndarray, parents: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """去掉太小、或几乎盖满整体的东西，再把标签排紧；返回 (labels, parents)。"""
    count = np.bincount(labels.ravel(), minlength=len(parents)).tolist()
    least = MIN_PIXELS_AT_256 * labels.size / 256**2
    total = list(count)
    for k in range(len(parents) - 1, 0, -1):
        if parents[k]:
            total[parents[k]] += total[k]
    target = np.zeros(len(parents), np.uint8)
    fresh = [0]
    for k in range(1, len(parents)):
        whole = parents[k]
        # 部件盖住整体九成以上时两个掩码几乎一样，点击分不出，并回整体
        keep = total[k] >= least and not (whole and total[k] > 0.9 * total[whole])
        if keep and count[k]:
            target[k] = len(fresh)
            fresh.append(int(target[whole]))
        else:
            target[k] = target[whole]
    return target[labels], np.array(fresh, np.uint8)


def _studio(rng: np.random.Generator, size: int) -> _Studio:
    angle, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1.3)
    flat = math.cos(tilt)
    fields = [_noise(rng, size, 4, rng.uniform(*r)) for r in ((0.35, 0.5), (0.5, 0.8))]
    fields.append(_noise(rng, size, max(4, size // 4), rng.uniform(0.6, 1.2)))
    return _Studio(
        rng=rng,
        size=size,
        light=(flat * math.cos(angle), flat * math.sin(angle), math.sin(tilt)),
        ambient=rng.uniform(0.15, 0.7),
        chroma=_pick(rng, [0.1, 0.35, 0.8], p=[0.25, 0.45, 0.3]),
        hues=rng.uniform(0, 1, int(rng.integers(1, 6))).tolist(),
        contrast=_pick(rng, [0.3, 0.6, 1.0], p=[0.2, 0.3, 0.5]),
        fields=fields,
        labels=np.zeros((size, size), np.uint8),
        backdrop=np.full(3, 0.5, np.float32),
    )


def _fill_group(st: _Studio, parts: float) -> None:
    """画 8 到 20 个相似的圆物，大致排成格子：硬币、细胞、水果。"""
    rng, n = st.rng, st.size
    rows, cols = int(rng.integers(2, 5)), int(rng.integers(3, 6))
    outline = [("ellipse", 0, 0, 1, rng.uniform(0.75, 1), 0, 0)]
    if rng.uniform() < 0.3:
        outline = [("radial", 0, 0, 1, _radius_table(rng), 0, 0)]
    pieces = outline[:]
    if rng.uniform() < 0.5 * parts:
        pieces.append(("inset", 0, 0, rng.uniform(0.1, 0.6), 0, 0, 1))
    mats = [st.material(), st.material()]
    mats[0] = replace(mats[0], relief=_pick(rng, [0.0, 0.03, 0.08]))
    cell, jitter = n / max(rows, cols), _pick(rng, [0.03, 0.15, 0.4])
    size = rng.uniform(0.3, 0.47) * cell
    for i, j in itertools.product(range(rows), range(cols)):
        x = ((j + 0.5) / cols + rng.normal(0, jitter / cols)) * n
        y = ((i + 0.5) / rows + rng.normal(0, jitter / rows)) * n
        area = 2.8 * (size * rng.normal(1, 0.1)) ** 2
        gain = np.float32(rng.normal(1, 0.1))
        own = [replace(m, colours=m.colours * gain) for m in mats]
        _draw(st, (pieces, outline), area, (x, y), rng.uniform(0, 6.28), own)


def _fill_mixed(
    st: _Studio, objects: tuple[int, int], area: tuple[float, float], parts: float
) -> None:
    """画几个互不相同的物体，从远到近，后画的遮住先画的。"""
    rng, n = st.rng, st.size
    count = int(rng.integers(objects[0], objects[1] + 1))
    areas = [_log_uniform(rng, *area) for _ in range(count)]
    hero = rng.uniform() < 0.35  # 照片常有一个占据中央的主角
    if hero:
        areas[0] = _log_uniform(rng, max(area[0], 0.35 * area[1]), area[1])
    if rng.uniform() < 0.7:  # 大的多半在后面，否则小的全被盖住
        areas.sort(reverse=True)
    shared = [st.material() for _ in range(5)]  # 部件的表面在一张图里重复出现
    for size in areas:
        if len(st.parents) > MAX_OBJECTS:
            return
        spread = 0.12 if hero and size == max(areas) else 0.42
        at = tuple(((0.5 + rng.uniform(-spread, spread, 2)) * n).tolist())
        upright = rng.uniform() < 0.6
        angle = rng.normal(0, 0.15) if upright else rng.uniform(0, 2 * math.pi)
        mats = [st.material(), *(_pick(rng, shared) for _ in range(3))]
        _draw(st, _design(rng, parts), size * n * n, at, angle, mats)


def make_scene(
    seed: int,
    size: int = 256,
    objects: tuple[int, int] = (2, 7),
    area: tuple[float, float] = (0.007, 0.45),
    parts: float = 0.5,
    groups: float = 0.12,
) -> Scene:
    """从种子画出一张场景；同样的参数总给出逐字节相同的结果。

    ``size`` 是边长（像素，至少 32）；``objects`` 是独立物体个数的范围（1 到 20）；
    ``area`` 是单个物体占画面比例的范围，按对数均匀抽取；``parts`` 是物体带部件的概率；
    ``groups`` 是整张图换成一群相似圆物的概率。参数不合要求时抛出 ValueError。
    """
    _check_options(seed, size, objects, area, parts, groups)
    rng = np.random.default_rng([int(seed), 256])
    st = _studio(rng, int(size))
    st.canvas = _background(st)
    many = rng.uniform() < groups
    if many:
        _fill_group(st, parts)
    else:
        _fill_mixed(st, objects, area, parts)
    image = _camera(st, grey=rng.uniform() < (0.4 if many else 0.12))
    labels, parents = _tidy(st.labels, st.parents)
    return Scene(image, labels, parents)


def _check_options(
    seed: int, size: int, objects: tuple, area: tuple, parts: float, groups: float
) -> None:
    _check_int("seed", seed, 0)
    _check_int("size", size, 32)
    _check_range("objects", objects, 1, 20)
    for value in objects:
        _check_int("objects 的每一项", value, 1, 20)
    _check_range("area", area, 0.001, 0.8)
    _check_rate("parts", parts)
    _check_rate("groups", groups)


def _make_chunk(seeds: list[int], size: int, options: dict) -> list[Scene]:
    return [make_scene(seed, size, **options) for seed in seeds]


def make_scenes(
    seeds: Iterable[int],
    size: int = 256,
    workers: int | None = None,
    progress: bool = False,
    **options: object,
) -> Iterator[Scene]:
    """按 seeds 的顺序逐张给出场景，可以用多个进程同时画。

    ``workers`` 是进程数：None 用上全部核心，0 或 1 在当前进程里画；``progress`` 为真时
    在标准错误上报数；``options`` 原样交给 ``make_scene``。在 Windows 的脚本里，多进程的
    调用要放在 ``if __name__ == "__main__":`` 之下。参数不合要求时抛出 ValueError。
    """
    _check_int("size", size, 32)
    workers = (os.cpu_count() or 1) if workers is None else workers
    _check_int("workers", workers, 0)
    scenes = _stream(iter(seeds), size, workers, options)
    return _report(scenes) if progress else scenes


def _stream(
    seeds: Iterator[int], size: int, workers: int, options: dict
) -> Iterator[Scene]:
    if workers <= 1:
        for seed in seeds:
            yield make_scene(seed, size, **options)
        return
    context = multiprocessing.get_context("spawn")  # 与 Windows 一致
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque = deque()
        try:
            while True:
                # 只预先派出有限的任务：取得慢时，画好的图不会堆满内存
                while len(waiting) < 3 * workers:
                    chunk = list(itertools.islice(seeds, CHUNK))
                    if not chunk:
                        break
                    waiting.append(pool.submit(_make_chunk, chunk, size, options))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _report(scenes: Iterator[Scene]) -> Iterator[Scene]:
    done = 0
    for done, scene in enumerate(scenes, 1):
        if done % 100 == 0:
            print(f"\r已画 {done} 张", end="", file=sys.stderr, flush=True)
        yield scene
    print(f"\r共画 {done} 张", file=sys.stderr, flush=True)
