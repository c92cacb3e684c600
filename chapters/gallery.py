"""图库：自带的小权重分得准的图和提示，每一幅都有真值，讲到掩码的格子从这里取图。

    picture = gallery.take("戴礼帽的企鹅")
    masks, scores, _ = predictor.predict(**picture.prompt)

名单在 ``gallery.json``，由 ``python tools/gallery.py`` 挑出；测试把每一幅重做一遍，IoU
不到 0.85 就报错。图是贴纸场景（从种子重画，真值也从种子来），或随包的照片（真值手画）。
"""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sam_lite import viz
from sam_lite.errors import problem
from sam_lite.files import ASSETS
from sam_lite.learn.evaluation import exam_stickers
from sam_lite.masks.rle import coco_decode_rle, rle_to_mask
from sam_lite.scenes import Scene
from sam_lite.scenes.stickers import make_sticker_scene

HERE = Path(__file__).resolve().parent
LEAST = 0.85  # 名单上每一幅至少这么准


class Picture(NamedTuple):
    """一幅图、一个提示和要分割的东西。

    ``image`` 形状 (H, W, 3)，uint8；``truth`` 形状 (H, W)，bool；``prompt`` 原样交给
    ``SamPredictor.predict``；``pick`` 是看三张里的哪一张，None 是 IoU 头打分最高的。
    """

    name: str
    kind: str
    image: np.ndarray
    truth: np.ndarray
    prompt: dict[str, Any]
    pick: int | None

    def iou(self, masks: np.ndarray, scores: np.ndarray) -> float:
        """predict 给出的掩码 (C, H, W) 里该看的那一张，与真值的 IoU。"""
        mask = masks[int(np.argmax(scores)) if self.pick is None else self.pick]
        return float((mask & self.truth).sum() / max(1, (mask | self.truth).sum()))


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """名单：名字 -> 一条记录。"""
    text = (HERE / "gallery.json").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in json.loads(text)}


@functools.lru_cache(maxsize=4)
def draw_scene(seed: int, size: int, exam: bool) -> Scene:
    """从种子重画一张贴纸场景，背景用随包的照片或画的。"""
    return make_sticker_scene(seed, size, exam_stickers(), exam=exam)


def take(name: str) -> Picture:
    """按名字取一幅；没有这一幅时抛 SamLiteError，列出有哪些。"""
    if name not in entries():
        raise problem("name", name, "图库里的一个名字：" + "、".join(entries()))
    entry = entries()[name]
    if "photo" in entry:
        image = np.asarray(viz.read_photo(ASSETS / "photos" / f"{entry['photo']}.jpg"))
        truth = rle_to_mask(coco_decode_rle(entry["truth"]))
    else:
        scene = draw_scene(entry["seed"], entry["size"], entry["exam"])
        image, truth = scene.image, scene.mask(entry["object"])
    prompt: dict[str, Any] = {"multimask_output": "box" not in entry}
    if "box" in entry:
        prompt["box"] = np.array(entry["box"])
    else:
        prompt["point_coords"] = np.array(entry["points"])
        prompt["point_labels"] = np.array(entry["labels"])
    return Picture(name, entry["kind"], image, truth, prompt, entry.get("pick"))
