"""导出成 ONNX 的两个模块，和描图时怎样对待形状。"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ..masks.measure import calculate_stability_score
from ..model import Sam

SHAPE: Any = torch.Tensor.shape


class FixedSizes(TorchFunctionMode):
    """描图时让问到的形状都成为普通的整数，烤进图里：编码器的输入边长是定死的。"""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """碰到问形状的，换成整数；别的照常。"""
        result = func(*args, **(kwargs or {}))
        return torch.Size(integers(result)) if func == SHAPE.__get__ else result


def integers(sizes: Any) -> list[int]:
    """描图时的形状 -> 普通的整数；明知道会烤进去，所以不要那句警告。"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return [int(size) for size in sizes]


class OnnxImageEncoder(nn.Module):
    """导出用的图像编码器：规范化和补零都在里面，进去的就是缩放好的 uint8 照片。

    参数：
        model: 一个 Sam。
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model
        self.img_size = model.image_encoder.img_size

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """形状：uint8、RGB 的 ``(H', W', 3)`` -> 图像嵌入 ``(1, C, h, w)``。

        最长边要正好是输入边长。补零写成“接上一块零”：比输入边长还大的图，零的块数是
        负的，当场报错；``F.pad`` 遇到负数会悄悄裁掉。
        """
        side = self.img_size
        x = image.permute(2, 0, 1).to(torch.float32)  # (3, H', W')
        x = (x - self.model.pixel_mean) / self.model.pixel_std
        height, width = x.shape[1], x.shape[2]
        x = torch.cat([x, x.new_zeros((3, height, side - width))], dim=2)
        x = torch.cat([x, x.new_zeros((3, side - height, side))], dim=1)
        with FixedSizes():  # 从这里起，形状全由输入边长定死
            return self.model.image_encoder(x.reshape(1, 3, side, side))


class SamOnnxModel(nn.Module):
    """导出用的解码器：提示编码、掩码解码、放大到原图，一个函数做完。

    签名、输入、输出同官方 ``utils/onnx.py``。点和框是同一种输入：框写成两个点，标签 2
    是左上角，3 是右下角；没有框时要自己补一个点 (0, 0)、标签 -1。

    参数：
        model: 一个 Sam。
        return_single_mask: 只要一张掩码，由点的个数和分数选出。
        use_stability_score: 用稳定性分数代替预测的 IoU。
        return_extra_metrics: 多给每张掩码的稳定性分数和面积。
    """

    score_reweight: torch.Tensor  # (1, 4)

    def __init__(
        self,
        model: Sam,
        return_single_mask: bool,
        use_stability_score: bool = False,
        return_extra_metrics: bool = False,
    ) -> None:
        super().__init__()
        self.mask_decoder = model.mask_decoder
        self.model = model
        self.img_size = model.image_encoder.img_size
        self.return_single_mask = return_single_mask
        self.use_stability_score = use_stability_score
        self.stability_score_offset = 1.0
        self.return_extra_metrics = return_extra_metrics
        reweight = torch.zeros(1, model.mask_decoder.num_mask_tokens)
        reweight[0, 0] = 1000
        self.register_buffer("score_reweight", reweight, persistent=False)

    @staticmethod
    def resize_longest_image_size(
        input_image_size: torch.Tensor, longest_side: int
    ) -> torch.Tensor:
        """原图的 ``(高, 宽)`` -> 缩放后的，``(2,)`` 的整数。

        用双精度，次序也同 ResizeLongestSide。官方用单精度，输入边长 1024 时一样，1008
        时偶尔差一个像素。
        """
        size = input_image_size.to(torch.float64)
        scale = longest_side / size.max()
        return (size * scale + 0.5).to(torch.int64).clamp(min=1)

    def _embed_points(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """点和框角的嵌入，五种标签各加各的。形状：``(B, N, 2) -> (B, N, C)``。"""
        encoder = self.model.prompt_encoder
        code = encoder.pe_layer._pe_encoding((coords + 0.5) / self.img_size)
        labels = labels.unsqueeze(-1)  # (B, N, 1)
        nowhere = torch.zeros_like(code) + encoder.not_a_point_embed.weight
        code = torch.where(labels == -1, nowhere, code)
        for i, embedding in enumerate(encoder.point_embeddings):
            code = torch.where(labels == i, code + embedding.weight, code)
        return code

    def _embed_masks(self, masks: torch.Tensor, has_mask: torch.Tensor) -> torch.Tensor:
        """掩码提示的嵌入。形状：``(B, 1, 4h, 4w)``、``(1,) -> (B, C, h, w)``。

        描出来的图里没有 if：有掩码、没有掩码两种结果都算，再按 has_mask（1 或 0）挑。
        """
        encoder = self.model.prompt_encoder
        given = encoder.mask_downscaling(masks)
        missing = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return has_mask * given + (1 - has_mask) * missing

    def mask_postprocessing(
        self, masks: torch.Tensor, orig_im_size: torch.Tensor
    ) -> torch.Tensor:
        """放大到输入边长，裁掉填充，再缩放到原图。

        形状：``(B, M, 4h, 4w) -> (B, M, 原图高, 原图宽)``。
        """
        square = (self.img_size, self.img_size)
        masks = F.interpolate(masks, square, mode="bilinear", align_corners=False)
        inner = self.resize_longest_image_size(orig_im_size, self.img_size)
        masks = masks[..., : inner[0], : inner[1]]
        # 拆成两个张量，不是两个数：原图可以是任何大小
        size: Any = orig_im_size.to(torch.int64).unbind()
        return F.interpolate(masks, size, mode="bilinear", align_corners=False)

    def select_masks(
        self, masks: torch.Tensor, iou_preds: torch.Tensor, num_points: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """每组提示选一张：不到 3 个点选后三张里分数最高的，否则选第 0 张。

        用加减一千代替 if。形状：``(B, 4, …)``、``(B, 4) -> (B, 1, …)``、``(B, 1)``。
        """
        score = iou_preds + (num_points - 2.5) * self.score_reweight
        best = score.argmax(dim=1)  # (B,)
        rows = torch.arange(masks.shape[0], device=masks.device)
        return masks[rows, best].unsqueeze(1), iou_preds[rows, best].unsqueeze(1)

    @torch.no_grad()
    def forward(
        self,
        image_embeddings: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
        orig_im_size: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """一张图、B 组提示。

        参数：
            image_embeddings: ``(1, C, h, w)``。
            point_coords、point_labels: ``(B, N, 2)``、``(B, N)``，浮点；坐标在缩放后的
                图上，标签 1 正点、0 负点、-1 填充、2 和 3 是框的两个角。
            mask_input、has_mask_input: ``(1 或 B, 1, 4h, 4w)`` 的 logits；``(1,)``，没
                有掩码提示时是 0，mask_input 给什么有限的数都行，形状要对。
            orig_im_size: ``(2,)``，浮点，原图的 ``(高, 宽)``。

        返回：掩码 logits ``(B, M, 高, 宽)``、预测的 IoU ``(B, M)``、低分辨率 logits
            ``(B, M, 4h, 4w)``；要附加指标时，中间多出稳定性分数 ``(B, M)``、面积
            ``(B, M)``。M 是 4（第 0 张用于没有歧义的提示），只要一张时是 1。
        """
        sparse = self._embed_points(point_coords, point_labels)
        dense = self._embed_masks(mask_input, has_mask_input)
        low_res, scores = self.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        if self.use_stability_score:
            scores = self._stability(low_res)
        if self.return_single_mask:
            low_res, scores = self.select_masks(low_res, scores, point_coords.shape[1])
        masks = self.mask_postprocessing(low_res, orig_im_size)
        if not self.return_extra_metrics:
            return masks, scores, low_res
        areas = (masks > self.model.mask_threshold).sum(-1).sum(-1)
        return masks, scores, self._stability(masks), areas, low_res

    def _stability(self, masks: torch.Tensor) -> torch.Tensor:
        threshold, offset = self.model.mask_threshold, self.stability_score_offset
        return calculate_stability_score(masks, threshold, offset)
