"""把物体画进场景：定大小和位置，投影子，上色，写标签；单个的，或成群的。"""

import itertools
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .looks import Material, Studio, paint, shade
from .random import log_uniform, pick
from .shapes import (
    DECOR,
    NAMELESS,
    STOUT,
    Design,
    Piece,
    design_object,
    radius_table,
    union,
)

MAX_OBJECTS = 40
MIN_PIXELS_AT_256 = 64  # 可见像素更少的物体会被丢掉；别的边长按面积折算


class Pose(NamedTuple):
    """物体有多大、在哪里、朝哪边。"""

    area: float  # 像素数
    at: tuple[float, float]  # 中心的像素坐标 x, y
    angle: float  # 弧度


class Patch(NamedTuple):
    """物体落在画布上的一块，h 行 w 列。"""

    box: tuple[slice, slice]  # 画布上的切片：行、列
    x: np.ndarray  # (1, w)，像素坐标，原点在物体中心
    y: np.ndarray  # (h, 1)
    u: np.ndarray  # (h, w)，设计图上的坐标
    v: np.ndarray  # (h, w)
    scale: float  # 设计图上的一个单位合多少像素


def place(st: Studio, outline: list[Piece], pose: Pose) -> Patch:
    """按面积定比例，找出物体占画布的哪一块；出界时是空的。"""
    c, s = math.cos(pose.angle), math.sin(pose.angle)
    g = np.linspace(-1.6, 1.6, 40, dtype=np.float32)
    inside = union(outline, c * g + s * g[:, None], c * g[:, None] - s * g) < 0
    scale = math.sqrt(pose.area / max(float(inside.mean()) * 3.2**2, 0.02))
    scale = min(scale, 0.8 * st.size)
    pad, spans, coords = 3 + 0.05 * st.size, [], []
    for axis, centre in enumerate(pose.at):  # 先 x 后 y
        hit = g[inside.any(axis)] if inside.any() else g[:1]
        low = max(0, int(centre + (float(hit[0]) - 0.1) * scale - pad))
        high = int(centre + (float(hit[-1]) + 0.1) * scale + pad) + 1
        high = max(0, min(st.size, high))
        spans.append(slice(low, high))
        coords.append(np.arange(low, high, dtype=np.float32) - centre)
    x, y = coords[0][None], coords[1][:, None]
    c, s = c / scale, s / scale
    return Patch((spans[1], spans[0]), x, y, c * x + s * y, c * y - s * x, scale)


def cast_shadow(st: Studio, patch: Patch, d: np.ndarray) -> None:
    """按距离场 d (h, w) 投下一片模糊的影子，偏移方向与光相反。"""
    if not st.has["shading"]:
        return
    blur = log_uniform(st.rng, 0.008, 0.06) * st.size
    far = st.rng.uniform(0, 0.05) * st.size
    dark = np.clip(0.5 - d / (2 * blur), 0, 1) * st.rng.uniform(0.2, 0.8)
    y0 = patch.box[0].start + round(-st.light[1] * far)
    x0 = patch.box[1].start + round(-st.light[0] * far)
    h, w = d.shape
    top, left = max(0, -y0), max(0, -x0)
    view = st.canvas[max(0, y0) : max(0, y0 + h), max(0, x0) : max(0, x0 + w)]
    dark = dark[top : top + view.shape[0], left : left + view.shape[1]]
    view *= (1 - dark)[..., None]


def draw_parts(
    st: Studio,
    pieces: list[Piece],
    patch: Patch,
    d: np.ndarray,
    mats: list[Material],
    out: np.ndarray,
    ids: np.ndarray,
) -> None:
    """把部件就地画进 out (h, w, 3) 和 ids (h, w)；d 是整体的距离场。"""
    whole = last = len(st.parents) - 1
    groups = itertools.groupby(pieces, key=lambda piece: piece.part)
    for (part, group), mat in zip(groups, itertools.cycle(mats), strict=False):
        if part == 0:
            continue
        blocks = list(group)
        if blocks[0].kind == "inset":  # 轮廓向内收缩最大深度的 a 倍
            inner = d - blocks[0].a * float(d.min())
        else:  # 部件不越出整体
            inner = np.maximum(union(blocks, patch.u, patch.v) * patch.scale, d)
        top = paint(st, mat, patch.x, patch.y)
        shade(st, replace(mat, relief=0.0, gloss=0.0), inner, top)
        out += (top - out) * np.clip(0.5 - inner, 0, 1)[..., None]
        if part < DECOR and len(st.parents) <= MAX_OBJECTS:
            ids[inner < 0] = len(st.parents)
            st.parents.append(last if part < 0 else whole)
            last = len(st.parents) - 1


