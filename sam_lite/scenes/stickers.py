"""贴纸场景：把抠好的小图贴在照片或画出来的背景上，每样东西、每一组都有真值和名字。

随包的一套是微软的 Fluent emoji（3D 版，MIT 许可）里挑的两百多样，拼成一张图
``assets/stickers.webp``，名字在 ``assets/stickers.csv``；五分之一（``exam``）从不训练，
留着打分。训练可以换成更大的一套，见 ``read_collection``。

一组是一样东西戴着、装着或拿着别的：戴帽子的熊、一篮水果、拿着气球的猫。组自己没有
像素，成员的 ``parents`` 指向它：帽子、熊、戴帽子的熊都是真值，点一下熊，说不清指哪个。
"""

import csv
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..errors import SamLiteError, problem
from .content import BASE
from .looks import Studio, paint_background
from .objects import MAX_OBJECTS, MIN_PIXELS_AT_256
from .random import log_uniform, pick
from .scene import Scene, check_int, take_photo

ATLAS_SIDE, ATLAS_COLUMNS = 160, 16  # 图集一格的边长（像素）、一行几格
LEAST_VISIBLE = 0.2  # 露出来的不到这么多，就不算一样东西
LAYOUTS = {"scatter": 0.38, "herd": 0.12, "groups": 0.3, "heap": 0.08, "portrait": 0.12}
MANY = {  # 最少、最多几件，最小、最大占边长的几成
    "scatter": (1, 8, 0.11, 0.75),
    "groups": (1, 4, 0.3, 0.7),
    "heap": (6, 12, 0.18, 0.4),
    "portrait": (0, 3, 0.1, 0.3),  # 大的之外
}
GROUP_NAMES = {  # 中文、英文，次序是（成员，主人）；脸看戴的是什么，别的看主人
    "hat": ("戴{0}的{1}", "{1} wearing {0}"),
    "glasses": ("戴{0}的{1}", "{1} wearing {0}"),
    "hand": ("拿着{0}的{1}", "{1} holding {0}"),
    "mouth": ("叼着{0}的{1}", "{1} with {0} in its mouth"),
    "bowl": ("盛着{0}的{1}", "{1} full of {0}"),
    "bag": ("装着{0}的{1}", "{1} full of {0}"),
}
NUMBERS = {"face": 3, "hand": 2, "mouth": 2, "bowl": 3, "bag": 3}  # host 后面几个数
NUMBERS |= {"hat": 1, "glasses": 0, "filling": 0, "held": 2, "": 0}  # role 后面几个


@dataclass(frozen=True)
class Sticker:
    """一样抠好的东西。

    ``picture`` 是 RGBA 图，裁到不透明的部分；``exam`` 为真的只用来打分。``host`` 是它能
    做什么的主人，``role`` 是它能当什么；数都按图的高、宽算，写在表里：

    - “face 0.43 0.15 0.65”：一张脸，眼睛、帽檐的高度和头宽；
    - “hand 0.1 0.48”、“mouth 0.04 0.42”：能拿、能叼，手或嘴的位置；
    - “bowl 0.635 0.12 0.88”：看得见里面的容器，前沿的高度、开口的左右；
    - “bag 0.35 0.02 0.98”：看不见里面的，装的东西从后面露出来；
    - “hat 0.95”：自己的这个高度落在帽檐上；“glasses”；“filling”，能装；
    - “held 0.5 0.85”：能拿的，拿在哪一点。
    """

    code: str
    zh: str
    en: str
    kind: str
    exam: bool
    host: str
    role: str
    picture: Image.Image


@dataclass(frozen=True)
class Collection:
    """一套贴纸和当背景的照片；没有照片时，背景都是画的。"""

    stickers: tuple[Sticker, ...]
    grounds: tuple[Image.Image, ...] = ()

    def split(self, exam: bool) -> "Collection":
        """只留打分用的，或只留训练用的。"""
        chosen = tuple(s for s in self.stickers if s.exam == exam)
        return Collection(chosen, self.grounds)


@functools.cache
def bundled_stickers() -> Collection:
    """随包的贴纸，没有背景照片。"""
    assets = files("sam_lite") / "assets"
    with (assets / "stickers.webp").open("rb") as file:
        atlas = Image.open(file).convert("RGBA")
    rows = csv.DictReader((assets / "stickers.csv").read_text("utf-8").splitlines())
    found = []
    for i, row in enumerate(rows):
        x, y = i % ATLAS_COLUMNS * ATLAS_SIDE, i // ATLAS_COLUMNS * ATLAS_SIDE
        box = (x, y, x + int(row["width"]), y + int(row["height"]))
        found.append(_sticker(row, row["code"], atlas.crop(box)))
    return Collection(tuple(found))


