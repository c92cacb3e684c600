"""进门检查的测试共用：一张图、一组提示，和“报错而状态不变”。"""

import numpy as np
import pytest

from sam_lite.errors import SamLiteError
from sam_lite.predictor import SamPredictor

H, W = 50, 80
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
POINTS, LABELS = np.array([[10.0, 20.0], [70.0, 33.0]]), np.array([1, 0])
BOX = np.array([5.0, 8.0, 60.0, 41.0])
LOW_RES = RNG.normal(0, 4, (1, 32, 32)).astype(np.float32)
NAN, INF = float("nan"), float("inf")
SEVERAL = np.stack([POINTS, POINTS + 1, POINTS + 2])  # (3, 2, 2)
BOXES = np.stack([BOX, BOX + 1, BOX - 1])  # (3, 4)


def reference(predictor: SamPredictor) -> list[np.ndarray]:
    """一个固定的提示；前后两次逐位相同，说明状态没有变。"""
    return list(predictor.predict(POINTS, LABELS, BOX, LOW_RES, return_logits=True))


def refuses(predictor: SamPredictor, name: str, words: str, call) -> None:
    """call 抛 SamLiteError：点名 name，说了收到什么、应为什么，含 words；状态不变。"""
    before = reference(predictor)
    state = dict(vars(predictor))
    with pytest.raises(SamLiteError) as caught:
        call()
    text = str(caught.value)
    assert name in text and words in text, text
    assert "收到" in text and "，应为" in text, text
    assert vars(predictor) == state
    for a, b in zip(reference(predictor), before, strict=True):
        np.testing.assert_array_equal(a, b)
