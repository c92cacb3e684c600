"""第 6 章：提示编码器，把点、框、掩码变成解码器认得的向量。"""

import math
from typing import Any

import torch
from torch import nn

from .image_encoder import LayerNorm2d


class PositionEmbeddingRandom(nn.Module):
    """随机傅里叶位置编码：坐标乘一个固定的随机矩阵，再取正弦和余弦。

    对应官方 ``prompt_encoder.py``；方法出自 Tancik 等人的 "Fourier Features Let
    Networks Learn High Frequency Functions"。

    参数：
        num_pos_feats: 随机频率的个数；编码的宽度是它的两倍。
        scale: 频率的标准差，越大越能分清靠得近的两点；None、零、负数都当作 1。
    """

    positional_encoding_gaussian_matrix: torch.Tensor  # (2, num_pos_feats)

    def __init__(self, num_pos_feats: int = 64, scale: float | None = None) -> None:
        super().__init__()
        if scale is None or scale <= 0.0:
            scale = 1.0
        # 不训练，但要随权重保存：换一个矩阵，学到的一切就对不上了
        self.register_buffer(
            "positional_encoding_gaussian_matrix",
            nn.init.normal_(torch.empty(2, num_pos_feats), std=scale),
        )

    def _pe_encoding(self, coords: torch.Tensor) -> torch.Tensor:
        """``[0, 1]`` 里的坐标 -> 编码。形状：``(..., 2) -> (..., 2·num_pos_feats)``。

        一律用 float32 计算：半精度的正弦在高频处误差太大；算完再转回权重的类型。
        """
        matrix = self.positional_encoding_gaussian_matrix
        fx, fy = matrix.to(torch.float32).unbind()  # 每个特征在 x、y 方向的频率
        coords = 2 * coords.to(torch.float32) - 1  # 挪到 [-1, 1]
        # 就是 coords @ matrix；写成乘加，自动混合精度才不会把它改成半精度
        angles = 2 * math.pi * (coords[..., :1] * fx + coords[..., 1:] * fy)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(matrix.dtype)

    def forward(self, size: tuple[int, int]) -> torch.Tensor:
        """给网格的每一格（中心）一个编码。``(h, w)`` -> 形状 ``(C, h, w)``。"""
        h, w = size
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) / h
        x = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) / w
        grid = torch.stack(
            [x[None, :].expand(h, w), y[:, None].expand(h, w)], dim=-1
        )  # (h, w, 2)，最后一维是 (x, y)
        return self._pe_encoding(grid).permute(2, 0, 1)  # (C, h, w)

    def forward_with_coords(
        self, coords_input: torch.Tensor, image_size: tuple[int, int]
    ) -> torch.Tensor:
        """给像素坐标编码。形状：``(B, N, 2) -> (B, N, C)``；image_size 是 (高, 宽)。"""
        height, width = image_size
        # 坐标是 (x, y)，所以除以 (宽, 高)，与 image_size 的顺序相反
        extent = torch.tensor([width, height], device=coords_input.device)
        return self._pe_encoding(coords_input.to(torch.float32) / extent)


