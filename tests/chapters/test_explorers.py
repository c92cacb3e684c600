"""可以拖的图：控件一变图就变，静态的网页上有图，出了错说得出来。"""

import base64
import io
import itertools

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from chapters.common import course
from sam_lite.two_way import TwoWayTransformer

course.setup()

import explorers  # noqa: E402


def windows():
    return explorers.attended_region(course.from_chapter("04_windows", "spread"))


def fourier():
    names = ("fourier_code", "cell_centres")
    parts = [course.from_chapter("06_prompt_encoder", name) for name in names]
    return explorers.fourier_similarity(*parts)


def attention():
    torch.manual_seed(0)
    mine = course.from_chapter("07_two_way", "TwoWayTransformer")(2, 16, 4, 20)
    inputs = torch.randn(1, 16, 5, 5), torch.randn(1, 16, 5, 5), torch.randn(1, 7, 16)

    def show(ax, share, title):
        ax.imshow(share.reshape(5, 5))
        ax.set_title(title)

    tokens = {"IoU 词元": 0, "第 1 点": 5}
    return explorers.token_attention(mine, inputs, tokens, show)


@pytest.mark.parametrize("make", [windows, fourier, attention])
def test_every_knob_changes_the_picture_and_the_static_one_follows(make):
    panel = make()
    assert panel._words.value == ""
    for knob in panel._knobs.values():
        before = panel._picture.value
        if hasattr(knob, "options"):
            knob.index = 1
        else:
            knob.value = knob.min if hasattr(knob, "base") else knob.value + 1
        assert panel._words.value == "" and panel._picture.value != before
    data = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    raw = base64.b64decode(data["image/png"])
    assert raw == panel._picture.value and len(raw) < 200_000
    with Image.open(io.BytesIO(raw)) as picture:
        assert picture.mode == "P" and len(picture.getcolors()) > 5


def test_region_counts_the_window_and_the_whole_grid():
    """窗口 6、没有全局：36 格；任何一层换成全局：全部 320 格。"""
    panel = windows()
    found = {}
    for window, whole in itertools.product((6, 20), (0, 2)):
        panel._knobs["whole"].value, panel._knobs["window"].value = whole, window
        values = {name: k.value for name, k in panel._knobs.items()}
        title = panel._draw(**values).axes[0].get_title()
        found[window, whole] = title.split("\n")[0]
    assert "传到 36 格" in found[6, 0]
    for key in ((6, 2), (20, 0), (20, 2)):
        assert "传到 320 格" in found[key]


def test_attention_shows_the_shares_of_the_model():
    torch.manual_seed(1)
    official = TwoWayTransformer(2, 16, 4, 20)
    mine = course.from_chapter("07_two_way", "TwoWayTransformer")(2, 16, 4, 20)
    mine.load_state_dict(official.state_dict())
    inputs = torch.randn(1, 16, 5, 5), torch.randn(1, 16, 5, 5), torch.randn(1, 7, 16)
    seen = []
    explorers.token_attention(
        mine, inputs, {"一": 0}, lambda ax, share, title: seen.append(share)
    )
    for share in seen:  # 一个头的、平均的，各是一份完整的份额
        assert share.shape == (25,)
        np.testing.assert_allclose(float(share.sum()), 1, rtol=1e-5)
    assert not any(m._forward_pre_hooks for m in mine.modules())


def test_an_error_is_said_below_the_picture():
    def broken(n):
        if n > 1:
            raise ValueError("太大")
        return Figure(figsize=(1, 1))

    panel = explorers.Panel(broken, n=explorers.slider("几", 1, 0, 3))
    panel._knobs["n"].value = 2
    assert "太大" in panel._words.value
    panel._knobs["n"].value = 0
    assert panel._words.value == ""
