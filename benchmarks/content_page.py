"""CONTENT.md 的全文。"""

from typing import Any

import numpy as np

from sam_lite.errors import require

from .photos.truth import TITLES

SEEDS = ("base", "base-2")  # 只差种子的两组，看误差有多大
# 组的名字 -> 说明；去掉的在前，添上的在后
WORDS = {
    "start": "出发时的权重，没有再训练",
    "base": "原来的场景",
    "base-2": "原来的场景，另一个种子",
    "-textures": "去掉花纹",
    "-palette": "颜色随便取",
    "-shading": "去掉明暗和影子",
    "-clutter": "去掉背景的杂物",
    "-thin": "去掉圆环和粗线条",
    "-parts": "去掉部件",
    "-groups": "去掉成群的圆物",
    "-camera": "去掉相机的效果",
    "+natural": "添上自然的颜色",
    "+grain": "添上细纹",
    "+packed": "添上铺满画面的砖石",
    "+letters": "添上字",
    "+slender": "添上细长的东西",
    "+tissue": "添上组织",
    "+cropped": "添上伸出画面的大物",
    "rich": "全都添上",
}
COLUMNS = {
    "box": "框",
    "click_oracle": "一击，三张里最准的",
    "click": "一击，自己选",
    "clicks3": "三击",
}

TEXT = """\
# 场景里的哪样成分让真照片上的掩码变好

这一页由 `python -m benchmarks.content` 写出，原始的数在 [content.json](content.json)。
每一组从同一份权重出发，在自己的 {scenes} 张场景上训练 {steps} 步，步数、种子、学习率都
一样，只有场景里画什么不同：“去掉”是不画这一样，“添上”是只加这一样，“全都添上”是
`RICH`（`sam_lite/scenes/content.py`）。种子相同时，没有改动的成分画出来尽量不变。

## 十张真照片上的平均 IoU

括号外是分数，后面是与两个种子的“原来的场景”平均相比的差，单位是百分之一。

{photos}

{noise}

## 没训练过的场景上的平均 IoU

“原来的”是 `sam-lite evaluate` 的场景，“全都添上的”是 `RICH` 的场景。

{scenes_table}

## 每张照片，给一个框

与两个种子的“原来的场景”平均相比的差，单位是百分之一；头一行是它们的平均。

{boxes}

## 每张照片，点一下，三张里最准的

{clicks}

## 怎么量的

- 出发的权重：{weights}（逐个参数的 SHA-256 的头 12 位）；“同一份”说的就是它。
- 训练：每步 {batch} 张图，每张 {prompts} 组提示，{optimizer}，最高学习率 {lr:g}，随后
  降到零；只用一个线程时，同样的种子结果逐位相同。
- 照片的量法同 [PHOTOS.md](PHOTOS.md)，每个物体点 {clicks_each} 次；场景的量法同
  `sam-lite evaluate`，各 {eval_scenes} 张。
- 训练的步数不多，差得比“只差种子的两组”还小的，不能算数。
"""


def baseline(arms: dict[str, Any], *path: str) -> float | None:
    """两个种子的“原来的场景”的平均；一组也没有做时返回 None。"""
    found = [dig(arms[name], *path) for name in SEEDS if name in arms]
    return float(np.mean(found)) if found else None


def dig(result: dict[str, Any], *path: str) -> float:
    """取出一个数。"""
    value: Any = result
    for key in path:
        value = value[key]
    return float(value)


def difference(value: float, base: float | None) -> str:
    """与 base 的差，百分之一，带正负号；没有 base 时是空的。"""
    return "" if base is None else f"{100 * (value - base):+.1f}"


def table(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """左起第一列靠左，其余靠右。"""
    tabulate = require("tabulate", "排表格").tabulate
    align = ("left", *["right"] * (len(header) - 1))
    text: str = tabulate(rows, header, "github", colalign=align, disable_numparse=True)
    return text


def format_means(arms: dict[str, Any], *path: str) -> str:
    """每组一行，四种提示各一列：分数和差；path 指到四个数所在的地方。"""
    rows = []
    for name, result in arms.items():
        row = [f"{WORDS[name]}（`{name}`）"]
        for key in COLUMNS:
            value = dig(result, *path, key)
            base = baseline(arms, *path, key)
            row.append(f"{value:.3f} {difference(value, base)}".strip())
        rows.append(tuple(row))
    return table(rows, ("场景", *COLUMNS.values()))


def format_scenes(arms: dict[str, Any]) -> str:
    """两种场景，各有框和点两列。"""
    kinds = {"base": "原来的", "rich": "全都添上的"}
    keys = ("box", "click_oracle", "click")
    header = [f"{kind}：{COLUMNS[key]}" for kind in kinds.values() for key in keys]
    rows = [
        (
            f"`{name}`",
            *(f"{result['scenes'][kind][key]:.3f}" for kind in kinds for key in keys),
        )
        for name, result in arms.items()
    ]
    return table(rows, ("场景", *header))


def format_photos(arms: dict[str, Any], key: str) -> str:
    """每组一行、每张照片一列的差。"""
    first = [baseline(arms, "photos", photo, key) for photo in TITLES]
    rows = []
    if first[0] is not None:
        rows.append(("平均", *(f"{value:.3f}" for value in first)))
    for name, result in arms.items():
        values = [dig(result, "photos", photo, key) for photo in TITLES]
        rows.append((f"`{name}`", *map(difference, values, first)))
    return table(rows, ("场景", *TITLES.values()))


def format_noise(arms: dict[str, Any]) -> str:
    """只差种子的两组差多少；哪几组的差比它大。"""
    if any(name not in arms for name in SEEDS):
        return "只差种子的两组还没有做完，误差有多大还不知道。"
    lines = []
    for key, title in COLUMNS.items():
        one, two = (dig(arms[name], "miou", key) for name in SEEDS)
        middle, spread = (one + two) / 2, abs(one - two)
        better: list[str] = []
        worse: list[str] = []
        for name, result in arms.items():
            gap = dig(result, "miou", key) - middle
            if name not in ("start", *SEEDS) and abs(gap) > spread:
                (better if gap > 0 else worse).append(f"`{name}`")
        lines.append(
            f"- {title}：只差种子的两组差 {100 * spread:.1f}；比平均高出这么多的："
            f"{'、'.join(better) or '没有'}；低这么多的：{'、'.join(worse) or '没有'}。"
        )
    return "\n".join(lines)


def format_page(found: dict[str, Any]) -> str:
    """由 content.json 写出整页。"""
    arms, asked = found["arms"], found["settings"]
    config = asked["config"]
    return TEXT.format(
        scenes=asked["scenes"],
        steps=config["steps"],
        photos=format_means(arms, "miou"),
        noise=format_noise(arms),
        scenes_table=format_scenes(arms),
        boxes=format_photos(arms, "box"),
        clicks=format_photos(arms, "click_oracle"),
        batch=config["batch"],
        prompts=config["prompts"],
        lr=config["lr"],
        optimizer={"adamw": "AdamW", "muon": "Muon"}[config["optimizer"]],
        weights=asked["weights"][:12],
        clicks_each=asked["clicks"],
        eval_scenes=asked["eval_scenes"],
    )
