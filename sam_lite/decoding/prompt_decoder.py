"""一次提示怎么解码：没有掩码提示时走快路，一张图只准备一次。

快路在 ``fast.py``，慢而易读的在 ``mask_decoder.py``；走哪条，快路何时作废，都在这里。
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .. import ops
from ..image_encoder import LayerNorm2d, MLPBlock
from ..mask_decoder import MLP, MaskDecoder
from ..model import Sam
from ..prompt_encoder import PositionEmbeddingRandom, PromptEncoder
from ..two_way import Attention, TwoWayAttentionBlock, TwoWayTransformer
from .fast import ImageDecoder, Part, above, pick

# 快路每个词元、每个头都要和整张图像乘一遍，词元一多，还不如把图像投影一次；在 vit_b
# 上两条路在二三十个点处一样快
MANY = 20


class PromptDecoder:
    """提示 -> 低分辨率的掩码：能走快路就走，并记住为这张图预先算好的，下次再用。

    归预测器所有，换图就换新的。规矩只有一条：提示编码器、掩码解码器、图像嵌入里，有一个
    张量换过或原地改过，就重新准备（marks）；有一个部件不是原来的类、挂着钩子、换掉了
    方法，就不走快路，照走 MaskDecoder。

    “原地改过”看张量的 ``_version``：``weight.data.mul_(2)`` 这样的改法它数不到，改完再
    ``set_image`` 一次。数不到的张量（推理模式里造的、OneFlow 的）每次都重新准备。
    """

    def __init__(self) -> None:
        self.fast: ImageDecoder | None = None
        self.made_for: Any = None  # 准备时的记号
        self.held: list[torch.Tensor] = []  # 准备时的张量：占着内存，地址才不会被别人用

    @torch.no_grad()
    def __call__(
        self,
        model: Sam,
        image_embedding: torch.Tensor,
        prompts: Sequence[Any],
        multimask_output: bool,
    ) -> Iterator[Part]:
        """编码提示、解码，一小批一小批地给出，同 ImageDecoder.decode。

        prompts 是 point_coords、point_labels、boxes、mask_input，同 predict_torch。走易
        读的路时，一批给完。
        """
        sparse, dense = encode_prompts(model, prompts)
        if len(sparse) == 0:  # 一组也没有，不必算；OneFlow 乘空矩阵会中止进程
            yield nothing(model, multimask_output)
        elif fast := self.prepare(model, image_embedding, sparse, prompts):
            yield from fast.decode(sparse, multimask_output)
        else:
            found = readable(model, image_embedding, sparse, dense, multimask_output)
            yield torch.arange(len(sparse)), *found

    @torch.no_grad()
    def candidates(
        self,
        model: Sam,
        image_embedding: torch.Tensor,
        prompts: Sequence[Any],
        min_iou: float | None,
    ) -> Iterator[Part]:
        """每组三张，只给预测的 IoU 大于 min_iou 的，同 ImageDecoder.candidates。"""
        sparse, dense = encode_prompts(model, prompts)
        if fast := self.prepare(model, image_embedding, sparse, prompts):
            yield from fast.candidates(sparse, min_iou)
        else:
            low_res, iou = readable(model, image_embedding, sparse, dense, True)
            rows = torch.arange(len(sparse))
            yield pick(rows, low_res, iou, above(iou, min_iou))

    def prepare(
        self,
        model: Sam,
        image_embedding: torch.Tensor,
        sparse: torch.Tensor,
        prompts: Sequence[Any],
    ) -> ImageDecoder | None:
        """这张图的快路，头一次、或内容变了才重新算；走不了快路是 None。"""
        encoder, decoder = model.prompt_encoder, model.mask_decoder
        if prompts[3] is not None or sparse.shape[1] > MANY:
            return None
        tensors = plain_tensors(encoder, decoder)
        if tensors is None:
            return None
        tensors.append(image_embedding)
        row = encoder.no_mask_embed.weight  # (1, C)
        # 混合精度里，同样的张量乘出别的类型
        made_for = [(row @ row.T).dtype, *marks(tensors)]
        if self.fast is None or self.made_for != made_for:
            pe = encoder.get_dense_pe()
            dense = row[:, :, None, None]  # (1, C, 1, 1)
            self.fast = ImageDecoder(decoder, image_embedding, pe, dense)
            self.made_for = made_for
            self.held = [tensor.detach() for tensor in tensors]
        return self.fast


def encode_prompts(
    model: Sam, prompts: Sequence[Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """点、标签、框、掩码 -> 稀疏嵌入 ``(B, N, C)``、稠密嵌入 ``(B, C, h, w)``。"""
    coords, labels, boxes, masks = prompts
    points = None if coords is None else (coords, labels)
    return model.prompt_encoder(points=points, boxes=boxes, masks=masks)


def readable(
    model: Sam,
    image_embedding: torch.Tensor,
    sparse: torch.Tensor,
    dense: torch.Tensor,
    multimask_output: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """易读的路：就是 MaskDecoder。"""
    return model.mask_decoder(
        image_embeddings=image_embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask_output,
    )


def nothing(model: Sam, multimask: bool) -> Part:
    """零组提示的结果，形状照常。"""
    weight = model.prompt_encoder.no_mask_embed.weight
    height, width = model.prompt_encoder.mask_input_size
    count = model.mask_decoder.num_multimask_outputs if multimask else 1
    iou = weight.new_zeros((0, count))
    return torch.arange(0), weight.new_zeros((0, count, height, width)), iou


# ---- 原样、记号 --------------------------------------------------------------

PARTS = {MaskDecoder, TwoWayTransformer, TwoWayAttentionBlock, Attention, MLP, MLPBlock}
PARTS |= {PromptEncoder, PositionEmbeddingRandom, LayerNorm2d, nn.Conv2d}
PARTS |= {nn.Linear, ops.Linear, nn.Embedding, nn.LayerNorm, nn.ConvTranspose2d}
PARTS |= {nn.ModuleList, nn.Sequential, nn.ReLU, nn.GELU}


def plain_tensors(*wholes: nn.Module) -> list[torch.Tensor] | None:
    """每个部件的全部张量；有一个部件不是原样，就是 None。

    原样：是原来的类，没有钩子，没有哪个方法被换掉。直接改类（``MaskDecoder.forward =
    …``）看不出来，别这样用。
    """
    modules: list[Any] = list(wholes)
    found: list[torch.Tensor] = []
    for module in modules:  # 边走边添；nn.Module.modules() 一层套一层，慢得多
        plain = (
            type(module) in PARTS
            and not module._forward_hooks
            and not module._forward_pre_hooks
            and methods(module.__class__).isdisjoint(vars(module))
        )
        if not plain:
            return None
        for kept in (module._parameters, module._buffers):
            found += [tensor for tensor in kept.values() if tensor is not None]
        modules.extend(module._modules.values())
    return found


def marks(tensors: list[torch.Tensor]) -> list[Any]:
    """张量的记号：有一个换过、改过就不同；有一个数不到改了几次，就每次都不同。"""
    if ops.oneflow.ACTIVE or any(map(torch.Tensor.is_inference, tensors)):
        return [object()]
    return [(tensor.data_ptr(), tensor.dtype, tensor._version) for tensor in tensors]


@functools.cache
def methods(kind: Any) -> frozenset[str]:
    """一个类里能调用的名字；实例自己又有一个，就是被换掉了。"""
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))
