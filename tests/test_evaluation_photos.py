"""照片上的评测：点击可重现，几次取平均，照片之间一样重；分数可以手算。"""

import numpy as np
import pytest
from test_evaluation import KnowingPredictor

from sam_lite.errors import SamLiteError
from sam_lite.learn import photos as ep


def two_squares() -> np.ndarray:
    """两个互不重叠的方块，(2, 64, 64)：20×20 和 12×12。"""
    masks = np.zeros((2, 64, 64), dtype=bool)
    masks[0, 4:24, 6:26] = True
    masks[1, 40:52, 30:42] = True
    return masks


def grey(height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 120, dtype=np.uint8)


def test_tasks_repeat_and_objects_do_not_disturb_each_other():
    truths = two_squares()
    tasks = ep.make_tasks(grey(), truths, 4, (0, 1))
    clicks = np.stack([task.clicks for task in tasks])  # (4, 2, 2)
    assert clicks.shape == (4, 2, 2)
    for task in tasks:
        assert task.boxes.tolist() == [[6, 4, 25, 23], [30, 40, 41, 51]]
        x, y = task.clicks.T
        assert truths[[0, 1], y, x].all()
    assert len({tuple(click) for click in clicks[:, 0].tolist()}) > 1
    again = ep.make_tasks(grey(), truths[:1], 4, (0, 1))  # 去掉第二个物体
    assert [task.clicks[0].tolist() for task in again] == clicks[:, 0].tolist()
    twins = ep.make_tasks(grey(), truths[[0, 0]], 4, (0, 1))  # 一样的，点在不同处
    assert any((task.clicks[0] != task.clicks[1]).any() for task in twins)
    other = ep.make_tasks(grey(), truths, 4, (1, 1))
    assert not np.array_equal(np.stack([task.clicks for task in other]), clicks)


def test_empty_mask_is_named():
    truths = two_squares()
    truths[1] = False
    with pytest.raises(SamLiteError, match="第 1 个是空的"):
        ep.make_tasks(grey(), truths, 1, (0, 0))


def test_model_scores_by_hand():
    """假预测器：框全对，三张里有一张全对，自己选的和单张的都少一半的列。"""
    truths = two_squares()
    predictor = KnowingPredictor(truths)
    scores = ep.score_photo(predictor, ep.make_tasks(grey(), truths, 3, (0, 0)))
    assert set(scores) == set(ep.MODEL)
    assert scores["box"].tolist() == scores["click_oracle"].tolist() == [1, 1]
    assert scores["click"].tolist() == scores["clicks3"].tolist() == [0.5, 0.5]
    assert len(predictor.calls) == 3 * 4  # 每套题目：一击、两次纠正、框


def test_baseline_scores_are_averaged_over_the_rounds(monkeypatch):
    truths = two_squares()
    tasks = ep.make_tasks(grey(), truths, 2, (0, 0))

    def masks(image, clicks, boxes):
        assert clicks.tolist() == [c for task in tasks for c in task.clicks.tolist()]
        first, empty = truths[:1], truths[:1] & False
        found = [first, empty, empty, truths[1:]]  # 第一轮两个物体，第二轮两个物体
        return {"flood_click": np.concatenate(found), "fill_box": truths}

    monkeypatch.setattr(ep, "baseline_masks", masks)
    scores = ep.score_baselines(tasks)
    assert scores["flood_click"].tolist() == [0.5, 0.5]
    assert scores["fill_box"].tolist() == [1, 1]


def test_every_photo_weighs_the_same():
    one, many = two_squares()[:1], np.concatenate([two_squares()] * 2)[:3]
    photos = [
        ep.summarise({"box": np.array([1.0])}, one),
        ep.summarise({"box": np.array([0.0, 0.0, 0.6])}, many),
    ]
    found = ep.overall(photos)
    assert found["objects"] == 4
    assert found["miou"]["box"] == pytest.approx((1 + 0.2) / 2)
    assert found["miou_objects"]["box"] == pytest.approx(1.6 / 4)
    assert photos[1]["areas"] == [400, 144, 400]
    table = ep.format_photos(found | {"photos": photos})
    assert "2 张照片的平均" in table and "4 个物体的平均" in table
    assert "0.600" in table and "0.400" in table
    assert "漫水" not in table  # 没有量的不列


def test_evaluate_photos_of_any_size(small_sam):
    rng = np.random.default_rng(0)
    photos = []
    for height, width in ((64, 64), (40, 90), (50, 30)):
        picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        masks = np.zeros((2, height, width), dtype=bool)
        masks[0, 5:25, 5:20], masks[1, 20:35, 10:28] = True, True
        photos.append((picture, masks))
    photos[2] = (photos[2][0], photos[2][1][:0])  # 没有物体的跳过
    ticks: list[int] = []
    found = ep.evaluate_photos(small_sam, photos, 2, progress=lambda: ticks.append(1))
    assert len(ticks) == 3
    assert [photo["index"] for photo in found["photos"]] == [0, 1]
    assert found["objects"] == 4 and len(found["miou"]) == 9
    assert found == ep.evaluate_photos(small_sam, photos, 2)
    alone = ep.evaluate_photos(small_sam, photos[:1], 2, baselines=False)
    assert set(alone["miou"]) == set(ep.MODEL)
    for key in ep.MODEL:
        assert alone["photos"][0]["scores"][key] == found["photos"][0]["scores"][key]
    with pytest.raises(SamLiteError, match="一个物体也没有"):
        ep.evaluate_photos(small_sam, photos[2:])
    with pytest.raises(SamLiteError, match="clicks"):
        ep.evaluate_photos(small_sam, photos, 0)
