"""第 11 章的练习怎么检查。"""

import numpy as np
import torch
from course import answered, expect

from sam_lite.config import SamConfig
from sam_lite.learn.evaluation import corrective_click, deepest_point
from sam_lite.model import sam_from_config
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


def ex_11_1(next_click) -> None:
    """漏掉的深、多出的深、两块挨着、贴着边、一样深、完全正确。"""
    for truth, guess in click_cases():
        got = answered(next_click(truth.copy(), guess.copy()))
        expect(np.shape(got) == (3,), "要返回三样：(x, y, 标签)。")
        got = tuple(int(v) for v in got)
        expect(
            got == corrective_click(truth, guess),
            click_hint(got, truth, guess),
        )


def click_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """几对（答案, 猜的），H 不等于 W，最深的一点只有一个。"""
    truth = np.zeros((9, 14), bool)
    truth[2:8, 1:10] = True
    missing = truth.copy()
    missing[4:7, 2:5] = False  # 漏掉 3×3，深 2
    missing[0:2, 1:10] = True  # 多出 2×9，面积大，深 1
    spilled = truth.copy()
    spilled[3:8, 10:13] = True  # 多出 5×3，深 2
    spilled[2:8, 1] = False  # 漏掉一条，深 1
    # 挨着的漏掉 5×5 和多出 5×3：合成一块量，点会挪到别处
    near = np.zeros((9, 14), bool)
    near[2:7, 4:9] = True
    shifted = np.zeros((9, 14), bool)
    shifted[2:7, 1:4] = True
    # 贴着上边：图外也算边
    top, empty = np.zeros((9, 14), bool), np.zeros((9, 14), bool)
    top[0:3, 4:9] = True
    top[5:8, 11:14] = True
    top[7, 11] = False
    tied = truth.copy()
    tied[4:7, 2:5] = False  # 漏掉 3×3，深 2
    tied[5:8, 11:14] = True  # 多出 3×3，也深 2
    pairs = [(truth, missing), (truth, spilled), (near, shifted), (top, empty)]
    return [*pairs, (truth, tied), (truth, truth), (empty, truth)]


def click_hint(got, truth, guess) -> str:
    """点错了：和几种典型的错法比一比。"""
    right = corrective_click(truth, guess)
    missed, extra = truth & ~guess, guess & ~truth
    if right[2] == -1:
        return "完全正确时没有可点的，应返回 (0, 0, -1)。"
    if got[:2] == right[1::-1] and got[:2] != right[:2]:
        return "x 和 y 弄反了：点是 (x, y)，deepest 返回的已经是这个次序。"
    if got[:2] == right[:2]:
        return "标签不对：漏掉的补正点 1，多出来的补负点 0。"
    if got[:2] == deepest_point(truth ^ guess)[:2]:
        return "漏掉的和多出来的合成一块量了：要分开量，再比谁更深。"
    if got[:2] == deepest_point(truth if right[2] else guess)[:2]:
        return "量的是整张掩码，不是错的那一块。"
    other = extra if right[2] == 1 else missed
    if other.any() and got[:2] == deepest_point(other)[:2]:
        if deepest_point(missed)[2] == deepest_point(extra)[2]:
            return "点在了多出来的上：两块一样深时，点漏掉的。"
        larger = other.sum() > (missed if right[2] else extra).sum()
        words = "面积大的不一定深" if larger else "要点更深的那一块"
        return f"点在了另一块错误上：{words}，比的是离边的距离。"
    return "点的不是错误区域里离边最远的像素：分别量漏掉的和多出来的，取距离大的。"


# ---- 练习 11.2 ------------------------------------------------------------------


def ex_11_2(cut) -> None:
    """三张大小不同的照片，点 2、3、1 下：数编码次数，对照一个一个问的掩码。"""
    photos, clicks = album()
    predictor, calls = counted()
    predictor.set_image(np.full((99, 99, 3), 9, np.uint8))  # 手里本来有一张大的
    calls.clear()
    got = answered(cut(predictor, photos, clicks))
    times, total = len(calls), sum(map(len, clicks))
    expect(
        isinstance(got, (list, tuple)) and len(got) == total,
        f"要返回一个列表，每个点一张掩码，这里共 {total} 张。",
    )
    got = [np.asarray(mask) for mask in got]
    shapes = [p.shape[:2] for p, points in zip(photos, clicks) for _ in points]
    stale = (
        "后面的照片没有编码，问的还是前一张：is_image_set 只说明有照片，不说明是哪张。"
    )
    expect(times >= len(photos), stale)
    expect(
        all(mask.shape == size for mask, size in zip(got, shapes)),
        "掩码的形状应是各自照片的 (高, 宽)：去掉“几张”那一维，次序同点。",
    )
    expect(times < total, f"编码了 {times} 遍，还是一个点一遍：set_image 挪到外面。")
    expect(times == len(photos), f"编码了 {times} 遍，照片只有 {len(photos)} 张。")
    if same(got, ask_each(photos, clicks, None)):
        return
    for scope in ("photo", "all"):
        expect(
            not same(got, ask_each(photos, clicks, scope)),
            "还带着前一个物体的 low_res：物体互不相干，就不要交 mask_input。",
        )
    expect(False, "掩码不对：每个点单独问，标签 1，multimask_output=False，别的不交。")


