"""第 9 章：整个 Sam。"""

import pytest
import torch
from parity.small import SMALL

from sam_lite.attention import set_fused
from sam_lite.config import PRESETS, TINY
from sam_lite.errors import SamLiteError
from sam_lite.model import Sam, sam_from_config


def records() -> list[dict]:
    """两张大小不同的图：一张给点，一张给框和掩码。"""
    torch.manual_seed(1)
    return [
        {
            "image": torch.rand(3, 48, 64) * 255,
            "original_size": (96, 128),
            "point_coords": torch.rand(2, 3, 2) * 48,
            "point_labels": torch.tensor([[1, 0, -1], [0, 1, 1]]),
        },
        {
            "image": torch.rand(3, 64, 40) * 255,
            "original_size": (32, 20),
            "boxes": torch.tensor([[3.0, 4.0, 30.0, 50.0]]),
            "mask_inputs": torch.randn(1, 1, 32, 32),
        },
    ]


@pytest.mark.parametrize("multimask, count", [(True, 3), (False, 1)])
def test_output_shapes(small_sam: Sam, multimask: bool, count: int) -> None:
    """每张图一个字典：掩码是原图大小的布尔值，另有 IoU 和低分辨率 logit。"""
    first, second = small_sam(records(), multimask)
    assert first["masks"].shape == (2, count, 96, 128)
    assert second["masks"].shape == (1, count, 32, 20)
    assert first["masks"].dtype == torch.bool
    assert 0 < first["masks"].float().mean() < 1
    assert first["iou_predictions"].shape == (2, count)
    assert first["low_res_logits"].shape == (2, count, 32, 32)


def test_pictures_do_not_mix(small_sam: Sam) -> None:
    """两张图一起算与分开算，结果相同。"""
    together = small_sam(records(), True)
    for record, result in zip(records(), together, strict=True):
        alone = small_sam([record], True)[0]
        for key in ("low_res_logits", "iou_predictions"):
            torch.testing.assert_close(result[key], alone[key], atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(small_sam: Sam) -> None:
    """梯度穿过整个 forward，传到每个参数。"""
    loss = torch.zeros(())
    for multimask in (True, False):
        for out in small_sam(records(), multimask):
            for key in ("low_res_logits", "iou_predictions"):
                loss = loss + (out[key] * torch.randn_like(out[key])).sum()
    loss.backward()
    for name, parameter in small_sam.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("k_proj.bias"):  # 它不影响 softmax
            assert parameter.grad.abs().sum() > 0, name


def test_no_grad(small_sam: Sam) -> None:
    """调用者写了 no_grad，输出就不带梯度；不写则带。"""
    assert small_sam(records(), True)[0]["low_res_logits"].requires_grad
    with torch.no_grad():
        out = small_sam(records(), True)[0]
    assert not out["low_res_logits"].requires_grad
    assert not out["iou_predictions"].requires_grad


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float16, 0.02), (torch.bfloat16, 0.15)]
)
def test_half_precision(small_sam: Sam, dtype: torch.dtype, tolerance: float) -> None:
    """半精度模型吃 float32 的输入，输出是半精度，与 float32 的结果相近。"""
    matrix = small_sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    matrix.copy_(matrix.to(dtype).float())  # 频率舍入后再比较
    with torch.no_grad():
        expected = small_sam(records(), True)
        results = small_sam.to(dtype)(records(), True)
    for result, reference in zip(results, expected, strict=True):
        assert result["masks"].dtype == torch.bool
        for key in ("low_res_logits", "iou_predictions"):
            assert result[key].dtype == dtype
            difference = (result[key].float() - reference[key]).abs().max()
            assert difference / reference[key].abs().max() < tolerance


