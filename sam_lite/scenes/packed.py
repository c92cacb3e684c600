"""铺满画面、一个挨一个的东西：砖、瓷砖、石子、鳞片；还有切片那样的大块组织。

每种铺法给出一张“像素属于第几格”的图和一个距离场，上色、缝隙和标签都从这两样得到。格子常
有几百个，标签最多四十个：只给随机的一部分标签，其余照样画出来。
"""

import itertools
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .looks import Studio, paint, shade
from .objects import MAX_OBJECTS, draw_mixed
from .random import log_uniform, pick

LEAST_AT_256 = 80  # 看得见的像素更少的格子不给标签；别的边长按面积折算


class Ground(NamedTuple):
    """一张平面，也许斜着看：每个像素在平面上的坐标。"""

    u: np.ndarray  # (n, n)
    v: np.ndarray
    scale: np.ndarray  # (n, n)，平面上的一个单位合多少像素


class Cells(NamedTuple):
    """一种铺法。"""

    ids: np.ndarray  # (n, n)，像素属于第几格，从 0 排起
    d: np.ndarray  # (n, n)，离格子的边多少像素，内负外正


def lay_ground(st: Studio, unit: float, tilt: float, bend: float) -> Ground:
    """一张平面，一个单位约合 unit 像素，转过一个随机的角度。

    tilt 是斜的程度，bend 是起伏的程度。
    """
    rng, n = st.rng, st.size
    upright = rng.uniform() < 0.5
    angle = rng.normal(0, 0.06) if upright else rng.uniform(0, 2 * math.pi)
    c, s = math.cos(angle), math.sin(angle)
    g = np.linspace(-1, 1, n, dtype=np.float32)
    lean = (rng.uniform(-1, 1, 2) * tilt).tolist()
    depth = 1 + lean[0] * g[None] + lean[1] * g[:, None]  # 越大越近
    scale = (depth * unit).astype("f4")
    x, y = g[None] * (n / 2) / scale, g[:, None] * (n / 2) / scale
    u = c * x + s * y + bend * (st.crop(n, n, smooth=True) - 0.5)
    v = c * y - s * x + bend * (st.crop(n, n, smooth=True) - 0.5)
    return Ground(u + rng.uniform(0, 9), v + rng.uniform(0, 9), scale)


def pack(ids: np.ndarray, d: np.ndarray) -> Cells:
    """把任意的编号排成 0、1、2 …。"""
    low = int(ids.min())
    seen = np.bincount((ids - low).ravel()) > 0
    return Cells((np.cumsum(seen) - 1)[ids - low].astype(np.int32), d)


def bricks(st: Studio, ground: Ground, gap: float) -> Cells:
    """一排排的砖，长是高的 1 到 4 倍，每排错开一些；gap 是缝宽，以砖的高为单位。"""
    rng = st.rng
    long, shift = pick(rng, [1.0, 2.0, 3.0, 4.0]), pick(rng, [0.0, 0.5, 0.33])
    corner = rng.uniform(0, 0.2)
    row = np.floor(ground.v)
    along = ground.u / long + shift * row
    column = np.floor(along)
    x = np.abs(along - column - 0.5) * long - (long - gap) / 2 + corner
    y = np.abs(ground.v - row - 0.5) - (1 - gap) / 2 + corner
    outer = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2)
    d = outer + np.minimum(np.maximum(x, y), 0) - corner
    row, column = row - row.min(), column - column.min()
    return pack((row * 1000 + column).astype(np.int32), d * ground.scale)


def scales(st: Studio, ground: Ground, gap: float) -> Cells:
    """鱼鳞、瓦片：一排排的圆，上一排盖住下一排。"""
    radius, rise = st.rng.uniform(0.52, 0.7), st.rng.uniform(0.4, 0.6)
    top = np.floor(ground.v / rise)
    above = np.full_like(ground.u, 9.0)  # 离已经放下的鳞片多远
    ids, best = np.zeros(top.shape, np.int32), above
    for k in (-1, 0, 1, 2):  # 从最上面一排往下
        row = top + k - 1
        half = 0.5 * (row % 2)
        column = np.round(ground.u - half)
        away = np.sqrt((ground.u - half - column) ** 2 + (ground.v - row * rise) ** 2)
        d = np.maximum(away - radius + gap / 2, gap / 2 - above)
        mine = d < best
        ids = np.where(mine, row * 1000 + column, ids)
        best = np.where(mine, d, best)
        above = np.minimum(above, away - radius)
    return pack(ids.astype(np.int32), best * ground.scale)


