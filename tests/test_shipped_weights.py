"""随包的小权重：真的会分割，而不只是读得进来。"""

import re
from pathlib import Path

import numpy as np
import pytest

import sam_lite
from sam_lite import evaluation, viz
from sam_lite.cli_demo import DEMO_PROMPTS, PHOTOS


@pytest.fixture(scope="module")
def sam():
    return sam_lite.load("tiny")


def test_boxes_beat_every_baseline_on_held_out_scenes(sam):
    """同样的框，模型的掩码比填满框、画椭圆、Felzenszwalb 都准。"""
    result = evaluation.evaluate(sam, num_scenes=40)
    mean = {name: row["all"] for name, row in result["miou"].items()}
    for baseline in ("fill_box", "ellipse_box", "felzenszwalb_box"):
        assert mean["box"] > mean[baseline], mean


def test_registry_and_load_give_the_same_weights(sam):
    other = sam_lite.sam_model_registry["tiny"]()
    assert not other.training
    for a, b in zip(sam.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_default_demo_covers_its_object(sam):
    """demo 默认的那张照片：掩码占住框的一大半，几乎不跑到框外。"""
    prompt = DEMO_PROMPTS["coffee"]
    photo = viz.read_photo(PHOTOS / "coffee.jpg")
    predictor = sam_lite.SamPredictor(sam)
    predictor.set_image(photo)
    masks, _, _ = predictor.predict(box=np.array(prompt.box), multimask_output=False)
    x0, y0, x1, y1 = prompt.box
    inside = masks[0, y0 : y1 + 1, x0 : x1 + 1]
    assert 0.5 < inside.mean() < 0.95
    assert inside.sum() > 0.85 * masks.sum()


def test_readme_example_runs(monkeypatch):
    """README 里“在你的代码里用”的例子照抄就能跑，三张掩码和原图一样大。"""
    root = Path(__file__).parent.parent
    monkeypatch.chdir(root)
    text = (root / "README_zh.md").read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "PIL" in c]
    names: dict = {}
    exec(code, names)
    assert names["masks"].shape == (3, *np.array(names["photo"]).shape[:2])
