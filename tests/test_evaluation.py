"""评测：出题、打分、汇总。模型用一个知道答案的假预测器，分数可以手算。"""

import json

import numpy as np
import pytest
import torch
from wcwidth import wcswidth

from sam_lite.errors import SamLiteError
from sam_lite.learn import evaluation as ev
from sam_lite.preprocess import ResizeLongestSide
from sam_lite.scenes import Scene, stickers


def disc(cx: float, cy: float, radius: float, size: int = 64) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


# ---- 出题 --------------------------------------------------------------------


def test_seeds_of_training_evaluation_and_tuning_never_meet():
    training = 10_000_000
    assert ev.eval_seeds(500)[0] >= training
    assert ev.eval_seeds(ev.SCENES_PER_SEED, 0)[-1] < ev.eval_seeds(1, 1)[0]
    assert ev.eval_seeds(ev.SCENES_PER_SEED, 9_999)[-1] < ev.TUNE_SEED_START
    for scenes, seed in [(0, 0), (ev.SCENES_PER_SEED + 1, 0), (5, -1), (5, 10_000)]:
        with pytest.raises(SamLiteError):
            ev.eval_seeds(scenes, seed)


def test_choose_objects_drops_small_ones_and_repeats_itself():
    masks = np.zeros((9, 64, 64), dtype=bool)
    for k in range(9):
        masks[k].flat[: k + 1] = True  # 1 到 9 个像素；64×64 的下限是 4
    chosen = ev.choose_objects(masks, np.random.default_rng(3))
    areas = chosen.sum(axis=(1, 2))
    assert len(areas) == ev.OBJECTS_PER_SCENE
    assert areas.min() >= 4
    assert len(set(areas.tolist())) == len(areas)  # 不重样
    again = ev.choose_objects(masks, np.random.default_rng(3))
    assert np.array_equal(chosen, again)
    assert len(ev.choose_objects(masks[:0], np.random.default_rng(3))) == 0


def test_deepest_point():
    x, y, depth = ev.deepest_point(disc(30, 21, 9))
    assert (x, y) == (30, 21)
    assert 9 <= depth <= 10.5
    edge = np.zeros((20, 30), dtype=bool)
    edge[:, :5] = True  # 贴着图片左边：图片之外算背景，最深处在正中一列
    assert ev.deepest_point(edge)[0] == 2
    assert ev.deepest_point(np.zeros((5, 5), dtype=bool)) == (0, 0, 0.0)


def test_first_click_is_inside_and_centre_is_fixed():
    mask = disc(30, 21, 9) & ~disc(30, 21, 6)
    rng = np.random.default_rng(0)
    clicks = {ev.first_click(mask, "random", rng) for _ in range(50)}
    assert len(clicks) > 20
    assert all(mask[y, x] for x, y in clicks)
    assert ev.first_click(disc(30, 21, 9), "centre", rng) == (30, 21)


def test_corrective_click_goes_to_the_deepest_error():
    truth = disc(20, 20, 10)
    assert ev.corrective_click(truth, truth) == (0, 0, -1)
    missing = ev.corrective_click(truth, np.zeros_like(truth))
    assert missing == (20, 20, 1)
    extra = ev.corrective_click(truth, truth | disc(48, 50, 11))
    assert extra == (48, 50, 0)
    both = ev.corrective_click(truth, disc(48, 50, 6))  # 漏掉的更大，先补
    assert both == (20, 20, 1)


def test_tight_box_and_iou():
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:5, 3:9] = True
    assert ev.tight_box(mask) == (3, 2, 8, 4)
    shifted = np.roll(mask, 1, axis=0)
    assert ev.iou(mask, shifted) == pytest.approx(12 / 24)
    assert ev.iou(np.stack([mask, ~mask]), mask).tolist() == [1, 0]
    assert ev.iou(mask & False, mask & False) == 1


# ---- 打分 --------------------------------------------------------------------


class KnowingPredictor:
    """知道答案的假预测器：记下每次收到的提示，照约定的对错回答。"""

    def __init__(self, truths: np.ndarray) -> None:
        self.truths = torch.from_numpy(truths)  # (B, H, W)
        self.device = torch.device("cpu")
        self.transform = ResizeLongestSide(128)  # 场景 64 -> 模型 128，坐标翻倍
        self.calls: list[dict[str, object]] = []

    def set_image(self, image: np.ndarray) -> None:
        self.original_size = image.shape[:2]

    def predict_torch(self, points, labels, boxes, mask_input, multimask_output):
        call = {"points": points, "labels": labels, "boxes": boxes, "m": mask_input}
        self.calls.append(call)
        half = self.truths.clone()
        half[:, :, ::2] = False  # 少一半的列
        B = len(self.truths)
        if boxes is not None:
            return (
                self.truths[:, None],
                torch.full((B, 1), 0.9),
                torch.zeros(B, 1, 8, 8),
            )
        if multimask_output:  # 第 2 张全对，IoU 头却选了对一半的第 1 张
            masks = torch.stack([half, half, self.truths], dim=1)
            logits = torch.arange(3.0).reshape(1, 3, 1, 1).expand(B, 3, 8, 8)
            return masks, torch.tensor([[0.2, 0.8, 0.5]]).expand(B, 3), logits
        return half[:, None], torch.full((B, 1), 0.7), torch.full((B, 1, 8, 8), 7.0)


