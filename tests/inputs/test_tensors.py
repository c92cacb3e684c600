"""张量进门：set_torch_image、predict_torch、Sam.forward 收到的。"""

import warnings

import numpy as np
import pytest
import torch

from inputs.common import BOXES, NAN, PICTURE, SEVERAL, H, W, refuses
from sam_lite.errors import SamLiteWarning
from sam_lite.model import Sam
from sam_lite.predictor import SamPredictor

IMAGE = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(0)) * 255
BAD_TENSOR_IMAGES = {
    "三维": ((IMAGE[0], (H, W)), "transformed_image", "(1, 3, 高, 宽)"),
    "两张": ((IMAGE.repeat(2, 1, 1, 1), (H, W)), "transformed_image", "(1, 3"),
    "四个通道": ((torch.zeros(1, 4, 40, 64), (H, W)), "transformed_image", "(1, 3"),
    "通道在后": ((IMAGE.permute(0, 2, 3, 1), (H, W)), "transformed_image", "通道在前"),
    "没有缩放": ((torch.zeros(1, 3, H, W), (H, W)), "transformed_image", "缩放"),
    "缩得太小": ((torch.zeros(1, 3, 20, 32), (H, W)), "transformed_image", "缩放"),
    "零宽": ((torch.zeros(1, 3, 64, 0), (H, W)), "transformed_image", "(1, 3"),
    "numpy 数组": ((IMAGE.numpy(), (H, W)), "transformed_image", "as_tensor"),
    "int64": ((IMAGE.long(), (H, W)), "transformed_image", ".float()"),
    "布尔": ((IMAGE > 99, (H, W)), "transformed_image", ".float()"),
    "复数": ((IMAGE + 0j, (H, W)), "transformed_image", ".float()"),
    "有 NaN": ((IMAGE * NAN, (H, W)), "transformed_image", "有限"),
    "有无穷": ((IMAGE / 0, (H, W)), "transformed_image", "有限"),
    "别的设备": ((IMAGE.to("meta"), (H, W)), "transformed_image", ".to('cpu')"),
    "高宽颠倒": ((IMAGE, (W, H)), "original_image_size", "高在前"),
    "别的长宽比": ((IMAGE, (H, W + 20)), "original_image_size", "(40, 64)"),
    "大小是负数": ((IMAGE, (-H, -W)), "original_image_size", "正整数"),
    "大小是零": ((IMAGE, (0, 0)), "original_image_size", "正整数"),
    "大小三个数": ((IMAGE, (H, W, 3)), "original_image_size", "image.shape[:2]"),
    "大小是小数": ((IMAGE, (50.5, 80.0)), "original_image_size", "正整数"),
    "大小是 None": ((IMAGE, None), "original_image_size", "正整数"),
    "大小是字": ((IMAGE, "50x80"), "original_image_size", "正整数"),
    "大小是 NaN": ((IMAGE, (NAN, 80)), "original_image_size", "正整数"),
}


@pytest.mark.parametrize("kind", BAD_TENSOR_IMAGES)
def test_bad_tensor_image(predictor: SamPredictor, kind: str) -> None:
    given, name, words = BAD_TENSOR_IMAGES[kind]
    refuses(predictor, f"{name} 不对", words, lambda: predictor.set_torch_image(*given))


@pytest.mark.parametrize(
    "size", [(H, W), [H, W], np.array([H, W]), torch.Size([H, W]), (H + 1, W)]
)
def test_original_size_spellings(predictor: SamPredictor, size) -> None:
    """列表、数组、torch.Size 都行；取整差一个像素也行。"""
    predictor.set_torch_image(IMAGE, size)
    assert predictor.original_size == (int(size[0]), W)
    assert type(predictor.original_size) is tuple


@pytest.mark.parametrize("image", [IMAGE / 255, (IMAGE - 128) / 60])
def test_scaled_pixels_give_a_warning(predictor: SamPredictor, image) -> None:
    """0–1 的、规范化过的图：算得出来，多半不是本意。"""
    with pytest.warns(SamLiteWarning, match="0–255") as caught:
        predictor.set_torch_image(image, (H, W))
    assert caught[0].filename == __file__


