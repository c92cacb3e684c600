"""预测器的骨架：一张图编码一次，提示可以问很多次。不要 PyTorch。

从照片到掩码是三个动词，各有一个方法：**查**（``_check``）、**编码**（``_encode``）、
**解码**（``_decode``）。收到的东西在门口查一次，往后都当它是对的。真正算的两步归引擎：
``SamPredictor`` 用 PyTorch，``OnnxSamPredictor`` 用 onnxruntime。
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import NoImageError
from ..inputs.checks import (
    check_flag,
    check_image,
    check_images,
    check_positive,
    naming_image,
)
from ..inputs.prompts import Prompts, check_prompts, split_batches
from ..preprocess import ResizeLongestSide

Results = tuple[np.ndarray, np.ndarray, np.ndarray]  # 掩码、预测的 IoU、低分辨率 logits


class EncodedImage(NamedTuple):
    """编码好的一张图像：有它就能问提示。"""

    features: Any  # (1, C, h, w)，引擎自己的：张量或 numpy 数组
    original_size: tuple[int, int]  # (高, 宽)
    input_size: tuple[int, int]  # 缩放后、填充前的 (高, 宽)


class ImagePredictor(ABC):
    """先 set_image，再 predict；换提示不必重新编码图像。

    对应官方 ``predictor.py``。坐标都在原图上，单位像素，顺序 ``(x, y)``。

    参数：
        image_size: 模型的输入边长。
        mask_size: 低分辨率掩码的 ``(高, 宽)``，即 ``(4h, 4w)``。
        image_format: 模型要的通道次序，``"RGB"`` 或 ``"BGR"``。
    """

    def __init__(
        self, image_size: int, mask_size: tuple[int, int], image_format: str = "RGB"
    ) -> None:
        self.transform = ResizeLongestSide(image_size)
        self.mask_size = mask_size
        self.image_format = image_format
        self.reset_image()

    @abstractmethod
    def _run_encoder(self, images: list[np.ndarray]) -> Sequence[Any]:
        """缩放好的图像，各 ``(H', W', 3)`` uint8 -> 嵌入，各 ``(1, C, h, w)``。"""

    @abstractmethod
    def _run_decoder(
        self,
        image: EncodedImage,
        prompts: Sequence[np.ndarray | None],
        multimask: bool,
        logits: bool,
    ) -> Results:
        """B 组提示（点、标签、框、掩码，坐标已在缩放后的图上）-> 结果，B 在最前。"""

    # ---- 放进图像 --------------------------------------------------------------

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

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """编码一张图像，之后就能 predict。

        参数：
            image: uint8，形状 ``(H, W, 3)``，0–255；或不透明、不必旋转的 PIL 图片。
            image_format: ``"RGB"`` 或 ``"BGR"``。

        错误：形状、类型、image_format 不对时抛 SamLiteError，原来的图像仍然可用。
        """
        pixels = check_image(image, image_format)
        (encoded,) = self._encode([pixels], image_format)
        self._keep(encoded)

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
            batch_size: 一次编码几张；越大越占内存，结果不变。导出的 ONNX 编码器一次只
                收一张，那里不起作用。

        错误：某一张不对时抛 SamLiteError 并说明第几张，原来的图像仍然可用。
        """
        size = check_positive("batch_size", batch_size)
        pictures = check_images(images, image_format)
        encoded: list[EncodedImage] = []
        for start in range(0, len(pictures), size):
            encoded += self._encode(pictures[start : start + size], image_format)
        self.reset_image()
        self.images = encoded

    def get_image_embedding(self) -> Any:
        """当前图像的嵌入，``(1, C, h, w)``；vit_b 是 ``(1, 256, 64, 64)``。"""
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
        image, flags = self._current(), (multimask_output, return_logits)
        check_flags(*flags)
        prompts = self._check(image, (point_coords, point_labels, box, mask_input))
        return self._decode(image, prompts, *flags)

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
        flags = multimask_output, return_logits
        check_flags(*flags)
        batches = point_coords_batch, point_labels_batch, box_batch, mask_input_batch
        asked = []
        for i, given in enumerate(split_batches(batches, len(self.images))):
            with naming_image(i):
                asked.append(self._check(self.images[i], given))
        pairs = zip(self.images, asked, strict=True)
        results = [self._decode(image, prompts, *flags) for image, prompts in pairs]
        masks, iou, low_res = (list(column) for column in zip(*results, strict=True))
        return masks, iou, low_res

    # ---- 三个动词 --------------------------------------------------------------

    def _check(self, image: EncodedImage, given: Sequence[Any]) -> Prompts:
        """查一次 predict 的四项提示，排成 B 组。"""
        return check_prompts(given, image.original_size, self.mask_size)

    def _encode(
        self, pictures: Sequence[np.ndarray], image_format: str = "RGB"
    ) -> list[EncodedImage]:
        """查过的图像 ``(H, W, 3)``，按最长边缩放，交给引擎编码。"""
        if image_format != self.image_format:
            pictures = [picture[..., ::-1] for picture in pictures]
        resized = [
            self.transform.apply_image(np.ascontiguousarray(x)) for x in pictures
        ]
        found = zip(self._run_encoder(resized), pictures, resized, strict=True)
        return [
            EncodedImage(features, (x.shape[0], x.shape[1]), (y.shape[0], y.shape[1]))
            for features, x, y in found
        ]

    def _decode(
        self, image: EncodedImage, prompts: Prompts, multimask: bool, logits: bool
    ) -> Results:
        """查过的提示，坐标搬到缩放后的图上，交给引擎解码；单独一组的去掉 B 那一维。"""
        moved = prompts.move(self.transform, image.original_size)
        masks, iou, low_res = self._run_decoder(image, moved, multimask, logits)
        if prompts.batched:
            return masks, iou, low_res
        return masks[0], iou[0], low_res[0]

    # ---- 当前的图像 ------------------------------------------------------------

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
        return EncodedImage(self.features, self.original_size, self.input_size)


def check_flags(multimask_output: Any, return_logits: Any) -> None:
    """predict 的两个开关只能是真或假，否则抛 SamLiteError。"""
    check_flag("multimask_output", multimask_output)
    check_flag("return_logits", return_logits)