def draw_object(st: Studio, design: Design, pose: Pose, mats: list[Material]) -> None:
    """把一个物体连同部件画到画布上，并写好标签；mats[0] 给整体，其余轮流给部件。"""
    rng, patch = st.rng, place(st, design.outline, pose)
    h, w = patch.u.shape
    if min(h, w) < 4 or len(st.parents) > MAX_OBJECTS:
        return
    wobble = pick(rng, [0.0, 0.15, 0.35], p=[0.4, 0.4, 0.2])
    if wobble:  # 轻轻扭曲坐标，轮廓就不再像尺规画的；偶尔用粗糙的噪声，像毛边
        furry = rng.uniform() < 0.2
        u = patch.u + wobble * (st.crop(h, w, smooth=not furry) - 0.5)
        v = patch.v + wobble * (st.crop(h, w, smooth=not furry) - 0.5)
        patch = patch._replace(u=u, v=v)
    d = union(design.outline, patch.u, patch.v) * patch.scale
    if rng.uniform() < 0.7:
        cast_shadow(st, patch, d)
    out = paint(st, mats[0], patch.x, patch.y)
    ids = np.full(d.shape, len(st.parents), np.uint8)
    st.parents.append(0)
    draw_parts(st, design.pieces, patch, d, mats[1:], out, ids)
    shade(st, mats[0], d, out)
    view = st.canvas[patch.box]
    view += (out - view) * np.clip(0.5 - d * rng.uniform(0.4, 1), 0, 1)[..., None]
    np.copyto(st.labels[patch.box], ids, where=d < 0)


def draw_group(st: Studio, parts: float) -> None:
    """画 6 到 20 个相似的圆物，大致排成格子：硬币、细胞、水果。"""
    rng, n = st.rng, st.size
    rows, cols = int(rng.integers(2, 5)), int(rng.integers(3, 6))
    outline = [Piece("ellipse", 0, 0, 1, rng.uniform(0.75, 1), 0, 0)]
    if rng.uniform() < 0.3:
        outline = [Piece("radial", 0, 0, 1, radius_table(rng), 0, 0)]
    pieces = outline[:]
    if rng.uniform() < 0.5 * parts:
        pieces.append(Piece("inset", 0, 0, rng.uniform(0.1, 0.6), 0, 0, 1))
    mats = [st.material(), st.material()]
    mats[0] = replace(mats[0], relief=pick(rng, [0.0, 0.03, 0.08]))
    cell, jitter = n / max(rows, cols), pick(rng, [0.03, 0.15, 0.4])
    size = rng.uniform(0.3, 0.47) * cell
    for i, j in itertools.product(range(rows), range(cols)):
        x = ((j + 0.5) / cols + rng.normal(0, jitter / cols)) * n
        y = ((i + 0.5) / rows + rng.normal(0, jitter / rows)) * n
        area = 2.8 * (size * rng.normal(1, 0.1)) ** 2
        gain = np.float32(rng.normal(1, 0.1))
        own = [replace(m, colours=m.colours * gain) for m in mats]
        pose = Pose(area, (x, y), rng.uniform(0, 6.28))
        draw_object(st, Design(pieces, outline), pose, own)


def draw_mixed(
    st: Studio, objects: tuple[int, int], area: tuple[float, float], parts: float
) -> None:
    """画几个互不相同的物体，从远到近，后画的遮住先画的。"""
    rng, n = st.rng, st.size
    count = int(rng.integers(objects[0], objects[1] + 1))
    areas = [log_uniform(rng, *area) for _ in range(count)]
    hero = rng.uniform() < 0.35  # 照片常有一个占据中央的主角
    if hero:
        areas[0] = log_uniform(rng, max(area[0], 0.35 * area[1]), area[1])
    if rng.uniform() < 0.7:  # 大的多半在后面，否则小的全被盖住
        areas.sort(reverse=True)
    kinds = NAMELESS if st.has["thin"] else STOUT
    shared = [st.material() for _ in range(5)]  # 部件的表面在一张图里重复出现
    for size in areas:
        if len(st.parents) > MAX_OBJECTS:
            return
        spread = 0.12 if hero and size == max(areas) else 0.42
        x, y = ((0.5 + rng.uniform(-spread, spread, 2)) * n).tolist()
        upright = rng.uniform() < 0.6
        angle = rng.normal(0, 0.15) if upright else rng.uniform(0, 2 * math.pi)
        mats = [st.material(), *(pick(rng, shared) for _ in range(3))]
        pose = Pose(size * n * n, (x, y), angle)
        draw_object(st, design_object(rng, parts, kinds), pose, mats)


def draw_cropped(st: Studio, parts: float) -> None:
    """画一两个大物，中心在画面的边上或外面一点：人只露半身，桌子只见一角。"""
    rng, n = st.rng, st.size
    for _ in range(int(rng.integers(1, 3))):
        turn, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.7, 1.15)
        along = math.cos(turn), math.sin(turn)
        reach = far * n / 2 / max(abs(along[0]), abs(along[1]))  # 1 正好在边上
        at = n / 2 + along[0] * reach, n / 2 + along[1] * reach
        pose = Pose(log_uniform(rng, 0.3, 1.0) * n * n, at, rng.normal(0, 0.3))
        mats = [st.material() for _ in range(4)]
        draw_object(st, design_object(rng, parts, NAMELESS), pose, mats)


def tidy_labels(
    labels: np.ndarray, parents: list[int]
) -> tuple[np.ndarray, np.ndarray]:
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
