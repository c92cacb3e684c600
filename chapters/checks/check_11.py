"""第 11 章的练习：对的答案、典型的错误和提示。"""

import functools

import numpy as np
import torch
from checks.common import Code, Wrong
from course import Unanswered, expect

from sam_lite.config import SamConfig
from sam_lite.model import Sam, sam_from_config
from sam_lite.predictor import SamPredictor

TOY = SamConfig(
    "toy",
    embed_dim=24,
    depth=1,
    num_heads=2,
    global_attn_indexes=(0,),
    image_size=64,
    patch_size=8,
    window_size=3,
    prompt_embed_dim=32,
    decoder_heads=4,
    decoder_mlp_dim=64,
    iou_head_hidden_dim=32,
)

# ---- 练习 11.1 ------------------------------------------------------------------


def block(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """9×14 的掩码，几个框 (y0, y1, x0, x1) 里是真。"""
    mask = np.zeros((9, 14), bool)
    for y0, y1, x0, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def guesses() -> dict[str, tuple]:
    """几对（答案, 猜的），最深的一点只有一个。"""
    truth, hole = block((2, 8, 1, 10)), block((4, 7, 2, 5))
    return {
        "漏掉的深，多出的面积大": (truth, (truth & ~hole) | block((0, 2, 1, 10))),
        "多出的深": (truth, block((2, 8, 2, 10), (3, 8, 10, 13))),
        "漏掉的和多出的挨着": (block((2, 7, 4, 9)), block((2, 7, 1, 4))),
        "贴着上边": (block((0, 3, 4, 9), (5, 7, 11, 14), (7, 8, 12, 14)), block()),
        "一样深": (truth, (truth & ~hole) | block((5, 8, 11, 14))),
        "完全正确": (truth, truth),
        "全是多出的": (block(), truth),
    }


DEEPER = "missed[2] >= extra[2]"
CHOICE = "(*missed[:2], 1) if deeper else (*extra[:2], 0)"
ex_11_1 = Code(
    f"""
from sam_lite.learn.evaluation import deepest_point
def next_click(truth, guess):
    lost, more = truth & ~guess, guess & ~truth
    missed, extra = deepest_point(lost), deepest_point(more)
    deeper = {DEEPER}
    if missed[2] == extra[2] == 0:
        return 0, 0, -1
    return {CHOICE}
""",
    guesses,
    Wrong(
        "x 和 y 弄反了：点是 (x, y)，deepest 返回的已经是这个次序。",
        "[:2], ",
        "[1::-1], ",
    ),
    Wrong(
        "标签不对：漏掉的补正点 1，多出来的补负点 0。", ", 1)", ", 9)", ", 0)", ", 1)"
    ),
    Wrong(
        "漏掉的和多出来的合成一块量了：要分开量，再比谁更深。",
        CHOICE,
        "(*deepest_point(truth ^ guess)[:2], int(deeper))",
    ),
    Wrong(
        "量的是整张掩码，不是错的那一块。",
        CHOICE,
        "(*deepest_point(truth if deeper else guess)[:2], int(deeper))",
    ),
    Wrong("点在了多出来的上：两块一样深时，点漏掉的。", ">=", ">"),
    Wrong(
        "点在了另一块错误上：面积大的不一定深，比的是离边的距离。",
        DEEPER,
        "lost.sum() >= more.sum()",
    ),
    Wrong("点在了另一块错误上：要点更深的那一块，比的是离边的距离。", ">=", "<"),
    Wrong("完全正确时没有可点的，应返回 (0, 0, -1)。", "0, 0, -1", "0, 0, 1"),
    Wrong(
        "完全正确时没有可点的，应返回 (0, 0, -1)。",
        "    if missed[2] == extra[2] == 0:\n        return 0, 0, -1\n",
        "",
    ),
    form="要返回三样：(x, y, 标签)。",
    otherwise="点的不是错误区域里离边最远的像素：分别量漏掉的和多出来的，取距离大的。",
    names=("x", "y", "标签"),
)

# ---- 练习 11.2 ------------------------------------------------------------------


@functools.cache
def toy() -> Sam:
    """玩具模型；随机的解码器几乎不理会提示，放大些，点和掩码的差别才看得见。"""
    torch.manual_seed(4)
    sam = sam_from_config(TOY).eval()
    for part in (sam.prompt_encoder, sam.mask_decoder):
        for parameter in part.parameters():
            parameter.data.mul_(1.5)
    return sam


class Counted(SamPredictor):
    """数编码了几遍的预测器；手里本来有一张大的。"""

    def __init__(self) -> None:
        super().__init__(toy())
        self.set_image(np.full((99, 99, 3), 9, np.uint8))
        self.times = 0

    def set_image(self, *args, **kwargs) -> None:
        self.times = getattr(self, "times", 0) + 1
        super().set_image(*args, **kwargs)


def album() -> list[tuple]:
    """三张大小不同的照片，点 2、3、1 下。"""
    rng = np.random.default_rng(3)
    sizes = ((40, 60), (70, 33), (50, 50))
    photos = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in sizes]
    clicks = [[(5, 30), (50, 8)], [(20, 60), (3, 5), (30, 33)], [(25, 10)]]
    return [(photos, clicks)]


