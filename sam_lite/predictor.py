"""第 11 章：SamPredictor，一张图编码一次，提示可以问很多次。

set_image、predict 这些和引擎无关的，在 ``decoding/base.py``；这里是 PyTorch 的一半：
编码、解码，和收发张量、存取嵌入的方法。官方有的照官方；多出来的是几个框一起问、几张图
一起编码、嵌入存成文件。
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .decoding import embedding_file
from .decoding.base import EncodedImage, ImagePredictor, Results, check_flags
from .decoding.prompt_decoder import PromptDecoder
from .errors import problem
from .inputs.checks import check_image_or_size
from .inputs.tensors import check_image_tensor, check_prompt_tensors
from .model import Sam
from .preprocess import check_original_size


class SamPredictor(ImagePredictor):
    """先 set_image，再 predict；换提示不必重新编码图像。

    对应官方 ``predictor.py``。坐标都在原图上，单位像素，顺序 ``(x, y)``。

    参数：
        sam_model: 一个 Sam，通常来自 ``sam_lite.load``。
    """

    def __init__(self, sam_model: Sam) -> None:
        self.model = sam_model
        super().__init__(
            sam_model.image_encoder.img_size,
            sam_model.prompt_encoder.mask_input_size,
            sam_model.image_format,
        )

    @property
    def device(self) -> torch.device:
        """模型所在的设备。"""
        return self.model.device

    def reset_image(self) -> None:
        """忘掉当前的图像（一张或一批）：嵌入、尺寸、为它预先算好的。"""
        super().reset_image()
        self.decoder = PromptDecoder()

    # ---- 三个动词里归引擎的两个 ------------------------------------------------

    @torch.no_grad()
    def _run_encoder(self, images: list[np.ndarray]) -> Sequence[torch.Tensor]:
        """缩放好的图像 ``(H', W', 3)`` -> 嵌入，每张 ``(1, C, h, w)``；一次前向。"""
        tensors = [torch.from_numpy(image).to(self.device) for image in images]
        tensors = [x.permute(2, 0, 1).contiguous() for x in tensors]  # (3, H', W')
        inputs = torch.stack([self.model.preprocess(x) for x in tensors])
        return self.model.image_encoder(inputs).split(1)

    def _run_decoder(
        self,
        image: EncodedImage,
        prompts: Sequence[np.ndarray | None],
        multimask: bool,
        logits: bool,
    ) -> Results:
        """numpy 的 B 组提示 -> numpy 的结果。"""
        tensors = [
            None if x is None else torch.from_numpy(x).to(self.device) for x in prompts
        ]
        masks, iou, low_res = self._decode_tensors(image, tensors, multimask, logits)
        return (  # numpy 没有 bfloat16，浮点一律交出 float32
            (masks.float() if logits else masks).cpu().numpy(),
            iou.float().cpu().numpy(),
            low_res.float().cpu().numpy(),
        )

    @torch.no_grad()
    def _decode_tensors(
        self, image: EncodedImage, prompts: Sequence[Any], multimask: bool, logits: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """提示编码、掩码解码、放大到原图。形状见 predict_torch。"""
        parts = list(self.decoder(self.model, image.features, prompts, multimask))
        low_res = torch.cat([part for _, part, _ in parts])
        iou = torch.cat([part for _, _, part in parts])
        sizes = image.input_size, image.original_size
        masks = self.model.postprocess_masks(low_res, *sizes)
        return masks if logits else masks > self.model.mask_threshold, iou, low_res

    # ---- 收发张量 --------------------------------------------------------------

    @torch.no_grad()
    def set_torch_image(
        self, transformed_image: torch.Tensor, original_image_size: tuple[int, ...]
    ) -> None:
        """编码一张已经缩放好的张量图像。

        参数：
            transformed_image: ``(1, 3, H', W')``，最长边等于输入边长，0–255，RGB；浮点
                或 uint8。
            original_image_size: 缩放之前的 ``(高, 宽)``。

        错误：形状、类型、设备不对，有 NaN，最长边不等于输入边长，或原图的大小缩放不成
        这个形状时，抛 SamLiteError。
        """
        side = self.model.image_encoder.img_size
        name, image = "transformed_image", transformed_image
        check_image_tensor(name, image, (1, 3), side, self.device)
        if max(image.shape[2:]) != side:
            mend = "先用 predictor.transform.apply_image_torch 缩放。"
            raise problem(name, f"形状 {tuple(image.shape)}", f"最长边 {side}", mend)
        resized = image.shape[2], image.shape[3]
        name = "original_image_size"
        original = check_original_size(name, original_image_size, resized, side)
        features = self.model.image_encoder(self.model.preprocess(image))
        self._keep(EncodedImage(features, original, resized))

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

        错误：还没有 set_image 时抛 NoImageError；形状、类型、设备、组数、数值不对时抛
        SamLiteError。
        """
        image, flags = self._current(), (multimask_output, return_logits)
        check_flags(*flags)
        prompts = point_coords, point_labels, boxes, mask_input
        check_prompt_tensors(prompts, self.mask_size, self.device)
        return self._decode_tensors(image, prompts, *flags)

    # ---- 嵌入存成文件 ----------------------------------------------------------

    def save_embedding(self, path: str | Path) -> None:
        """把当前图像的嵌入存成 safetensors 文件，以后用 load_embedding 读回。

        错误：没有图像时抛 NoImageError；写不了时抛 SamLiteError，旧文件还在。
        """
        embedding_file.save_embedding(path, self.model, self._current())

    def load_embedding(self, path: str | Path, image: Any = None) -> None:
        """读回 save_embedding 存的嵌入，不必再编码；问出的掩码与存之前相同。

        参数：
            path: 嵌入文件。
            image: 原图，或它的 ``(高, 宽)``；给了就核对大小。

        错误：文件读不了、不是这个模型编码的、与 image 的大小不同时，抛 SamLiteError，
        原来的图像仍然可用。
        """
        size = None if image is None else check_image_or_size(image)
        self._keep(embedding_file.load_embedding(path, self.model, size))

    def _current(self) -> EncodedImage:
        """当前的一张图像；没有，或模型搬到了别的设备，就抛 SamLiteError。"""
        image = super()._current()
        if image.features.device != self.device:
            where = f"在 {image.features.device} 的嵌入"
            raise problem("图像", where, f"在 {self.device}", "重新 set_image。")
        return image
