"""一行之后，为官方包写的程序不改就能跑：``import segment_anything`` 得到 sam_lite。

写在程序的最前面::

    import sam_lite.as_segment_anything

往后 ``segment_anything``、``segment_anything.utils.amg`` 等名字都指向 sam_lite，
装没装官方包都一样，也不要 torchvision。做法同第 14 章的 ``mock_torch``：导入系统先查
``sys.modules``，把造好的模块放进去就行。
"""

import sys
from collections.abc import Iterator
from copy import deepcopy
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .attention import Attention, add_decomposed_rel_pos, get_rel_pos
from .auto_mask import SamAutomaticMaskGenerator
from .errors import SamLiteError
from .image_encoder import Block, ImageEncoderViT, LayerNorm2d, MLPBlock
from .mask_decoder import MLP, MaskDecoder
from .masks import crops, measure, records, regions, rle
from .masks.nms import box_area, nms
from .model import Sam
from .onnx_export import SamOnnxModel
from .patch_embed import PatchEmbed
from .predictor import SamPredictor
from .preprocess import ResizeLongestSide
from .prompt_encoder import PositionEmbeddingRandom, PromptEncoder
from .two_way import Attention as DecoderAttention
from .two_way import TwoWayAttentionBlock, TwoWayTransformer
from .weights import (
    build_sam_vit_b,
    build_sam_vit_h,
    build_sam_vit_l,
    sam_model_registry,
)
from .windows import window_partition, window_unpartition


class MaskData(records.MaskData):
    """一批掩码的各项，官方的方法都有：改写官方生成器的程序用它。"""

    def cat(self, new_stats: "MaskData") -> None:
        """接上另一批；自己还没有的项，照新的来。"""
        for name, value in new_stats.items():
            old = self.get(name)
            if old is None:
                self[name] = deepcopy(value)
            elif isinstance(value, torch.Tensor):
                self[name] = torch.cat([old, value])
            elif isinstance(value, np.ndarray):
                self[name] = np.concatenate([old, value])
            else:
                self[name] = old + value

    def to_numpy(self) -> None:
        """张量都换成 numpy 数组。"""
        for name, value in self.items():
            if isinstance(value, torch.Tensor):
                self[name] = value.detach().cpu().numpy()


def batch_iterator(batch_size: int, *args: Any) -> Iterator[list[Any]]:
    """几个一样长的序列，一同切成每批 batch_size 个。"""
    for start in range(0, len(args[0]), batch_size):
        yield [column[start : start + batch_size] for column in args]


def box_xyxy_to_xywh(box_xyxy: torch.Tensor) -> torch.Tensor:
    """框 ``(..., 4)``，单位像素：两个角 -> 左上角和宽高。"""
    box = box_xyxy.clone()
    box[..., 2:] -= box[..., :2]
    return box


def batched_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor,
    iou_threshold: float,
) -> torch.Tensor:
    """只在 idxs 相同的框之间做 NMS，同 ``torchvision.ops.batched_nms``。

    形状：``(N, 4)``、``(N,)``、``(N,)`` -> 留下的下标，按分数从高到低。
    """
    # 每一类挪到互不相交的地方，合起来做一次
    boxes = boxes.float()
    span = boxes.max() - boxes.min() + 1 if len(boxes) else 0
    return nms(boxes + (idxs.to(boxes) * span)[:, None], scores, iou_threshold)


BUILDERS = {
    "build_sam": build_sam_vit_h,
    "build_sam_vit_h": build_sam_vit_h,
    "build_sam_vit_l": build_sam_vit_l,
    "build_sam_vit_b": build_sam_vit_b,
    "sam_model_registry": sam_model_registry,
}


def named(*things: Any) -> dict[str, Any]:
    """类和函数，按它们自己的名字。"""
    return {thing.__name__: thing for thing in things}


PARTS = named(Sam, ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer)
AMG = named(
    *(MaskData, batch_iterator, box_xyxy_to_xywh),
    *(crops.build_point_grid, crops.build_all_layer_point_grids),
    *(crops.generate_crop_boxes, crops.is_box_near_crop_edge),
    *(crops.uncrop_boxes_xyxy, crops.uncrop_points, crops.uncrop_masks),
    *(measure.batched_mask_to_box, measure.calculate_stability_score),
    *(rle.mask_to_rle_pytorch, rle.rle_to_mask, rle.area_from_rle),
    *(rle.coco_encode_rle, regions.remove_small_regions),
)

# 官方的模块 -> 里面的名字，连它从别处导入的也有：抄走一段官方代码的程序会用到
NAMES: dict[str, dict[str, Any]] = {
    "segment_anything": BUILDERS | named(SamPredictor, SamAutomaticMaskGenerator),
    "segment_anything.build_sam": BUILDERS | PARTS,
    "segment_anything.predictor": named(SamPredictor, Sam, ResizeLongestSide),
    "segment_anything.automatic_mask_generator": AMG
    | named(SamAutomaticMaskGenerator, SamPredictor, Sam, batched_nms, box_area),
    "segment_anything.modeling": PARTS,
    "segment_anything.modeling.common": named(LayerNorm2d, MLPBlock),
    "segment_anything.modeling.image_encoder": named(
        *(ImageEncoderViT, Block, Attention, PatchEmbed, LayerNorm2d, MLPBlock),
        *(window_partition, window_unpartition, get_rel_pos, add_decomposed_rel_pos),
    ),
    "segment_anything.modeling.mask_decoder": named(MaskDecoder, MLP, LayerNorm2d),
    "segment_anything.modeling.prompt_encoder": named(
        PromptEncoder, PositionEmbeddingRandom, LayerNorm2d
    ),
    "segment_anything.modeling.sam": named(
        Sam, ImageEncoderViT, MaskDecoder, PromptEncoder
    ),
    "segment_anything.modeling.transformer": named(
        TwoWayTransformer, TwoWayAttentionBlock, DecoderAttention, MLPBlock
    ),
    "segment_anything.utils": {},
    "segment_anything.utils.amg": AMG,
    "segment_anything.utils.onnx": named(
        SamOnnxModel, Sam, measure.calculate_stability_score
    ),
    "segment_anything.utils.transforms": named(ResizeLongestSide),
}


def install() -> None:
    """造好上面那些模块，放进 ``sys.modules``。

    错误：官方包已经导入过了，抛 SamLiteError：先前导入的名字改不了。
    """
    loaded = sys.modules.get("segment_anything")
    if loaded is not None and loaded.__doc__ != __doc__:
        raise SamLiteError(
            "segment_anything 已经导入，换不成 sam_lite："
            "把 import sam_lite.as_segment_anything 移到程序的最前面"
        )
    for name, contents in NAMES.items():
        module = ModuleType(name, __doc__)
        module.__path__ = []  # 有它才算包，里面的模块才导入得到
        module.__spec__ = ModuleSpec(name, None, is_package=True)  # find_spec 要看
        vars(module).update(contents)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent and child not in NAMES[parent]:
            # 官方的 build_sam 既是模块又是函数，包里留函数
            setattr(sys.modules[parent], child, module)


install()