def read_collection(folder: str | Path) -> Collection:
    """读 ``python tools/stickers.py fetch`` 整理好的文件夹；不全时抛 SamLiteError。"""
    folder = Path(folder)
    try:
        text = (folder / "things.csv").read_text("utf-8")
        stickers = tuple(
            _sticker(row, row["file"], _read(folder / "things" / row["file"], "RGBA"))
            for row in csv.DictReader(text.splitlines())
        )
        paths = sorted((folder / "grounds").glob("*.jpg"))
        return Collection(stickers, tuple(_read(path, "RGB") for path in paths))
    except (OSError, KeyError, ValueError) as error:
        raise SamLiteError(
            f"{folder} 不是整理好的贴纸（{error}）。"
            f"先运行 python tools/stickers.py fetch {folder}。"
        ) from error


def _sticker(row: dict[str, str], code: str, picture: Image.Image) -> Sticker:
    host, role = row["host"], row["role"]
    anchors(host), anchors(role)  # 看不懂的，读的时候就说
    names = row["zh"], row["en"], row["kind"]
    return Sticker(code, *names, bool(row["exam"]), host, role, picture)


def _read(path: Path, mode: str) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert(mode)


# ---------------------------------------------------------------- 一样东西、一组


@dataclass
class Layer:
    """一样东西在它那一组的小画布上：RGBA，和中英文名。"""

    picture: Image.Image
    name: tuple[str, str]


@dataclass
class Thing:
    """要贴的一件：一层是一样东西，几层是一组，画布一样大；``name`` 是整组的名字。"""

    layers: list[Layer]
    name: tuple[str, str] = ("", "")


def single(sticker: Sticker) -> Thing:
    """单独一样东西。"""
    return Thing([Layer(sticker.picture, (sticker.zh, sticker.en))])


def fit_width(picture: Image.Image, width: float) -> Image.Image:
    """按宽度等比缩放。"""
    width = max(4, round(width))
    height = max(4, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.BILINEAR)


@functools.cache
def anchors(text: str) -> tuple[str, tuple[float, ...]]:
    """“face 0.43 0.15 0.65” -> ("face", (0.43, 0.15, 0.65))；看不懂时抛 ValueError。"""
    kind, *numbers = text.split() or [""]
    if NUMBERS.get(kind) != len(numbers):
        raise ValueError(f"看不懂 host 或 role：{text}")
    return kind, tuple(map(float, numbers))


def place(
    rng: np.random.Generator, host: Sticker, item: Sticker, share: float
) -> tuple[Image.Image, float, float]:
    """item 的一点对准 host 的一点：返回缩好的图，和它左上角在 host 上的 x、y。

    ``share`` 是容器里的第几成：0 最左，1 最右。
    """
    w, h = host.picture.size
    (_, at), (role, own) = anchors(host.host), anchors(item.role)
    picture, grip = item.picture, (0.5, 0.5)
    if role == "hat":
        eyes, brim, head = at
        picture = fit_width(picture, head * w * rng.uniform(0.85, 1.1))
        spot, grip = (rng.normal(0.5, 0.04), brim), (0.5, own[0])
    elif role == "glasses":
        eyes, brim, head = at
        picture = fit_width(picture, head * w * rng.uniform(0.85, 1.05))
        spot = (0.5, eyes)
    elif role == "filling":
        rim, left, right = at
        picture = fit_width(picture, (right - left) * w * rng.uniform(0.42, 0.55))
        spot = (left + (right - left) * (share + rng.normal(0, 0.02)), rim)
        grip = (0.5, rng.uniform(0.45, 0.75))
    else:
        spot, grip = (at[0], at[1]), (own[0], own[1])
        if (spot[0] < 0.5) == (grip[0] < 0.5):  # 往外伸，不挡着主人
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            grip = (1 - grip[0], grip[1])
        longest = max(w, h) * rng.uniform(0.4, 0.65)
        picture = fit_width(picture, longest * picture.width / max(picture.size))
    x, y = spot[0] * w - grip[0] * picture.width, spot[1] * h - grip[1] * picture.height
    return picture, x, y