class PromptEncoder(nn.Module):
    """点和框变成稀疏嵌入（一串词元），掩码变成稠密嵌入（一张特征图）。

    对应论文 3 节 “Prompt encoder” 与附录 A，官方 ``prompt_encoder.py``。

    参数：
        embed_dim: 嵌入的宽度。
        image_embedding_size: 图像嵌入的 ``(高, 宽)``。
        input_image_size: 填充之后输入图像的 ``(高, 宽)``，像素。
        mask_in_chans: 编码掩码提示的那几层卷积的通道数。
        activation: 那几层卷积之间的激活函数。
    """

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.input_image_size = input_image_size
        self.image_embedding_size = image_embedding_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)

        self.num_point_embeddings = 4  # 负点、正点、框的左上角、框的右下角
        self.point_embeddings: Any = nn.ModuleList(
            nn.Embedding(1, embed_dim) for _ in range(self.num_point_embeddings)
        )
        self.not_a_point_embed = nn.Embedding(1, embed_dim)  # 填充用的点，标签 -1

        h, w = image_embedding_size
        self.mask_input_size = (4 * h, 4 * w)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            activation(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            activation(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def get_dense_pe(self) -> torch.Tensor:
        """图像嵌入每一格的位置编码。返回形状 ``(1, C, h, w)``。"""
        return self.pe_layer(self.image_embedding_size).unsqueeze(0)

    def _embed_points(
        self, points: torch.Tensor, labels: torch.Tensor, pad: bool
    ) -> torch.Tensor:
        """点的嵌入。形状：``(B, N, 2)``、``(B, N)`` -> ``(B, N, C)``，补一点则 N+1。

        标签 1 是正点，0 是负点，-1 是填充。没有框时官方总补一个填充点，论文没有说为
        什么；看得见的好处是：一个点加一个填充和一个框一样是两个词元，能放进同一批。
        """
        points = points.to(torch.float32) + 0.5  # 像素 x 的中心在 x + 0.5
        if pad:
            B = points.shape[0]
            extra = torch.zeros((B, 1, 2), dtype=points.dtype, device=points.device)
            points = torch.cat([points, extra], dim=1)
            padding = -torch.ones((B, 1), dtype=torch.int, device=labels.device)
            labels = torch.cat([labels.to(torch.int), padding], dim=1)
        code = self.pe_layer.forward_with_coords(points, self.input_image_size)

        label = labels.unsqueeze(-1)  # (B, N, 1)，下面逐类挑选，避免原地改写
        nowhere = torch.zeros_like(code) + self.not_a_point_embed.weight
        code = torch.where(label == -1, nowhere, code)
        code = torch.where(label == 0, code + self.point_embeddings[0].weight, code)
        return torch.where(label == 1, code + self.point_embeddings[1].weight, code)

    def _embed_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """框的嵌入：两个角各一个词元。形状：``(B, 4) -> (B, 2, C)``。"""
        corners = (boxes.to(torch.float32) + 0.5).reshape(-1, 2, 2)  # 像素中心
        code = self.pe_layer.forward_with_coords(corners, self.input_image_size)
        kind = torch.cat([e.weight for e in self.point_embeddings[2:]])  # (2, C)
        return code + kind

    def _embed_masks(self, masks: torch.Tensor) -> torch.Tensor:
        """掩码 logits 的嵌入。形状：``(B, 1, 4h, 4w) -> (B, C, h, w)``。"""
        return self.mask_downscaling(masks)

    def _get_batch_size(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> int:
        """有几组提示：看第一种给出的提示；什么都没给时是 1。"""
        if points is not None:
            return points[0].shape[0]
        if boxes is not None:
            return boxes.shape[0]
        if masks is not None:
            return masks.shape[0]
        return 1

    def forward(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """把提示编码成稀疏嵌入和稠密嵌入。

        形状：points ``(B, N, 2)`` 与标签 ``(B, N)``，boxes ``(B, 4)``，masks
        ``(B, 1, 4h, 4w)``（是 logits，不是 0/1）-> 稀疏 ``(B, M, C)``、稠密
        ``(B, C, h, w)``。M：只有点时 N + 1，只有框时 2，都有时 N + 2，都没有时 0。
        坐标以填充后输入图像的像素为单位。
        """
        B = self._get_batch_size(points, boxes, masks)
        parts = []
        if points is not None:
            parts.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            parts.append(self._embed_boxes(boxes))
        weight = self.no_mask_embed.weight
        if not parts:  # 没有点也没有框：稀疏嵌入里一个词元也没有
            parts.append(weight.new_empty((B, 0, self.embed_dim)))
        sparse = torch.cat(parts, dim=1)  # (B, M, C)

        if masks is not None:
            dense = self._embed_masks(masks.to(weight.dtype))  # (B, C, h, w)
        else:
            h, w = self.image_embedding_size
            dense = weight.reshape(1, -1, 1, 1).expand(B, -1, h, w)
        return sparse, dense