def test_black_and_usual_tensors_give_no_warning(predictor: SamPredictor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in (IMAGE, IMAGE * 0, IMAGE.byte(), IMAGE.half(), IMAGE - 0.5):
            predictor.set_torch_image(image, (H, W))


POINT_T, LABEL_T = torch.tensor(SEVERAL), torch.tensor([[1, 0]] * 3)
BOX_T, MASK_T = torch.tensor(BOXES), torch.zeros(3, 1, 32, 32)
BAD_TENSORS = {
    "点无标签": ((POINT_T, None), "point_labels", "成对"),
    "标签无点": ((None, LABEL_T), "point_coords", "成对"),
    "numpy 点": ((SEVERAL, LABEL_T), "point_coords", "as_tensor"),
    "列表标签": ((POINT_T, [[1, 0]] * 3), "point_labels", "as_tensor"),
    "点少一维": ((POINT_T[0], LABEL_T[0]), "point_coords", "(B, N, 2)"),
    "点三个数": ((torch.zeros(3, 2, 3), LABEL_T), "point_coords", "(B, N, 2)"),
    "点是布尔": ((POINT_T > 9, LABEL_T), "point_coords", "浮点"),
    "点是复数": ((POINT_T + 0j, LABEL_T), "point_coords", "浮点"),
    "点有 NaN": ((POINT_T * NAN, LABEL_T), "point_coords", "有限"),
    "点有无穷": ((POINT_T / 0, LABEL_T), "point_coords", "有限"),
    "标签形状": ((POINT_T, LABEL_T[:, :1]), "point_labels", "(3, 2)"),
    "标签 2": ((POINT_T, LABEL_T + 1), "point_labels", "boxes"),
    "标签 0.5": ((POINT_T, LABEL_T / 2), "point_labels", "填充"),
    "标签 255": ((POINT_T, LABEL_T.byte() - 1), "point_labels", "填充"),
    "框少一维": ((None, None, BOX_T[0]), "boxes", "(B, 4)"),
    "框两角": ((None, None, BOX_T.reshape(3, 2, 2)), "boxes", "(B, 4)"),
    "框颠倒": ((None, None, BOX_T.flip(1)), "boxes", "左上角"),
    "框有 NaN": ((None, None, BOX_T * NAN), "boxes", "有限"),
    "numpy 框": ((None, None, BOXES), "boxes", "as_tensor"),
    "组数不同": ((POINT_T, LABEL_T, BOX_T[:2]), "boxes", "3 个"),
    "掩码少一维": ((None, None, None, MASK_T[0]), "mask_input", "(B, 1, 32, 32)"),
    "掩码尺寸": ((None, None, None, MASK_T[..., :9]), "mask_input", "32"),
    "掩码是布尔": ((None, None, None, MASK_T > 0), "mask_input", "浮点"),
    "掩码是整数": ((None, None, None, MASK_T.int()), "mask_input", "浮点"),
    "掩码有 NaN": ((None, None, None, MASK_T + NAN), "mask_input", "有限"),
    "掩码太大": ((None, None, None, MASK_T + 1e9), "mask_input", "10000"),
    "掩码张数": ((None, None, BOX_T, MASK_T[:2]), "mask_input", "3 张"),
    "点在别的设备": ((POINT_T.to("meta"), LABEL_T), "point_coords", ".to('cpu')"),
    "框在别的设备": ((None, None, BOX_T.to("meta")), "boxes", ".to('cpu')"),
    "开关是字": ((None, None, BOX_T, None, "yes"), "multimask_output", "True"),
    "另一个开关": ((None, None, BOX_T, None, True, "no"), "return_logits", "True"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_bad_tensor_prompt(predictor: SamPredictor, kind: str) -> None:
    given, name, words = BAD_TENSORS[kind]
    refuses(predictor, f"{name} 不对", words, lambda: predictor.predict_torch(*given))


def test_masks_of_tensors_may_be_shared(predictor: SamPredictor) -> None:
    """B 组提示共用一张掩码、一组提示配几张掩码，官方都收。"""
    assert predictor.predict_torch(None, None, BOX_T, MASK_T[:1])[1].shape == (3, 3)
    assert predictor.predict_torch(None, None, BOX_T[:1], MASK_T)[2].shape[0] == 3


RECORD = {"image": IMAGE[0], "original_size": (H, W)}
NAMES = ("point_coords", "point_labels", "boxes", "mask_inputs")
BAD_RECORDS = {
    "写错的键": ({"box": BOX_T}, "batched_input[1]", "多出 ['box']"),
    "认不得的键": ({3: BOX_T}, "batched_input[1]", "多出 ['3']"),
    "缺图": ({"image": None}, "['image']", "张量"),
    "图多一维": ({"image": IMAGE}, "['image']", "(3, 高, 宽)"),
    "图太大": ({"image": torch.zeros(3, 40, 65)}, "['image']", "ResizeLongestSide(64)"),
    "图有 NaN": ({"image": IMAGE[0] * NAN}, "['image']", "有限"),
    "图是 int64": ({"image": IMAGE[0].long()}, "['image']", "浮点"),
    "图是数组": ({"image": PICTURE}, "['image']", "as_tensor"),
    "图在别的设备": ({"image": IMAGE[0].to("meta")}, "['image']", ".to('cpu')"),
    "没有大小": ({"original_size": None}, "['original_size']", "正整数"),
    "大小是零": ({"original_size": (0, 9)}, "['original_size']", "正整数"),
    "点无标签": ({"point_coords": POINT_T}, "['point_labels']", "成对"),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_bad_record(predictor: SamPredictor, kind: str) -> None:
    change, name, words = BAD_RECORDS[kind]
    records = [RECORD, RECORD | change]
    refuses(predictor, name, words, lambda: predictor.model(records, True))


@pytest.mark.parametrize("kind", ["点有 NaN", "标签 2", "框颠倒", "掩码张数"])
def test_bad_prompt_in_a_record(predictor: SamPredictor, kind: str) -> None:
    """查的办法同 predict_torch，只是错误里叫记录里的名字。"""
    given, name, words = BAD_TENSORS[kind]
    record = RECORD | dict(zip(NAMES, given, strict=False))
    name = name.replace("mask_input", "mask_inputs")
    name = f"batched_input[0]['{name}'] 不对"
    refuses(predictor, name, words, lambda: predictor.model([record], True))


@pytest.mark.parametrize("given", [RECORD, [], (), None, [None], ["image"], 3, IMAGE])
def test_bad_batched_input(predictor: SamPredictor, given) -> None:
    refuses(predictor, "batched_input", "字典", lambda: predictor.model(given, True))
    words = "True 或 False"
    refuses(
        predictor, "multimask_output", words, lambda: predictor.model([RECORD], "yes")
    )


def test_record_may_hold_none(small_sam: Sam) -> None:
    """写成 None 的提示等于没有写；原图大小给张量也行。"""
    with torch.no_grad():
        bare = small_sam([RECORD | {"boxes": BOX_T}], True)[0]
        record = RECORD | dict.fromkeys(NAMES) | {"boxes": BOX_T}
        record["original_size"] = torch.tensor([H, W])
        full = small_sam([record], True)[0]
    for key, value in bare.items():
        assert torch.equal(value, full[key]), key