def make_group(
    rng: np.random.Generator, host: Sticker, items: Sequence[Sticker]
) -> Thing:
    """一样东西戴着、装着或拿着 items，在同一张三倍大的小画布上。"""
    w, h = host.picture.size
    frame = 3 * w, 3 * h
    kind, at = anchors(host.host)
    layers = [Layer(_on_frame(host.picture, frame, w, h), (host.zh, host.en))]
    front = np.array(layers[0].picture.getchannel("A")) / 255  # 挡在里面的东西前面的
    if kind == "bowl":
        front[: round(h + at[0] * h)] = 0
    for i, item in enumerate(items):
        share = 0.5 + 0.22 * (i - (len(items) - 1) / 2)
        picture, x, y = place(rng, host, item, share)
        layer = _on_frame(picture, frame, w + x, h + y)
        if kind in ("bowl", "bag"):
            alpha = np.asarray(layer.getchannel("A")) * (1 - front)
            layer.putalpha(Image.fromarray(alpha.astype(np.uint8)))
        layers.append(Layer(layer, (item.zh, item.en)))
    zh, en = GROUP_NAMES.get(kind) or GROUP_NAMES[anchors(items[0].role)[0]]
    what = listed([i.zh for i in items], "、", "和")
    which = listed([i.en for i in items], ", ", " and ")
    return Thing(layers, (zh.format(what, host.zh), en.format(which, host.en)))


def listed(words: Sequence[str], comma: str, last: str) -> str:
    """“桃、梨和蛋”：重复的只说一遍。"""
    *most, end = dict.fromkeys(words)
    return comma.join(most) + last + end if most else end


def _on_frame(
    picture: Image.Image, frame: tuple[int, int], x: float, y: float
) -> Image.Image:
    out = Image.new("RGBA", frame)
    out.paste(picture, (round(x), round(y)))
    return out


def random_group(
    rng: np.random.Generator, collection: Collection, again: int = 8
) -> Thing:
    """随机一组；几次都凑不成（这一套里没有合适的），就给单独一样。"""
    stickers = collection.stickers
    for _ in range(again):
        host = pick(rng, stickers)
        kind, _ = anchors(host.host)
        if not kind:
            continue
        if kind == "face":
            roles = pick(rng, [["hat"], ["glasses"], ["hat", "glasses"]])
        elif kind in ("hand", "mouth"):
            roles = ["held"]
        else:
            roles = ["filling"] * int(rng.integers(1, 4))
        found = [[s for s in stickers if anchors(s.role)[0] == r] for r in roles]
        if all(found):
            return make_group(rng, host, [pick(rng, options) for options in found])
    return single(pick(rng, stickers))


# ---------------------------------------------------------------- 贴上去


