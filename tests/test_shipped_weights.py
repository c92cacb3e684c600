"""随包的小权重：真的会分割，而不只是读得进来。"""

import re
from pathlib import Path

import numpy as np
import pytest

import sam_lite
from sam_lite import viz
from sam_lite.cli.demo import DEMO_PROMPTS, PHOTOS
from sam_lite.learn import evaluation


@pytest.fixture(scope="module")
def sam():
    return sam_lite.load("tiny")


def test_boxes_beat_the_baselines_on_held_out_scenes(sam):
    """同样的框、同样的点：总体和大物体上都胜过每一种不学习的办法。

    小于 400 像素的还不行（500 张场景上的数字见模型卡），这里不比。
    """
    result = evaluation.evaluate(sam, num_scenes=60)["miou"]
    for baseline in ("fill_box", "ellipse_box", "felzenszwalb_box"):
        assert result["box"]["all"] > result[baseline]["all"] + 0.03, baseline
        assert result["box"]["large"] > result[baseline]["large"] + 0.06, baseline
    for baseline in ("flood_click", "felzenszwalb_click"):
        assert result["click"]["all"] > result[baseline]["all"] + 0.03, baseline
        assert result["click"]["large"] > result[baseline]["large"] + 0.1, baseline
    assert result["clicks3"]["all"] > result["click"]["all"] + 0.1


def test_registry_and_load_give_the_same_weights(sam):
    other = sam_lite.sam_model_registry["tiny"]()
    assert not other.training
    for a, b in zip(sam.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("name", DEMO_PROMPTS)
def test_demo_masks_fill_their_boxes(sam, name):
    """五张照片：掩码占住框的一大半，几乎不跑到框外。好不好看，另用眼睛判断。"""
    x0, y0, x1, y1 = box = DEMO_PROMPTS[name].box
    predictor = sam_lite.SamPredictor(sam)
    predictor.set_image(viz.read_photo(PHOTOS / f"{name}.jpg"))
    masks, _, _ = predictor.predict(box=np.array(box), multimask_output=False)
    inside = masks[0, y0 : y1 + 1, x0 : x1 + 1]
    assert 0.4 < inside.mean() < 0.98
    assert inside.sum() > 0.8 * masks.sum()


def test_readme_example_runs(monkeypatch):
    """README 里“在你的代码里用”的例子照抄就能跑，三张掩码和原图一样大。"""
    root = Path(__file__).parent.parent
    monkeypatch.chdir(root)
    text = (root / "README_zh.md").read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "PIL" in c]
    names: dict = {}
    exec(code, names)
    assert names["masks"].shape == (3, *np.array(names["photo"]).shape[:2])
