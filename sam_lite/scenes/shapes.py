"""场景里物体的形状：有名字的模板，和随机的无名形状，都由几块简单的图形拼成。

每块图形写成**有符号距离**（signed distance），内负外正：抗锯齿、阴影、明暗和标签都从
同一个距离场得到。
"""

import math
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from .random import pick

DECOR = 100  # 部件号从这里起的块只是花纹：画出来，但不给标签


class Piece(NamedTuple):
    """一块图形；坐标在 [-1, 1]，y 向下，后面的块盖住前面的。"""

    kind: str
    x: float  # 中心
    y: float
    a: float  # 半宽；圆环和 radial 是半径，inset 是收缩的比例
    b: Any  # 半高；圆环是半个环宽，radial 是半径表
    angle: float  # 度
    part: int  # 0 属于整体，1、2 … 是各自的部件，负数是“上一个部件的部件”


class Design(NamedTuple):
    """一个物体的设计图。"""

    pieces: list[Piece]  # 全部的块
    outline: list[Piece]  # 决定轮廓的块


# 一行一个模板，一块写成 kind x y a b angle part
TEMPLATE_TEXT = """
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


def parse_templates(text: str) -> dict[str, list[Piece]]:
    """把上面的文字读成 {名字: 块}。"""
    templates = {}
    for line in text.replace("\n  ", "").strip().splitlines():
        name, body = line.split(":")
        rows = [row.split() for row in body.split(";")]
        templates[name] = [
            Piece._make([kind, *map(float, numbers), int(part)])
            for kind, *numbers, part in rows
        ]
    return templates


TEMPLATES = parse_templates(TEMPLATE_TEXT)


def distance(piece: Piece, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """返回一块形状的近似有符号距离（内负外正），单位与 u、v 相同。"""
    kind, cx, cy, a, b, angle, _ = piece
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


def union(pieces: list[Piece], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """几块合起来的有符号距离：处处取最小的一个。"""
    return reduce(np.minimum, (distance(piece, u, v) for piece in pieces))


def radius_table(rng: np.random.Generator) -> np.ndarray:
    """返回 (512,) 的半径表：平滑团块、凹团块、正多边形或星形，最大约 1。"""
    t = np.arange(512, dtype=np.float32) * (2 * math.pi / 512)
    if rng.uniform() < 0.65:
        rough = pick(rng, [0.12, 0.3, 0.5])
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


# 无名形状的种类和出现的概率
NAMELESS = {
    "ellipse": 0.15,
    "circle": 0.12,
    "box": 0.16,
    "capsule": 0.05,
    "radial": 0.28,
    "ring": 0.06,
    "stroke": 0.09,
    "union": 0.09,
}
STOUT = {k: p for k, p in NAMELESS.items() if k not in ("capsule", "ring", "stroke")}


def nameless_shape(
    rng: np.random.Generator, part: int, kinds: dict[str, float]
) -> list[Piece]:
    """从 kinds 里随机一个无名的形状，充满 [-1, 1]；粗线条由几段胶囊接成。"""
    kind = pick(rng, list(kinds), p=list(kinds.values()))
    if kind == "ring":
        w = rng.uniform(0.1, 0.25)
        return [Piece("ring", 0, 0, 1 - w, w, 0, part)]
    if kind == "radial":
        return [Piece("radial", 0, 0, 1, radius_table(rng), 0, part)]
    if kind == "union":
        out = []
        for x, y in rng.uniform(-0.5, 0.5, (3, 2)).tolist():
            name, (a, b) = pick(rng, ["ellipse", "box"]), rng.uniform(0.25, 0.6, 2)
            angle = rng.uniform(0, 180)
            out.append(Piece(name, x, y, float(a), float(b), angle, part))
        return out
    if kind == "stroke":
        heading, turn, width = 0.0, rng.uniform(-0.7, 0.7), rng.uniform(0.1, 0.25)
        x, y, out = 0.0, 0.0, []
        for _ in range(int(rng.integers(3, 7))):
            heading += turn + rng.normal(0, 0.15)
            dx, dy = 0.2 * math.cos(heading), 0.2 * math.sin(heading)
            at, turned = (x + dx, y + dy), math.degrees(heading)
            out.append(Piece("capsule", *at, 0.2 + width, width, turned, part))
            x, y = x + 2 * dx, y + 2 * dy
        return [p._replace(x=p.x - x / 2, y=p.y - y / 2) for p in out]
    ratio = 1.0 if kind == "circle" else rng.uniform(0.3, 1)
    name = "ellipse" if kind == "circle" else kind
    return [Piece(name, 0, 0, 1, ratio, 0, part)]


def from_template(rng: np.random.Generator, parts: float) -> Design:
    """取一个模板并抖动它的尺寸。"""
    pieces, labelled = [], rng.uniform() < math.sqrt(parts)
    for kind, x, y, a, b, angle, part in TEMPLATES[pick(rng, list(TEMPLATES))]:
        sx, sy, turn = rng.normal(1, 0.1), rng.normal(1, 0.1), rng.normal(0, 4)
        pieces.append(Piece(kind, x, y, a * sx, b * sy, angle + turn, part))
    outline = [p for p in pieces if p.part >= 0]
    if not labelled:  # 同样的花样也以“没有标注”的面目出现：颜色变了不等于换了物体
        pieces = [p._replace(part=p.part and abs(p.part) + DECOR) for p in pieces]
    return Design(pieces, outline)


def design_object(
    rng: np.random.Generator, parts: float, kinds: dict[str, float]
) -> Design:
    """设计一个物体：模板，或 kinds 里无名的形状；无名形状带 0 到 3 个部件。"""
    if rng.uniform() < 0.4:
        return from_template(rng, parts)
    pieces = nameless_shape(rng, 0, kinds)
    outline = pieces[:]
    if rng.uniform() > parts:
        return Design(pieces, outline)
    if rng.uniform() < 0.3:  # 同心的一圈或两圈：盘子、杯口、硬币的边
        pieces.append(Piece("inset", 0, 0, rng.uniform(0.05, 0.4), 0, 0, 1))
        if rng.uniform() < 0.5:
            pieces.append(Piece("inset", 0, 0, rng.uniform(0.45, 0.7), 0, 0, -1))
        return Design(pieces, outline)
    for part in range(1, int(rng.integers(1, 4)) + 1):
        scale, (x, y) = rng.uniform(0.2, 0.55), rng.uniform(-0.45, 0.45, 2).tolist()
        if rng.uniform() < 0.2:  # 横贯整体的一条带子
            angle = rng.uniform(0, 180)
            pieces.append(Piece("box", x, y, 3, 0.4 * scale, angle, part))
            continue
        for kind, px, py, a, b, angle, _ in nameless_shape(rng, part, kinds):
            b = b if kind == "radial" else b * scale
            at = (x + px * scale, y + py * scale)
            pieces.append(Piece(kind, *at, a * scale, b, angle, part))
    return Design(pieces, outline)
