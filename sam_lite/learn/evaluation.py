"""给模型打分：在没训练过的场景上量 IoU，旁边列出 ``learn.baselines`` 里不学习的老办法。

种子分三段，互不重叠：训练用 0 到 9,999,999；评测从 1,000,000,000 开始；给老办法
调参数用 2,000,000,000 之后的。要装 scikit-image，它带着 scipy。
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .. import viz
from ..errors import SamLiteError, require
from ..files import ASSETS
from ..learn.baselines import FELZENSZWALB, FLOOD, baseline_masks

if TYPE_CHECKING:
    from ..predictor import SamPredictor
    from ..scenes import Scene
    from ..scenes.stickers import Collection

EVAL_SEED_START = 1_000_000_000  # 第 s 套评测场景从 EVAL_SEED_START + s × 100,000 开始
SCENES_PER_SEED = 100_000
TUNE_SEED_START = 2_000_000_000  # 只给老办法调参数
OBJECTS_PER_SCENE = 4
MIN_AREA = 64  # 看得见的部分不到这么多像素的物体不评；按 256×256 计，下同
SIZE_LIMITS = (400, 2500)  # 小、中、大的分界，像素

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]


# 结果表里的行：键、名字、提示
METHODS = (
    ("click_oracle", "模型：三张里最准的（偷看答案）", "一次点击"),
    ("click", "模型：IoU 头选的一张", "一次点击"),
    ("clicks3", "模型：再纠正两次", "三次点击"),
    ("box", "模型", "一个框"),
    ("flood_click", "漫水填充", "一次点击"),
    ("felzenszwalb_click", "Felzenszwalb：点中的一块", "一次点击"),
    ("fill_box", "填满框", "一个框"),
    ("ellipse_box", "框里画椭圆", "一个框"),
    ("felzenszwalb_box", "Felzenszwalb：过半在框里的块", "一个框"),
)
SIZES = ("all", "small", "medium", "large")


class Task(NamedTuple):
    """一个场景的题目：B 个物体，各有一次点击和一个框。"""

    image: NDArray[np.uint8]  # (H, W, 3)
    truths: Mask  # (B, H, W)
    clicks: NDArray[np.int64]  # (B, 2)，xy
    boxes: NDArray[np.int64]  # (B, 4)，x0, y0, x1, y1


# ---- 出题：选物体，给点击和框 --------------------------------------------------


def eval_seeds(num_scenes: int, seed: int = 0) -> range:
    """第 ``seed`` 套评测场景的种子；和训练的种子不重叠。"""
    if not 1 <= num_scenes <= SCENES_PER_SEED:
        raise SamLiteError(f"num_scenes 要 1 到 {SCENES_PER_SEED}，来的是 {num_scenes}")
    if not 0 <= seed < 10_000:
        raise SamLiteError(f"seed 要 0 到 9999，来的是 {seed}")
    start = EVAL_SEED_START + seed * SCENES_PER_SEED
    return range(start, start + num_scenes)


def make_task(scene: Scene, click: str, seed: int) -> Task | None:
    """给一个场景出题；没有够大的物体时返回 None。"""
    rng = np.random.default_rng(seed)
    truths = choose_objects(scene.masks(), rng)  # (B, H, W)
    if len(truths) == 0:
        return None
    clicks = np.array([first_click(truth, click, rng) for truth in truths])
    boxes = np.array([tight_box(truth) for truth in truths])
    return Task(scene.image, truths, clicks, boxes)


def choose_objects(masks: Mask, rng: np.random.Generator) -> Mask:
    """从 ``(K, H, W)`` 里抽最多四个够大的物体，返回 ``(B, H, W)``，B 可以是 0。"""
    smallest = MIN_AREA * masks[0].size / 256**2 if len(masks) else 0
    big = np.flatnonzero(masks.sum(axis=(1, 2)) >= smallest)
    return masks[rng.permutation(big)[:OBJECTS_PER_SCENE]]


def deepest_point(mask: Mask) -> tuple[int, int, float]:
    """掩码里离边最远的像素：``(x, y, 距离)``；图片之外算背景，空掩码的距离是 0。"""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return 0, 0, 0.0
    x0, y0, x1, y1 = tight_box(mask)
    padded = np.pad(mask[y0 : y1 + 1, x0 : x1 + 1], 1)  # 外面补一圈背景
    depth = distance_transform_edt(padded)
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    return x0 + int(column) - 1, y0 + int(row) - 1, float(depth[row, column])


def first_click(mask: Mask, how: str, rng: np.random.Generator) -> tuple[int, int]:
    """第一次点击的 ``(x, y)``：``random`` 在掩码里随机，``centre`` 离边最远。"""
    if how == "centre":
        return deepest_point(mask)[:2]
    rows, columns = np.nonzero(mask)
    i = rng.integers(len(rows))
    return int(columns[i]), int(rows[i])


def corrective_click(truth: Mask, guess: Mask) -> tuple[int, int, int]:
    """纠正点击 ``(x, y, 标签)``：漏掉的和多出的两种错误里离边最远的那一点。

    漏掉的标 1，多出的标 0；一个像素都没错时标 -1（“不是点”，模型会略过）。
    """
    missed, extra = deepest_point(truth & ~guess), deepest_point(guess & ~truth)
    if missed[2] == extra[2] == 0:
        return 0, 0, -1
    return (*missed[:2], 1) if missed[2] >= extra[2] else (*extra[:2], 0)


def tight_box(mask: Mask) -> tuple[int, int, int, int]:
    """刚好包住掩码的框 ``x0, y0, x1, y1``：第一个和最后一个像素的坐标，都含在内。"""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def iou(masks: Mask, truth: Mask) -> Array:
    """逐张的交并比；``(..., H, W)`` 两边可以广播，两张都空时算 1。"""
    inter = (masks & truth).sum(axis=(-2, -1))
    union = (masks | truth).sum(axis=(-2, -1))
    return np.where(union == 0, 1.0, inter / np.maximum(union, 1))


# ---- 打分 --------------------------------------------------------------------


def evaluate(
    sam: Any,
    num_scenes: int = 500,
    seed: int = 0,
    *,
    size: int = 256,
    click: str = "random",
    stickers: bool = False,
    progress: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """在评测场景上给模型和老办法打分，返回能直接写成 JSON 的字典。

    场景是程序画的；``stickers`` 为真时是贴纸贴的，东西和背景都没训练过，见
    ``exam_stickers``。

    每个场景只编码一次，抽最多四个物体，当作一批提示。第一次点击默认在掩码里随机取，
    和训练时一样；``click="centre"`` 时取离边最远的一点。IoU 在场景的像素上算，
    场景 ``size``×``size``。同样的 ``seed`` 和权重，结果一样。每做完一个
    场景调用一次 ``progress()``。参数不对、缺库时抛 ``SamLiteError``。
    """
    from ..predictor import SamPredictor
    from ..scenes import make_scene
    from ..scenes.stickers import make_sticker_scene

    for name in ("scipy.ndimage", "skimage.segmentation", "tabulate", "wcwidth"):
        require(name, "评测")
    if click not in ("random", "centre"):
        raise SamLiteError(f"click 要 'random' 或 'centre'，来的是 {click!r}")
    seeds = eval_seeds(num_scenes, seed)
    predictor = SamPredictor(sam)
    collection = exam_stickers() if stickers else None
    found: list[dict[str, Array]] = []
    for scene_seed in seeds:
        if collection is not None:
            scene = make_sticker_scene(scene_seed, size, collection, exam=True)
        else:
            scene = make_scene(scene_seed, size)
        task = make_task(scene, click, scene_seed)
        if task is not None:
            found.append(score_model(predictor, task) | score_baselines(task))
        if progress is not None:
            progress()
    if not found:
        raise SamLiteError("评测场景里没有一个够大的物体：加大 num_scenes（--scenes）")
    scores = {key: np.concatenate([f[key] for f in found]) for key in found[0]}
    setting = {"seed": seed, "scene_seeds": [seeds[0], seeds[-1]], "scenes": num_scenes}
    setting |= {"image_size": size, "click": click, "stickers": stickers}
    return setting | summarise(scores, size)


def exam_stickers() -> Collection:
    """打分用的贴纸和背景：随包的贴纸、随包的照片，两样都不训练。"""
    from ..scenes.stickers import Collection, bundled_stickers

    paths = sorted((ASSETS / "photos").glob("*.jpg"))
    grounds = tuple(Image.fromarray(viz.read_photo(path)) for path in paths)
    return Collection(bundled_stickers().stickers, grounds)


def score_model(predictor: SamPredictor, task: Task) -> dict[str, Array]:
    """编码 task 的图片，给模型打分，同 ``score_prompts``。"""
    predictor.set_image(task.image)
    return score_prompts(predictor, task)


def score_prompts(predictor: SamPredictor, task: Task) -> dict[str, Array]:
    """模型在四种提示下的 IoU、它自己预测的 IoU 和物体面积，都是 ``(B,)``。

    图片已经编码好了；第二、三次点击带上前一张掩码的 logits，只出一张掩码。
    """
    truths, rows = task.truths, np.arange(len(task.truths))
    points = task.clicks[:, None, :]  # (B, 1, 2)
    labels = np.ones((len(truths), 1), dtype=int)
    masks, guess, logits = _predict(predictor, points, labels, multimask=True)
    true, best = iou(masks, truths[:, None]), guess.argmax(axis=1)  # (B, 3)，(B,)
    scores = {"area": truths.sum(axis=(1, 2)).astype(float)}
    scores |= {"click_oracle": true.max(axis=1), "click": true[rows, best]}
    scores["click_guess"] = guess[rows, best]

    current, logits = masks[rows, best], logits[rows, best][:, None]  # (B, 1, h, w)
    for _ in range(2):
        pairs = zip(truths, current, strict=True)
        extra = np.array([corrective_click(t, c) for t, c in pairs])  # (B, 3)
        points = np.concatenate([points, extra[:, None, :2]], axis=1)
        labels = np.concatenate([labels, extra[:, 2:]], axis=1)
        masks, _, logits = _predict(predictor, points, labels, logits=logits)
        current = masks[:, 0]
    scores["clicks3"] = iou(current, truths)

    masks, guess, _ = _predict(predictor, boxes=task.boxes)
    return scores | {"box": iou(masks[:, 0], truths), "box_guess": guess[:, 0]}


def _predict(
    predictor: SamPredictor,
    points: NDArray[Any] | None = None,
    labels: NDArray[Any] | None = None,
    boxes: NDArray[Any] | None = None,
    logits: torch.Tensor | None = None,
    multimask: bool = False,
) -> tuple[Mask, Array, torch.Tensor]:
    """一批提示（原图坐标）-> 掩码 (B, C, H, W)、预测 IoU (B, C)、logits。"""
    device, size, move = predictor.device, predictor.original_size, predictor.transform
    coords = flags = corners = None
    if points is not None and labels is not None:
        coords = move.apply_coords_torch(torch.as_tensor(points, device=device), size)
        flags = torch.as_tensor(labels, dtype=torch.int, device=device)
    if boxes is not None:
        corners = move.apply_boxes_torch(torch.as_tensor(boxes, device=device), size)
    masks, guess, logits = predictor.predict_torch(
        coords, flags, corners, logits, multimask_output=multimask
    )
    return masks.cpu().numpy(), guess.cpu().double().numpy(), logits


def score_baselines(task: Task) -> dict[str, Array]:
    """老办法的 IoU，每个键 ``(B,)``；用的点击和框跟模型的一模一样。"""
    guesses = baseline_masks(task.image, task.clicks, task.boxes)
    return {key: iou(masks, task.truths) for key, masks in guesses.items()}


# ---- 汇总 --------------------------------------------------------------------


def summarise(scores: dict[str, Array], size: int) -> dict[str, Any]:
    """把逐个物体的分数汇成平均 IoU（按大小分档）和 IoU 头的相关系数。"""
    small, large = (limit * size**2 / 256**2 for limit in SIZE_LIMITS)
    area = scores["area"]
    chosen = {
        "all": np.ones(len(area), dtype=bool),
        "small": area < small,
        "medium": (area >= small) & (area <= large),
        "large": area > large,
    }
    true = np.concatenate([scores["click"], scores["box"]])
    guess = np.concatenate([scores["click_guess"], scores["box_guess"]])
    return {
        "objects": {name: int(flags.sum()) for name, flags in chosen.items()},
        "size_limits": [small, large],
        "miou": {
            key: {n: _mean(scores[key][flags]) for n, flags in chosen.items()}
            for key, *_ in METHODS
        },
        "correlation": {
            "click": pearson(scores["click_guess"], scores["click"]),
            "box": pearson(scores["box_guess"], scores["box"]),
            "both": pearson(guess, true),
        },
        "baselines": {"flood": dict(FLOOD), "felzenszwalb": dict(FELZENSZWALB)},
    }


def _mean(values: Array) -> float | None:
    """平均值；一个物体都没有时是 None。"""
    return float(values.mean()) if len(values) else None


def pearson(a: Array, b: Array) -> float | None:
    """皮尔逊相关系数；有一边全都一样大、算不出时是 None。"""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def format_table(result: dict[str, Any]) -> str:
    """把 ``evaluate`` 的结果排成中文表格；汉字按两格宽对齐（wcwidth）。"""
    require("wcwidth", "对齐汉字")
    tabulate = require("tabulate", "排表格").tabulate
    small, large = (f"{limit:g}" for limit in result["size_limits"])
    count = result["objects"]
    header = ("方法", "提示", "全部", f"<{small}", f"{small}–{large}", f">{large}")
    numbers = ("物体数", "", *(str(count[name]) for name in SIZES))
    rows = [numbers]
    for key, name, prompt in METHODS:
        rows.append((name, prompt, *(_show(result["miou"][key][n]) for n in SIZES)))
    align = ("left", "left", "right", "right", "right", "right")
    table = tabulate(rows, header, colalign=align, disable_numparse=True)
    r = {name: _show(value) for name, value in result["correlation"].items()}
    text = f"点击 {r['click']}，框 {r['box']}，合起来 {r['both']}"
    return f"{table}\nIoU 头与真实 IoU 的相关系数：{text}"


def _show(value: float | None) -> str:
    return "无" if value is None else f"{value:.3f}"
