"""程序生成的训练场景：一张 RGB 图，加上每个物体精确到像素的掩码。

训练一个小的 SAM 需要大量“图 + 掩码”，而真实标注很贵。这个模块从一个随机种子画出背景、
物体、部件、光照、遮挡和相机噪声；掩码在作画时就已知，所以没有标注误差。

入口是 ``make_scene``。画的过程分在几个文件里：``content`` 列出
画什么，``shapes`` 定形状，``looks`` 定颜色、材质和背景，``objects``
把物体摆进画面、写标签，``packed`` 画铺满画面的东西，``strokes`` 画线条，这
里最后加上相机的效果。只依赖 numpy 和 pillow。
"""

import io
import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ..errors import problem
from .content import BASE, SceneContent
from .looks import Studio, paint_background
from .objects import draw_cropped, draw_group, draw_mixed, tidy_labels
from .packed import draw_packed, draw_tissue
from .random import log_uniform, pick
from .strokes import draw_letters, draw_slender


@dataclass(frozen=True)
class Scene:
    """一张场景图和它的实例标签。

    ``image`` 形状 (H, W, 3)，uint8，RGB；``labels`` 形状 (H, W)，uint8，0 是背景，
    k 是该像素上最靠前的东西；``parents`` 形状 (K + 1,)，uint8，``parents[k]`` 是 k 所属
    整体的标签，0 表示 k 自成一物。部件的标签总是大于它的整体。``names[k - 1]`` 是 k 的
    (中文, 英文) 名；东西没有名字时是空的。
    """

    image: np.ndarray
    labels: np.ndarray
    parents: np.ndarray
    names: tuple[tuple[str, str], ...] = ()

    @property
    def num_objects(self) -> int:
        """返回物体与部件的总数 K。"""
        return len(self.parents) - 1

    def mask(self, k: int) -> np.ndarray:
        """返回 k 的可见像素，连同它所有的部件，形状 (H, W)，bool。

        ``k`` 不是 1 到 K 的整数时抛出 SamLiteError。
        """
        check_int("k", k, 1, self.num_objects)
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


def make_scene(
    seed: int,
    size: int = 256,
    objects: tuple[int, int] = (2, 7),
    area: tuple[float, float] = (0.007, 0.45),
    parts: float | None = None,
    groups: float | None = None,
    content: SceneContent = BASE,
) -> Scene:
    """从种子画出一张场景；同样的参数总给出逐字节相同的结果。

    ``size`` 是边长（像素，至少 32）；``objects`` 是独立物体个数的范围（1 到 20）；
    ``area`` 是单个物体占画面比例的范围，按对数均匀抽取；``content`` 是画什么；``parts``
    是物体带部件的概率，``groups`` 是整张图换成一群相似圆物的概率，不给就照 content。
    参数不合要求时抛出 SamLiteError。
    """
    _check_options(seed, size, objects, area, content)
    given = {"parts": parts, "groups": groups}
    content = replace(content, **{k: v for k, v in given.items() if v is not None})
    rng, dice = (np.random.default_rng([int(seed), stream]) for stream in (256, 257))
    st = Studio(rng, int(size), content, dice)
    paint_background(st)
    many = rng.uniform() < content.groups
    if st.has["packed"]:
        draw_packed(st, content.parts)
    elif st.has["tissue"]:
        draw_tissue(st)
    elif many:
        draw_group(st, content.parts)
    else:
        with st.aside():
            if st.has["cropped"]:
                draw_cropped(st, content.parts)
        draw_mixed(st, objects, area, content.parts)
    with st.aside():
        if st.has["slender"]:
            draw_slender(st)
        if st.has["letters"]:
            draw_letters(st)
    image = take_photo(st, grey=rng.uniform() < (0.4 if many else 0.12))
    labels, parents = tidy_labels(st.labels, st.parents)
    return Scene(image, labels, parents)


def take_photo(st: Studio, grey: bool) -> np.ndarray:
    """把画布变成照片：照明不匀、偏色、对比度、模糊、噪声、JPEG；返回 uint8。"""
    rng, n, out = st.rng, st.size, st.canvas
    g = np.linspace(-1, 1, n, dtype=np.float32)
    x, y = g[None], g[:, None]
    if rng.uniform() < 0.5 and st.has["camera"]:
        tilt = rng.normal(0, 0.15, 2).tolist()
        fall = 1 + tilt[0] * x + tilt[1] * y - rng.uniform(0, 0.3) * (x * x + y * y)
        out = out * fall[..., None]
    # 像相机那样自动曝光：平均亮度落在一个合理的范围里
    gain = min(4.0, max(0.4, rng.uniform(0.22, 0.6) / (float(out.mean()) + 0.01)))
    cast = (gain * (1 + st.has["camera"] * rng.normal(0, 0.06, 3))).astype("f4")
    out = np.clip(out * (255 * cast) + rng.uniform(-8, 16), 0, 255)
    if grey:
        out = np.repeat(out.mean(-1, keepdims=True), 3, -1)
    if not st.has["camera"]:
        return out.astype(np.uint8)
    picture = Image.fromarray(out.astype(np.uint8))
    if rng.uniform() < 0.5:
        gamma = log_uniform(rng, 0.65, 1.5)
        curve = [round(255 * (i / 255) ** gamma) for i in range(256)]
        picture = picture.point(curve * 3)
    blur = pick(rng, [0.0, 0.6, 1.0, 1.6], p=[0.45, 0.25, 0.2, 0.1]) * n / 256
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    if rng.uniform() < 0.7:
        noise = rng.standard_normal((n, n), np.float32) * log_uniform(rng, 0.8, 12)
        mirrored = (noise, noise if grey else noise[::-1], noise if grey else noise.T)
        out = np.asarray(picture) + np.stack(mirrored, -1)
        picture = Image.fromarray(np.clip(out, 0, 255, out=out).astype(np.uint8))
    if rng.uniform() < 0.3:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(35, 95)))
        picture = Image.open(file)
    return np.array(picture)


def _check_options(
    seed: int, size: int, objects: tuple, area: tuple, content: SceneContent
) -> None:
    check_int("seed", seed, 0)
    check_int("size", size, 32)
    _check_pair("objects", objects, 1, 20, numbers.Integral)
    _check_pair("area", area, 0.001, 0.8, numbers.Real)
    if not isinstance(content, SceneContent):
        raise problem("content", repr(content), "SceneContent，例如 BASE、RICH")


def check_int(name: str, value: Any, low: int, high: float = math.inf) -> None:
    """value 不是 low 到 high 的整数时抛 SamLiteError。"""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and low <= value <= high):
        span = f"不小于 {low}" if high == math.inf else f"从 {low} 到 {high}"
        raise problem(name, repr(value), f"整数，{span}")


def _check_pair(name: str, value: Any, low: float, high: float, kind: type) -> None:
    good = isinstance(value, (tuple, list)) and len(value) == 2
    good = good and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)
    if not (good and low <= value[0] <= value[1] <= high):
        what = "整数" if kind is numbers.Integral else "数"
        text = f"一对{what} (下限, 上限)，在 {low} 到 {high} 之间"
        raise problem(name, repr(value), text)