def turn(
    rng: np.random.Generator, thing: Thing, side: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """把一件东西缩到最长 side 像素，翻转、旋转、变色；每层返回 (颜色, 不透明度)。

    颜色 (h, w, 3) 与不透明度 (h, w)，float32，都是 0 到 1；一组里各层的变换相同。
    """
    alphas = [layer.picture.getchannel("A") for layer in thing.layers]
    boxes = np.array([alpha.getbbox() or (0, 0, 1, 1) for alpha in alphas])
    box = (*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
    scale = side / max(box[2] - box[0], box[3] - box[1])
    shape = (
        max(4, round((box[2] - box[0]) * scale * rng.uniform(0.88, 1.14))),
        max(4, round((box[3] - box[1]) * scale)),
    )
    mirror = rng.uniform() < 0.5
    angle = rng.normal(0, 10) if rng.uniform() < 0.8 else rng.uniform(0, 360)
    soft = rng.uniform(0.5, 2) * side / 100 if rng.uniform() < 0.12 else 0.0
    change = recolour(rng)
    out = []
    for layer in thing.layers:
        picture = layer.picture.crop(box).resize(shape, Image.Resampling.BILINEAR)
        if mirror:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # 先乘上不透明度再转，边上才不会带出透明处的黑
        picture = picture.convert("RGBa")
        picture = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        if soft:
            picture = picture.filter(ImageFilter.GaussianBlur(soft))
        pixels = np.asarray(picture.convert("RGBA"), np.float32) / 255
        out.append((change(pixels[..., :3]), pixels[..., 3]))
    return out


def recolour(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """随机一种变色：灰、换色、明暗、偏色、一边亮一边暗；返回 (h, w, 3) 上的函数。"""
    grey, swap = rng.uniform() < 0.1, rng.uniform() < 0.15
    order = rng.permutation(3)
    gain = rng.uniform(0.65, 1.2) * rng.uniform(0.88, 1.12, 3).astype("f4")
    offset = np.float32(rng.uniform(-0.06, 0.06))
    slope = rng.uniform(-0.35, 0.35, 2) * (rng.uniform() < 0.5)

    def change(rgb: np.ndarray) -> np.ndarray:
        h, w = rgb.shape[:2]
        rgb = rgb[..., order] if swap else rgb
        rgb = rgb.mean(-1, keepdims=True).repeat(3, -1) if grey else rgb
        x = np.linspace(-1, 1, w, dtype="f4")[None, :, None] * np.float32(slope[0])
        y = np.linspace(-1, 1, h, dtype="f4")[:, None, None] * np.float32(slope[1])
        return np.clip((rgb * gain + offset) * (1 + x + y), 0, 1)

    return change


class Table:
    """贴的时候的台面：画布、标签、上级、名字，和每样东西本来有多大。"""

    def __init__(self, st: Studio) -> None:
        self.st, self.canvas, self.labels = st, st.canvas, st.labels
        self.parents, self.names, self.areas = [0], [("", "")], [0.0]

    def add(self, parent: int, name: tuple[str, str], area: float) -> int:
        """记下新的一样，返回它的标签。"""
        self.parents.append(parent)
        self.names.append(name)
        self.areas.append(area)
        return len(self.parents) - 1

    def put(
        self, thing: Thing, side: float, at: tuple[float, float], on: int = 0
    ) -> int:
        """以 at 为中心贴上一件，on 是它的上级；返回整件的标签，贴不下时是 0。"""
        if len(self.parents) + len(thing.layers) > MAX_OBJECTS:
            return 0
        layers = turn(self.st.rng, thing, side)
        h, w = layers[0][1].shape
        n = self.st.size
        x, y = round(at[0] - w / 2), round(at[1] - h / 2)
        x0, y0, x1, y1 = max(0, x), max(0, y), min(n, x + w), min(n, y + h)
        if x1 - x0 < 2 or y1 - y0 < 2:
            return 0
        whole = self.add(on, thing.name, 0.0) if len(layers) > 1 else 0
        box, inner = np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        if self.st.rng.uniform() < 0.45:
            self.shadow(np.max([alpha for _, alpha in layers], axis=0), x, y)
        for (rgb, alpha), layer in zip(layers, thing.layers, strict=True):
            solid = alpha[inner] > 0.5
            k = self.add(whole or on, layer.name, float((alpha > 0.5).sum()))
            view = self.canvas[box]
            view += (rgb[inner] - view) * alpha[inner][..., None]
            self.labels[box][solid] = k
        return whole or k

    def shadow(self, alpha: np.ndarray, x: int, y: int) -> None:
        """在 (x, y) 处投下一片模糊的影子。"""
        rng, n = self.st.rng, self.st.size
        far, blur = rng.uniform(0, 0.03) * n, log_uniform(rng, 0.008, 0.035) * n
        pad = math.ceil(2 * blur)
        sharp = Image.fromarray((np.pad(alpha, pad) * 255).astype(np.uint8))
        soft = sharp.filter(ImageFilter.GaussianBlur(blur))
        dark = np.asarray(soft, np.float32) / 255
        x += round(-self.st.light[0] * far) - pad
        y += round(abs(self.st.light[1]) * far) - pad
        h, w = dark.shape
        top, left = max(0, -y), max(0, -x)
        view = self.canvas[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)]
        dark = dark[top : top + view.shape[0], left : left + view.shape[1]]
        view *= (1 - rng.uniform(0.2, 0.65) * dark)[..., None]


def lay_ground(st: Studio, grounds: Sequence[Image.Image]) -> None:
    """铺背景：照片随机裁一块，有时模糊；或者画的。"""
    rng, n = st.rng, st.size
    if not grounds or rng.uniform() < 0.3:
        paint_background(st)
        return
    picture = pick(rng, grounds)
    side = round(min(picture.size) * log_uniform(rng, 0.3, 1.0))
    x = int(rng.integers(picture.width - side + 1))
    y = int(rng.integers(picture.height - side + 1))
    box = (x, y, x + side, y + side)
    out = picture.resize((n, n), Image.Resampling.BILINEAR, box)
    if rng.uniform() < 0.35:
        out = out.filter(ImageFilter.GaussianBlur(log_uniform(rng, 0.002, 0.02) * n))
    if rng.uniform() < 0.5:
        out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    st.canvas = np.asarray(out, np.float32) / 255


def lay_things(table: Table, collection: Collection) -> None:
    """按随机的一种布局贴东西：散放、一群同样的、几组、一堆、一个大的。"""
    st, stickers = table.st, collection.stickers
    rng, n = st.rng, st.size
    layout = pick(rng, list(LAYOUTS), p=list(LAYOUTS.values()))
    if layout == "herd":
        thing, side = single(pick(rng, stickers)), log_uniform(rng, 0.14, 0.34) * n
        for _ in range(int(rng.integers(3, 10))):
            at = (rng.uniform(0.05, 0.95) * n, rng.uniform(0.05, 0.95) * n)
            table.put(thing, side * rng.uniform(0.85, 1.15), at)
        return
    if layout == "portrait":
        thing = single(pick(rng, stickers))
        thing = random_group(rng, collection) if rng.uniform() < 0.5 else thing
        at = (rng.normal(0.5, 0.1) * n, rng.normal(0.52, 0.1) * n)
        table.put(thing, rng.uniform(0.55, 1.05) * n, at)
    fewest, most, low, high = MANY[layout]
    count = rng.integers(fewest, most + 1)
    sides = [log_uniform(rng, low, high) * n for _ in range(count)]
    if rng.uniform() < 0.7:  # 大的多半在后面，否则小的全被盖住
        sides.sort(reverse=True)
    middle = 0.22 if layout == "heap" else 0.46
    for side in sides:
        grouped = rng.uniform() < (0.85 if layout == "groups" else 0.1)
        thing = (
            random_group(rng, collection) if grouped else single(pick(rng, stickers))
        )
        at = tuple((0.5 + rng.uniform(-middle, middle, 2)) * n)
        on = 0
        if layout == "scatter" and rng.uniform() < 0.25:
            on, side, at = nest(table, side, at)
        table.put(thing, side, at, on)


def nest(
    table: Table, side: float, at: tuple[float, float]
) -> tuple[int, float, tuple[float, float]]:
    """挑一样贴好的、够大的，新的贴在它身上，算它的部件；返回 (上级, 边长, 中心)。"""
    rng, n = table.st.rng, table.st.size
    count = np.bincount(table.labels.ravel(), minlength=len(table.parents))
    big = [k for k in range(1, len(count)) if count[k] > 0.02 * n * n]
    if not big:
        return 0, side, at
    k = pick(rng, big)
    rows, columns = np.nonzero(table.labels == k)
    j = rng.integers(len(rows))
    side = math.sqrt(count[k]) * rng.uniform(0.25, 0.6)
    return k, side, (float(columns[j]), float(rows[j]))


def tidy(table: Table) -> tuple[np.ndarray, np.ndarray, tuple[tuple[str, str], ...]]:
    """去掉露得太少的，拆散只剩一样的组，把标签排紧；返回 (labels, parents, names)。"""
    count = np.bincount(table.labels.ravel(), minlength=len(table.parents))
    least = MIN_PIXELS_AT_256 * table.labels.size / 256**2
    keep = [
        bool(count[k] >= max(least, LEAST_VISIBLE * table.areas[k]))
        for k in range(len(table.parents))
    ]
    for k, area in enumerate(table.areas):
        if k and area == 0:  # 组：至少还有两样
            members = [c for c, p in enumerate(table.parents) if p == k and keep[c]]
            keep[k] = len(members) >= 2
    target, above = np.zeros(len(keep), np.uint8), [0] * len(keep)
    parents, names = [0], []
    for k in range(1, len(keep)):
        up = table.parents[k]
        above[k] = int(target[up]) if keep[up] and up else above[up]
        if keep[k]:
            target[k] = len(parents)
            parents.append(above[k])
            names.append(table.names[k])
    return target[table.labels], np.array(parents, np.uint8), tuple(names)


def make_sticker_scene(
    seed: int,
    size: int = 256,
    collection: Collection | None = None,
    exam: bool = False,
) -> Scene:
    """从种子贴出一张场景；同样的参数总给出逐字节相同的结果。

    ``size`` 是边长（像素，至少 32）；``collection`` 是用哪一套，不给就用随包的；
    ``exam`` 为真只用留作打分的东西，否则只用其余的。``Scene.names`` 是每样东西、每一组
    的 (中文, 英文) 名。参数不合要求时抛出 SamLiteError。
    """
    check_int("seed", seed, 0)
    check_int("size", size, 32)
    if not isinstance(exam, bool):
        raise problem("exam", repr(exam), "True 或 False")
    collection = bundled_stickers() if collection is None else collection
    if not isinstance(collection, Collection):
        raise problem(
            "collection", repr(collection), "Collection，例如 read_collection"
        )
    collection = collection.split(exam)
    if not collection.stickers:
        raise problem("collection", "没有一样合用的", "至少一样贴纸")
    rng, dice = (np.random.default_rng([int(seed), s]) for s in (258, 259))
    st = Studio(rng, int(size), BASE, dice)
    lay_ground(st, collection.grounds)
    table = Table(st)
    for _ in itertools.repeat(None, 5):  # 贴的都在画面外就再贴
        lay_things(table, collection)
        labels, parents, names = tidy(table)
        if names:
            break
    image = take_photo(st, grey=rng.uniform() < 0.08)
    return Scene(image, labels, parents, names)