def cut_out(cut, photos, clicks):
    """全部掩码，和编码的遍数。"""
    predictor = Counted()
    masks = cut(predictor, photos, clicks)
    if not isinstance(masks, list | tuple) or len(masks) != sum(map(len, clicks)):
        return masks
    words = {len(photos): "一张照片一遍", sum(map(len, clicks)): "一个点一遍"}
    few = "不到一张照片一遍" if predictor.times < len(photos) else "多了"
    times = words.get(predictor.times, few)
    return {"编码": times, "掩码": [np.asarray(mask) for mask in masks]}


def nearly(a: np.ndarray, b: np.ndarray) -> bool:
    """一批一起问的，舍入会让零星几个像素不同，也算。"""
    return bool((a != b).mean() < 0.003)


CARRIED = "还带着前一个物体的 low_res：物体互不相干，就不要交 mask_input。"
SET = "predictor.set_image(photo)"
ex_11_2 = Code(
    f"""
def cut(predictor, photos, clicks):
    results, low = [], None
    for photo, points in zip(photos, clicks):
        {SET}
        for point in points:
            masks, _, new = predictor.predict(np.array([point]), np.array([1]),
                mask_input=None, multimask_output=False)
            results.append(masks[0])
    return results
""",
    album,
    Wrong(
        "还是一个点编码一遍：set_image 挪到外面。",
        f"        {SET}\n        for point in points:\n",
        f"        for point in points:\n            {SET}\n",
    ),
    Wrong(
        "后面的照片没有编码，问的还是前一张：is_image_set 只说明有照片，不说明是哪张。",
        SET,
        f"predictor.is_image_set or {SET}",
    ),
    Wrong(
        CARRIED,
        "=None, multi",
        "=low, multi",
        "results.append",
        "low = new; results.append",
    ),
    Wrong(
        CARRIED,
        "=None, multi",
        "=low, multi",
        "results.append",
        "low = new; results.append",
        SET,
        f"{SET}; low = None",
    ),
    Wrong(
        "掩码的形状应是各自照片的 (高, 宽)：去掉“几张”那一维，次序同点。",
        "append(masks[0])",
        "append(masks)",
    ),
    Wrong(
        "掩码不对：每个点单独问，标签 1，multimask_output=False，别的不交。",
        "array([1])",
        "array([0])",
    ),
    Wrong("要返回一个列表，每个点一张掩码。", "return results", "return masks"),
    ask=cut_out,
    close=nearly,
    form="要返回一个列表，每个点一张掩码。",
    otherwise="每个点单独问，标签 1，multimask_output=False；一张照片编码一遍。",
)

