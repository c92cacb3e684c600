"""第 10 章：读权重。"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parity.small import randomize
from safetensors.torch import save_file

import sam_lite
from sam_lite.config import PRESETS, TINY, VIT_B
from sam_lite.errors import SamLiteError
from sam_lite.model import Sam, sam_from_config
from sam_lite.weights import load_as, recognize
from sam_lite.weights import save as save_half


@pytest.fixture(scope="module")
def tiny() -> Sam:
    """tiny 的尺寸、随机的权重。"""
    return randomize(sam_from_config(TINY)).eval()


def save(tiny: Sam, path: Path) -> Path:
    state = tiny.state_dict()
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def assert_same_state(model: Sam, expected: Sam) -> None:
    state, reference = model.state_dict(), expected.state_dict()
    assert list(state) == list(reference)
    for name, tensor in reference.items():
        assert torch.equal(state[name], tensor), name


def test_registry() -> None:
    """登记表有官方四个名字和 tiny；`default` 就是 vit_h。"""
    registry = sam_lite.sam_model_registry
    assert set(registry) == {"default", "vit_h", "vit_l", "vit_b", "tiny"}
    assert registry["default"] is registry["vit_h"] is sam_lite.build_sam_vit_h
    assert sam_lite.build_sam is sam_lite.build_sam_vit_h
    assert registry["vit_b"] is sam_lite.build_sam_vit_b
    assert registry["vit_l"] is sam_lite.build_sam_vit_l


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_path(tiny: Sam, tmp_path: Path, suffix: str) -> None:
    """两种格式都能按路径读，尺寸从张量里认出，处于 eval；官方的登记表也一样。"""
    path = save(tiny, tmp_path / f"mine{suffix}")
    registry = sam_lite.sam_model_registry
    for model in (sam_lite.load(path), registry["tiny"](checkpoint=str(path))):
        assert isinstance(model, Sam) and not model.training
        assert_same_state(model, tiny)
        assert model.device == torch.device("cpu")


def test_build_without_checkpoint() -> None:
    """官方尺寸不给权重就是随机初始化，处于 eval。"""
    with torch.device("meta"):
        model = sam_lite.sam_model_registry["vit_b"]()
    assert not model.training
    assert len(model.state_dict()) == 314


def test_save(tiny: Sam, tmp_path: Path) -> None:
    """`save` 存成 float16，体积减半；读回来是 float32，每个数都是舍入后的值。"""
    path = tmp_path / "small.safetensors"
    save_half(tiny, path)
    count = sum(t.numel() for t in tiny.state_dict().values())
    assert 2 * count < path.stat().st_size < 2.1 * count
    with pytest.raises(SamLiteError, match=r"path.*\.safetensors"):
        save_half(tiny, tmp_path / "a.pth")
    assert [file.name for file in tmp_path.iterdir()] == ["small.safetensors"]
    state = sam_lite.load(path).state_dict()
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(state[name], tensor.half().float()), name


def test_load_dtype(tiny: Sam, tmp_path: Path) -> None:
    """`dtype` 与 `device` 在读的时候给出。"""
    path = save(tiny, tmp_path / "mine.safetensors")
    model = sam_lite.load(path, device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in model.buffers()} == {torch.bfloat16}
    assert not model.training


@pytest.mark.parametrize("name", PRESETS)
def test_recognise(name: str) -> None:
    """四个尺寸都能只凭张量的形状认出来。"""
    with torch.device("meta"):
        state = sam_from_config(PRESETS[name]).state_dict()
    assert recognize(state) == PRESETS[name]


# ---- 换输入边长 ------------------------------------------------------------------


def test_own_image_size_changes_nothing(tiny: Sam, tmp_path: Path) -> None:
    """边长写成原来的，一个数都不动。"""
    path = save(tiny, tmp_path / "mine.pth")
    assert_same_state(sam_lite.load(path, image_size=TINY.image_size), tiny)
    assert_same_state(load_as(TINY, path), tiny)


@pytest.mark.parametrize("size", [96, 256])
def test_image_size(tiny: Sam, tmp_path: Path, size: int) -> None:
    """换边长：只有绝对位置编码和全局层的相对位置表变了，编码器照样工作。"""
    sam = sam_lite.load(save(tiny, tmp_path / "mine.pth"), image_size=size)
    grid = size // TINY.patch_size
    before, state = tiny.state_dict(), sam.state_dict()
    changed = {k for k in before if before[k].shape != state[k].shape}
    expected = {"image_encoder.pos_embed"} | {
        f"image_encoder.blocks.{i}.attn.rel_pos_{axis}"
        for i in TINY.global_attn_indexes
        for axis in "hw"
    }
    assert changed == expected
    for name in set(before) - expected:
        assert torch.equal(before[name], state[name]), name
    assert sam.image_encoder.img_size == sam.prompt_encoder.input_image_size[0] == size
    with torch.no_grad():
        assert sam.image_encoder(torch.randn(1, 3, size, size)).shape[2:] == (grid,) * 2


@torch.no_grad()
def test_resized_tables_match_the_official_rule(tiny: Sam, tmp_path: Path) -> None:
    """先插值再用，与官方“用到时才插值”（get_rel_pos）的输出相同。"""
    path = save(tiny, tmp_path / "mine.pth")
    sam = sam_lite.load(path, image_size=256)
    late = sam_lite.load(path, image_size=256)
    for i in TINY.global_attn_indexes:
        for axis in ("rel_pos_h", "rel_pos_w"):
            table = getattr(tiny.image_encoder.blocks[i].attn, axis)
            setattr(late.image_encoder.blocks[i].attn, axis, table)
    x = torch.randn(1, 3, 256, 256)
    torch.testing.assert_close(sam.image_encoder(x), late.image_encoder(x))


def test_position_embedding_keeps_its_place(tiny: Sam, tmp_path: Path) -> None:
    """位置编码按位置插值：一张从左到右的坡，缩放之后还是坡，高宽没有弄反。"""
    state = tiny.state_dict()
    grid = TINY.grid_size
    ramp = torch.linspace(-1, 1, grid)[None, None, :, None]  # 沿宽变化
    state["image_encoder.pos_embed"] = ramp.expand(1, grid, grid, 160).contiguous()
    torch.save(state, tmp_path / "ramp.pth")
    sam = sam_lite.load(tmp_path / "ramp.pth", image_size=256)
    row = sam.image_encoder.pos_embed[0, :, :, 0]  # (32, 32)
    assert torch.allclose(row, row[:1].expand(32, 32))
    assert (row[0].diff()[2:-2] > 0).all()


def test_resized_weights_are_recognised_after_saving(tiny: Sam, tmp_path: Path) -> None:
    """换过边长的模型存下来，读回来边长还在。"""
    sam = sam_lite.load(save(tiny, tmp_path / "mine.pth"), image_size=320)
    save_half(sam, tmp_path / "resized.safetensors", torch.float32)
    again = sam_lite.load(tmp_path / "resized.safetensors")
    assert again.image_encoder.img_size == 320 and again.name == "tiny"
    assert_same_state(again, sam)


# ---- 换图像块和窗口，好接着训练 ------------------------------------------------------


@pytest.mark.parametrize("patch, window", [(16, 6), (16, 5), (32, 3)])
def test_other_shapes_are_recognised(patch: int, window: int) -> None:
    """图像块、窗口、边长和预设不同的 tiny，尺寸从形状认出。"""
    config = replace(TINY, image_size=192, patch_size=patch, window_size=window)
    with torch.device("meta"):
        state = sam_from_config(config).state_dict()
    assert recognize(state) == config


@torch.no_grad()
def test_load_as_another_shape(tiny: Sam, tmp_path: Path) -> None:
    """换边长、图像块、窗口：只插值该插的；平坦的图，图像块的输出不变。"""
    path = save(tiny, tmp_path / "mine.pth")
    patch, window = TINY.patch_size * 2, TINY.window_size - 2
    config = replace(TINY, image_size=320, patch_size=patch, window_size=window)
    sam = load_as(config, path)
    before, state = tiny.state_dict(), sam.state_dict()
    changed = {k for k in before if before[k].shape != state[k].shape}
    tables = {k for k in before if "rel_pos" in k}
    kernel = "image_encoder.patch_embed.proj.weight"
    assert changed == tables | {"image_encoder.pos_embed", kernel}
    for name in set(before) - changed:
        assert torch.equal(before[name], state[name]), name
    grey = torch.full((1, 3, 320, 320), 0.7)
    old = tiny.image_encoder.patch_embed(
        grey[..., : TINY.image_size, : TINY.image_size]
    )
    new = sam.image_encoder.patch_embed(grey)
    torch.testing.assert_close(new[0, 0, 0], old[0, 0, 0], rtol=1e-4, atol=1e-4)
    assert sam.image_encoder(grey).shape[2:] == (config.grid_size,) * 2


def test_load_as_refuses_another_model(tmp_path: Path) -> None:
    with pytest.raises(SamLiteError, match="是 tiny 的权重，装不进 vit_b"):
        load_as(VIT_B, "tiny")


@pytest.mark.parametrize("size", [-16, 100, 48, 256.0, True])
def test_bad_image_size(size: object) -> None:
    with pytest.raises(SamLiteError, match="image_size.*8 的整数倍、不小于 56"):
        sam_lite.load("tiny", image_size=size)


def test_missing_official_weights_name_the_command(tmp_path, monkeypatch) -> None:
    """官方权重还没下载：说出下载的命令和放的地方。"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAM_LITE_HOME", str(tmp_path / "home"))
    with pytest.raises(SamLiteError, match="sam-lite download vit_l.*home"):
        sam_lite.load("vit_l")


@pytest.mark.parametrize("name, meant", [("vit-b", "vit_b"), ("tinny", "tiny")])
def test_unknown_model_name_suggests_one(name: str, meant: str) -> None:
    with pytest.raises(SamLiteError, match=f"'{name}'.*是不是 '{meant}'"):
        sam_lite.load(name)


def test_shipped_tiny() -> None:
    """`load("tiny")` 与登记表的 tiny 都带着随包的权重，不大于 10 MB。"""
    model, again = sam_lite.load("tiny"), sam_lite.sam_model_registry["tiny"]()
    assert_same_state(again, model)
    assert not model.training and not again.training
    assert model.image_encoder.blocks[0].attn.rel_pos_h.abs().max() > 0
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assets = Path(sam_lite.__file__).parent / "assets"
    files = list(assets.glob("*.safetensors"))
    assert files and all(f.stat().st_size <= 10_000_000 for f in files)
