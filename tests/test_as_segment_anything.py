"""一行之后，官方的名字都在、签名相同；照官方三个笔记本的用法写的程序，不改就能跑。"""

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from parity.official import segment_anything as official
from parity.test_parity_signatures import assert_same_signature

from sam_lite import SamAutomaticMaskGenerator

ROOT = Path(__file__).parent.parent


def run(program: str, *args) -> str:
    """在新的进程里先写那一行，再跑这段程序；返回它印的。"""
    program = "import sam_lite.as_segment_anything\n" + program
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def ours(monkeypatch):
    """官方的模块和我们的，同名放在一起；测完 sys.modules 里还是官方的。"""
    theirs = {
        k: v for k, v in sys.modules.items() if k.split(".")[0] == official.__name__
    }
    for name in theirs:
        monkeypatch.delitem(sys.modules, name)
    alias = importlib.import_module("sam_lite.as_segment_anything")
    alias.install()
    found = [(theirs[name], sys.modules[name]) for name in alias.NAMES]
    for name in alias.NAMES:
        monkeypatch.setitem(sys.modules, name, theirs[name])
    return found


def test_every_public_name_is_there_with_its_signature(ours):
    """官方每个模块里的类和函数，自己写的、从别的模块导入的，我们的都有。"""
    checked = 0
    for their_module, our_module in ours:
        for name, thing in vars(their_module).items():
            home = getattr(thing, "__module__", "")
            if name.startswith("_") or not home.startswith(official.__name__):
                continue
            where = f"{their_module.__name__}.{name}"
            assert hasattr(our_module, name), where
            our = getattr(our_module, name)
            assert our.__module__.startswith("sam_lite"), where
            if inspect.isfunction(thing):
                assert_same_signature(our, thing, where)
            checked += 1
    assert checked >= 70


@pytest.mark.parametrize("name", ["_generate_masks", "_process_crop", "_process_batch"])
def test_methods_that_people_override(name):
    """改写官方生成器的程序，多半改写这三个。"""
    pair = (
        inspect.signature(getattr(generator, name)).parameters
        for generator in (
            SamAutomaticMaskGenerator,
            official.SamAutomaticMaskGenerator,
        )
    )
    our, their = map(list, pair)
    assert our == their


PREDICTOR = """
import numpy as np, sys
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
import torch

image = np.array(Image.open(sys.argv[1]).convert("RGB"))
sam = sam_model_registry["tiny"]()
sam.to(device="cpu")
predictor = SamPredictor(sam)
predictor.set_image(image)
point, label = np.array([[300, 200]]), np.array([1])
masks, scores, logits = predictor.predict(
    point_coords=point, point_labels=label, multimask_output=True
)
masks, scores, _ = predictor.predict(
    point_coords=np.array([[300, 200], [20, 20]]), point_labels=np.array([1, 0]),
    mask_input=logits[np.argmax(scores)][None, :, :], multimask_output=False,
)
boxes = [[75, 75, 300, 200], [200, 100, 350, 300]]
boxes = torch.tensor(boxes, device=predictor.device)
moved = predictor.transform.apply_boxes_torch(boxes, image.shape[:2])
many, _, _ = predictor.predict_torch(
    point_coords=None, point_labels=None, boxes=moved, multimask_output=False
)
resize = ResizeLongestSide(sam.image_encoder.img_size)

def prepare(picture):
    picture = torch.as_tensor(resize.apply_image(picture))
    return picture.permute(2, 0, 1).contiguous()

box = resize.apply_boxes_torch(boxes, image.shape[:2])
asked = [{"image": prepare(image), "boxes": box, "original_size": image.shape[:2]}]
(batch,) = sam(asked, multimask_output=False)
print(masks.shape, tuple(many.shape), bool((batch["masks"] == many).all()))
"""