# ---- 练习 11.3 ------------------------------------------------------------------


def batches() -> dict[str, tuple]:
    """H、W、低分辨率的边长互不相同。"""
    cases = {}
    for B in (4, 3, 1):
        rng = np.random.default_rng(B)
        masks = rng.random((B, 3, 5, 7)) > 0.5
        scores = np.array([[0.3, 0.97, 0.5], [0.9, 0.1, 0.2], [0.2, 0.4, 0.6]] * 2)[:B]
        cases[f"B = {B}"] = masks, scores, rng.normal(size=(B, 3, 8, 8))
    return cases


BEST, PAIR = "scores.argmax(1)", "masks[rows, best]"
FEEDBACK = "low_res[rows, best][:, None]"
FLAT = "每组都取了同一张：argmax 没有写 axis=1，把整张表压平了。"
ex_11_3 = Code(
    f"""
def pick(masks, scores, low_res):
    rows, best = np.arange(len(scores)), {BEST}
    return {PAIR}, {FEEDBACK}
""",
    batches,
    Wrong(
        "masks[:, best] 给每组都取了 B 张：两个下标要成对给。", PAIR, "masks[:, best]"
    ),
    Wrong(
        "只挑出了一张：argmax 没有写 axis=1，把整张表压平了。",
        BEST,
        "scores.argmax()",
        PAIR,
        "masks.reshape(-1, 5, 7)[best]",
    ),
    Wrong("挑的是分数最低的。", "argmax", "argmin"),
    Wrong(FLAT, BEST, "scores.argmax() % 3"),
    Wrong("每组都取了同一张：最好的一张各组不同。", PAIR, "masks[:, 0]"),
    Wrong("每组都取了同一张：最好的一张各组不同。", PAIR, "masks[:, 1]"),
    Wrong("每组都取了同一张：最好的一张各组不同。", PAIR, "masks[:, 2]"),
    Wrong("挑的是面积最大的：要按分数挑。", BEST, "masks.sum((2, 3)).argmax(1)"),
    Wrong(
        "mask_input 少了一维：要 (B, 1, 4h, 4w)，用 [:, None] 补上。", "[:, None]", ""
    ),
    Wrong(
        "mask_input 要 logits，你交的是阈值化以后的 0/1。",
        FEEDBACK,
        f"({FEEDBACK} > 0)",
    ),
    Wrong(
        "mask_input 要 logits，你交的是阈值化以后的 0/1。",
        FEEDBACK,
        f"({FEEDBACK} > 0).astype(float)",
    ),
    Wrong(
        "mask_input 挑的不是同一张：和掩码用同样的下标。", FEEDBACK, "low_res[:, :1]"
    ),
    form="要返回两样：掩码和 mask_input。",
    otherwise="挑错了：第 b 组要分数最高的那张，沿着“三张”那一维取 argmax。",
    names=("掩码", "mask_input"),
)

# ---- 练习 11.4 ------------------------------------------------------------------