def same(got, right) -> bool:
    """逐张相同；一批一起问的，舍入会让零星几个像素不同，也算。"""
    return all((a != b).mean() < 0.003 for a, b in zip(got, right))


def album() -> tuple[list[np.ndarray], list[list[tuple[int, int]]]]:
    """三张大小不同的照片，和各自的点。"""
    rng = np.random.default_rng(3)
    sizes = ((40, 60), (70, 33), (50, 50))
    photos = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in sizes]
    return photos, [[(5, 30), (50, 8)], [(20, 60), (3, 5), (30, 33)], [(25, 10)]]


def counted() -> tuple[SamPredictor, list[int]]:
    """一个玩具预测器，和数编码次数的列表；每次的权重都一样，不碰别处的随机数。"""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        sam = sam_from_config(TOY).eval()
    # 随机的解码器几乎不理会提示；放大些，点和掩码的差别才看得见
    with torch.no_grad():
        for part in (sam.prompt_encoder, sam.mask_decoder):
            for parameter in part.parameters():
                parameter.mul_(1.5)
    calls: list[int] = []
    sam.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    return SamPredictor(sam), calls


def ask_each(photos, clicks, carry: str | None) -> list[np.ndarray]:
    """标准答案；carry 是把 low_res 带到哪里：不带、一张照片之内、一路带下去。"""
    predictor, _ = counted()
    results, low_res = [], None
    for photo, points in zip(photos, clicks):
        predictor.set_image(photo)
        low_res = low_res if carry == "all" else None
        for point in points:
            masks, _, fresh = predictor.predict(
                np.array([point]),
                np.array([1]),
                mask_input=low_res,
                multimask_output=False,
            )
            low_res = fresh if carry else None
            results.append(masks[0])
    return results


# ---- 练习 11.3 ------------------------------------------------------------------


def ex_11_3(pick) -> None:
    """B 是 4 和 1；H、W、低分辨率的边长互不相同。"""
    for B in (4, 3, 1):
        rng = np.random.default_rng(B)
        masks = rng.random((B, 3, 5, 7)) > 0.5
        low_res = rng.normal(size=(B, 3, 8, 8))
        scores = np.array([[0.3, 0.97, 0.5], [0.9, 0.1, 0.2], [0.2, 0.4, 0.6]] * 2)[:B]
        got = answered(pick(masks.copy(), scores.copy(), low_res.copy()))
        expect(
            isinstance(got, (tuple, list)) and len(got) == 2,
            "要返回两样：掩码和 mask_input。",
        )
        chosen, feedback = (np.asarray(x) for x in got)
        best = scores.argmax(axis=1)
        check_masks(chosen, masks, scores, best)
        right = low_res[np.arange(B), best]
        expect(
            feedback.shape != right.shape,
            "mask_input 少了一维：要 (B, 1, 4h, 4w)，用 [:, None] 补上。",
        )
        expect(
            feedback.shape == (B, 1, 8, 8),
            f"mask_input 的形状应是 {(B, 1, 8, 8)}，你的是 {feedback.shape}。",
        )
        expect(
            not np.isin(feedback, (0, 1)).all(),
            "mask_input 要 logits，你交的是阈值化以后的 0/1。",
        )
        expect(
            np.array_equal(feedback[:, 0], right),
            "mask_input 挑的不是同一张：和掩码用同样的下标。",
        )


