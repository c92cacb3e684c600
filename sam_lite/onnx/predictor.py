"""OnnxSamPredictor：用导出的两个 ONNX 文件分割，不要 PyTorch。

只要 onnxruntime、numpy、Pillow。没有 torch 的环境里这样装::

    pip install onnxruntime numpy pillow
    pip install --no-deps sam-lite

文件由 ``sam-lite export-onnx`` 导出，见 ``onnx_export.py``。
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import NoImageError
from ..inputs.checks import (
    check_flag,
    check_image,
    check_images,
    check_positive,
    naming_image,
)
from ..inputs.prompts import Prompts, check_prompts, split_batches
from ..onnx.session import check_pair, open_session, read_facts

GROUPS_AT_ONCE = 8  # 一次解码几组提示：每组四张原图大小的 logits，多了占内存
Results = tuple[np.ndarray, np.ndarray, np.ndarray]  # 掩码、预测的 IoU、低分辨率 logits


class NumpyResizeLongestSide:
    """ResizeLongestSide 的 numpy 那一半，逐字节相同；那个模块要 torch。

    参数：
        target_length: 缩放后最长边的像素数，也就是模型的输入边长。
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def new_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """缩放之后的 ``(高, 宽)``，四舍五入，不小于 1。"""
        scale = self.target_length / max(size)
        height, width = (max(1, int(n * scale + 0.5)) for n in size)
        return height, width

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """缩放一张图像。形状：``(H, W, 3) -> (H', W', 3)``，uint8。"""
        height, width = self.new_size(image.shape[:2])
        bilinear = Image.Resampling.BILINEAR
        return np.array(Image.fromarray(image).resize((width, height), bilinear))

    def apply_coords(self, coords: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """把原图上的点搬到缩放后的图上。形状：``(..., 2) -> (..., 2)``。"""
        (height, width), (new_h, new_w) = size, self.new_size(size)
        return coords.astype(float) * (new_w / width, new_h / height)

    def apply_boxes(self, boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        """把原图上的框搬过去。形状：``(..., 4) -> (B, 4)``。"""
        return self.apply_coords(boxes.reshape(-1, 2, 2), size).reshape(-1, 4)


class EncodedImage(NamedTuple):
    """编码好的一张图像。"""

    features: np.ndarray  # (1, C, h, w)
    original_size: tuple[int, int]  # (高, 宽)
    input_size: tuple[int, int]  # 缩放后、填充前的 (高, 宽)


class OnnxSamPredictor:
    """先 set_image，再 predict，同 SamPredictor；参数、返回、错误也相同。

    没有的是收发张量的 set_torch_image、predict_torch，和存取嵌入文件的两个方法。

    参数：
        encoder_path、decoder_path: 同一次导出的编码器和解码器，量化过的也行。
        providers: onnxruntime 用什么硬件，名字见 ``get_available_providers()``。

    错误：没装 onnxruntime，文件读不了、不是 sam_lite 导出的、两个文件不配对，解码器导出
    时改了输出（只要一张掩码、换成稳定性分数），都抛 SamLiteError。
    """

    def __init__(
        self,
        encoder_path: str | Path,
        decoder_path: str | Path,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.encoder = open_session(encoder_path, providers)
        self.decoder = open_session(decoder_path, providers)
        facts = read_facts(self.encoder, encoder_path, "encoder")
        check_pair(facts, read_facts(self.decoder, decoder_path, "decoder"))
        self.model_name = facts["model"]
        self.mask_threshold = float(facts["mask_threshold"])
        self.transform = NumpyResizeLongestSide(int(facts["image_size"]))
        *_, self.mask_height, self.mask_width = self.decoder.get_inputs()[3].shape
        self.reset_image()

    def reset_image(self) -> None:
        """忘掉当前的图像（一张或一批）：嵌入、尺寸。"""
        self.is_image_set = False
        # 没有图像时是 None，_current 查过之后才用
        self.features: Any = None  # (1, C, h, w)
        self.original_size: Any = None  # (高, 宽)
        self.input_size: Any = None  # 缩放后、填充前的 (高, 宽)
        self.images: list[EncodedImage] = []  # set_images 编码的一批

    # ---- 放进图像 --------------------------------------------------------------

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """编码一张图像，之后就能 predict；参数和错误同 SamPredictor.set_image。"""
        encoded = self._encode(check_image(image, image_format), image_format)
        self.reset_image()
        self.features, self.original_size, self.input_size = encoded
        self.is_image_set = True

    def set_images(
        self,
        images: Sequence[np.ndarray],
        image_format: str = "RGB",
        batch_size: int = 4,
    ) -> None:
        """编码一批图像，之后用 predict_batch；参数同 SamPredictor.set_images。

        导出的编码器一次收一张，所以这里 batch_size 只检查，不起作用。
        """
        check_positive("batch_size", batch_size)
        pictures = check_images(images, image_format)
        encoded = [self._encode(pixels, image_format) for pixels in pictures]
        self.reset_image()
        self.images = encoded

    def get_image_embedding(self) -> np.ndarray:
        """当前图像的嵌入，``(1, C, h, w)`` 的 float32 数组。"""
        return self._current().features

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
        """按一组或 B 组提示分割当前图像；参数、返回、错误同 SamPredictor.predict。"""
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
        """给 set_images 的每张图各问一次；参数、返回同 SamPredictor.predict_batch。"""
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

    # ---- 内部 ------------------------------------------------------------------

    def _encode(self, image: np.ndarray, image_format: str) -> EncodedImage:
        """缩放、编码。形状：``(H, W, 3)`` -> 嵌入 ``(1, C, h, w)``。"""
        if image_format == "BGR":
            image = image[..., ::-1]
        resized = self.transform.apply_image(np.ascontiguousarray(image))
        (features,) = self.encoder.run(None, {"image": resized})
        (height, width), (new_h, new_w) = image.shape[:2], resized.shape[:2]
        return EncodedImage(features, (height, width), (new_h, new_w))

    def _current(self) -> EncodedImage:
        """当前的一张图像；没有就抛 NoImageError。"""
        if self.images:
            raise NoImageError("现在是一批图像（set_images），用 predict_batch 去问。")
        if not self.is_image_set:
            raise NoImageError("还没有图像：先调用 set_image，再用提示去问。")
        return EncodedImage(self.features, self.original_size, self.input_size)

    def _check(
        self, image: EncodedImage, given: Sequence[Any], multimask: Any, logits: Any
    ) -> Prompts:
        """查一次 predict 的全部参数。"""
        check_flag("multimask_output", multimask)
        check_flag("return_logits", logits)
        # 解码器收的是低分辨率掩码的大小，check_mask_input 要的也是它
        size = (self.mask_height, self.mask_width)
        return check_prompts(given, image.original_size, size)

    def _ask(
        self, image: EncodedImage, prompts: Prompts, multimask: bool, logits: bool
    ) -> Results:
        """查过的提示 -> 结果；坐标在这里搬到缩放后的图上，几组几组地解码。"""
        points, labels, boxes, masks = prompts.move(self.transform, image.original_size)
        groups = 1 if masks is None else len(masks)
        coords, kinds = join_points(points, labels, boxes, groups)
        groups = len(coords)
        if groups == 0:  # 解码器不收 0 组：跑一组空的，结果不要，只要形状
            coords, kinds, masks = *join_points(None, None, None, 1), None
        kept = slice(1, None) if multimask else slice(0, 1)  # 第 0 张给没有歧义的提示
        parts = []
        for start in range(0, len(coords), GROUPS_AT_ONCE):
            rows = slice(start, start + GROUPS_AT_ONCE)
            mask = masks if masks is None or len(masks) == 1 else masks[rows]
            found = self._decode(image, coords[rows], kinds[rows], mask)
            full, iou, low_res = (part[:, kept] for part in found)
            parts.append((full if logits else full > self.mask_threshold, iou, low_res))
        arrays = [np.concatenate(column)[:groups] for column in zip(*parts)]
        first, second, third = arrays if prompts.batched else (x[0] for x in arrays)
        return first, second, third

    def _decode(
        self,
        image: EncodedImage,
        coords: np.ndarray,
        kinds: np.ndarray,
        mask: np.ndarray | None,
    ) -> list[np.ndarray]:
        """跑一次解码器。返回四张掩码的 logits、预测的 IoU、低分辨率 logits。"""
        blank = np.zeros((1, 1, self.mask_height, self.mask_width), np.float32)
        inputs = {
            "image_embeddings": image.features,
            "point_coords": coords,
            "point_labels": kinds,
            "mask_input": blank if mask is None else mask,
            "has_mask_input": np.array([mask is not None], np.float32),
            "orig_im_size": np.array(image.original_size, np.float32),
        }
        return self.decoder.run(["masks", "iou_predictions", "low_res_masks"], inputs)


def join_points(
    points: np.ndarray | None,
    labels: np.ndarray | None,
    boxes: np.ndarray | None,
    groups: int,
) -> tuple[np.ndarray, np.ndarray]:
    """点和框变成解码器收的一种东西：``(B, N, 2)`` 的点和 ``(B, N)`` 的标签，float32。

    框是两个点，标签 2 和 3；没有框时补一个标签 -1 的点，同提示编码器。点和框都没有时是
    groups 组，每组 0 个点。
    """
    if points is None or labels is None:
        B = groups if boxes is None else len(boxes)
        points, labels = np.zeros((B, 0, 2), np.float32), np.zeros((B, 0), np.int32)
        if boxes is None:
            return points, labels.astype(np.float32)
    if boxes is None:
        extra, kinds = np.zeros((len(points), 1, 2), np.float32), [-1]
    else:
        extra, kinds = boxes.reshape(-1, 2, 2), [2, 3]
    more = np.tile(kinds, (len(points), 1))
    coords = np.concatenate([points, extra], axis=1)
    return coords, np.concatenate([labels, more], axis=1).astype(np.float32)
