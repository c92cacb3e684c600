"""第 8 章：掩码解码器，从图像嵌入和提示嵌入得到掩码和预测的 IoU。"""

import torch
import torch.nn.functional as F
from torch import nn

from .image_encoder import LayerNorm2d


class MLP(nn.Module):
    """若干层全连接，层间用 ReLU。对应官方 ``mask_decoder.py`` 的 ``MLP``。"""

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        sigmoid_output: bool = False,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        dims = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(
            nn.Linear(dims[i], dims[i + 1]) for i in range(num_layers)
        )
        self.sigmoid_output = sigmoid_output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """形状：``(..., input_dim) -> (..., output_dim)``。"""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        x = self.layers[-1](x)
        return torch.sigmoid(x) if self.sigmoid_output else x


class MaskDecoder(nn.Module):
    """一个 IoU 词元、四个掩码词元与提示词元一起进双向 Transformer，得到四张掩码。

    第 0 张掩码用于没有歧义的提示；第 1–3 张给出三种可能，常见的是整体、部件、部件里的
    小部件。对应论文 3 节 “Mask decoder”、“Resolving ambiguity” 与附录 A，官方
    ``mask_decoder.py``。

    参数：
        transformer_dim: 宽度，等于图像嵌入的通道数。
        transformer: 一个 TwoWayTransformer。
        num_multimask_outputs: 歧义时给几张掩码。
        activation: 上采样时的激活函数。
        iou_head_depth、iou_head_hidden_dim: IoU 头的层数和隐藏宽度。
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: nn.Module,
        num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
    ) -> None:
        super().__init__()
        dim = transformer_dim
        self.transformer_dim = dim
        self.transformer = transformer
        self.num_multimask_outputs = num_multimask_outputs
        self.iou_token = nn.Embedding(1, dim)
        self.num_mask_tokens = num_multimask_outputs + 1
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)

        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            activation(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            activation(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(
            dim, iou_head_hidden_dim, self.num_mask_tokens, iou_head_depth
        )

    def forward(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        multimask_output: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """由提示得到掩码。

        形状：image_embeddings ``(1, C, h, w)``，image_pe ``(1, C, h, w)``，稀疏
        ``(B, N, C)``，稠密 ``(B, C, h, w)`` -> 掩码 logits ``(B, 3 或 1, 4h, 4w)``、
        预测的 IoU ``(B, 3 或 1)``。``multimask_output`` 为真取三张，为假只取第 0 张。
        """
        masks, iou_pred = self.predict_masks(
            image_embeddings,
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
        )
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou_pred[:, chosen]

    def predict_masks(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """四张掩码全要。返回 ``(B, 4, 4h, 4w)`` 与 ``(B, 4)``。

        也接受一批图像：image_embeddings ``(I, C, h, w)`` 与 ``B = I·P`` 组提示，按图像
        排好（图 0 的 P 组在前，再是图 1 的……），训练时用。
        """
        B = sparse_prompt_embeddings.shape[0]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        output_tokens = output_tokens.unsqueeze(0).expand(B, -1, -1)  # (B, 5, C)
        tokens = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)

        repeats = B // image_embeddings.shape[0]
        src = torch.repeat_interleave(image_embeddings, repeats, dim=0)
        src = src + dense_prompt_embeddings  # 稠密嵌入加在图像上，不拼到词元里
        B, C, h, w = src.shape  # 一组点配多张掩码提示时，B 到上一行广播之后才是掩码数
        hs, src = self.transformer(src, image_pe, tokens)  # (B, 5+N, C)、(B, hw, C)
        iou_token_out = hs[:, 0]
        mask_tokens_out = hs[:, 1 : 1 + self.num_mask_tokens]  # (B, 4, C)

        src = src.transpose(1, 2).reshape(B, C, h, w)
        upscaled = self.output_upscaling(src)  # (B, C/8, 4h, 4w)
        hyper_in = torch.stack(
            [
                mlp(mask_tokens_out[:, i])
                for i, mlp in enumerate(self.output_hypernetworks_mlps)
            ],
            dim=1,
        )  # (B, 4, C/8)：每个掩码词元现算出一组权重，这就是超网络
        # 每个像素的 C/8 个通道按这组权重相加，就是掩码的 logits：一个现造的 1×1 卷积
        masks = hyper_in @ upscaled.flatten(2)  # (B, 4, 4h·4w)
        masks = masks.reshape(B, self.num_mask_tokens, 4 * h, 4 * w)
        iou_pred = self.iou_prediction_head(iou_token_out)  # (B, 4)，没有 sigmoid
        return masks, iou_pred
