"""一次提示怎么解码：没有掩码提示时走快路，一张图只准备一次。

快路在 ``mask_decoder_fast.py``，慢而易读的在 ``mask_decoder.py``。
"""

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import torch
from torch import nn

from .image_encoder import LayerNorm2d, MLPBlock
from .mask_decoder import MLP, MaskDecoder
from .mask_decoder_fast import ImageDecoder, Part
from .model import Sam
from .prompt_encoder import PromptEncoder
from .two_way import Attention, TwoWayAttentionBlock, TwoWayTransformer


class PromptDecoder:
    """提示 -> 低分辨率的掩码：能走快路就走，并记住这张图的快路，下次再用。"""

    def __init__(self) -> None:
        self.fast: ImageDecoder | None = None
        self.made_for: Any = None  # 为哪个嵌入、哪个解码器、什么权重算的

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
        掩码提示，或解码器不是原样的，就照走 MaskDecoder，一批给完，不看 min_iou。
        """
        coords, labels, boxes, mask_input = prompts
        points = None if coords is None else (coords, labels)
        encoder = model.prompt_encoder
        sparse, dense = encoder(points=points, boxes=boxes, masks=mask_input)
        if mask_input is None and is_plain(model.mask_decoder):
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
        """这张图的快路；换了图、换了解码器，或权重改过，就重新算。"""
        encoder, decoder = model.prompt_encoder, model.mask_decoder
        dense = encoder.no_mask_embed.weight[:, :, None, None]  # (1, C, 1, 1)
        made_for = image_embedding, decoder, weights_mark(encoder, decoder)
        if self.fast is None or not same(made_for, self.made_for):
            pe = encoder.get_dense_pe()
            self.fast = ImageDecoder(decoder, image_embedding, pe, dense)
            self.made_for = made_for
        return self.fast


def same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """同一个嵌入、同一个解码器（比身份，不比数值），权重的记号也相等。"""
    return a[0] is b[0] and a[1] is b[1] and a[2] == b[2]


PARTS = {MaskDecoder, TwoWayTransformer, TwoWayAttentionBlock, Attention, MLP, MLPBlock}
PARTS |= {nn.Linear, nn.Embedding, nn.LayerNorm, LayerNorm2d, nn.ConvTranspose2d}
PARTS |= {nn.ModuleList, nn.Sequential, nn.ReLU, nn.GELU}


def is_plain(decoder: nn.Module) -> bool:
    """解码器的每个部件都是原来的类，没有钩子，forward 没有被换掉。"""
    return all(
        type(module) in PARTS
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in vars(module)
        for module in decoder.modules()
    )


def weights_mark(encoder: PromptEncoder, decoder: MaskDecoder) -> tuple[Any, ...]:
    """快路预先用到的权重的记号：在别处改过（训练、动手改坏），就对不上了。

    版本号记着普通的原地改动；绕过它的 ``weight.data`` 要靠总和看出来。
    """
    transformer: Any = decoder.transformer
    used = [encoder.no_mask_embed.weight, *encoder.pe_layer.buffers()]
    used += transformer.final_attn_token_to_image.parameters()
    for layer in transformer.layers:
        used += layer.cross_attn_token_to_image.parameters()
        used += layer.cross_attn_image_to_token.parameters()
    sums = torch.stack([w.detach().sum(dtype=torch.float32) for w in used])
    marks = [(w.data_ptr(), w._version) for w in used]
    return marks, sums.tolist(), vars(encoder).get("get_dense_pe")