def check_masks(chosen, masks, scores, best) -> None:
    """挑出来的掩码，错了就说像哪一种错法。"""
    B = len(masks)
    expect(
        chosen.shape != (B, B, 5, 7) or B == 1,
        "masks[:, best] 给每组都取了 B 张：两个下标要成对给。",
    )
    expect(
        chosen.shape != (5, 7),
        "只挑出了一张：argmax 没有写 axis=1，把整张表压平了。",
    )
    expect(
        chosen.shape == (B, 5, 7),
        f"掩码的形状应是 {(B, 5, 7)}，你的是 {chosen.shape}。",
    )
    expect(
        np.array_equal(chosen, masks[np.arange(B), best]),
        mask_hint(chosen, masks, scores),
    )


def mask_hint(chosen, masks, scores) -> str:
    """形状对而内容不对。"""
    B = len(masks)
    if np.array_equal(chosen, masks[np.arange(B), scores.argmin(axis=1)]):
        return "挑的是分数最低的。"
    if np.array_equal(chosen, masks[:, scores.argmax() % 3]):
        return "每组都取了同一张：argmax 没有写 axis=1，把整张表压平了。"
    if any(np.array_equal(chosen, masks[:, i]) for i in range(3)):
        return "每组都取了同一张：最好的一张各组不同。"
    areas = masks.sum(axis=(2, 3))
    if np.array_equal(chosen, masks[np.arange(B), areas.argmax(axis=1)]):
        return "挑的是面积最大的：要按分数挑。"
    return "挑错了：第 b 组要分数最高的那张，沿着“三张”那一维取 argmax。"


# ---- 练习 11.4 ------------------------------------------------------------------


class Painter:
    """假的预测器：掩码就是框里的像素，分数事先定好；记下每次怎么问的。"""

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
        for mask, (x0, y0, x1, y1) in zip(masks, rows.astype(int)):
            mask[:, y0 : y1 + 1, x0 : x1 + 1] = True
        scores = np.array([[self.known[tuple(map(int, r))]] * C for r in rows])
        low_res = np.where(masks[..., :8, :8], 5.0, -5.0)
        if return_logits:
            masks = np.where(masks, 5.0, -5.0)
        out = masks, scores, low_res
        return out if boxes.ndim == 2 and len(boxes) != 1 else tuple(x[0] for x in out)


def ex_11_4(label_map) -> None:
    """三个互相重叠的框，分数的次序与先后不同；再来一组两个的。"""
    cases = [
        ((9, 13), [[0, 0, 6, 4], [4, 2, 10, 7], [2, 3, 12, 8]], [0.5, 0.9, 0.7]),
        ((12, 8), [[1, 1, 5, 9], [3, 4, 7, 11]], [0.8, 0.6]),
        ((9, 13), [[0, 0, 3, 3], [8, 5, 12, 8], [2, 2, 9, 6]], [0.4, 1.1, 0.9]),
    ]
    for size, boxes, scores in cases:
        boxes = np.array(boxes)
        painter = Painter(size, boxes, scores)
        got = np.asarray(answered(label_map(painter, boxes.copy())))
        expect(painter.calls, "没有用 predictor.predict 去问。")
        times = len(painter.calls)
        expect(times == 1, f"问了 {times} 次：把全部框一次交给 predict。")
        expect(
            painter.calls == [(len(boxes), False)],
            "每个框只要一张：multimask_output=False。",
        )
        expect(
            got.shape == size, f"标号图的形状应是 {size}，你的是 {tuple(got.shape)}。"
        )
        expect(
            got.dtype.kind in "iu" or np.array_equal(got, got.astype(int)),
            "标签要是整数。",
        )
        right = paint(size, boxes, np.argsort(scores))
        expect(np.array_equal(got, right), label_hint(got, right, size, boxes, scores))


def paint(size, boxes, order, first: int = 1) -> np.ndarray:
    """按 order 的先后写标签，后写的盖住先写的。"""
    labels = np.zeros(size, int)
    for i in order:
        x0, y0, x1, y1 = boxes[i]
        labels[y0 : y1 + 1, x0 : x1 + 1] = i + first
    return labels


def label_hint(got, right, size, boxes, scores) -> str:
    """标号图错在哪里。"""
    order = np.argsort(scores)
    if np.array_equal(got > 0, right > 0) is False and got.max() == len(boxes) - 1:
        return "第 0 个框和背景都写成了 0：第 i 个框的标签是 i + 1。"
    if np.array_equal(got, paint(size, boxes, order[::-1])):
        return "重叠处留下的是分数低的：后写的盖住先写的，要从低到高写。"
    if np.array_equal(got, paint(size, boxes, range(len(boxes)))):
        return "按框的先后写的：重叠处要归分数高的。"
    ranks = np.zeros(len(boxes) + 1, int)
    ranks[order + 1] = np.arange(1, len(boxes) + 1)
    if np.array_equal(got, ranks[right]):
        return "标签成了分数的名次：第 i 个框的标签是 i + 1，与分数无关。"
    if np.array_equal(got > 0, right > 0):
        return "物体的范围对，重叠处归错了：归预测的 IoU 高的那个框。"
    return "标号图不对：背景 0，第 i 个框的掩码处是 i + 1。"