GENERATOR = """
import numpy as np, sys
from PIL import Image
from importlib.util import find_spec
import segment_anything
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.automatic_mask_generator import batched_nms
assert find_spec("segment_anything") and find_spec("segment_anything.utils.amg")
from segment_anything.utils.amg import (
    MaskData, area_from_rle, batch_iterator, box_xyxy_to_xywh, build_point_grid,
    coco_encode_rle, mask_to_rle_pytorch, remove_small_regions, rle_to_mask,
)
import torch

image = np.array(Image.open(sys.argv[1]).convert("RGB"))
class Counting(SamAutomaticMaskGenerator):
    asked = 0

    def _process_batch(self, points, im_size, crop_box, orig_size):
        assert tuple(orig_size) == image.shape[:2] and (points <= im_size[::-1]).all()
        self.asked += len(points)
        data = MaskData()
        data.cat(super()._process_batch(points, im_size, crop_box, orig_size))
        return data

generator = Counting(
    model=sam_model_registry["tiny"](), points_per_side=8, pred_iou_thresh=0.4,
    stability_score_thresh=0.5, crop_n_layers=1, crop_n_points_downscale_factor=2,
    min_mask_region_area=100,
)
masks = sorted(generator.generate(image), key=lambda mask: mask["area"], reverse=True)
assert generator.asked == 64 + 4 * 16
assert masks and set(masks[0]) == {
    "segmentation", "area", "bbox", "predicted_iou", "point_coords",
    "stability_score", "crop_box",
}
data = MaskData(boxes=torch.arange(8).reshape(2, 4), rles=["a", "b"])
data["scores"] = np.array([0.5, 0.75])
data.cat(MaskData(boxes=torch.zeros(1, 4), rles=["c"], scores=np.array([0.25])))
data.filter(torch.tensor([True, False, True]))
data.to_numpy()
print(data["boxes"].tolist(), data["rles"], data["scores"].tolist())
print([part[0].tolist() for part in batch_iterator(2, torch.arange(5), np.arange(5))])
far = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
scores = torch.tensor([0.5, 0.9, 0.7, 0.6])
print(batched_nms(far, scores, torch.tensor([0, 1, 1, 0]), 0.5).tolist())
print(box_xyxy_to_xywh(torch.tensor([[1, 2, 5, 9]])).tolist())
"""

ONNX = """
import numpy as np, onnxruntime, sys, torch, warnings
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.quantize import quantize_dynamic
from segment_anything import sam_model_registry
from segment_anything.utils.onnx import SamOnnxModel

sam = sam_model_registry["tiny"]()
model = SamOnnxModel(sam, return_single_mask=True)
width, (h, w) = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size
inputs = {
    "image_embeddings": torch.randn(1, width, h, w),
    "point_coords": torch.randint(0, 192, (1, 5, 2), dtype=torch.float),
    "point_labels": torch.randint(0, 4, (1, 5), dtype=torch.float),
    "mask_input": torch.randn(1, 1, 4 * h, 4 * w),
    "has_mask_input": torch.tensor([1], dtype=torch.float),
    "orig_im_size": torch.tensor([150, 225], dtype=torch.float),
}
file = sys.argv[1]
torch.onnx.export(
    model, tuple(inputs.values()), file, export_params=True, opset_version=17,
    do_constant_folding=True, input_names=list(inputs), dynamo=False,
    output_names=["masks", "iou_predictions", "low_res_masks"],
    dynamic_axes={"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
)
inputs["point_coords"] = inputs["point_coords"][:, :2]
inputs["point_labels"] = inputs["point_labels"][:, :2]
inputs["orig_im_size"] = torch.tensor([90, 40], dtype=torch.float)
session = onnxruntime.InferenceSession(file)
found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
for one, other in zip(found, model(*inputs.values())):
    np.testing.assert_allclose(one, other.detach(), rtol=1e-3, atol=1e-3)
quantize_dynamic(model_input=file, model_output=file + ".small",
                 weight_type=QuantType.QUInt8)
small = onnxruntime.InferenceSession(file + ".small")
print(found[0].shape, len(small.run(None, {k: v.numpy() for k, v in inputs.items()})))
"""


@pytest.fixture
def photo():
    return ROOT / "sam_lite" / "assets" / "photos" / "coins.jpg"


def test_predictor_notebook(photo):
    assert run(PREDICTOR, photo).split("\n")[0].endswith("True")


def test_generator_notebook(photo):
    boxes, pairs, kept, corner = run(GENERATOR, photo).strip().split("\n")
    assert (
        boxes == "[[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]] ['a', 'c'] [0.5, 0.25]"
    )
    assert json.loads(pairs) == [[0, 1], [2, 3], [4]]
    assert json.loads(kept) == [1, 3, 0]  # 第 2 个与第 1 个同类，被压住
    assert json.loads(corner) == [[1, 2, 4, 7]]


def test_onnx_notebook(tmp_path):
    assert run(ONNX, tmp_path / "sam.onnx").strip() == "(1, 1, 90, 40) 3"


def test_too_late():
    """官方包已经导入过，就说清楚，不悄悄用它。"""
    program = "import sam_lite.as_segment_anything as alias\nalias.install()\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, types\nsys.modules['segment_anything'] = "
         f"types.ModuleType('segment_anything')\n{program}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "移到程序的最前面" in done.stderr
