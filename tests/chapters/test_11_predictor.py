"""第 11 章：笔记本里的预测器与 sam_lite 一致，练习的检查说得出错在哪里。"""

import numpy as np
import pytest
import torch

from chapters.common import assert_verdicts, course
from sam_lite.learn.evaluation import deepest_point
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor

STEM = "11_predictor"


def click(body: str) -> str:
    lines = (
        "missed, extra = deepest(truth & ~guess), deepest(guess & ~truth)",
        "if missed[2] == extra[2] == 0:",
        "    return 0, 0, -1",
        *body.splitlines(),
    )
    return "def next_click(truth, guess):\n" + "".join(f"    {x}\n" for x in lines)


DEEPER = "return (*missed[:2], 1) if missed[2] >= extra[2] else (*extra[:2], 0)"
SWAPPED = """both = (missed, 1) if missed[2] >= extra[2] else (extra, 0)
return both[0][1], both[0][0], both[1]"""
BY_AREA = """if (truth & ~guess).sum() >= (guess & ~truth).sum():
    return *missed[:2], 1
return *extra[:2], 0"""
TOGETHER = """x, y, _ = deepest(truth ^ guess)
return x, y, int(truth[y, x])"""
WHOLE = """x, y, _ = deepest(truth if missed[2] >= extra[2] else guess)
return x, y, int(missed[2] >= extra[2])"""


def cut(setting: str, low: str, reset: str = "", result: str = "masks[0]") -> str:
    """low 是 predict 的 mask_input；setting 是 set_image 那一行连同缩进。"""
    where, line = setting.split("|")
    outer = f"        {line}\n" if where == "photo" else ""
    inner = f"            {line}\n" if where == "point" else ""
    reset = f"        {reset}\n" if reset else ""
    return (
        "def cut(predictor, photos, clicks):\n    results, low = [], None\n"
        "    for photo, points in zip(photos, clicks):\n"
        f"{outer}{reset}        for point in points:\n{inner}"
        "            masks, _, low = predictor.predict(np.array([point]),"
        f" np.array([1]), mask_input={low}, multimask_output=False)\n"
        f"            results.append({result})\n    return results\n"
    )


ONCE = "photo|predictor.set_image(photo)"


def pick(best: str, mask: str, low: str) -> str:
    return (
        "def pick(masks, scores, low_res):\n    rows = np.arange(len(scores))\n"
        f"    best = {best}\n    return {mask}, {low}\n"
    )


BEST, PAIR, LOW = (
    "scores.argmax(1)",
    "masks[rows, best]",
    "low_res[rows, best][:, None]",
)


def paint(
    order: str = "scores[:, 0].argsort()", label: str = "i + 1", ask: str = ""
) -> str:
    ask = ask or "predictor.predict(box=boxes, multimask_output=False)"
    return (
        "def label_map(predictor, boxes):\n"
        f"    masks, scores, _ = {ask}\n"
        "    labels = np.zeros(masks.shape[-2:], int)\n"
        f"    for n, i in enumerate({order}):\n"
        f"        labels[masks[i, 0]] = {label}\n    return labels\n"
    )


ONE_BY_ONE = """
def label_map(predictor, boxes):
    labels = np.zeros(predictor.original_size, int)
    for i, box in enumerate(boxes):
        labels[predictor.predict(box=box, multimask_output=False)[0][0]] = i + 1
    return labels
"""
BACK = "predictor.features, predictor.original_size, predictor.input_size"


def switch(
    hit: str = f"{BACK} = kept",
    keep: str = BACK,
    drop: str = "next(iter(cache))",
    take: str = "cache.pop(name)",
    when: str = "len(cache) > capacity",
) -> str:
    return (
        "def switch(predictor, cache, name, photo, capacity):\n"
        "    if name in cache:\n"
        f"        kept = {take}\n        {hit}\n"
        "    else:\n        predictor.set_image(photo)\n"
        f"        kept = {keep}\n    cache[name] = kept\n"
        f"    if {when}:\n        del cache[{drop}]\n"
    )