# ---- 练习 11.5 ------------------------------------------------------------------


class Encoder:
    """假的预测器：嵌入就是照片的平均值；记下编码了哪几张。"""

    def __init__(self) -> None:
        self.encoded: list[float] = []
        self.reset_image()

    def reset_image(self) -> None:
        """忘掉照片。"""
        self.features = self.original_size = self.input_size = None

    def set_image(self, photo: np.ndarray) -> None:
        """换上一张照片。"""
        self.features = torch.full((1, 2, 4, 4), float(photo.mean()))
        H, W = photo.shape[:2]
        self.original_size, self.input_size = (H, W), (2 * H, 2 * W)
        self.encoded.append(float(photo.mean()))

    def state(self) -> tuple:
        """留着的三样，便于比较。"""
        features = self.features
        if isinstance(features, torch.Tensor):
            features = features.mean().item()
        return features, self.original_size, self.input_size


def ex_11_5(switch) -> None:
    """按一串名字来回切换，每一步都查留着的三样和编码的次数。"""
    sizes = {"a": (4, 6), "b": (7, 3), "c": (5, 8), "d": (9, 2)}
    photos = {
        name: np.full((*size, 3), 10 * i + 5, np.uint8)
        for i, (name, size) in enumerate(sizes.items())
    }
    if did_nothing(switch, photos):
        answered(None)
    for capacity, names in ((2, "aabacab"), (3, "abcadbcad"), (1, "aabba")):
        predictor, cache = Encoder(), {}
        known: list[str] = []  # 标准答案：最久没有用到的在前
        for step, name in enumerate(names):
            hit = name in known
            before = len(predictor.encoded)
            switch(predictor, cache, name, photos[name], capacity)
            times = len(predictor.encoded) - before
            where = f"最多存 {capacity} 张，依次用 {'、'.join(names[: step + 1])}"
            fresh = Encoder()
            fresh.set_image(photos[name])
            expect(predictor.state() == fresh.state(), state_hint(predictor, fresh))
            expect(times == (not hit), times_hint(times, hit, known, where))
            known = [n for n in known if n != name] + [name]
            known = known[-capacity:]
            expect(set(cache) == set(known), cache_hint(cache, known, name, where))


def did_nothing(switch, photos) -> bool:
    """跑一次以后，预测器和缓存都没有变：还没有作答。"""
    predictor, cache = Encoder(), {}
    switch(predictor, cache, "a", photos["a"], 2)
    return predictor.features is None and not cache


def state_hint(got: Encoder, right: Encoder) -> str:
    """换回来的三样哪里不对。"""
    same = [a == b for a, b in zip(got.state(), right.state())]
    if same[0]:
        return "只换回了 features：original_size、input_size 还是上一张照片的。"
    if not any(same):
        return (
            "手里还是另一张照片：名字在 cache 里时，把留着的三样放回 predictor；"
            "存的要是那三样本身，不是 predictor。"
        )
    return "三样没有换齐：features、original_size、input_size。"


def times_hint(times: int, hit: bool, known: list[str], where: str) -> str:
    """编码的次数不对。"""
    if hit:
        return f"{where}：最后这张还留着，不该再编码。"
    if times == 0:
        return f"{where}：最后这张不在该留的 {'、'.join(known)} 里，应当编码一遍。"
    return f"{where}：编码了 {times} 遍。"


def cache_hint(cache, known: list[str], name: str, where: str) -> str:
    """留下来的照片不对。"""
    kept = "、".join(map(str, cache)) or "空的"
    if len(cache) > len(known):
        return f"{where}：留了 {len(cache)} 张，超过了上限，没有丢掉旧的。"
    if name not in cache:
        return f"{where}：刚用的这张没有留下，丢错了，或者没有存。"
    if len(cache) < len(known):
        return f"{where}：只留了 {kept}，丢多了，最多可以留满上限。"
    return (
        f"{where}：留下的是 {kept}，应是 {'、'.join(known)}。丢的该是最久没有用到的，"
        "命中的那张也要重新排到最后。"
    )
