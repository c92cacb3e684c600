"""不改一行的 sam_lite 在 OneFlow 里：每一项都与 PyTorch 的结果相比。"""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from cases import CASES, photo, prompts, timings
from conftest import LARGEST, REFERENCE, SECONDS

import sam_lite
from sam_lite import ops
from sam_lite.attention import set_fused
from sam_lite.config import TINY
from sam_lite.errors import SamLiteError

TOLERANCE = 1e-4  # 嵌入、低分辨率的掩码、IoU 的绝对误差


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """最大的差；布尔的掩码是不同的像素占几成，框和点要一模一样。"""
    assert got.shape == wanted.shape
    if got.dtype == bool:
        return float((got != wanted).mean())
    if got.dtype.kind in "iu":
        np.testing.assert_array_equal(got, wanted)
    return float(np.abs(got.astype(float) - wanted).max(initial=0))


def test_torch_is_oneflow() -> None:
    assert torch.__name__ == "oneflow" and ops.oneflow.ACTIVE


@pytest.mark.parametrize("name", CASES)
def test_equals_pytorch(name: str) -> None:
    got = CASES[name](REFERENCE)
    with np.load(REFERENCE / f"{name}.npz") as wanted:
        assert list(got) == list(wanted)
        apart = {key: difference(got[key], wanted[key]) for key in got}
    if "stability" in apart:  # 数像素得来：恰在阈值上的一个像素，就差千分之几
        assert apart.pop("stability") <= 2e-3
    if name == "resize":  # 像素在 0–255 之间，相对地看
        apart = {key: value / 255 for key, value in apart.items()}
    LARGEST[name] = max(apart.values())
    limit = 0.0 if name.startswith("file_") else TOLERANCE  # 读文件不许有差
    worst = max(apart, key=lambda key: apart[key])
    assert apart[worst] <= limit, worst


def test_fast_path_equals_readable_path() -> None:
    sam = sam_lite.load("tiny")
    assert sam.image_encoder.blocks[0].attn.fused
    predictor = sam_lite.SamPredictor(sam)
    predictor.set_image(photo())
    fast = predictor.get_image_embedding().numpy().copy()
    set_fused(sam, False)
    predictor.set_image(photo())
    readable = predictor.get_image_embedding().numpy()
    assert 0 < np.abs(fast - readable).max() <= TOLERANCE


def test_saved_embedding_comes_back(tmp_path) -> None:
    predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
    predictor.set_image(photo())
    prompt = prompts(photo())["box_points"]
    expected = predictor.predict(**prompt)
    predictor.save_embedding(tmp_path / "a.safetensors")
    predictor.reset_image()
    predictor.load_embedding(tmp_path / "a.safetensors", photo())
    for a, b in zip(predictor.predict(**prompt), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_weights_come_back(tmp_path) -> None:
    sam = sam_lite.load("tiny")
    sam_lite.weights.save(sam, tmp_path / "a.safetensors", torch.float32)
    again = sam_lite.load(tmp_path / "a.safetensors").state_dict()
    for name, tensor in sam.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_no_prompts_and_no_masks_are_empty() -> None:
    """矩阵乘法遇到空张量会中止进程，所以一组也没有时不许走到那里。"""
    sam = sam_lite.load("tiny")
    predictor = sam_lite.SamPredictor(sam)
    predictor.set_image(photo())
    masks, iou, low_res = predictor.predict(box=np.zeros((0, 4)))
    side = sam.prompt_encoder.mask_input_size
    assert masks.shape == (0, 3, 303, 384) and low_res.shape == (0, 3, *side)
    assert iou.shape == (0, 3)
    generator = sam_lite.SamAutomaticMaskGenerator(sam, 4, pred_iou_thresh=9.0)
    assert generator.generate(photo()) == []
    generator = sam_lite.SamAutomaticMaskGenerator(sam, 4, stability_score_thresh=9.0)
    assert generator.generate(photo()) == []


def test_another_image_is_not_mistaken_for_the_last() -> None:
    """detach 会弄丢视图的起点；一批里的第二张，不许当作第一张。"""
    rows = torch.from_numpy(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert ops.detach(rows[1:])[1].tolist() == [4, 5]


class Trap:
    """读的时候会执行代码的对象。"""

    def __reduce__(self) -> tuple:
        return os.system, ("echo",)


BAD = {
    "不存在的显卡": (lambda path: sam_lite.load("tiny", device="cuda"), "device"),
    "认不得的设备": (lambda path: sam_lite.load("tiny", device="meta"), "device"),
    "半精度": (lambda path: sam_lite.load("tiny", dtype=torch.float16), "没有半精度"),
    "带代码的文件": (lambda path: sam_lite.load(path), "里有代码.*system"),
    "灰度图": (lambda path: ask(photo()[..., 0]), "灰度"),
    "图外的点": (lambda path: ask(photo(), x=9999), "point_coords"),
    "NaN 的图": (lambda path: ask_tensor(float("nan")), "NaN"),
}


def ask(image: np.ndarray, x: float = 9.0) -> None:
    predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
    predictor.set_image(image)
    predictor.predict(np.array([[x, 9.0]]), np.array([1]))


def ask_tensor(bad: float) -> None:
    side = TINY.image_size
    image = torch.ones(1, 3, side, 100)
    image[0, 1, 7, 7] = bad
    sam_lite.SamPredictor(sam_lite.load("tiny")).set_torch_image(image, (side, 100))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_chinese(name: str, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"x": Trap()}, protocol=2))
    work, words = BAD[name]
    with pytest.raises(SamLiteError, match=words):
        work(tmp_path / "a.pth")


def test_time_is_recorded() -> None:
    """不设上限，只记下来：一台机器上同一次运行里，与 PyTorch 的并排。"""
    SECONDS.update(timings(REFERENCE))
    assert min(SECONDS.values()) > 0