WRONG = {
    "ex-11-1": [
        (click(SWAPPED), "x 和 y 弄反"),
        (click(DEEPER.replace(", 1)", ", 9)").replace(", 0)", ", 1)")), "标签不对"),
        (click(BY_AREA), "面积大的不一定深"),
        (click(TOGETHER), "合成一块"),
        (click(WHOLE), "整张掩码"),
        (click(DEEPER.replace(">=", "<")), "另一块错误"),
        (click(DEEPER.replace(">=", ">")), "一样深"),
        (click(DEEPER).replace("0, 0, -1", "0, 0, 1"), "完全正确"),
        (click("return missed[:2]"), "三样"),
    ],
    "ex-11-2": [
        (cut("point|predictor.set_image(photo)", "None"), "一个点一遍"),
        (
            cut("photo|predictor.is_image_set or predictor.set_image(photo)", "None"),
            "问的还是前一张",
        ),
        (cut(ONCE, "low"), "前一个物体的 low_res"),
        (cut(ONCE, "low", reset="low = None"), "前一个物体的 low_res"),
        (cut(ONCE, "None", result="masks"), "几张"),
        (cut(ONCE, "None").replace("[1]", "[0]"), "标签 1"),
        (cut(ONCE, "None").replace("return results", "return masks"), "每个点一张"),
    ],
    "ex-11-3": [
        (pick("scores.argmax()", "masks[:, best]", LOW), "把整张表压平"),
        (pick(BEST, "masks[:, best]", LOW), "成对"),
        (pick(BEST, "masks[:, 0]", LOW), "每组都取了同一张"),
        (pick("scores.argmin(1)", PAIR, LOW), "分数最低"),
        (pick("masks.sum((2, 3)).argmax(1)", PAIR, LOW), "面积最大"),
        (pick(BEST, PAIR, "low_res[rows, best]"), "少了一维"),
        (pick(BEST, PAIR, "low_res[:, :1]"), "同样的下标"),
        (pick(BEST, PAIR, f"({LOW} > 0).astype(float)"), "阈值化"),
        (pick("scores.argmax()", "masks.reshape(-1, 5, 7)[best]", LOW), "只挑出了一张"),
    ],
    "ex-11-4": [
        (paint(order="range(len(boxes))"), "框的先后"),
        (paint(order="scores[:, 0].argsort()[::-1]"), "分数低的"),
        (paint(label="i"), "都写成了 0"),
        (paint(label="n + 1"), "名次"),
        (paint(ask="predictor.predict(box=boxes)"), "只要一张"),
        (ONE_BY_ONE, "问了 3 次"),
    ],
    "ex-11-5": [
        (switch(hit="predictor.features = kept[0]"), "只换回了 features"),
        (switch(hit="pass"), "另一张照片"),
        (switch(take="cache[name]"), "重新排到最后"),
        (switch(drop="list(cache)[-1]"), "刚用的这张没有留下"),
        (switch(when="False"), "超过了上限"),
        (switch(when="len(cache) >= capacity"), "丢多了"),
        (switch().replace("if name in cache", "if False"), "不该再编码"),
        (switch(take="cache.clear() or (0, 0, 0)"), "三样"),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)


SIZES = [(50, 80), (64, 64), (90, 31)]


def photo(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("three", [True, False])
def test_predictor_agrees_with_package(
    small_sam: Sam, size: tuple[int, int], three: bool
) -> None:
    """每个参数都非零的小模型：各种提示，只差浮点舍入，掩码几乎处处相同。"""
    mine = course.from_chapter(STEM, "MyPredictor")(small_sam)
    theirs = SamPredictor(small_sam)
    mine.set_image(photo(*size))
    theirs.set_image(photo(*size))
    assert torch.equal(mine.features, theirs.features)
    assert mine.original_size == theirs.original_size == size
    assert mine.input_size == theirs.input_size
    H, W = size
    points = {"point_coords": np.array([[3, 4], [W - 2, H - 1], [9, 9]])}
    points["point_labels"] = np.array([1, 0, -1])
    box = {"box": np.array([2, 1, W - 3, H - 2])}
    low_res = np.random.default_rng(0).normal(0, 4, (1, 32, 32)).astype(np.float32)
    for prompt in (points, box, points | box, points | box | {"mask_input": low_res}):
        for logits in (True, False):
            options = {"multimask_output": three, "return_logits": logits}
            got = mine.predict(**prompt, **options)
            expected = theirs.predict(**prompt, **options)
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == b.dtype and a.shape == b.shape
                if a.dtype == bool:
                    assert (a != b).mean() < 1e-3
                else:
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_naive_function_gives_the_same_masks(small_sam: Sam) -> None:
    """笔记本开头的笨办法：次次编码，答案与预测器相同。"""
    segment = course.from_chapter(STEM, "segment")
    calls = course.from_chapter(STEM, "count_encodings")(small_sam)
    predictor = SamPredictor(small_sam)
    predictor.set_image(photo(50, 80))
    for point in ((5, 6), (70, 40)):
        got = segment(small_sam, photo(50, 80), point)
        expected = predictor.predict(np.array([point]), np.array([1]))
        assert (got[0] != expected[0]).mean() < 1e-3
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-4)
    assert len(calls) == 3  # 预测器一遍，笨办法一点一遍


def test_batches_agree_with_package(small_sam: Sam) -> None:
    """predict_torch：B 组点和框，与 sam_lite 的相同。"""
    mine = course.from_chapter(STEM, "TorchPredictor")(small_sam)
    theirs = SamPredictor(small_sam)
    mine.set_image(photo(50, 80))
    theirs.set_image(photo(50, 80))
    points, labels = 60 * torch.rand(3, 2, 2), torch.tensor([[1, 0], [1, 1], [0, -1]])
    boxes = torch.tensor([[1.0, 2, 30, 40], [5, 5, 60, 39], [0, 0, 9, 9]])
    for prompt in ((points, labels), (None, None, boxes), (points, labels, boxes)):
        expected = theirs.predict_torch(*prompt, return_logits=True)
        for a, b in zip(mine.predict_torch(*prompt), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_asking_before_an_image_is_refused(small_sam: Sam) -> None:
    mine = course.from_chapter(STEM, "MyPredictor")(small_sam)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="set_image"):
            mine.predict(np.array([[3, 4]]), np.array([1]))
        mine.set_image(photo(50, 80))
        mine.reset_image()
    assert mine.original_size is mine.input_size is None


def test_deepest_agrees_with_package() -> None:
    deepest = course.from_chapter(STEM, "deepest")
    rng = np.random.default_rng(0)
    for size in ((1, 1), (4, 9), (11, 6)):
        for share in (0, 0.3, 0.7, 1):
            mask = rng.random(size) < share
            assert deepest(mask) == pytest.approx(deepest_point(mask))
