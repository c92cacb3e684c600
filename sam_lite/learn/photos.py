"""在真照片上打分：量法同 ``learn.evaluation``，每个物体点几次取平均，每张照片一样重。

照片和掩码是 ``learn.datasets`` 里的样子。要装 scikit-image，它带着 scipy。
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SamLiteError, problem, require
from ..learn.baselines import baseline_masks
from ..learn.datasets import MaskDataset, check_sample
from ..learn.evaluation import METHODS, Task, first_click, iou, score_prompts, tight_box

if TYPE_CHECKING:
    from ..predictor import SamPredictor

CLICKS = 5  # 每个物体点几次：一次点在哪里，分数差得很多
MODEL = ("click_oracle", "click", "clicks3", "box")  # METHODS 里模型自己的几行

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


def evaluate_photos(
    sam: Any,
    dataset: MaskDataset,
    clicks: int = CLICKS,
    seed: int = 0,
    *,
    baselines: bool = True,
    progress: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """在照片上给模型和老办法打分，返回能直接写成 JSON 的字典。

    每张照片只编码一次，掩码放大到照片自己的大小再算 IoU。每个物体在掩码里随机点
    ``clicks`` 次，分数取平均；点在哪里由 ``seed``、第几张照片和第几个物体定，结果可以
    重现。``miou`` 先在每张照片里平均，再在照片之间平均，物体多的照片不占便宜；
    ``miou_objects`` 是所有物体的平均。没有物体的照片跳过。

    错误：一个物体也没有、有空的掩码、缺库时抛 ``SamLiteError``。
    """
    from ..predictor import SamPredictor

    if clicks < 1:
        raise problem("clicks", clicks, "至少 1，每个物体点几次")
    for name in ("scipy.ndimage", "skimage.segmentation"):
        require(name, "评测")
    predictor = SamPredictor(sam)
    photos = []
    for i in range(len(dataset)):
        image, truths = check_sample(dataset[i])
        if len(truths):
            tasks = make_tasks(image, truths, clicks, (seed, i))
            scores = score_photo(predictor, tasks)
            scores |= score_baselines(tasks) if baselines else {}
            photos.append(summarise(scores, truths) | {"index": i})
        if progress is not None:
            progress()
    if not photos:
        raise SamLiteError("这些照片里一个物体也没有：看看掩码对不对。")
    return {"seed": seed, "clicks": clicks, "photos": photos} | overall(photos)


def make_tasks(
    image: NDArray[np.uint8], truths: Mask, clicks: int, seed: tuple[int, ...]
) -> list[Task]:
    """给一张照片出 ``clicks`` 套题目：物体和框相同，点击不同。

    每个物体的点击自成一列，添上或去掉别的物体不影响它。
    """
    empty = np.flatnonzero(~truths.any(axis=(1, 2)))
    if len(empty):
        raise problem("掩码", f"第 {empty[0]} 个是空的", "每个物体至少一个像素")
    boxes = np.array([tight_box(truth) for truth in truths])
    points = []
    for j, truth in enumerate(truths):
        rng = np.random.default_rng([*seed, j])
        points.append([first_click(truth, "random", rng) for _ in range(clicks)])
    rounds = np.array(points).transpose(1, 0, 2)  # (clicks, B, 2)
    return [Task(image, truths, chosen, boxes) for chosen in rounds]


def score_photo(predictor: SamPredictor, tasks: list[Task]) -> dict[str, Array]:
    """模型在一张照片上的 IoU，几套题目取平均，每个键 ``(B,)``。"""
    predictor.set_image(tasks[0].image)
    rounds = [score_prompts(predictor, task) for task in tasks]
    return {key: np.mean([scores[key] for scores in rounds], axis=0) for key in MODEL}


def score_baselines(tasks: list[Task]) -> dict[str, Array]:
    """老办法的 IoU，几套题目取平均，每个键 ``(B,)``；点击和框跟模型的一模一样。"""
    image, truths, _, boxes = tasks[0]
    points = np.concatenate([task.clicks for task in tasks])  # (clicks·B, 2)
    scores = {}
    for key, masks in baseline_masks(image, points, boxes).items():
        rounds = masks.reshape(-1, *truths.shape)  # (clicks 或 1, B, H, W)
        scores[key] = np.mean([iou(one, truths) for one in rounds], axis=0)
    return scores


def summarise(scores: dict[str, Array], truths: Mask) -> dict[str, Any]:
    """一张照片：物体数、面积、平均 IoU 和逐个物体的 IoU。"""
    return {
        "objects": len(truths),
        "areas": truths.sum(axis=(1, 2)).tolist(),
        "miou": {key: float(values.mean()) for key, values in scores.items()},
        "scores": {key: values.tolist() for key, values in scores.items()},
    }


def overall(photos: list[dict[str, Any]]) -> dict[str, Any]:
    """全部照片：照片之间的平均，和所有物体的平均。"""
    keys = list(photos[0]["miou"])
    return {
        "objects": sum(photo["objects"] for photo in photos),
        "miou": {k: float(np.mean([p["miou"][k] for p in photos])) for k in keys},
        "miou_objects": {
            k: float(np.mean(np.concatenate([p["scores"][k] for p in photos])))
            for k in keys
        },
    }


def format_photos(result: dict[str, Any]) -> str:
    """把 ``evaluate_photos`` 的结果排成中文表格；汉字按两格宽对齐（wcwidth）。"""
    require("wcwidth", "对齐汉字")
    tabulate = require("tabulate", "排表格").tabulate
    found, every = result["miou"], result["miou_objects"]
    rows = [
        (name, prompt, f"{found[key]:.3f}", f"{every[key]:.3f}")
        for key, name, prompt in METHODS
        if key in found
    ]
    count = f"{len(result['photos'])} 张照片的平均", f"{result['objects']} 个物体的平均"
    header = ("方法", "提示", *count)
    align = ("left", "left", "right", "right")
    text: str = tabulate(rows, header, colalign=align, disable_numparse=True)
    return text
