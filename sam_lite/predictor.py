"""第 11 章：SamPredictor，一张图编码一次，提示可以问很多次。

官方有的照官方；多出来的是几个框一起问、几张图一起编码、嵌入存成文件
（``embedding_file.py``）。收到的东西对不对，由 ``checks.py`` 把关。
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .decoding import embedding_file
from .decoding.embedding_file import EncodedImage
from .decoding.path import PromptDecoder
from .errors import NoImageError, problem
from .inputs.checks import (
    check_flag,
    check_image,
    check_image_or_size,
    check_images,
    check_positive,
    naming_image,
)
from .inputs.prompts import Prompts, check_prompts, split_batches
from .inputs.tensors import check_image_tensor, check_prompt_tensors
from .model import Sam
from .preprocess import ResizeLongestSide, check_original_size

Results = tuple[np.ndarray, np.ndarray, np.ndarray]  # 掩码、预测的 IoU、低分辨率 logits


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
        """忘掉当前的图像（一张或一批）：嵌入、尺寸。"""
        self.is_image_set = False
        # 下面几项没有图像时是 None，_current 查过之后才用
        self.features: Any = None  # (1, C, h, w)
        self.original_size: Any = None  # (高, 宽)
        self.input_size: Any = None  # 缩放后、填充前的 (高, 宽)
        # 官方也有这四个属性，但只设成 None、从不填值；它忘了清的是上面两个尺寸
        self.orig_h = self.orig_w = self.input_h = self.input_w = None
        self.images: list[EncodedImage] = []  # set_images 编码的一批
        self._decoder = PromptDecoder()

    # ---- 放进图像 --------------------------------------------------------------

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """编码一张图像，之后就能 predict。

        参数：
            image: uint8，形状 ``(H, W, 3)``，0–255；或不透明、不必旋转的 PIL 图片。
            image_format: ``"RGB"`` 或 ``"BGR"``。

        错误：形状、类型、image_format 不对时抛 SamLiteError，原来的图像仍然可用。
        """
        pixels = check_image(image, image_format)
        self.set_torch_image(self._resize(pixels, image_format)[None], pixels.shape[:2])

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

    @torch.no_grad()
    def set_images(
        self,
        images: Sequence[np.ndarray],
        image_format: str = "RGB",
        batch_size: int = 4,
    ) -> None:
        """编码一批图像，大小可以不同，之后用 predict_batch。

        参数：
            images: 图像的列表，每张同 set_image。
            image_format: ``"RGB"`` 或 ``"BGR"``，全批相同。
            batch_size: 一次编码几张；越大越占内存，结果不变。

        错误：某一张不对时抛 SamLiteError 并说明第几张，原来的图像仍然可用。
        """
        size = check_positive("batch_size", batch_size)
        pictures = check_images(images, image_format)
        encoded: list[EncodedImage] = []
        for start in range(0, len(pictures), size):
            chunk = pictures[start : start + size]
            resized = [self._resize(pixels, image_format) for pixels in chunk]
            inputs = torch.stack([self.model.preprocess(x) for x in resized])
            features = self.model.image_encoder(inputs)  # (图像数, C, h, w)
            for f, pixels, x in zip(features, chunk, resized, strict=True):
                size_in = x.shape[1], x.shape[2]
                encoded.append(EncodedImage(f[None], pixels.shape[:2], size_in))
        self.reset_image()
        self.images = encoded

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

    # ---- 问提示 ----------------------------------------------------------------

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Results:
        """按一组提示分割当前图像，进出都是 numpy；也可以 B 组一起问。

        参数：
            point_coords: 点，``(N, 2)``，(x, y)，在图内。
            point_labels: ``(N,)``，1 正点，0 负点，-1 填充（位置不起作用）。
            box: ``(4,)``，(x0, y0, x1, y1)；伸到图外的部分裁掉，并发出 SamLiteWarning。
            mask_input: 上一次的低分辨率 logits，``(1, 4h, 4w)``（vit_b 是 256×256）。
            multimask_output: 真则三张掩码，假则一张；只有一个点时建议真。
            return_logits: 真则掩码不做阈值，返回 logits。

        返回：掩码 ``(C, H, W)``（布尔，或浮点 logits）、预测的 IoU ``(C,)``、低分辨率
            logits ``(C, 4h, 4w)``；C 是掩码张数，3 或 1。

        B 组一起问：point_coords ``(B, N, 2)`` 配 point_labels ``(B, N)``，个数不同的
        写成嵌套的列表，由 prompts.pad_points 补齐（补过的结果会变，见那里）；box
        ``(B, 4)``；mask_input ``(B, 1, 4h, 4w)``，或共用的一张。返回的三项前面都多一维
        B，和一组一组问相同；B 为 0 时是空数组。只有一个框、写成 ``(1, 4)`` 的，照官方
        不多这一维。掩码共 B·C·H·W 字节，计算时的 logits 还有四倍大；框多、图大时分几批
        问。

        错误：还没有 set_image 时抛 NoImageError；提示不合理时抛 SamLiteError。
        """
        image = self._current()
        given = point_coords, point_labels, box, mask_input
        prompts = self._check(image, given, multimask_output, return_logits)
        return self._ask(image, prompts, multimask_output, return_logits)

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """给 set_images 的每张图各问一次，名字随 SAM 2。

        参数：前四项是列表，每张图一项，同 predict 的对应参数；某张图没有就写 None。

        返回：三个列表，第 i 项是第 i 张图的 predict 的返回。

        错误：还没有 set_images 时抛 NoImageError；提示不合理时抛 SamLiteError，说明是
        第几张图。
        """
        if not self.images:
            raise NoImageError("还没有一批图像：先调用 set_images；一张图用 predict。")
        batches = point_coords_batch, point_labels_batch, box_batch, mask_input_batch
        flags = multimask_output, return_logits
        asked = []
        for i, given in enumerate(split_batches(batches, len(self.images))):
            with naming_image(i):
                asked.append(self._check(self.images[i], given, *flags))
        pairs = zip(self.images, asked, strict=True)
        results = [self._ask(image, prompts, *flags) for image, prompts in pairs]
        masks, iou, low_res = (list(column) for column in zip(*results, strict=True))
        return masks, iou, low_res

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
        image = self._current()
        check_flag("multimask_output", multimask_output)
        check_flag("return_logits", return_logits)
        prompts = point_coords, point_labels, boxes, mask_input
        mask_size = self.model.prompt_encoder.mask_input_size
        check_prompt_tensors(prompts, mask_size, self.device)
        return self._decode(image, prompts, multimask_output, return_logits)

    def get_image_embedding(self) -> torch.Tensor:
        """当前图像的嵌入，``(1, C, h, w)``；vit_b 是 ``(1, 256, 64, 64)``。"""
        return self._current().features

    # ---- 内部 ------------------------------------------------------------------

    def _resize(self, image: np.ndarray, image_format: str) -> torch.Tensor:
        """缩放、搬到设备上。形状：``(H, W, 3) -> (3, H', W')``，uint8。"""
        if image_format != self.model.image_format:
            image = image[..., ::-1]
        resized = self.transform.apply_image(np.ascontiguousarray(image))
        tensor = torch.from_numpy(resized).to(self.device)
        return tensor.permute(2, 0, 1).contiguous()

    def _keep(self, image: EncodedImage) -> None:
        """把编码好的一张图像设为当前的。"""
        self.reset_image()
        self.features, self.original_size, self.input_size = image
        self.orig_h, self.orig_w = self.original_size
        self.input_h, self.input_w = self.input_size
        self.is_image_set = True

    def _current(self) -> EncodedImage:
        """当前的一张图像；没有就抛 NoImageError。"""
        if self.images:
            raise NoImageError("现在是一批图像（set_images），用 predict_batch 去问。")
        if not self.is_image_set:
            raise NoImageError("还没有图像：先调用 set_image，再用提示去问。")
        if self.features.device != self.device:
            where = f"在 {self.features.device} 的嵌入"
            raise problem("图像", where, f"在 {self.device}", "重新 set_image。")
        return EncodedImage(self.features, self.original_size, self.input_size)

    def _check(
        self, image: EncodedImage, given: Sequence[Any], multimask: Any, logits: Any
    ) -> Prompts:
        """查一次 predict 的全部参数。"""
        check_flag("multimask_output", multimask)
        check_flag("return_logits", logits)
        mask_size = self.model.prompt_encoder.mask_input_size
        return check_prompts(given, image.original_size, mask_size)

    def _ask(
        self, image: EncodedImage, prompts: Prompts, multimask: bool, logits: bool
    ) -> Results:
        """查过的 numpy 提示 -> numpy 结果；坐标在这里搬到缩放后的图上。"""
        moved = prompts.move(self.transform, image.original_size)
        tensors = [
            None if x is None else torch.from_numpy(x).to(self.device) for x in moved
        ]
        masks, iou, low_res = self._decode(image, tensors, multimask, logits)
        arrays = (  # numpy 没有 bfloat16，浮点一律交出 float32
            (masks.float() if logits else masks).cpu().numpy(),
            iou.float().cpu().numpy(),
            low_res.float().cpu().numpy(),
        )
        return arrays if prompts.batched else (arrays[0][0], arrays[1][0], arrays[2][0])

    @torch.no_grad()
    def _decode(
        self, image: EncodedImage, prompts: Sequence[Any], multimask: bool, logits: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """提示编码、掩码解码、放大到原图。形状见 predict_torch。"""
        features = image.features
        parts = list(self._decoder(self.model, features, prompts, multimask))
        low_res = torch.cat([part for _, part, _ in parts])
        iou = torch.cat([part for _, _, part in parts])
        sizes = image.input_size, image.original_size
        masks = self.model.postprocess_masks(low_res, *sizes)
        return masks if logits else masks > self.model.mask_threshold, iou, low_res
