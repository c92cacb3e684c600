"""numpy 的提示进门：不对的点名参数、说怎么改；几种写法意思相同。"""

import re
import warnings

import numpy as np
import pytest
import torch

from inputs.common import (
    BOX,
    BOXES,
    INF,
    LABELS,
    LOW_RES,
    NAN,
    POINTS,
    SEVERAL,
    H,
    W,
    reference,
    refuses,
)
from sam_lite.errors import SamLiteError, SamLiteWarning
from sam_lite.inputs.prompts import pad_points
from sam_lite.predictor import SamPredictor


def points(coords, labels=LABELS, **more) -> dict:
    return {"point_coords": coords, "point_labels": labels, **more}


def at(x: float, y: float, label: int = 1) -> dict:
    return points([[x, y]], [label])


BAD_PROMPTS = {
    "有点无标签": (points(POINTS, None), "point_labels", "成对"),
    "有标签无点": (points(None), "point_coords", "成对"),
    "标签少一个": (points(POINTS, LABELS[:1]), "point_labels", "(2,)"),
    "标签多一维": (points(POINTS, LABELS[None]), "point_labels", "(2,)"),
    "标签 2": (points(POINTS, [1, 2]), "point_labels", "box"),
    "标签 -2": (points(POINTS, [1, -2]), "point_labels", "填充"),
    "标签 0.5": (points(POINTS, [1, 0.5]), "point_labels", "填充"),
    "标签 NaN": (points(POINTS, [1, NAN]), "point_labels", "有限"),
    "标签是字": (points(POINTS, ["1", "0"]), "point_labels", "一组实数"),
    "标签含 None": (points(POINTS, [1, None]), "point_labels", "一组实数"),
    "点只有一层括号": (points(POINTS[0], [1]), "point_coords", "两层括号"),
    "点有三个数": (points(np.ones((2, 3))), "point_coords", "(N, 2)"),
    "点是四维": (points(np.ones((1, 1, 2, 2)), [[[1, 1]]]), "point_coords", "(N, 2)"),
    "一个点也没有": (points(np.zeros((0, 2)), []), "point_coords", "不传"),
    "空列表": (points([], []), "point_coords", "不传"),
    "行长不一": (points([[1, 2], [3]]), "point_coords", "个数要一样"),
    "点是字": (points([["1", "2"]], [1]), "point_coords", "一组实数"),
    "点是一句话": (points("10,20", [1]), "point_coords", "一组实数"),
    "点是复数": (points(POINTS + 0j), "point_coords", "一组实数"),
    "点是布尔": (points(POINTS > 20), "point_coords", "一组实数"),
    "点是字典": (points({"x": 1}), "point_coords", "一组实数"),
    "点是 NaN": (at(NAN, 3), "point_coords", "有限"),
    "点是无穷": (at(3, INF), "point_coords", "有限"),
    "填充点是 NaN": (at(NAN, 3, -1), "point_coords", "有限"),
    "点在左边外": (at(-0.5, 3), "point_coords", "0 ≤ x ≤ 80"),
    "点在右边外": (at(80.01, 3), "point_coords", "(80.01, 3)"),
    "点在上边外": (at(3, -1), "point_coords", "0 ≤ y ≤ 50"),
    "点在下边外": (at(3, 51), "point_coords", "x 在前"),
    "负点在外": (at(81, 3, 0), "point_coords", "(81, 3)"),
    "第二组点在外": (points(SEVERAL + 12, [[1, 0]] * 3), "point_coords", "(82, 45)"),
    "框不是四个数": ({"box": BOX[:3]}, "box", "四个数"),
    "框是两行两列": ({"box": BOX.reshape(2, 2)}, "box", "四个数"),
    "框是三维": ({"box": BOXES[None]}, "box", "(N, 4)"),
    "框是空列表": ({"box": []}, "box", "np.zeros((0, 4))"),
    "框左右颠倒": ({"box": BOX[[2, 1, 0, 3]]}, "box", "左上角在前"),
    "框上下颠倒": ({"box": BOX[[0, 3, 2, 1]]}, "box", "左上角在前"),
    "第三个框颠倒": ({"box": [*BOXES[:2], BOX[::-1]]}, "box", "[41.0, 60.0, 8.0, 5.0]"),
    "框是 NaN": ({"box": [1, 2, NAN, 4]}, "box", "有限"),
    "框是无穷": ({"box": [0, 0, INF, INF]}, "box", "有限"),
    "框是字": ({"box": "1,2,3,4"}, "box", "一组实数"),
    "框在右边外": ({"box": [81, 0, 99, 9]}, "box", "宽 80、高 50"),
    "框在左边外": ({"box": [-9, 0, -1, 9]}, "box", "相交"),
    "框在下边外": ({"box": [0, 51, 9, 60]}, "box", "相交"),
    "框在上边外": ({"box": [0, -9, 9, -1]}, "box", "相交"),
    "第二个框在外": ({"box": [BOX, BOX + 100]}, "box", "[105.0, 108.0, 160.0, 141.0]"),
    "几个框配一组点": (points(POINTS, box=BOXES), "point_coords", "np.repeat"),
    "几组点配一个框": (points(SEVERAL, [[1, 0]] * 3, box=BOX), "box", "(B, 4)"),
    "点和框组数不同": (points(SEVERAL, [[1, 0]] * 3, box=BOXES[:2]), "box", "3 个"),
    "几组点的标签一组": (points(SEVERAL), "point_labels", "(3, 2)"),
    "不等长而标签少一组": (
        points([[[1, 2]], [[3, 4], [5, 6]]], [[1]]),
        "list_of_labels",
        "2 项",
    ),
    "不等长而标签少一个": (
        points([[[1, 2]], [[3, 4], [5, 6]]], [[1], [1]]),
        "point_labels[1]",
        "2 个标签",
    ),
    "不等长而有三个数": (
        points([[[1, 2]], [[3, 4, 5], [5, 6, 7]]], [[1], [1, 1]]),
        "point_coords[1]",
        "(N, 2)",
    ),
    "掩码只有两维": ({"mask_input": LOW_RES[0]}, "mask_input", "mask_input[None]"),
    "掩码尺寸不对": ({"mask_input": LOW_RES[:, :16]}, "mask_input", "low_res[i]"),
    "掩码是三张": ({"mask_input": LOW_RES.repeat(3, 0)}, "mask_input", "low_res[i]"),
    "掩码是五维": ({"mask_input": LOW_RES[None, None]}, "mask_input", "(1, 32, 32)"),
    "掩码是布尔": ({"mask_input": LOW_RES > 0}, "mask_input", "np.where"),
    "掩码是 uint8": (
        {"mask_input": (LOW_RES > 0).astype("uint8")},
        "mask_input",
        "np.",
    ),
    "掩码有 NaN": ({"mask_input": LOW_RES * NAN}, "mask_input", "有限"),
    "掩码大得出奇": ({"mask_input": LOW_RES * 1e30}, "mask_input", "10000"),
    "掩码是一句话": ({"mask_input": "mask.png"}, "mask_input", "一组实数"),
    "掩码张数不对": (
        {"box": BOXES, "mask_input": LOW_RES[None].repeat(2, 0)},
        "mask_input",
        "3 张",
    ),
    "一组点配两张掩码": (
        points(POINTS, mask_input=LOW_RES[None].repeat(2, 0)),
        "point_coords",
        "(B, N, 2)",
    ),
    "multimask_output 是字": (
        {"multimask_output": "False"},
        "multimask_output",
        "True",
    ),
    "multimask_output 是 None": (
        {"multimask_output": None},
        "multimask_output",
        "True",
    ),
    "multimask_output 是 3": ({"multimask_output": 3}, "multimask_output", "True"),
    "return_logits 是字": ({"return_logits": "no"}, "return_logits", "True"),
    "return_logits 是数组": ({"return_logits": np.ones(2)}, "return_logits", "True"),
}


