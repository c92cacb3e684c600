"""官方 `segment_anything` 作参照：不装 torchvision 也能导入，两边同权重、同输入。

官方包只用到 torchvision 的四个函数。这里用 Pillow 和 numpy 写出等价的替身，
只在导入的那一刻放进 `sys.modules`，导入后即撤下，不影响别的库判断
torchvision 是否存在。
"""

import importlib
import os
import sys
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch import nn

import sam_lite
from parity.small import SMALL, randomize
from sam_lite import (
    attention,
    image_encoder,
    mask_decoder,
    model,
    onnx_export,
    patch_embed,
    predictor,
    preprocess,
    prompt_encoder,
    two_way,
    weights,
    windows,
)


def _resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """等价于 torchvision 对 PIL 图的 `resize`：双线性，缩小时抗锯齿。"""
    height, width = size
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _box_area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """逐框的非极大值抑制，只在 `idxs` 相同的框之间进行；按分数从高到低返回。"""
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    keep: list[int] = []
    for i in order:
        rivals = [j for j in keep if idxs[j] == idxs[i]]
        if rivals:
            top_left = torch.maximum(boxes[rivals, :2], boxes[i, :2])
            bottom_right = torch.minimum(boxes[rivals, 2:], boxes[i, 2:])
            inter = (bottom_right - top_left).clamp(min=0).prod(dim=1)
            union = _box_area(boxes[rivals]) + _box_area(boxes[i : i + 1]) - inter
            if bool(((inter / union).double() > iou_threshold).any()):
                continue
        keep.append(i)
    return torch.tensor(keep, dtype=torch.int64, device=boxes.device)


def _torchvision_stub() -> dict[str, ModuleType]:
    names = ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional")
    stub = {f"torchvision{n}": ModuleType(f"torchvision{n}") for n in names}
    boxes = stub["torchvision.ops.boxes"]
    boxes.batched_nms, boxes.box_area = _batched_nms, _box_area
    functional = stub["torchvision.transforms.functional"]
    functional.resize, functional.to_pil_image = _resize, Image.fromarray
    return stub


def import_official() -> ModuleType:
    """导入官方包；没装则说明怎样装。"""
    stub = _torchvision_stub()
    before = {name: sys.modules.get(name) for name in stub}
    sys.modules.update(stub)
    try:
        importlib.import_module("segment_anything.utils.onnx")
        return importlib.import_module("segment_anything")
    except ModuleNotFoundError as error:
        how = "pip install --no-deps segment-anything-py==1.0.1"
        raise ImportError(f"与官方实现的对照测试要先执行：{how}") from error
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


segment_anything = import_official()


def _official_api() -> SimpleNamespace:
    encoder = sys.modules["segment_anything.modeling.image_encoder"]
    common = sys.modules["segment_anything.modeling.common"]
    prompts = sys.modules["segment_anything.modeling.prompt_encoder"]
    transformer = sys.modules["segment_anything.modeling.transformer"]
    decoder = sys.modules["segment_anything.modeling.mask_decoder"]
    transforms = sys.modules["segment_anything.utils.transforms"]
    onnx = sys.modules["segment_anything.utils.onnx"]
    return SimpleNamespace(
        ResizeLongestSide=transforms.ResizeLongestSide,
        PatchEmbed=encoder.PatchEmbed,
        Attention=encoder.Attention,
        get_rel_pos=encoder.get_rel_pos,
        add_decomposed_rel_pos=encoder.add_decomposed_rel_pos,
        window_partition=encoder.window_partition,
        window_unpartition=encoder.window_unpartition,
        MLPBlock=common.MLPBlock,
        LayerNorm2d=common.LayerNorm2d,
        Block=encoder.Block,
        ImageEncoderViT=encoder.ImageEncoderViT,
        PositionEmbeddingRandom=prompts.PositionEmbeddingRandom,
        PromptEncoder=prompts.PromptEncoder,
        TwoWayTransformer=transformer.TwoWayTransformer,
        TwoWayAttentionBlock=transformer.TwoWayAttentionBlock,
        DecoderAttention=transformer.Attention,
        MLP=decoder.MLP,
        MaskDecoder=decoder.MaskDecoder,
        Sam=segment_anything.modeling.Sam,
        SamPredictor=segment_anything.SamPredictor,
        SamOnnxModel=onnx.SamOnnxModel,
        build_sam=segment_anything.build_sam,
        build_sam_vit_h=segment_anything.build_sam_vit_h,
        build_sam_vit_l=segment_anything.build_sam_vit_l,
        build_sam_vit_b=segment_anything.build_sam_vit_b,
        sam_model_registry=segment_anything.sam_model_registry,
    )


