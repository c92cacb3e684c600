"""第 10 章：笔记本里的函数与 sam_lite 一致。"""

import pickle

import pytest
import torch

from chapters.common import course
from sam_lite import weights
from sam_lite.config import PRESETS
from sam_lite.files import huggingface as weights_huggingface
from sam_lite.model import sam_from_config

STEM = "10_weights"

# ---- 笔记本里的函数 -------------------------------------------------------------


def shapes(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return sam_from_config(PRESETS[name]).state_dict()


@pytest.fixture(scope="module")
def tiny() -> dict[str, torch.Tensor]:
    return weights.load("tiny").state_dict()


@pytest.mark.parametrize("name", PRESETS)
def test_recognize_agrees_with_package(name: str) -> None:
    recognize = course.from_chapter(STEM, "recognize")
    state = shapes(name)
    assert recognize(state) == weights.recognize(state).name == name


def test_recognize_refuses_strangers() -> None:
    recognize = course.from_chapter(STEM, "recognize")
    state = shapes("vit_b")
    del state["image_encoder.blocks.3.norm1.weight"]
    assert recognize(state) == "vit_b"  # 少一个名字不影响认型号，对账才查它
    state = {n: t for n, t in state.items() if ".blocks.3." not in n}
    with pytest.raises(LookupError, match="11 层"):
        recognize(state)


@pytest.mark.parametrize("name", PRESETS)
def test_rename_agrees_with_package(name: str) -> None:
    """整本字典换过去再换回来，每个张量回到自己的名字下，与包里的函数相同。"""
    rename = course.from_chapter(STEM, "rename")
    table = weights_huggingface.NAMES
    state = shapes(name)
    theirs = weights_huggingface.to_huggingface(state)
    for key in [*theirs, "stranger.weight", "vision_encoder.layers.3.layer_norm12.x"]:
        assert rename(key, table) == weights_huggingface.rename(key, table)
    del theirs[weights_huggingface.DUPLICATE]
    back = {rename(key, table): tensor for key, tensor in theirs.items()}
    assert set(back) == set(state)
    assert all(back[key] is state[key] for key in state)


def test_replace_collides() -> None:
    """笔记本里说逐行 replace 会撞名，确实会。"""
    careless = course.from_chapter(STEM, "rename_by_replace")
    table = course.from_chapter(STEM, "TOY")
    layers = ("proj_in", "layers.0", "proj_out")
    names = {careless(f"iou_prediction_head.{layer}", table) for layer in layers}
    assert len(names) == 2


def test_compare_finds_each_fault() -> None:
    compare = course.from_chapter(STEM, "compare")
    expected = shapes("vit_b")
    key, other = "mask_decoder.iou_token.weight", "image_encoder.neck.0.weight"
    assert compare(expected, expected) == ([], [], [])
    spoiled = {**expected, "stranger": torch.zeros(1), other: torch.zeros(2, 3)}
    del spoiled[key]
    assert compare(expected, spoiled) == ([key], ["stranger"], [other])


def test_assemble_agrees_with_package(tiny: dict[str, torch.Tensor]) -> None:
    """笔记本的 assemble 装出的模型，名字、数值、均值都与 sam_lite.load 的相同。"""
    assemble = course.from_chapter(STEM, "assemble")
    theirs = weights.load("tiny")
    mine = assemble(PRESETS["tiny"], tiny)
    assert not mine.training
    assert list(mine.state_dict()) == list(tiny)
    for name, tensor in mine.state_dict().items():
        assert torch.equal(tensor, tiny[name]), name
    assert torch.equal(mine.pixel_mean, theirs.pixel_mean)
    assert torch.equal(mine.pixel_std, theirs.pixel_std)
    image = torch.rand(3, 40, 56) * 255
    torch.testing.assert_close(mine.preprocess(image), theirs.preprocess(image))
    with pytest.raises(ValueError, match="iou_token"):
        wrong = {n: t for n, t in tiny.items() if "iou_token" not in n}
        assemble(PRESETS["tiny"], wrong)


def test_wanted_looks_without_executing() -> None:
    wanted = course.from_chapter(STEM, "wanted")

    class Note:
        def __reduce__(self):
            return print, ("不该看到这一句",)

    program = pickle.dumps(Note(), protocol=2)
    assert dict(wanted(program)) == {"__builtin__ print": 1}


def test_fingerprint_sees_names_and_numbers() -> None:
    """对调两个同形状的张量、改一个数，指纹都变；换次序不变。"""
    fingerprint = course.from_chapter(STEM, "fingerprint")
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    base = fingerprint({"h": a, "w": b})
    assert base == fingerprint({"w": b.clone(), "h": a})
    assert base != fingerprint({"h": b, "w": a})
    assert base != fingerprint({"h": a, "v": b})
    assert base != fingerprint({"h": a, "w": b + 1e-6})
    assert base != fingerprint({"h": a.T.contiguous(), "w": b})