@pytest.mark.parametrize("kind", BAD_PROMPTS)
def test_bad_prompt(predictor: SamPredictor, kind: str) -> None:
    prompt, name, words = BAD_PROMPTS[kind]
    refuses(predictor, f"{name} 不对", words, lambda: predictor.predict(**prompt))


def same(predictor: SamPredictor, prompt: dict, other: dict) -> None:
    for a, b in zip(predictor.predict(**prompt), predictor.predict(**other)):
        np.testing.assert_array_equal(a, b)


EQUAL_PROMPTS = {
    "列表": points(POINTS.tolist(), LABELS.tolist(), box=BOX.tolist()),
    "元组": points(((10, 20), (70, 33)), (1, 0), box=(5, 8, 60, 41)),
    "整数": points(POINTS.astype(np.int16), LABELS.astype("i1"), box=BOX.astype(int)),
    "布尔标签": points(POINTS, [True, False], box=BOX),
    "张量": points(torch.tensor(POINTS), torch.tensor(LABELS), box=torch.tensor(BOX)),
    "bfloat16 张量": points(
        torch.tensor(POINTS).bfloat16(), torch.tensor(LABELS), box=torch.tensor(BOX)
    ),
    "要梯度的张量": points(
        torch.tensor(POINTS, requires_grad=True), LABELS, box=torch.tensor(BOX)
    ),
    "只读、跳着取": points(np.repeat(POINTS, 2, 0)[::2], LABELS, box=BOX[::-1][::-1]),
    "多一维的框": points(POINTS, LABELS, box=BOX[None]),
    "numpy 的开关": points(
        POINTS, box=BOX, multimask_output=np.True_, return_logits=np.False_
    ),
    "0 和 1 的开关": points(POINTS, box=BOX, multimask_output=1, return_logits=0),
}


