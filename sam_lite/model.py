"""第 9 章：Sam，把三个部分装起来，加上预处理和后处理。"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .config import SamConfig
from .image_encoder import ImageEncoderViT
from .inputs.tensors import check_batched_input
from .mask_decoder import MaskDecoder
from .preprocess import PIXEL_MEAN, PIXEL_STD, normalize_and_pad
from .prompt_encoder import PromptEncoder
from .two_way import TwoWayTransformer


class Sam(nn.Module):
    """整个模型：图像和提示进去，掩码出来。

    对应官方 ``modeling/sam.py``。与官方不同的一处：``forward`` 不关梯度，要省内存就
    自己写 ``with torch.no_grad():``。

    参数：
        image_encoder、prompt_encoder、mask_decoder: 三个部分。
        pixel_mean、pixel_std: 各通道的均值与标准差，不写进权重文件。
    """

    mask_threshold: float = 0.0
    image_format: str = "RGB"
    name: str = "custom"  # 型号名，sam_from_config 会填上；自己拼的模型不在任何预设里
    pixel_mean: torch.Tensor  # (3, 1, 1)
    pixel_std: torch.Tensor  # (3, 1, 1)

    def __init__(
        self,
        image_encoder: ImageEncoderViT,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        pixel_mean: list[float] = list(PIXEL_MEAN),  # noqa: B006 与官方签名一致
        pixel_std: list[float] = list(PIXEL_STD),  # noqa: B006
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        mean = torch.tensor(pixel_mean, dtype=torch.float32).reshape(-1, 1, 1)
        std = torch.tensor(pixel_std, dtype=torch.float32).reshape(-1, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """模型所在的设备。"""
        return self.pixel_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """权重的浮点类型；图像在进编码器之前转成它。"""
        return self.prompt_encoder.no_mask_embed.weight.dtype

    def forward(
        self, batched_input: list[dict[str, Any]], multimask_output: bool
    ) -> list[dict[str, torch.Tensor]]:
        """一批图像，各带各的提示。

        参数：
            batched_input: 每张图像一个字典，``image`` 形状 ``(3, H', W')``，最长边已
                缩放到输入边长，像素值 0–255；``original_size`` 是原图 ``(H, W)``；可选
                ``point_coords`` ``(B, N, 2)``、``point_labels`` ``(B, N)``、``boxes``
                ``(B, 4)``、``mask_inputs`` ``(B, 1, 4h, 4w)``，坐标在缩放后的图上。
            multimask_output: 真则每组提示三张掩码，假则一张。

        返回：每张图像一个字典，``masks`` 布尔 ``(B, M, H, W)``（原图大小）、
            ``iou_predictions`` ``(B, M)``、``low_res_logits`` ``(B, M, 4h, 4w)``；
            M 是掩码张数，3 或 1；h、w 是图像嵌入的高和宽。

        错误：字典里缺键、有认不得的键（例如把 boxes 写成 box）、点和标签不成对、图像
        超过输入边长，或形状、类型、设备、数值不对时，抛 SamLiteError。
        """
        check_batched_input(self, batched_input, multimask_output)
        images = torch.stack([self.preprocess(x["image"]) for x in batched_input])
        embeddings = self.image_encoder(images)  # (图像数, C, h, w)
        return [
            self._segment(record, embedding.unsqueeze(0), multimask_output)
            for record, embedding in zip(batched_input, embeddings, strict=True)
        ]

    def _segment(
        self, record: dict[str, Any], embedding: torch.Tensor, multimask_output: bool
    ) -> dict[str, torch.Tensor]:
        """一张图像的提示 -> 掩码。形状见 forward。"""
        points = None
        if record.get("point_coords") is not None:
            points = (record["point_coords"], record["point_labels"])
        sparse, dense = self.prompt_encoder(
            points=points,
            boxes=record.get("boxes"),
            masks=record.get("mask_inputs"),
        )
        low_res_masks, iou_predictions = self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        masks = self.postprocess_masks(
            low_res_masks,
            input_size=record["image"].shape[-2:],
            original_size=tuple(int(n) for n in record["original_size"]),
        )
        return {
            "masks": masks > self.mask_threshold,
            "iou_predictions": iou_predictions,
            "low_res_logits": low_res_masks,
        }

    def postprocess_masks(
        self,
        masks: torch.Tensor,
        input_size: tuple[int, ...],
        original_size: tuple[int, ...],
    ) -> torch.Tensor:
        """低分辨率 logits 放大到原图：先放大到输入边长，再裁掉填充，再缩放。

        形状：``(B, C, 4h, 4w) -> (B, C, 原图高, 原图宽)``。顺序不能换：先裁再放大，裁线
        只能落在低分辨率的整格上，最多偏半格。
        """
        size = self.image_encoder.img_size
        masks = F.interpolate(masks, (size, size), mode="bilinear", align_corners=False)
        masks = masks[..., : input_size[0], : input_size[1]]
        if tuple(original_size) == masks.shape[-2:]:  # 原图正好这么大，不必再缩放
            return masks
        return F.interpolate(
            masks, tuple(original_size), mode="bilinear", align_corners=False
        )

    def preprocess(self, x: torch.Tensor) -> torch.Tensor:
        """规范化并补成正方形。形状：``(..., 3, H, W) -> (..., 3, 边长, 边长)``。"""
        size = self.image_encoder.img_size
        x = normalize_and_pad(x, self.pixel_mean, self.pixel_std, size)
        return x.to(self.dtype)


def sam_from_config(config: SamConfig) -> Sam:
    """按尺寸表装出一个随机初始化的 Sam。"""
    c = config
    image_encoder = ImageEncoderViT(
        img_size=c.image_size,
        patch_size=c.patch_size,
        embed_dim=c.embed_dim,
        depth=c.depth,
        num_heads=c.num_heads,
        out_chans=c.prompt_embed_dim,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=c.window_size,
        global_attn_indexes=c.global_attn_indexes,
    )
    prompt_encoder = PromptEncoder(
        embed_dim=c.prompt_embed_dim,
        image_embedding_size=(c.grid_size, c.grid_size),
        input_image_size=(c.image_size, c.image_size),
        mask_in_chans=c.mask_in_chans,
    )
    mask_decoder = MaskDecoder(
        transformer_dim=c.prompt_embed_dim,
        transformer=TwoWayTransformer(
            depth=c.decoder_depth,
            embedding_dim=c.prompt_embed_dim,
            num_heads=c.decoder_heads,
            mlp_dim=c.decoder_mlp_dim,
        ),
        iou_head_hidden_dim=c.iou_head_hidden_dim,
    )
    sam = Sam(image_encoder, prompt_encoder, mask_decoder)
    sam.name = c.name
    return sam