class Painter:
    """假的预测器：掩码是框里的一个菱形，分数事先定好；记下每次怎么问的。"""

    def __init__(self, size: tuple[int, int], boxes, scores) -> None:
        self.original_size, self.is_image_set = size, True
        self.known = {tuple(map(int, b)): s for b, s in zip(boxes, scores)}
        self.calls: list[tuple[int, bool]] = []

    def set_image(self, *_args) -> None:
        """题目里说了已经 set_image。"""
        expect(False, "predictor 已经 set_image，不必再编码。")

    def predict(
        self,
        point_coords=None,
        point_labels=None,
        box=None,
        mask_input=None,
        multimask_output=True,
        return_logits=False,
    ):
        """与 SamPredictor.predict 同样的形状。"""
        expect(box is not None, "要用框去问：predict(box=boxes, …)。")
        boxes = np.asarray(box)
        rows = boxes.reshape(-1, 4)
        self.calls.append((len(rows), bool(multimask_output)))
        C = 3 if multimask_output else 1
        masks = np.zeros((len(rows), C, *self.original_size), bool)
        y, x = np.indices(self.original_size)
        for mask, (x0, y0, x1, y1) in zip(masks, rows):
            far_x, far_y = abs(2 * x - x0 - x1), abs(2 * y - y0 - y1)
            mask[:] = far_x / (x1 - x0 + 1) + far_y / (y1 - y0 + 1) < 1.2
        scores = np.array([[self.known[tuple(map(int, r))]] * C for r in rows])
        low_res = np.where(masks[..., :8, :8], 5.0, -5.0)
        if return_logits:
            masks = np.where(masks, 5.0, -5.0)
        out = masks, scores, low_res
        return out if boxes.ndim == 2 and len(boxes) != 1 else tuple(x[0] for x in out)


def paintings() -> dict[str, tuple]:
    """互相重叠的框，分数的次序与先后不同。"""
    return {
        f"{len(boxes)} 个框，图 {size}": (Painter(size, boxes, scores), np.array(boxes))
        for size, boxes, scores in (
            ((9, 13), [[0, 0, 6, 4], [4, 2, 10, 7], [2, 3, 12, 8]], [0.5, 0.9, 0.7]),
            ((12, 8), [[1, 1, 5, 9], [3, 4, 7, 11]], [0.8, 0.6]),
            ((9, 14), [[0, 0, 3, 3], [8, 5, 12, 8], [2, 2, 9, 6]], [0.4, 1.1, 0.9]),
        )
    }


def painted(label_map, predictor, boxes):
    """怎么问的，和标号图。"""
    labels = label_map(predictor, boxes)
    if labels is None:
        return None
    calls = predictor.calls
    times = ("没有问", "一次")[len(calls)] if len(calls) < 2 else "不止一次"
    labels = np.asarray(labels)
    whole = labels.dtype.kind in "iu" or np.array_equal(labels, labels.astype(int))
    return {
        "问了": times,
        "每个框": "几张" if any(many for _, many in calls) else "一张",
        "标签": "整数" if whole else "不是整数",
        "标号图": labels.astype(int),
    }


ASK = "predictor.predict(box=boxes, multimask_output=False)"
ORDER = "scores[:, 0].argsort()"
ex_11_4 = Code(
    f"""
def label_map(predictor, boxes):
    masks, scores, _ = {ASK}
    labels = np.zeros(masks.shape[-2:], int)
    for n, i in enumerate({ORDER}):
        labels[masks[i, 0]] = i + 1
    return labels
""",
    paintings,
    Wrong("第 0 个框和背景都写成了 0：第 i 个框的标签是 i + 1。", "i + 1", "i"),
    Wrong(
        "重叠处留下的是分数低的：后写的盖住先写的，要从低到高写。",
        ORDER,
        f"{ORDER}[::-1]",
    ),
    Wrong("按框的先后写的：重叠处要归分数高的。", ORDER, "range(len(boxes))"),
    Wrong(
        "标签成了分数的名次：第 i 个框的标签是 i + 1，与分数无关。", "i + 1", "n + 1"
    ),
    Wrong("每个框只要一张：multimask_output=False。", ", multimask_output=False", ""),
    Wrong(
        "把框涂满了：要用 predict 返回的掩码。",
        "labels[masks[i, 0]] = i + 1",
        "x0, y0, x1, y1 = boxes[i]; labels[y0 : y1 + 1, x0 : x1 + 1] = i + 1",
    ),
    Wrong("标签要是整数。", "return labels", "return labels / 2"),
    Wrong(
        "问了不止一次：把全部框一次交给 predict。",
        ASK,
        "zip(*[predictor.predict(box=b, multimask_output=False) for b in boxes])\n"
        "    masks, scores = np.array(masks), np.array(scores)",
    ),
    ask=painted,
    form="要返回一张标号图，形状 (H, W)。",
    otherwise="背景 0，第 i 个框的掩码处是 i + 1，重叠处归预测的 IoU 高的框。",
)