def stones(
    st: Studio, ground: Ground, gap: float, rounding: float, jitter: float
) -> Cells:
    """大小不一的石子：每格一个种子，像素归最近的（Voronoi）。

    rounding 是棱角磨圆多少，jitter 是种子离格子中心最远多少，都以格子为单位。
    """
    rng = st.rng
    column, row = np.floor(ground.u), np.floor(ground.v)
    left, top = int(column.min()) - 1, int(row.min()) - 1
    wide, high = int(column.max()) - left + 2, int(row.max()) - top + 2
    spots = rng.uniform(-jitter, jitter, (2, high * wide)).astype("f4")
    grow = rng.uniform(0, 0.25) * rng.uniform(0, 1, high * wide).astype("f4")
    home = ((row - top) * wide + column - left).astype(np.int32)
    u, v = ground.u - column - 0.5, ground.v - row - 0.5  # -0.5 到 0.5
    ids, around = home, []
    near = x0 = y0 = np.full_like(u, 9.0)
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):  # 周围的九个种子
        seed = home + (dy * wide + dx)
        x, y = u - dx - spots[0].take(seed), v - dy - spots[1].take(seed)
        far = x * x + y * y - grow.take(seed)
        around.append((x, y, far))
        mine = far < near
        near, ids = np.minimum(near, far), np.where(mine, seed, ids)
        x0, y0 = np.where(mine, x, x0), np.where(mine, y, y0)
    total = np.zeros_like(near)
    for x, y, far in around:  # 离各条交界线多远，取最近的；磨圆时取软的最小值
        between = np.sqrt((x - x0) ** 2 + (y - y0) ** 2)
        edge = np.where(between > 0, (far - near) / (2 * between + 1e-6), 9.0)
        total += np.exp(edge * (-1 / rounding))
    return pack(ids, (gap / 2 + rounding * np.log(total + 1e-30)) * ground.scale)


def sway(st: Studio, ground: Ground) -> Ground:
    """把平面弯成平缓的波浪，一格一两个弯。"""
    rng, bent = st.rng, [ground.u, ground.v]
    for i in range(2):
        for _ in range(2):
            a, b = rng.normal(0, 2.5, 2).tolist()
            wave = np.sin(a * ground.u + b * ground.v + rng.uniform(0, 2 * math.pi))
            bent[i] = bent[i] + rng.uniform(0.05, 0.2) * wave
    return Ground(bent[0], bent[1], ground.scale)


def colour_cells(st: Studio, cells: Cells, spread: float, facets: float) -> np.ndarray:
    """给格子上色，(n, n, 3)：同一种表面，每格的颜色差 spread，各朝一边亮 facets。"""
    rng, n = st.rng, st.size
    g = np.arange(n, dtype=np.float32)
    mat = st.material()
    out = paint(st, mat, g[None], g[:, None])
    count = int(cells.ids.max()) + 1
    tint = rng.normal(1, spread, (count, 1)) * rng.normal(1, 0.3 * spread, (count, 3))
    out *= np.clip(tint, 0.2, 2).astype("f4")[cells.ids]
    if facets:
        ids = cells.ids.ravel()
        size = np.bincount(ids)
        middle = [np.bincount(ids, np.tile(g, n)) / size]
        middle.append(np.bincount(ids, np.repeat(g, n)) / size)
        slope = rng.normal(0, facets, (2, count)) / np.sqrt(size)
        base = -slope[0] * middle[0] - slope[1] * middle[1]
        a, b, c = (part.astype("f4")[cells.ids] for part in (*slope, base))
        out *= np.clip(1 + a * g[None] + b * g[:, None] + c, 0.3, 1.7)[..., None]
    bulge = replace(mat, bulge=mat.bulge * facets, rim=max(mat.rim, facets))
    shade(st, bulge, cells.d, out)
    return out


def label_cells(st: Studio, cells: Cells, most: int) -> np.ndarray:
    """随机挑至多 most 个够大的格子，写好标签；返回每格的标签，没挑中的是 0。"""
    inside = cells.d < 0
    count = np.bincount(cells.ids[inside], minlength=int(cells.ids.max()) + 1)
    big = np.flatnonzero(count >= LEAST_AT_256 * st.size**2 / 256**2)
    chosen = st.rng.permutation(big)[: min(most, MAX_OBJECTS + 1 - len(st.parents))]
    table = np.zeros(len(count), np.uint8)
    table[chosen] = len(st.parents) + np.arange(len(chosen))
    st.parents.extend([0] * len(chosen))
    np.copyto(st.labels, table[cells.ids], where=inside)
    return table