def test_score_model_sends_the_right_prompts():
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[8:28, 10:30] = 1
    labels[disc(44, 44, 12)] = 2
    scene = Scene(np.zeros((64, 64, 3), np.uint8), labels, np.zeros(3, np.uint8))
    task = ev.make_task(scene, "centre", seed=5)
    assert task is not None
    predictor = KnowingPredictor(task.truths)
    scores = ev.score_model(predictor, task)
    half = scores["click"]
    assert half == pytest.approx(np.full(2, 0.5), abs=0.05)
    assert scores["click_oracle"].tolist() == [1, 1]
    assert scores["clicks3"] == pytest.approx(half)
    assert scores["box"].tolist() == [1, 1]
    assert scores["click_guess"] == pytest.approx([0.8, 0.8])

    first, second, third, boxed = predictor.calls
    assert first["points"].tolist() == (2.0 * task.clicks[:, None]).tolist()
    assert first["m"] is None
    assert second["points"].shape == (2, 2, 2)
    assert third["points"].shape == (2, 3, 2)
    assert third["labels"].tolist() == [[1, 1, 1]] * 2  # 漏掉的地方补前景点
    assert second["m"].shape == (2, 1, 8, 8)
    assert (second["m"] == 1).all()  # IoU 头选的那张的 logits，不是最准的那张
    assert (third["m"] == 7).all()
    xy = (second["points"][:, 1] / 2).int().numpy()
    assert all(truth[y, x] for truth, (x, y) in zip(task.truths, xy, strict=True))
    assert boxed["boxes"].tolist() == (2.0 * task.boxes).tolist()
    assert boxed["points"] is None


def test_make_task_without_objects():
    empty = Scene(
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros(1, np.uint8),
    )
    assert ev.make_task(empty, "random", 0) is None


def test_summarise_by_size_and_correlation():
    area = np.array([100.0, 400.0, 2500.0, 2501.0])
    scores = {key: np.array([0.1, 0.2, 0.4, 0.9]) for key, *_ in ev.METHODS}
    scores |= {"area": area, "click_guess": 2 * scores["click"] - 1}
    scores["box_guess"] = np.full(4, 0.5)
    result = ev.summarise(scores, size=256)
    assert result["objects"] == {"all": 4, "small": 1, "medium": 2, "large": 1}
    assert result["miou"]["box"]["medium"] == pytest.approx(0.3)
    assert result["miou"]["box"]["all"] == pytest.approx(0.4)
    assert result["correlation"]["click"] == pytest.approx(1)
    assert result["correlation"]["box"] is None  # 预测全一样，相关系数无从谈起
    double = ev.summarise(scores | {"area": 4 * area}, size=512)
    assert double["objects"] == result["objects"]  # 分界随面积放大
    json.dumps(result)


def test_table_is_aligned_for_wide_characters():
    scores = {key: np.array([0.25, 0.75]) for key, *_ in ev.METHODS}
    scores |= {"area": np.array([500.0, 900.0])}
    scores |= {"click_guess": np.array([0.1, 0.2]), "box_guess": np.array([0.2, 0.1])}
    lines = ev.format_table(ev.summarise(scores, 256)).splitlines()
    table = lines[: 3 + len(ev.METHODS)]
    # 每行最右一列的右边对齐：占的格数相同
    assert len({wcswidth(line) for line in table}) == 1
    assert table[-1].split()[-4:] == ["0.500", "无", "0.500", "无"]
    assert "点击 1.000，框 -1.000" in lines[-1]


# ---- 从头到尾 ----------------------------------------------------------------


def test_evaluate_is_deterministic_and_ready_for_json(small_sam):
    seen = []
    settings = {"num_scenes": 3, "seed": 2, "size": 64}
    first = ev.evaluate(small_sam, **settings, progress=lambda: seen.append(1))
    again = ev.evaluate(small_sam, **settings)
    assert json.dumps(first) == json.dumps(again)
    assert seen == [1, 1, 1]
    assert first["scene_seeds"] == [1_000_200_000, 1_000_200_002]
    assert 3 <= first["objects"]["all"] <= 3 * ev.OBJECTS_PER_SCENE
    other = ev.evaluate(small_sam, **settings | {"seed": 3})
    assert other["miou"] != first["miou"]
    centre = ev.evaluate(small_sam, **settings, click="centre")
    assert centre["miou"]["fill_box"] == first["miou"]["fill_box"]  # 同样的物体
    assert centre["miou"]["flood_click"] != first["miou"]["flood_click"]
    with pytest.raises(SamLiteError, match="click"):
        ev.evaluate(small_sam, 1, click="best")


def test_missing_extras_say_how_to_install(monkeypatch, small_sam):
    monkeypatch.setitem(__import__("sys").modules, "skimage.segmentation", None)
    with pytest.raises(SamLiteError, match="skimage：pip install"):
        ev.evaluate(small_sam, 1)


def test_sticker_scenes_hold_only_what_was_never_trained(small_sam, monkeypatch):
    """--stickers：东西都留作打分；与程序画的场景是两套题；带着照片背景。"""
    seen = []
    real = stickers.make_sticker_scene
    monkeypatch.setattr(
        stickers,
        "make_sticker_scene",
        lambda *a, **k: seen.append(real(*a, **k)) or seen[-1],
    )
    result = ev.evaluate(small_sam, 4, stickers=True, size=128)
    assert result["stickers"] and result["objects"]["all"] > 0
    assert result["miou"] != ev.evaluate(small_sam, 4, size=128)["miou"]
    kept_out = {s.zh for s in stickers.bundled_stickers().stickers if s.exam}
    for scene in seen:
        members = set(scene.parents[1:].tolist())
        singles = {n[0] for k, n in enumerate(scene.names, 1) if k not in members}
        assert singles <= kept_out
    assert len(ev.exam_stickers().grounds) == 5
