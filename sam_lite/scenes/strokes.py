"""用线条画的东西：字母和数字，杆、缆绳、血管、铁塔、三脚架。

线条用 pillow 在四倍大的画布上画，缩回来就是每个像素盖住几成；盖住过半的像素归它。
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .looks import Material, Studio, paint
from .objects import MAX_OBJECTS
from .random import log_uniform, pick

FINE = 4  # 画线条的画布大几倍

# 字的笔画：每一笔是几个点，一个点两位数字 xy，x 从 0 到 4，y 从 0 到 6，向下；~ 是弯的
GLYPH_TEXT = """
A 06 20 46,14 34;B 00 06 36 45 44 33 03,33 42 41 30 00;C ~41 30 10 01 05 16 36 45
D 00 06 26 45 41 20 00;E 40 00 06 46,03 33;F 40 00 06,03 33;H 00 06,40 46,03 43
I 20 26;K 00 06,40 03 46;L 00 06 46;M 06 00 23 40 46;N 06 00 46 40
O ~30 10 01 05 16 36 45 41 30 10;P 06 00 30 41 42 33 03;R 06 00 30 41 42 33 03,23 46
S ~41 30 10 01 12 34 45 36 16 05;T 00 40,20 26;U ~00 05 16 36 45 40;V 00 26 40
W 00 16 22 36 40;X 00 46,40 06;Y 00 23 40,23 26;Z 00 40 06 46;1 11 20 26
2 ~01 10 30 41 42 06,06 46;3 00 40 22 33 44 45 36 16 05;4 36 30 04 44
5 40 00 03 33 44 45 36 06;6 ~30 10 03 05 16 36 45 44 33 13 04;7 00 40 16
8 ~23 12 11 20 31 32 23 45 36 16 05 23;9 ~44 33 13 02 01 10 30 41 43 36 16
"""


class Ink(NamedTuple):
    """一笔或几笔盖住的地方。"""

    box: tuple[slice, slice]  # 画布上的切片：行、列
    alpha: np.ndarray  # (h, w)，每个像素盖住几成


def smooth(points: np.ndarray, times: int = 2) -> np.ndarray:
    """把折线的角一再切掉（Chaikin），两端不动。形状：``(N, 2) -> (M, 2)``。"""
    for _ in range(times):
        a, b = points[:-1], points[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], 1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut, points[-1:]])
    return points


def parse_glyphs(text: str) -> dict[str, list[np.ndarray]]:
    """把上面的文字读成 {字: 几笔}，每笔 (N, 2)，中心在原点，高是 1。"""
    glyphs = {}
    for entry in text.strip().replace("\n", ";").split(";"):
        name, body = entry.split(" ", 1)
        curved, lines = body.startswith("~"), []
        for stroke in body.strip("~").split(","):
            spots = np.array([[int(p[0]), int(p[1])] for p in stroke.split()], float)
            lines.append(smooth(spots) if curved and len(spots) > 2 else spots)
        glyphs[name] = [(line - [2, 3]) / 6 for line in lines]
    return glyphs


GLYPHS = parse_glyphs(GLYPH_TEXT)


def trace(
    st: Studio, lines: list[np.ndarray], widths: list[float], fill: bool = False
) -> Ink | None:
    """画几条折线，或填满几个多边形；坐标和宽度是像素，全在画面外时返回 None。"""
    every = np.concatenate(lines)
    pad = max(widths) / 2 + 1
    low = np.maximum(np.floor(every.min(0) - pad), 0).astype(int)
    high = np.minimum(np.ceil(every.max(0) + pad), st.size).astype(int)
    if (high <= low).any():
        return None
    w, h = (high - low).tolist()
    picture = Image.new("L", (w * FINE, h * FINE))
    pen = ImageDraw.Draw(picture)
    for line, width in zip(lines, widths, strict=True):
        spots = ((line - low) * FINE - 0.5).round(1)  # pillow 的 (0, 0) 是像素中心
        corners = [tuple(p) for p in spots.tolist()]
        if fill:
            pen.polygon(corners, 255)
            continue
        thick = max(2, round(width * FINE))
        pen.line(corners, 255, thick, joint="curve")
        for x, y in (corners[0], corners[-1]):  # 圆头
            pen.ellipse(
                (x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), 255
            )
    alpha = np.asarray(picture.reduce(FINE), np.float32) / 255
    return Ink((slice(low[1], high[1]), slice(low[0], high[0])), alpha)


def ink_material(st: Studio, ink: Ink, mat: Material) -> None:
    """用一种材质上色。"""
    rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) for s in ink.box)
    out = paint(st, mat, columns[None], rows[:, None])
    view = st.canvas[ink.box]
    view += (out - view) * ink.alpha[..., None]


def ink_label(st: Studio, ink: Ink, whole: int = 0) -> int:
    """写上标签，返回它；标签用完了就不写，返回 0。"""
    if len(st.parents) > MAX_OBJECTS:
        return 0
    st.labels[ink.box][ink.alpha >= 0.5] = len(st.parents)
    st.parents.append(whole)
    return len(st.parents) - 1


# ---------------------------------------------------------------- 字


def draw_letters(st: Studio) -> None:
    """画一串字，一到七个，同样的大小、粗细和表面；半数画在一块牌子上，是牌子的部件。"""
    rng, n = st.rng, st.size
    count = int(rng.integers(1, 8))
    high = log_uniform(rng, 0.08, 0.6 if count < 3 else 1 / count) * n
    step = high * rng.uniform(0.8, 1.1)
    turn = rng.normal(0, 0.1) if rng.uniform() < 0.7 else rng.uniform(-1.6, 1.6)
    c, s = math.cos(turn), math.sin(turn)
    shape = np.array([[c, s], [-s - rng.normal(0, 0.15), c]]) * high
    middle, plate = rng.uniform(0.2, 0.8, 2) * n, 0
    along = np.array([c, s]) * step
    if rng.uniform() < 0.5:
        half = np.array([(count - 1) * step / 2 + 0.6 * high, 0.75 * high])
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        ink = trace(st, [corners @ [[c, s], [-s, c]] + middle], [0.0], fill=True)
        if ink:
            ink_material(st, ink, st.material())
            plate = ink_label(st, ink)
    mat, width = st.material(), max(2.0, high * rng.uniform(0.08, 0.22))
    names = list(GLYPHS)
    for i in range(count):
        at = middle + (i - (count - 1) / 2) * along
        lines = [line @ shape + at for line in GLYPHS[pick(rng, names)]]
        ink = trace(st, lines, [width] * len(lines))
        if ink:
            ink_material(st, ink, mat)
            ink_label(st, ink, plate)


# ---------------------------------------------------------------- 细长的东西


def draw_slender(st: Studio) -> None:
    """画一到三样细长的东西；同一样常有好几个。"""
    for _ in range(int(st.rng.integers(1, 4))):
        draw = pick(st.rng, [pole, cable, vessel, tower, tripod])
        surface = st.material()
        for _ in range(int(st.rng.integers(1, 4))):
            draw(st, surface)


def pole(st: Studio, mat: Material) -> None:
    """一根杆：多半竖着，一头常伸出画面；有的带横臂。"""
    rng, n = st.rng, st.size
    tilt = rng.normal(0, 0.08) if rng.uniform() < 0.7 else rng.uniform(-1.5, 1.5)
    way = np.array([math.sin(tilt), -math.cos(tilt)])
    foot = rng.uniform(0, 1, 2) * n
    foot[1] = rng.uniform(0.5, 1.1) * n
    head = foot + way * log_uniform(rng, 0.25, 1.1) * n
    width = log_uniform(rng, 0.008, 0.04) * n
    lines = [np.array([foot, head])]
    if rng.uniform() < 0.3:
        arm = way[::-1] * [-1, 1] * rng.uniform(0.05, 0.2) * n
        lines.append(np.array([head - arm, head + arm]) - way * 0.05 * n)
    ink = trace(st, lines, [width] * len(lines))
    if ink:
        ink_material(st, ink, mat)
        ink_label(st, ink)


def cable(st: Studio, mat: Material) -> None:
    """一根垂下的缆绳，从画面的一边到另一边，或悬在中间。"""
    rng, n = st.rng, st.size
    t = np.linspace(-1, 1, 24)
    half, sag = rng.uniform(0.2, 0.7) * n, rng.uniform(-0.05, 0.3) * n
    line = np.stack([half * t, sag * (1 - t * t) + rng.normal(0, 0.3) * half * t], 1)
    turn = 0.0 if rng.uniform() < 0.7 else rng.uniform(0, 6.28)
    c, s = math.cos(turn), math.sin(turn)
    line = line @ [[c, s], [-s, c]] + rng.uniform(0.1, 0.9, 2) * n
    ink = trace(st, [line], [log_uniform(rng, 0.006, 0.02) * n])
    if ink:
        ink_material(st, ink, mat)
        ink_label(st, ink)


def vessel(st: Studio, mat: Material) -> None:
    """一条弯弯的血管，越来越细，比底色深一些；分出去的细枝不算它的。"""
    rng, n = st.rng, st.size
    start, heading = rng.uniform(0.1, 0.9, 2) * n, rng.uniform(0, 6.28)
    width, curl = log_uniform(rng, 0.008, 0.03) * n, rng.normal(0, 0.12)
    tone = (0.85 - 0.5 * rng.random() * rng.uniform(0.5, 1.5, 3)).astype("f4")
    inks: list[Ink | None] = []
    for branch in range(int(rng.integers(1, 4))):
        line, at, way = [start], start, heading + branch * rng.normal(0, 0.7)
        for _ in range(int(rng.integers(6, 14))):
            way += curl + rng.normal(0, 0.15)
            at = at + np.array([math.cos(way), math.sin(way)]) * (0.07 * n)
            line.append(at)
        path = smooth(np.array(line))
        thin = np.linspace(1, 0.5, len(path) - 1) * width * 0.6**branch
        inks.append(trace(st, [*np.stack([path[:-1], path[1:]], 1)], thin.tolist()))
        start = path[int(rng.integers(len(path)))]
    for ink in inks:
        if ink:
            st.canvas[ink.box] *= 1 - ink.alpha[..., None] * (1 - np.clip(tone, 0.2, 1))
            st.labels[ink.box][ink.alpha >= 0.5] = 0
    if inks[0]:
        ink_label(st, inks[0])


def tower(st: Studio, mat: Material) -> None:
    """一座铁塔：上窄下宽，两边之间是斜撑；格子里看得见背景，却也算塔的。"""
    rng, n = st.rng, st.size
    base = np.array([rng.uniform(0, 1), rng.uniform(0.6, 1.2)]) * n
    high, wide = log_uniform(rng, 0.3, 1.2) * n, log_uniform(rng, 0.03, 0.14) * n
    slim, width = rng.uniform(0.05, 0.9) * wide, log_uniform(rng, 0.006, 0.015) * n
    floors = np.linspace(0, 1, int(min(14, 2 + high / (1.6 * wide))))
    half = wide + (slim - wide) * floors
    lean = rng.normal(0, 0.03) * high * floors
    left = base + np.stack([lean - half, -high * floors], 1)
    right = base + np.stack([lean + half, -high * floors], 1)
    bars = [left, right, np.array([left[-1], right[-1]])]
    for i in range(len(floors) - 1):
        bars += [np.array([left[i], right[i + 1]]), np.array([right[i], left[i + 1]])]
    ink = trace(st, bars, [width] * len(bars))
    if ink is None:
        return
    ink_material(st, ink, mat)
    outline = trace(st, [np.concatenate([left, right[::-1]])], [width], fill=True)
    if outline:  # 两次的框一样大
        ink_label(st, ink._replace(alpha=np.maximum(ink.alpha, outline.alpha)))


def tripod(st: Studio, mat: Material) -> None:
    """一副三脚架：三条腿和中柱，合起来是一个物体，每条腿是部件；杆之间不算。"""
    rng, n = st.rng, st.size
    apex = rng.uniform(0.15, 0.85, 2) * n * [1, 0.7]
    high, width = rng.uniform(0.25, 0.7) * n, log_uniform(rng, 0.01, 0.03) * n
    spread = np.array([-1, rng.uniform(-0.4, 0.4), 1]) * rng.uniform(0.2, 0.5) * high
    feet = apex + np.stack([spread, high * rng.uniform(0.85, 1, 3)], 1)
    legs = [np.array([apex, foot]) for foot in feet]
    column = np.array([apex - [0, 0.12 * high], apex + [0, rng.uniform(0, 0.5) * high]])
    ink = trace(st, [*legs, column], [width] * 3 + [1.5 * width])
    if ink is None:
        return
    ink_material(st, ink, mat)
    whole = ink_label(st, ink)
    for leg in legs:
        part = trace(st, [leg], [width])
        if whole and part:
            ink_label(st, part, whole)