def _our_api() -> SimpleNamespace:
    return SimpleNamespace(
        ResizeLongestSide=preprocess.ResizeLongestSide,
        PatchEmbed=patch_embed.PatchEmbed,
        Attention=attention.Attention,
        get_rel_pos=attention.get_rel_pos,
        add_decomposed_rel_pos=attention.add_decomposed_rel_pos,
        window_partition=windows.window_partition,
        window_unpartition=windows.window_unpartition,
        MLPBlock=image_encoder.MLPBlock,
        LayerNorm2d=image_encoder.LayerNorm2d,
        Block=image_encoder.Block,
        ImageEncoderViT=image_encoder.ImageEncoderViT,
        PositionEmbeddingRandom=prompt_encoder.PositionEmbeddingRandom,
        PromptEncoder=prompt_encoder.PromptEncoder,
        TwoWayTransformer=two_way.TwoWayTransformer,
        TwoWayAttentionBlock=two_way.TwoWayAttentionBlock,
        DecoderAttention=two_way.Attention,
        MLP=mask_decoder.MLP,
        MaskDecoder=mask_decoder.MaskDecoder,
        Sam=model.Sam,
        SamPredictor=predictor.SamPredictor,
        SamOnnxModel=onnx_export.SamOnnxModel,
        build_sam=weights.build_sam,
        build_sam_vit_h=weights.build_sam_vit_h,
        build_sam_vit_l=weights.build_sam_vit_l,
        build_sam_vit_b=weights.build_sam_vit_b,
        sam_model_registry=sam_lite.sam_model_registry,
    )


theirs = _official_api()
ours = _our_api()


def assemble(api: SimpleNamespace, **changes) -> nn.Module:
    """用 `api` 一方的类、官方签名，按小配置拼出整个 `Sam`。"""
    c = replace(SMALL, **changes)
    grid = c.grid_size
    sam = api.Sam(
        image_encoder=api.ImageEncoderViT(
            depth=c.depth,
            embed_dim=c.embed_dim,
            img_size=c.image_size,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=c.num_heads,
            patch_size=c.patch_size,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=c.global_attn_indexes,
            window_size=c.window_size,
            out_chans=c.prompt_embed_dim,
        ),
        prompt_encoder=api.PromptEncoder(
            embed_dim=c.prompt_embed_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(c.image_size, c.image_size),
            mask_in_chans=c.mask_in_chans,
        ),
        mask_decoder=api.MaskDecoder(
            num_multimask_outputs=3,
            transformer=api.TwoWayTransformer(
                depth=2,
                embedding_dim=c.prompt_embed_dim,
                mlp_dim=c.decoder_mlp_dim,
                num_heads=c.decoder_heads,
            ),
            transformer_dim=c.prompt_embed_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=c.iou_head_hidden_dim,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return sam.eval()


def same_weights(
    their_module: nn.Module, our_module: nn.Module, seed: int = 0
) -> tuple:
    """官方模块随机化后，状态字典原样（strict）装进对应的模块；返回（我们，官方）。"""
    randomize(their_module, seed)
    our_module.load_state_dict(their_module.state_dict(), strict=True)
    return our_module.eval(), their_module.eval()


def pair(name: str, *args, seed: int = 0, **kwargs) -> tuple:
    """两边各建一个 `name`，参数相同、权重相同；返回（我们，官方）。"""
    their_module = getattr(theirs, name)(*args, **kwargs)
    return same_weights(their_module, getattr(ours, name)(*args, **kwargs), seed)


def sam_pair(seed: int = 0, **changes) -> tuple:
    """两边的整个 `Sam`（我们的由配置装出），权重相同；返回（我们，官方）。"""
    our_sam = model.sam_from_config(replace(SMALL, **changes))
    return same_weights(assemble(theirs, **changes), our_sam, seed)


LARGEST: dict[str, float] = {}  # 每个测试函数见到的最大相对误差，由 conftest 打印


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max|a − b| / max|b|，b 是官方的结果。"""
    difference = (actual.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max())


def assert_near(actual, expected, tolerance: float = 1e-5) -> None:
    """形状、类型相同，相对误差不超过 `tolerance`；元组逐项比较。"""
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple) and len(actual) == len(expected)
        for ours_item, their_item in zip(actual, expected, strict=True):
            assert_near(ours_item, their_item, tolerance)
        return
    assert type(actual) is type(expected)
    assert actual.dtype == expected.dtype
    assert tuple(actual.shape) == tuple(expected.shape)
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    assert expected.isfinite().all()
    if expected.numel() == 0:
        return
    assert expected.abs().max() > 0, "官方的输出全为零，比较没有意义"
    difference = relative_difference(actual.detach(), expected.detach())
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split("[")[0].split(" ")[0]
    LARGEST[test] = max(LARGEST.get(test, 0.0), difference)
    assert difference <= tolerance, f"相对误差 {difference:.2e} > {tolerance:.0e}"


def assert_same_masks(actual, expected, logits, tolerance: float = 1e-5) -> None:
    """布尔掩码相同；只有 logit 绝对值小于误差的像素可以落在零的另一侧。"""
    assert type(actual) is type(expected)
    assert actual.dtype == expected.dtype and str(actual.dtype).endswith("bool")
    assert tuple(actual.shape) == tuple(expected.shape)
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert 0.02 < expected.mean() < 0.98, "掩码全亮或全灭，比较没有意义"
    logits = np.abs(np.asarray(logits))
    assert not ((actual != expected) & (logits > tolerance * logits.max())).any()