# ---- 练习 11.5 ------------------------------------------------------------------

KEPT = ("features", "original_size", "input_size")


class Encoder:
    """假的预测器：嵌入就是照片的平均值；记下编码了几遍。"""

    def __init__(self) -> None:
        self.times = 0
        self.reset_image()

    def reset_image(self) -> None:
        """忘掉照片。"""
        self.features = self.original_size = self.input_size = None

    def set_image(self, photo: np.ndarray) -> None:
        """换上一张照片。"""
        self.features = torch.full((1, 2, 4, 4), float(photo.mean()))
        H, W = photo.shape[:2]
        self.original_size, self.input_size = (H, W), (2 * H, 2 * W)
        self.times += 1


def switched(switch, capacity, names):
    """按一串名字切换，最后一步：手里的三样、编码的遍数、缓存里的照片。"""
    predictor, cache, before = Encoder(), {}, 0
    for name in names:
        i = ord(name) - ord("a")
        photo = np.full((4 + i, 9 - 2 * i, 3), 10 * i + 5, np.uint8)
        before = predictor.times
        switch(predictor, cache, name, photo, capacity)
        if not cache and predictor.features is None:
            raise Unanswered  # 什么也没有做
    mean = getattr(predictor.features, "mean", lambda: torch.tensor(-1.0))()
    return {
        "features": float(mean),
        "original_size": predictor.original_size,
        "input_size": predictor.input_size,
        "编码的遍数": predictor.times - before,
        "留着刚用的": names[-1] in cache,
        "留的张数": len(cache),
        "留下的": sorted(map(str, cache)),
    }


STATE = ", ".join(f"predictor.{name}" for name in KEPT)
ex_11_5 = Code(
    f"""
def switch(predictor, cache, name, photo, capacity):
    if name in cache:
        kept = cache.pop(name)
        {STATE} = kept
    else:
        predictor.set_image(photo)
        kept = {STATE}
    cache[name] = kept
    if len(cache) > capacity:
        del cache[next(iter(cache))]
""",
    lambda: {
        f"最多存 {capacity} 张，依次用 {'、'.join(names[:n])}": (capacity, names[:n])
        for capacity, names in ((2, "aabacab"), (3, "abcadbcad"), (1, "aabba"))
        for n in range(1, len(names) + 1)
    },
    Wrong(
        "只换回了 features：original_size、input_size 还是上一张照片的。",
        f"{STATE} = kept",
        "predictor.features = kept[0]",
    ),
    Wrong(
        "手里还是另一张照片：名字在 cache 里时，把留着的三样放回 predictor；"
        "存的要是那三样本身，不是 predictor。",
        f"{STATE} = kept",
        "pass",
    ),
    Wrong(
        "三样没有换齐：features、original_size、input_size。",
        "kept = cache.pop(name)",
        "kept = cache.clear() or (0, 0, 0)",
    ),
    Wrong(
        "照片还留着，又编码了一遍：先看名字在不在 cache 里。", "name in cache", "False"
    ),
    Wrong("超过了上限，没有丢掉旧的。", "len(cache) > capacity", "False"),
    Wrong("丢多了：最多可以留满上限。", "> capacity", ">= capacity"),
    Wrong("刚用的这张没有留下，丢错了，或者没有存。", "next(iter(cache))", "name"),
    Wrong(
        "丢的该是最久没有用到的，命中的那张也要重新排到最后。",
        "cache.pop(name)",
        "cache[name]",
    ),
    ask=switched,
    otherwise="手里的三样、编码的遍数、留下的照片，逐步核对。",
)
