"""场景的样子：调色板、材质、光照、背景。"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .content import SceneContent
from .random import clouds, log_uniform, pick

# 花纹的种类和出现的概率
KINDS = {
    "flat": 0.22,
    "gradient": 0.16,
    "noise": 0.26,
    "stripes": 0.12,
    "dots": 0.06,
    "checker": 0.06,
    "speckle": 0.12,
}

# 自然界常见的色相：皮肤和木头、草叶、天空、砖红
NATURAL_HUES = {0.08: 0.5, 0.2: 0.15, 0.6: 0.22, 0.0: 0.13}


@dataclass(frozen=True)
class Material:
    """一种表面：两种颜色、花纹、起伏与高光。"""

    colours: np.ndarray  # (2, 3)，值域 [0, 1]
    kind: str  # 花纹的种类，KINDS 里的一个，或 grain
    period: float  # 花纹的周期，像素
    angle: float  # 花纹的方向，弧度
    sharp: float  # 两种颜色的过渡有多陡
    warp: float  # 花纹扭曲多少
    mottle: float  # 深浅不匀
    bulge: float  # 整体鼓起多少
    relief: float  # 表面的坑洼
    gloss: float  # 高光
    rim: float  # 边缘变暗


class Studio:
    """画一张图时共用的东西：随机数、画布、标签、光和调色板。

    ``rng`` 是画笔的随机数，``dice`` 只定 content 里的成分画不画。
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        content: SceneContent,
        dice: np.random.Generator,
    ) -> None:
        self.rng, self.size, self.content, self.dice = rng, size, content, dice
        # 每样都掷一次，关掉一样，别样的结果不变
        self.has = {k: bool(dice.random() < p) for k, p in asdict(content).items()}
        angle, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1.3)
        flat = math.cos(tilt)
        self.light = flat * math.cos(angle), flat * math.sin(angle), math.sin(tilt)
        # 三张噪声，从平滑到粗糙，物体从里面随机裁切
        self.fields = [
            clouds(rng, size, 4, rng.uniform(0.35, 0.5)),
            clouds(rng, size, 4, rng.uniform(0.5, 0.8)),
            clouds(rng, size, max(4, size // 4), rng.uniform(0.6, 1.2)),
        ]
        self.ambient = rng.uniform(0.15, 0.7)
        self.chroma = pick(rng, [0.1, 0.35, 0.8], p=[0.25, 0.45, 0.3])  # 饱和度
        self.hues = rng.uniform(0, 1, int(rng.integers(1, 6))).tolist()  # 偏好的色相
        self.contrast = pick(rng, [0.3, 0.6, 1.0], p=[0.2, 0.3, 0.5])  # 与背景的色差
        if not self.has["palette"]:
            self.chroma, self.contrast = 0.8, 1.0
            self.hues = np.linspace(0, 1, 24).tolist()
        if self.has["natural"]:
            self.chroma = pick(dice, [0.06, 0.2, 0.35])
            names, odds = list(NATURAL_HUES), list(NATURAL_HUES.values())
            self.hues = [pick(dice, names, p=odds) for _ in self.hues]
        self.backdrop = np.full(3, 0.5, np.float32)  # 背景的主色
        self.canvas: np.ndarray = np.empty((size, size, 3), np.float32)  # 值域 [0, 1]
        self.labels = np.zeros((size, size), np.uint8)
        self.parents = [0]

    def wants(self, name: str) -> bool:
        """掷一次骰子：这一处画不画 ``content`` 里叫 name 的成分。"""
        return bool(self.dice.random() < getattr(self.content, name))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """在 with 里用另一串随机数来画：添上的东西不改变别的。"""
        rng, self.rng = self.rng, self.dice
        try:
            yield
        finally:
            self.rng = rng

    def colour(self) -> np.ndarray:
        """按偏好的色相和饱和度随机一种颜色，形状 (3,)，RGB。"""
        rng = self.rng
        hue = pick(rng, self.hues) + rng.normal(0, 0.06)
        saturation = min(1.0, self.chroma * rng.uniform(0.2, 1.6))
        value = 0.06 + 0.94 * rng.random() ** 0.7
        rgb = []
        for shift in (0, 2 / 3, 1 / 3):
            wheel = min(1.0, max(0.0, abs((hue + shift) % 1 * 6 - 3) - 1))
            rgb.append(value * (1 - saturation * (1 - wheel)))
        return np.array(rgb, np.float32)

    def material(self, scenic: bool = False) -> Material:
        """随机一种材质；物体的颜色往背景的主色靠，``scenic`` 给背景用，不靠。"""
        rng = self.rng
        first = self.colour()
        if not scenic:
            first = self.backdrop + self.contrast * (first - self.backdrop)
        strength = pick(rng, [0.15, 0.4, 1.0], p=[0.4, 0.35, 0.25])
        second = first + strength * (self.colour() - first)
        mat = Material(
            colours=np.stack([first, second]).astype("f4"),
            kind=pick(rng, list(KINDS), p=list(KINDS.values())),
            period=log_uniform(rng, 0.016, 0.25) * self.size,
            angle=rng.uniform(0, math.pi),
            sharp=log_uniform(rng, 0.5, 8),
            warp=pick(rng, [0.0, rng.uniform(0, 2), rng.uniform(2, 12)]),
            mottle=pick(rng, [0.05, 0.3, 0.8]) * rng.uniform(),
            bulge=pick(rng, [0.0, 0.3, 1.0]) * rng.uniform(0.3, 1.2),
            relief=pick(rng, [0.0, 1.0], p=[0.6, 0.4]) * rng.uniform(0, 0.1),
            gloss=pick(rng, [0.0, 1.0], p=[0.65, 0.35]) * rng.uniform(0.1, 0.8),
            rim=pick(rng, [0.0, 1.0], p=[0.6, 0.4]) * rng.uniform(0.1, 0.7),
        )
        if not self.wants("textures"):
            mat = replace(mat, kind="flat", mottle=0.0)
        return replace(mat, kind="grain") if self.wants("grain") else mat

    def crop(self, h: int, w: int, smooth: bool = False) -> np.ndarray:
        """从某张噪声里随机裁一块，形状 (h, w)；smooth 时只用最平滑的那张。"""
        rng = self.rng
        noise = self.fields[0] if smooth else pick(rng, self.fields)
        y, x = rng.integers(self.size - h + 1), rng.integers(self.size - w + 1)
        flip = pick(rng, [-1, 1])
        return noise[y : y + h, x : x + w][:, ::flip]


def paint(st: Studio, mat: Material, x: np.ndarray, y: np.ndarray) -> np.ndarray:
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
    elif mat.kind == "grain":
        t = 0.5 + (grain(st, mat, x, y, noise) - 0.5) * (0.5 + mat.sharp)
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


def grain(
    st: Studio, mat: Material, x: np.ndarray, y: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """顺着 ``mat.angle`` 的细纹，形状 (h, w)：最粗糙的噪声在一个方向上拉长。"""
    c, s = math.cos(mat.angle), math.sin(mat.angle)
    bend = mat.warp * (noise - 0.5) * 4
    across = (c * x + s * y + bend).astype(np.int32) % st.size
    along = ((c * y - s * x) / (2 + mat.period / 4)).astype(np.int32) % st.size
    return st.fields[-1][along, across]


def shade(st: Studio, mat: Material, d: np.ndarray, out: np.ndarray) -> None:
    """按距离场 d (h, w) 鼓起一层表面，就地给 out (h, w, 3) 加明暗和高光。"""
    if not st.has["shading"]:
        return
    depth = max(2.0, -float(d.min()))
    inside = np.clip(d * (-1 / depth), 0, 1)
    if mat.rim:
        out *= (1 - mat.rim * (1 - inside) ** 4)[..., None]
    if not (mat.bulge or mat.relief):
        return
    height = np.sqrt(inside * (2 - inside)) * (mat.bulge * depth)
    if mat.relief:
        height = height + st.crop(d.shape[0], d.shape[1]) * (mat.relief * st.size)
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


def paint_background(st: Studio) -> None:
    """在画布上画背景：一种花纹，有时加上地平线，或失焦的杂物和光斑。"""
    rng, n = st.rng, st.size
    g = np.arange(n, dtype=np.float32)
    x, y = g[None], g[:, None]
    mat = st.material(scenic=True)
    st.backdrop = mat.colours.mean(0)
    st.canvas = paint(st, mat, x, y)
    kind = pick(rng, ["plain", "horizon", "clutter"], p=[0.45, 0.2, 0.35])
    if not st.has["clutter"]:
        return
    if kind == "horizon":
        line = rng.uniform(0.3, 0.8) * n + rng.normal(0, 0.2) * (x - n / 2)
        line = line + pick(rng, [0, 0.3]) * n * (st.fields[0][:1] - 0.5)
        near = paint(st, st.material(scenic=True), x, y)
        st.canvas += (near - st.canvas) * np.clip(y - line, 0, 1)[..., None]
    if kind == "clutter":
        paint_clutter(st)


def paint_clutter(st: Studio) -> None:
    """在画布上撒一些椭圆和四边形，再模糊掉，像焦外的杂物。"""
    rng, n = st.rng, st.size
    picture = Image.fromarray((np.clip(st.canvas, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(5, 40))):
        fill = tuple((st.colour() * 255).astype(int).tolist())
        cx, cy = rng.uniform(-0.1, 1.1, 2) * n
        w, h = log_uniform(rng, 0.02, 0.3) * n, log_uniform(rng, 0.02, 0.3) * n
        if rng.uniform() < 0.5:
            pen.ellipse((cx - w, cy - h, cx + w, cy + h), fill)
        else:
            spots = rng.uniform(-1, 1, (4, 2)) * [w, h] + [cx, cy]
            pen.polygon([tuple(p) for p in spots.tolist()], fill)
    blur = log_uniform(rng, 0.012, 0.08) * n
    # 模糊后没有细节，在一半大小上做就够，快三倍
    picture = picture.reduce(2).filter(ImageFilter.GaussianBlur(blur / 2))
    picture = picture.resize((n, n), Image.Resampling.BILINEAR)
    st.canvas = np.asarray(picture).astype(np.float32) / 255