def test_eager_equals_fused(small_sam: Sam) -> None:
    """整个模型的两条路相差不超过 1e-5。"""
    with torch.no_grad():
        fused = small_sam(records(), True)
        eager = set_fused(small_sam, False)(records(), True)
    for a, b in zip(fused, eager, strict=True):
        for key in ("low_res_logits", "iou_predictions"):
            assert (a[key] - b[key]).abs().max() / b[key].abs().max() <= 1e-5


def test_postprocess_removes_padding(small_sam: Sam) -> None:
    """只在填充区为正的 logit，后处理之后一个像素也不剩；反过来则全为正。"""
    logits = -torch.ones(1, 1, 32, 32)
    logits[..., 20:, :] = 1  # 输入是 64×64，图只占上面 32 行，即低分辨率的 16 行
    assert (small_sam.postprocess_masks(logits, (32, 64), (100, 200)) < 0).all()
    result = small_sam.postprocess_masks(-logits, (32, 64), (100, 200))
    assert result.shape == (1, 1, 100, 200) and (result > 0).all()


def test_postprocess_keeps_place(small_sam: Sam) -> None:
    """左半为正的 logit，放回原图仍是左半，边界相差不到一个像素。"""
    logits = -torch.ones(1, 1, 32, 32)
    logits[..., :16] = 1
    masks = small_sam.postprocess_masks(logits, (48, 64), (96, 128)) > 0
    columns = masks[0, 0].float().mean(0)
    assert columns[:63].min() == 1 and columns[65:].max() == 0


def test_preprocess_pads(small_sam: Sam) -> None:
    """平均颜色规范化后为零，所以填充与纯平均色的图分不出来。"""
    mean = small_sam.pixel_mean.expand(3, 20, 64)
    assert torch.equal(small_sam.preprocess(mean), torch.zeros(3, 64, 64))
    picture = torch.randint(0, 256, (3, 20, 64), dtype=torch.uint8)
    result = small_sam.preprocess(picture)
    assert result.dtype == torch.float32 and result[:, 20:].abs().max() == 0
    assert result[:, :20].abs().max() > 0


def test_parts_fit_config() -> None:
    """从尺寸表装出的模型，各处尺寸都照表。"""
    sam = sam_from_config(SMALL)
    assert sam.image_encoder.img_size == 64
    assert len(sam.image_encoder.blocks) == 3
    assert sam.prompt_encoder.mask_input_size == (32, 32)
    assert sam.mask_decoder.transformer.mlp_dim == 40
    assert not {"pixel_mean", "pixel_std"} & set(sam.state_dict())


def test_presets() -> None:
    """四个预设都在一张表里；tiny 的窗口不整除网格，填充是真的。"""
    assert set(PRESETS) == {"tiny", "vit_b", "vit_l", "vit_h"}
    assert TINY.grid_size % TINY.window_size != 0
    for name, config in PRESETS.items():
        assert config.name == name and config.embed_dim % config.num_heads == 0
        assert max(config.global_attn_indexes) == config.depth - 1


@pytest.mark.parametrize(
    "name, count",
    [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)],
)
def test_parameter_counts(name: str, count: int) -> None:
    """三个官方尺寸的参数总数（在 meta 设备上数，不占内存）。"""
    with torch.device("meta"):
        sam = sam_from_config(PRESETS[name])
    assert sum(p.numel() for p in sam.parameters()) == count


@pytest.mark.parametrize(
    "change",
    [
        {"box": torch.zeros(1, 4)},
        {"point_coords": torch.zeros(1, 1, 2)},
        {"image": None},
    ],
    ids=["写错的键", "有点无标签", "缺图"],
)
def test_forward_refuses_bad_records(small_sam: Sam, change: dict) -> None:
    """写错键名、点没有标签、没有图，都是点名 batched_input 的错误，不会悄悄忽略。"""
    record = {"image": torch.zeros(3, 40, 64), "original_size": (40, 64)} | change
    record = {key: value for key, value in record.items() if value is not None}
    with pytest.raises(SamLiteError, match="batched_input"):
        small_sam([record], multimask_output=False)