def blend(st: Studio, cells: Cells, out: np.ndarray) -> None:
    """把上好色的格子画到画布上，缝隙里露出原来的。"""
    st.canvas += (out - st.canvas) * np.clip(0.5 - cells.d, 0, 1)[..., None]


def draw_packed(st: Studio, parts: float) -> None:
    """画满一种砖、瓷砖、石子或鳞片；三成的图上再放一两个别的物体。"""
    rng, n = st.rng, st.size
    kind = pick(rng, ["bricks", "scales", "stones"], p=[0.4, 0.15, 0.45])
    unit = log_uniform(rng, 0.06, 0.24) * n
    unit = max(unit, 0.09 * n) if kind == "scales" else unit  # 露出来的只有一半
    bend = pick(rng, [0.0, 0.3, 0.8])
    ground = lay_ground(st, unit, pick(rng, [0.0, 0.2, 0.45]), bend)
    gap = max(log_uniform(rng, 0.02, 0.2), 1.5 / unit)
    if kind == "bricks":
        cells = bricks(st, ground, gap)
    elif kind == "scales":
        cells = scales(st, ground, gap)
    else:
        rounding, jitter = log_uniform(rng, 0.01, 0.12), rng.uniform(0.25, 0.5)
        cells = stones(st, ground, gap, rounding, jitter)
    rough = kind == "stones" and rng.uniform() < 0.8
    spread, facets = rng.uniform(0.03, 0.3), rng.uniform(0.1, 0.6) * rough
    out = colour_cells(st, cells, spread, facets)
    # 石子之间看不到底；砖缝比砖暗些或亮些，免得分不出来
    shades = [rng.uniform(0.05, 0.4), rng.uniform(0.4, 0.8), rng.uniform(1.3, 2)]
    st.canvas *= np.float32(shades[0] if rough else pick(rng, shades))
    blend(st, cells, out)
    label_cells(st, cells, MAX_OBJECTS)
    if rng.uniform() < 0.3:
        draw_mixed(st, (1, 2), (0.01, 0.15), parts)


def draw_tissue(st: Studio) -> None:
    """画几大块组织：边界弯曲，里面是朝着中心的细纹和核，有的中间有腔（腔是部件）。"""
    rng, n = st.rng, st.size
    g = np.arange(n, dtype=np.float32)
    ground = sway(st, lay_ground(st, rng.uniform(0.3, 0.6) * n, 0.2, 0.1))
    cells = stones(st, ground, log_uniform(rng, 0.04, 0.3), 0.08, 0.5)
    kind = pick(rng, ["dots", "speckle", "grain"])
    nuclei = replace(st.material(scenic=True), kind=kind, warp=rng.uniform(5, 12))
    st.canvas = paint(st, replace(nuclei, period=0.05 * n), g[None], g[:, None])
    out = colour_cells(st, cells, 0.1, 0.0)
    turns = log_uniform(rng, 20, 60)
    around = np.arctan2(ground.v % 1 - 0.5, ground.u % 1 - 0.5) + (st.crop(n, n) - 0.5)
    rays = np.sin(turns * around + 9 * st.crop(n, n)) * rng.uniform(0.03, 0.25)
    out *= (1 + rays)[..., None]
    table = label_cells(st, cells, 16)
    lumen = cells.d - (rng.uniform(0.5, 0.9) * float(cells.d.min()))
    lumen = lumen + 0.06 * n * (st.crop(n, n, smooth=True) - 0.5)
    if rng.uniform() < 0.6:
        bright = st.canvas.max((0, 1)) * np.float32(rng.uniform(0.9, 1.3))
        out += (bright - out) * np.clip(0.5 - lumen, 0, 1)[..., None]
        inner = (lumen < 0) & (cells.d < 0)
        for cell in np.unique(cells.ids[inner]).tolist():
            if table[cell] and len(st.parents) <= MAX_OBJECTS:
                st.labels[inner & (cells.ids == cell)] = len(st.parents)
                st.parents.append(int(table[cell]))
    blend(st, cells, out)
