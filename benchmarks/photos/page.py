"""PHOTOS.md 的全文。"""

from typing import Any

from sam_lite.errors import require
from sam_lite.learn.evaluation import METHODS
from sam_lite.learn.photos import MODEL

from .truth import TITLES

# 表头要短；次序同 METHODS
SHORT = {
    "click_oracle": "一击，三张里最准的",
    "click": "一击，自己选",
    "clicks3": "三击",
    "box": "框",
    "flood_click": "一击：漫水",
    "felzenszwalb_click": "一击：Felzenszwalb",
    "fill_box": "框：填满",
    "ellipse_box": "框：椭圆",
    "felzenszwalb_box": "框：Felzenszwalb",
}
KEYS = tuple(key for key, *_ in METHODS)

TEXT = """\
# 真照片上的分数

这一页由 `make photos` 写出，原始的数在 [results.json](photos/results.json)。用的是随包
的小权重，SHA-256 `{sha256}`。换一份权重试：
`python -m benchmarks.photos --checkpoint 权重.safetensors`，加 `--line` 只印一行。

## 每张照片的平均 IoU

{photos}

“一击”是一次点击，“三击”是再纠正两次；冒号之前没有写的四列是模型，冒号之后是不学习的老办
法，用的点击和框一模一样。最后两行，一行先在每张照片里平均、再在照片之间平均，每张一样
重；一行是全部物体的平均，硬币和石子各占两成。

{verdict}

![十张照片，每张三幅：物体的真值，小权重给一个框的掩码，小权重点一下的掩码](../figures/photos_masks.jpg)

每张照片三幅图：真值，给一个框的掩码，点一下的掩码（IoU 头选的一张，圆点是点在哪里）。
由 `python figures/photos_masks.py` 画出。

## 真值从哪里来

硬币 24 枚由阈值和标号得出（`python -m benchmarks.photos.coins`）。其余九张照片上的
{drawn} 个物体是手画的：在放大四到八倍的局部上取点，叠在照片上看过，改到轮廓离边缘两个像
素左右；轮廓在 [photos/drawn](photos/drawn) 里，每个物体有名字，可以照着改。血管先手点中
线，再挪到最暗的地方，宽 4.5 像素。照片的来源和许可见
[photos/pictures/SOURCES.md](photos/pictures/SOURCES.md)。

- 看得见的才算：碟子不含挡住它的杯子和勺子，燃料箱不含前面的轨道器。整体和部分都有（杯
  子、杯口、咖啡；摄影师、头发、脸）。
- 铁塔连格子之间的天空一起算；三脚架只算杆子，杆子之间不算。
- 猫的整个身子没有画：毛边和虚焦的背景分不出两个像素以内的边界。眼底的黄斑、切片里的细胞
  也是。
- 点击落在掩码里随机的地方，整体上的一点常常也在某个部分上，所以一次点击到不了 1：“三
  张里最准的”才是给了三次机会的分数。

## 每个物体

模型的四个分数，和框里画椭圆相比。

{objects}

## 怎么量的

照片不缩放，走 `SamPredictor` 的老路：缩到模型的边长，编码一次，掩码放大回照片的大小再算
IoU。每个物体随机点 {clicks} 次取平均，点在哪里由种子定，每次都一样；框是紧框。量法和
老办法的参数同 `sam-lite evaluate`，没有在这些照片上调过。
"""


def format_table(result: dict[str, Any], form: str = "simple") -> str:
    """每张照片一行、每种办法一列的表，末两行是两种平均；只有量过的列。"""
    tabulate = require("tabulate", "排表格").tabulate
    keys = [key for key in KEYS if key in result["miou"]]
    rows = [
        (TITLES[photo["name"]], photo["objects"], *numbers(photo["miou"], keys))
        for photo in result["photos"]
    ]
    every = result["objects"]
    rows.append(("照片的平均", "", *numbers(result["miou"], keys)))
    rows.append(("物体的平均", every, *numbers(result["miou_objects"], keys)))
    header = ("照片", "物体", *(SHORT[key] for key in keys))
    align = ("left", *["right"] * (len(keys) + 1))
    text: str = tabulate(
        rows, header, form, colalign=align, disable_numparse=True, missingval=""
    )
    return text


def numbers(found: dict[str, float], keys: list[str]) -> list[str]:
    """三位小数。"""
    return [f"{found[key]:.3f}" for key in keys]


def format_objects(result: dict[str, Any]) -> str:
    """每张照片一张折起来的表：逐个物体的面积和分数。"""
    tabulate = require("tabulate", "排表格").tabulate
    keys = [*MODEL, "ellipse_box"]
    parts = []
    for photo in result["photos"]:
        scores = [photo["scores"][key] for key in keys]
        rows = [
            (name, area, *(f"{value:.2f}" for value in values))
            for name, area, *values in zip(photo["names"], photo["areas"], *scores)
        ]
        header = ("物体", "像素", *(SHORT[key] for key in keys))
        align = ("left", *["right"] * (len(keys) + 1))
        table = tabulate(rows, header, "github", colalign=align, disable_numparse=True)
        title = f"{TITLES[photo['name']]}，{photo['objects']} 个"
        parts.append(f"<details><summary>{title}</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def format_verdict(result: dict[str, Any]) -> str:
    """一句话：模型的框与最好的老办法、一次点击与最好的老办法相比。"""
    mean = result["miou"]
    lines = []
    for title, ours, others in (
        ("一个框", "box", ("fill_box", "ellipse_box", "felzenszwalb_box")),
        ("一次点击", "click", ("flood_click", "felzenszwalb_click")),
    ):
        best = max(others, key=lambda key: mean[key])
        wins = sum(p["miou"][ours] > p["miou"][best] for p in result["photos"])
        lines.append(
            f"{title}：模型 {mean[ours]:.3f}，最好的老办法（{SHORT[best]}）"
            f"{mean[best]:.3f}，{len(result['photos'])} 张里模型胜 {wins} 张。"
        )
    return "".join(lines)


def format_page(result: dict[str, Any]) -> str:
    """由结果写出整页。"""
    coins = sum(p["objects"] for p in result["photos"] if p["name"] == "coins")
    return TEXT.format(
        sha256=result["sha256"],
        photos=format_table(result, "github"),
        verdict=format_verdict(result),
        drawn=result["objects"] - coins,
        objects=format_objects(result),
        clicks=result["clicks"],
    )
