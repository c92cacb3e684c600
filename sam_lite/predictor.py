"""第 11 章：SamPredictor，一张图编码一次，提示可以问很多次。"""

from typing import Any

import numpy as np
import torch

from .checks import check_box, check_image, check_mask_input, check_points
from .errors import NoImageError, problem
from .model import Sam
from .preprocess import ResizeLongestSide


class SamPredictor:
    """先 set_image，再 predict；换提示不必重新编码图像。

    对应官方 ``predictor.py``。坐标都在原图上，单位像素，顺序 ``(x, y)``。

    参数：
        sam_model: 一个 Sam，通常来自 ``sam_lite.load``。
    """

    def __init__(self, sam_model: Sam) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.image_encoder.img_size)
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """模型所在的设备。"""
        return self.model.device

    def reset_image(self) -> None:
        """忘掉当前图像的一切：嵌入、尺寸。"""
        self.is_image_set = False
        # 下面几项没有图像时是 None，_check_image_set 通过之后才用
        self.features: Any = None  # (1, C, h, w)
        self.original_size: Any = None  # (高, 宽)
        self.input_size: Any = None  # 缩放后、填充前的 (高, 宽)
        # 官方也有这四个属性，但只设成 None、从不填值；它忘了清的是上面两个尺寸
        self.orig_h = self.orig_w = self.input_h = self.input_w = None

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """编码一张图像，之后就能 predict。

        参数：
            image: uint8，形状 ``(H, W, 3)``，0–255。
            image_format: ``"RGB"`` 或 ``"BGR"``。

        错误：形状、类型、image_format 不对时抛 SamLiteError，原来的图像仍然可用。
        """
        if image_format not in ("RGB", "BGR"):
            raise problem("image_format", repr(image_format), '"RGB" 或 "BGR"')
        check_image(image)
        if image_format != self.model.image_format:
            image = image[..., ::-1]
        resized = self.transform.apply_image(np.ascontiguousarray(image))
        tensor = torch.from_numpy(resized).to(self.device)
        tensor = tensor.permute(2, 0, 1).contiguous()[None]  # (1, 3, H', W')
        self.set_torch_image(tensor, image.shape[:2])

    @torch.no_grad()
    def set_torch_image(
        self, transformed_image: torch.Tensor, original_image_size: tuple[int, ...]
    ) -> None:
        """编码一张已经缩放好的张量图像。

        参数：
            transformed_image: ``(1, 3, H', W')``，最长边等于输入边长，0–255，RGB。
            original_image_size: 缩放之前的 ``(高, 宽)``。

        错误：形状不对、最长边不等于输入边长时抛 SamLiteError。
        """
        shape = tuple(transformed_image.shape)
        side = self.model.image_encoder.img_size
        if len(shape) != 4 or shape[1] != 3 or max(shape[2:]) != side:
            raise problem(
                "transformed_image",
                f"形状 {shape}",
                f"(1, 3, 高, 宽)、最长边 {side} 的张量",
                "先用 predictor.transform.apply_image_torch 缩放。",
            )
        features = self.model.image_encoder(self.model.preprocess(transformed_image))
        self.reset_image()
        self.original_size = tuple(original_image_size)
        self.input_size = shape[-2:]
        self.orig_h, self.orig_w = self.original_size
        self.input_h, self.input_w = self.input_size
        self.features = features  # (1, C, h, w)
        self.is_image_set = True

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """按一组提示分割当前图像，进出都是 numpy。

        参数：
            point_coords: 点，``(N, 2)``，(x, y)。
            point_labels: ``(N,)``，1 正点，0 负点。
            box: ``(4,)``，(x0, y0, x1, y1)。
            mask_input: 上一次的低分辨率 logits，``(1, 4h, 4w)``（vit_b 是 256×256）。
            multimask_output: 真则三张掩码，假则一张；只有一个点时建议真。
            return_logits: 真则掩码不做阈值，返回 logits。

        返回：掩码 ``(C, H, W)``（布尔，或浮点 logits）、预测的 IoU ``(C,)``、低分辨率
            logits ``(C, 4h, 4w)``；C 是掩码张数，3 或 1。

        错误：还没有 set_image 时抛 NoImageError；提示不合理时抛 SamLiteError。
        """
        self._check_image_set()
        coords = labels = boxes = masks = None
        if point_coords is not None or point_labels is not None:
            points, kinds = check_points(point_coords, point_labels)
            points = self.transform.apply_coords(points, self.original_size)
            coords = self._tensor(points, torch.float)[None]  # (1, N, 2)
            labels = self._tensor(kinds, torch.int)[None]  # (1, N)
        if box is not None:
            scaled = self.transform.apply_boxes(check_box(box), self.original_size)
            boxes = self._tensor(scaled, torch.float)  # (1, 4)
        if mask_input is not None:
            side = self.model.prompt_encoder.mask_input_size
            logits = check_mask_input(mask_input, side)
            masks = self._tensor(logits, torch.float)[None]  # (1, 1, 4h, 4w)

        masks, iou, low_res = self.predict_torch(
            coords, labels, boxes, masks, multimask_output, return_logits
        )
        if return_logits:
            masks = masks.float()
        return (
            masks[0].cpu().numpy(),
            iou[0].float().cpu().numpy(),  # numpy 没有 bfloat16，一律交出 float32
            low_res[0].float().cpu().numpy(),
        )

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: torch.Tensor | None,
        point_labels: torch.Tensor | None,
        boxes: torch.Tensor | None = None,
        mask_input: torch.Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """按 B 组提示分割当前图像；坐标已经用 ``transform`` 搬到缩放后的图上。

        参数：
            point_coords ``(B, N, 2)``、point_labels ``(B, N)``、boxes ``(B, 4)``、
            mask_input ``(B, 1, 4h, 4w)``；其余同 predict。

        返回：掩码 ``(B, C, H, W)``、预测的 IoU ``(B, C)``、低分辨率 logits
            ``(B, C, 4h, 4w)``。
        """
        self._check_image_set()
        if (point_coords is None) != (point_labels is None):
            given = "point_labels" if point_coords is None else "point_coords"
            wanted = "成对的 point_coords 和 point_labels"
            raise problem("点提示", f"只有 {given}", wanted)
        points = None if point_coords is None else (point_coords, point_labels)
        sparse, dense = self.model.prompt_encoder(
            points=points, boxes=boxes, masks=mask_input
        )
        low_res_masks, iou_predictions = self.model.mask_decoder(
            image_embeddings=self.features,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        masks = self.model.postprocess_masks(
            low_res_masks, self.input_size, self.original_size
        )
        if not return_logits:
            masks = masks > self.model.mask_threshold
        return masks, iou_predictions, low_res_masks

    def get_image_embedding(self) -> torch.Tensor:
        """当前图像的嵌入，``(1, C, h, w)``；vit_b 是 ``(1, 256, 64, 64)``。"""
        self._check_image_set()
        return self.features

    def _tensor(self, array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(array, dtype=dtype, device=self.device)

    def _check_image_set(self) -> None:
        if not self.is_image_set:
            raise NoImageError("还没有图像：先调用 set_image，再用提示去问。")
