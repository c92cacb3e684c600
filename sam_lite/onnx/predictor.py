"""OnnxSamPredictor：用导出的两个 ONNX 文件分割，不要 PyTorch。

只要 onnxruntime、numpy、Pillow。没有 torch 的环境里这样装::

    pip install onnxruntime numpy pillow
    pip install --no-deps sam-lite

文件由 ``sam-lite export-onnx`` 导出，见 ``onnx_export.py``。
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..decoding.base import EncodedImage, ImagePredictor, Results
from .session import check_pair, open_session, read_facts

GROUPS_AT_ONCE = 8  # 一次解码几组提示：每组四张原图大小的 logits，多了占内存


class OnnxSamPredictor(ImagePredictor):
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
        *_, height, width = self.decoder.get_inputs()[3].shape
        super().__init__(int(facts["image_size"]), (height, width))

    def _run_encoder(self, images: list[np.ndarray]) -> Sequence[np.ndarray]:
        """缩放好的图像 ``(H', W', 3)`` -> 嵌入，每张 ``(1, C, h, w)``；一张一次。"""
        return [self.encoder.run(None, {"image": image})[0] for image in images]

    def _run_decoder(
        self,
        image: EncodedImage,
        prompts: Sequence[np.ndarray | None],
        multimask: bool,
        logits: bool,
    ) -> Results:
        """B 组提示 -> 结果，几组几组地解码。"""
        points, labels, boxes, masks = prompts
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
            found = self._ask(image, coords[rows], kinds[rows], mask)
            full, iou, low_res = (part[:, kept] for part in found)
            parts.append((full if logits else full > self.mask_threshold, iou, low_res))
        first, second, third = (np.concatenate(c)[:groups] for c in zip(*parts))
        return first, second, third

    def _ask(
        self,
        image: EncodedImage,
        coords: np.ndarray,
        kinds: np.ndarray,
        mask: np.ndarray | None,
    ) -> list[np.ndarray]:
        """跑一次解码器。返回四张掩码的 logits、预测的 IoU、低分辨率 logits。"""
        blank = np.zeros((1, 1, *self.mask_size), np.float32)
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
