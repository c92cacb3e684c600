"""一次提示怎么解码：没有掩码提示时走快路，一张图只准备一次。

快路在 ``mask_decoder_fast.py``，慢而易读的在 ``mask_decoder.py``。
"""

import functools
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import torch
from torch import nn

from .. import ops
from ..decoding.fast import ImageDecoder, Part
from ..image_encoder import LayerNorm2d, MLPBlock
from ..mask_decoder import MLP, MaskDecoder
from ..model import Sam
from ..prompt_encoder import PositionEmbeddingRandom, PromptEncoder
from ..two_way import Attention, TwoWayAttentionBlock, TwoWayTransformer

# 快路每个词元、每个头都要和整张图像乘一遍，词元一多，还不如把图像投影一次；在 vit_b
# 上两条路在二三十个点处一样快
MANY = 20


class PromptDecoder:
    """提示 -> 低分辨率的掩码：能走快路就走，并记住这张图的快路，下次再用。"""

    def __init__(self) -> None:
        self.fast: ImageDecoder | None = None
        self.made_for: Any = None  # 算的时候用到的张量的记号

    @torch.no_grad()
    def __call__(
        self,
        model: Sam,
        image_embedding: torch.Tensor,
        prompts: Sequence[Any],
        multimask_output: bool,
        min_iou: float = -inf,
    ) -> Iterator[Part]:
        """编码提示、解码，一小批一小批地给出，同 ImageDecoder.decode。

        prompts 是 point_coords、point_labels、boxes、mask_input，同 predict_torch。有
        掩码提示，一组里词元太多，或解码器不是原样的，就照走 MaskDecoder，一批给完，不看
        min_iou。
        """
        coords, labels, boxes, mask_input = prompts
        points = None if coords is None else (coords, labels)
        encoder = model.prompt_encoder
        sparse, dense = encoder(points=points, boxes=boxes, masks=mask_input)
        if len(sparse) == 0:  # 一组也没有，不必算；OneFlow 乘空矩阵会中止进程
            yield nothing(encoder, model.mask_decoder, multimask_output)
            return
        few = mask_input is None and sparse.shape[1] <= MANY
        if few and is_plain(model.mask_decoder) and is_plain(encoder):
            fast = self.refresh(model, image_embedding)
            yield from fast.decode(sparse, multimask_output, min_iou)
            return
        low_res, iou = model.mask_decoder(
            image_embeddings=image_embedding,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        yield torch.arange(len(low_res)), low_res, iou

    def refresh(self, model: Sam, image_embedding: torch.Tensor) -> ImageDecoder:
        """这张图的快路；换了图，或用到的权重改过，就重新算。"""
        encoder, decoder = model.prompt_encoder, model.mask_decoder
        dense = encoder.no_mask_embed.weight[:, :, None, None]  # (1, C, 1, 1)
        made_for = used_tensors_mark(encoder, decoder, image_embedding)
        if self.fast is None or self.made_for != made_for:
            pe = encoder.get_dense_pe()
            self.fast = ImageDecoder(decoder, image_embedding, pe, dense)
            self.made_for = made_for
        return self.fast


def nothing(encoder: PromptEncoder, decoder: MaskDecoder, multimask: bool) -> Part:
    """零组提示的结果，形状照常。"""
    weight, (height, width) = encoder.no_mask_embed.weight, encoder.mask_input_size
    count = decoder.num_multimask_outputs if multimask else 1
    iou = weight.new_zeros((0, count))
    return torch.arange(0), weight.new_zeros((0, count, height, width)), iou


PARTS = {MaskDecoder, TwoWayTransformer, TwoWayAttentionBlock, Attention, MLP, MLPBlock}
PARTS |= {PromptEncoder, PositionEmbeddingRandom, LayerNorm2d, nn.Conv2d}
PARTS |= {nn.Linear, ops.Linear, nn.Embedding, nn.LayerNorm, nn.ConvTranspose2d}
PARTS |= {nn.ModuleList, nn.Sequential, nn.ReLU, nn.GELU}


def is_plain(whole: nn.Module) -> bool:
    """每个部件都是原来的类，没有钩子，没有哪个方法被换掉。

    直接改类（``MaskDecoder.forward = …``）看不出来，别这样用。
    """
    return all(
        type(module) in PARTS
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not any(callable(getattr(type(module), name, 0)) for name in vars(module))
        for module in whole.modules()
    )


@torch.no_grad()
def used_tensors_mark(
    encoder: PromptEncoder, decoder: MaskDecoder, image_embedding: torch.Tensor
) -> tuple[Any, ...]:
    """快路预先用到的张量的记号：在别处改过（训练、动手改坏），就对不上了。

    每个张量与一串渐大的系数做点积：改一个数、调换两个数，结果都会变。混合精度里同样的
    张量乘出别的类型，所以也记下乘法的结果是什么类型。
    """
    transformer: Any = decoder.transformer
    used = [image_embedding, encoder.no_mask_embed.weight, *encoder.pe_layer.buffers()]
    used += transformer.final_attn_token_to_image.parameters()
    for layer in transformer.layers:
        used += layer.cross_attn_token_to_image.parameters()
        used += layer.cross_attn_image_to_token.parameters()
    flat = [w.flatten().float() for w in used]
    sums = [w.dot(ramp(len(w), w.device)) for w in flat]
    row = encoder.no_mask_embed.weight  # (1, C)
    return id(decoder), (row @ row.T).dtype, torch.stack(sums).tolist()


@functools.lru_cache(maxsize=64)
def ramp(length: int, device: torch.device) -> torch.Tensor:
    """从 1 到 2 的系数，``(length,)``。"""
    return torch.linspace(1, 2, length, device=device)
