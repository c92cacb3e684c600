"""PHOTOS.md 的各处：话写在页上，表和结论由结果填进去。"""

from typing import Any

from sam_lite.learn.evaluation import METHODS
from sam_lite.learn.photos import MODEL

from ..page import table
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


def format_table(result: dict[str, Any], form: str = "simple") -> str:
    """每张照片一行、每种办法一列的表，末两行是两种平均；只有量过的列。"""
    keys = [key for key in KEYS if key in result["miou"]]
    rows = [
        (TITLES[photo["name"]], photo["objects"], *numbers(photo["miou"], keys))
        for photo in result["photos"]
    ]
    rows.append(("照片的平均", "", *numbers(result["miou"], keys)))
    every = numbers(result["miou_objects"], keys)
    rows.append(("物体的平均", result["objects"], *every))
    return aligned(rows, ("照片", "物体", *(SHORT[key] for key in keys)), form)


def aligned(rows: list[Any], header: tuple[str, ...], form: str = "github") -> str:
    """第一列靠左、其余靠右的表。"""
    return table(rows, header, form, ("left", *["right"] * (len(header) - 1)))


def numbers(found: dict[str, float], keys: list[str]) -> list[str]:
    """三位小数。"""
    return [f"{found[key]:.3f}" for key in keys]


def format_objects(result: dict[str, Any]) -> str:
    """每张照片一张折起来的表：逐个物体的面积和分数。"""
    keys = [*MODEL, "ellipse_box"]
    header = ("物体", "像素", *(SHORT[key] for key in keys))
    parts = []
    for photo in result["photos"]:
        scores = [photo["scores"][key] for key in keys]
        rows = [
            (name, area, *(f"{value:.2f}" for value in values))
            for name, area, *values in zip(photo["names"], photo["areas"], *scores)
        ]
        title = f"{TITLES[photo['name']]}，{photo['objects']} 个"
        text = aligned(rows, header)
        parts.append(f"<details><summary>{title}</summary>\n\n{text}\n\n</details>")
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


def parts_of(result: dict[str, Any]) -> dict[str, str]:
    """PHOTOS.md 的各处，见 ``benchmarks.page.fill``。"""
    return {
        "weights": f"用的是随包的小权重，SHA-256 `{result['sha256']}`。",
        "photos": format_table(result, "github"),
        "verdict": format_verdict(result),
        "objects": format_objects(result),
    }