@pytest.mark.parametrize("kind", EQUAL_PROMPTS)
def test_other_spellings_mean_the_same(predictor: SamPredictor, kind: str) -> None:
    same(predictor, EQUAL_PROMPTS[kind], points(POINTS, LABELS, box=BOX))


def test_border_belongs_to_the_picture(predictor: SamPredictor) -> None:
    corners = [[0, 0], [W, 0], [0, H], [W, H]]
    masks, scores, _ = predictor.predict(corners, [1, 1, 0, 0], [0, 0, W, H])
    assert masks.shape == (3, H, W) and np.isfinite(scores).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(box=[0, 3, 0, 9])  # 只有一列像素宽的物体，框就没有宽


def test_padding_point_may_lie_anywhere(predictor: SamPredictor) -> None:
    """标签 -1 的点：坐标不起作用，但这个词元本身起作用。"""
    far = points([[10, 20], [1e300, -1e9]], [1, -1])
    near = points([[10, 20], [0, 0]], [1, -1])
    same(predictor, far, near)
    alone = predictor.predict([[10, 20]], [1])
    assert np.abs(alone[2] - predictor.predict(**near)[2]).max() > 1e-3


def test_box_over_the_border_is_clipped_with_a_warning(predictor) -> None:
    with pytest.warns(SamLiteWarning, match="1 个 box 伸出了图像（宽 80、高 50）") as w:
        clipped = predictor.predict(box=[-5, 8, 60, 77])
    assert w[0].filename == __file__  # 警告指着调用的那一行
    for a, b in zip(clipped, predictor.predict(box=[0, 8, 60, H]), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(SamLiteWarning, match="2 个 box"):
        predictor.predict(box=[BOX, BOX + 30, BOX - 30])


def test_warning_can_be_made_an_error(predictor: SamPredictor) -> None:
    before = reference(predictor)
    with warnings.catch_warnings(), pytest.raises(SamLiteWarning):
        warnings.simplefilter("error", SamLiteWarning)
        predictor.predict(box=BOX + 30)
    for a, b in zip(reference(predictor), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("coords", "labels", "words"),
    [
        (3, [[1]], "list_of_coords"),
        ([[[1, 2]]], "1", "list_of_labels"),
        ([[[1, 2]]], np.array(1), "list_of_labels"),
        ([[[1, 2]]], [[1], [1]], "list_of_labels"),
        ([[1, 2]], [[1]], r"point_coords\[0\]"),
        ([[[1, 2]], [[1, NAN]]], [[1], [1]], r"point_coords\[1\]"),
        ([[[1, 2]], [[1, 2]]], [[1], ["a"]], r"point_labels\[1\]"),
        ([], [], "至少一个点"),
        ([[], []], [[], []], "至少一个点"),
    ],
)
def test_pad_points_refuses(coords, labels, words: str) -> None:
    with pytest.raises(SamLiteError, match=words):
        pad_points(coords, labels)


def test_errors_are_chinese_value_errors(predictor: SamPredictor) -> None:
    """旧代码 except ValueError 接得住；错误里的话是中文。"""
    with pytest.raises(ValueError) as caught:
        predictor.predict(box=[1, 2, 3])
    assert len(re.findall("[一-鿿]", str(caught.value))) > 10
