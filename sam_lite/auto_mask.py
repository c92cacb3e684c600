"""第 12 章：SamAutomaticMaskGenerator，在整张图上撒一个网格的点，收齐所有的掩码。

每点三张，过四道筛子，从上往下读就是这个次序：

1. **预测的 IoU**：不够的，连解码器里的上采样都不做（``_process_batch``）；
2. **稳定性分数**：放大到裁图的大小才算得出（``_filter_masks``）；
3. **裁图的边**：被裁断的半个物体不要（``_filter_masks``）；
4. **重复**：框的 NMS，一块裁图之内一次，各块之间再一次。

官方 ``utils/amg.py`` 里的东西都在 ``masks/``：网格和裁图在 ``crops.py``，框和稳定性分数
在 ``measure.py``，其余的文件名就是它们的名字。
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from .decoding.batches import prompts_at_once, warn_if_lowered
from .errors import require
from .inputs.auto_mask import check_grids, check_options
from .inputs.checks import check_image
from .masks.crops import (
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    uncrop_boxes_xyxy,
    uncrop_masks,
    uncrop_points,
)
from .masks.measure import batched_mask_to_box, calculate_stability_score
from .masks.nms import box_area, nms
from .masks.records import MaskData, Record, clean_regions, empty_data, write_record
from .masks.rle import area_from_rle, compact_rles
from .model import Sam
from .predictor import SamPredictor


class SamAutomaticMaskGenerator:
    """把整张图分割成掩码，不用任何提示。

    对应官方 ``automatic_mask_generator.py``，论文附录 B、D.1 与 7.3 节。签名、默认值、
    记录的键照官方；``*`` 以后是多出来的。与官方不同的只有它出错的地方：

    - 有裁图、而一张掩码也没有时官方抛 IndexError，这里给空列表；只有几块没有掩码时，
      官方的 crop_box 变成浮点数，这里还是整数；
    - 空掩码的稳定性分数官方是 NaN，这里是 0；一行超过 32767 个像素时官方会溢出；
    - ``point_grids`` 比裁图的层数少时官方抛 IndexError，这里当场说清楚；点不在 0–1
      之间、crop_overlap_ratio 不在 [0, 1) 里的，官方照收，这里不收；
    - 小图的裁图可能一个像素也没有，官方在缩放时出错，这里跳过；
    - 苹果芯片的 MPS 没有 float64，官方在那里出错，这里坐标用 float32。

    CPU 上 ``points_per_batch`` 再大，一批也不超过处理器缓存放得下的（vit_b 是 4 个
    点）：结果不变，更快。写得比默认的 64 还大、又用不上时，发出 SamLiteWarning。

    参数：
        model: 一个 Sam。
        points_per_side: 每边几个点；给了 point_grids 就写 None。
        points_per_batch: 一次解码最多几个点；``"auto"`` 按 memory_limit_mb 定。
        pred_iou_thresh: 预测的 IoU 要大于它；0 是不筛。
        stability_score_thresh: 稳定性分数至少要有它；0 是不筛。
        stability_score_offset: 算稳定性时阈值上下挪多少，logit。
        box_nms_thresh: 框的交并比大于它，就当作重复的掩码，只留预测 IoU 高的。
        crop_n_layers: 裁图的层数；第 i 层把图切成 2**i × 2**i 块，每块再撒一次点。
        crop_nms_thresh: 各块之间去重的阈值，优先留小块里的。
        crop_overlap_ratio: 相邻两块重叠短边的几分之几（第 1 层；往后减半）。
        crop_n_points_downscale_factor: 每深一层，每边的点数除以它。
        point_grids: 自己的点，每层一个 ``(N, 2)`` 数组，(x, y)，在 0–1 之间。
        min_mask_region_area: 小于它的孔填上、小于它的岛去掉，像素；要 scikit-image。
        output_mode: ``"binary_mask"``、``"uncompressed_rle"`` 或 ``"coco_rle"``。
        min_mask_area: 小于它的掩码整张不要，像素。
        memory_limit_mb: ``points_per_batch="auto"`` 时，一批点的中间结果最多占多少 MB
            （模型、图像嵌入和收下的掩码不算在内）。

    错误：参数不合理时抛 SamLiteError。
    """

    def __init__(
        self,
        model: Sam,
        points_per_side: int | None = 32,
        points_per_batch: int | str = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        *,
        min_mask_area: int = 0,
        memory_limit_mb: int = 1024,
    ) -> None:
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.min_mask_area = min_mask_area
        self.memory_limit_mb = memory_limit_mb
        check_options(self)
        layers = int(crop_n_layers) + 1
        check_grids(
            points_per_side, point_grids, layers, crop_n_points_downscale_factor
        )
        warn_if_lowered(points_per_batch, model)
        self.predictor = SamPredictor(model)
        self._shown, self._bar = False, SimpleNamespace(update=lambda n: None)
        if points_per_side is None:
            self.point_grids = [np.asarray(grid, float) for grid in point_grids or []]
        else:
            self.point_grids = build_all_layer_point_grids(
                points_per_side, layers - 1, crop_n_points_downscale_factor
            )

    @torch.no_grad()
    def generate(self, image: np.ndarray, *, progress: bool = False) -> list[Record]:
        """一张图里的全部掩码，按预测的 IoU 从高到低（有裁图时，小块里的在前）。

        参数：
            image: uint8，``(H, W, 3)``，RGB。
            progress: 真则显示进度条；要 tqdm。

        返回：每张掩码一个字典：segmentation（布尔 ``(H, W)`` 或 RLE）、area（像素）、
            bbox（x、y、宽、高）、predicted_iou、stability_score、point_coords（问出它的
            点，``[[x, y]]``）、crop_box（它出自哪块裁图，x、y、宽、高）。

        错误：图像不对时抛 SamLiteError。
        """
        image = check_image(image)
        self._shown = progress
        data = self._generate_masks(image)
        if self.min_mask_region_area > 0:
            thresh = max(self.box_nms_thresh, self.crop_nms_thresh)
            area = self.min_mask_region_area
            data = self.postprocess_small_regions(data, area, thresh)
        if self.min_mask_area > 0:
            areas = torch.tensor([area_from_rle(rle) for rle in data["rles"]])
            data.filter(areas >= self.min_mask_area)
        return [
            write_record(data, i, self.output_mode) for i in range(len(data["rles"]))
        ]

    # 这三个方法的签名照官方：有人改写其中一个

    def _generate_masks(self, image: np.ndarray) -> MaskData:
        """各块裁图的掩码合起来，去掉块与块之间重复的。"""
        size = image.shape[0], image.shape[1]
        boxes, layers = generate_crop_boxes(
            size, int(self.crop_n_layers), self.crop_overlap_ratio
        )
        crops = [(b, k) for b, k in zip(boxes, layers) if b[0] < b[2] and b[1] < b[3]]
        points = sum(len(self.point_grids[layer]) for _, layer in crops)
        with progress_bar(points, self._shown) as self._bar:
            data = MaskData.join([self._process_crop(image, *c, size) for c in crops])
        if len(crops) > 1:  # 第四道筛子，重复：各块之间
            scores = 1 / box_area(data["crop_boxes"])  # 小块看得细，优先
            data.filter(nms(data["boxes"], scores, self.crop_nms_thresh))
        return data

    def _process_crop(
        self,
        image: np.ndarray,
        crop_box: list[int],
        crop_layer_idx: int,
        orig_size: tuple[int, ...],
    ) -> MaskData:
        """一块裁图：编码一次，撒点，去掉块内重复的，坐标搬回原图。"""
        x0, y0, x1, y1 = crop_box
        predictor, im_size = self.predictor, (y1 - y0, x1 - x0)
        (crop,) = predictor._encode([image[y0:y1, x0:x1]])
        predictor._keep(crop)
        points = self.point_grids[crop_layer_idx] * im_size[::-1]
        limits = self.points_per_batch, int(self.memory_limit_mb)
        height, width = orig_size
        step = prompts_at_once(*limits, predictor.model, (height, width))
        parts = [empty_data()]
        for start in range(0, len(points), step):
            batch = points[start : start + step]
            parts.append(self._process_batch(batch, im_size, crop_box, orig_size))
            self._bar.update(len(batch))
        predictor.reset_image()
        data = MaskData.join(parts)
        # 第四道筛子，重复：一块之内
        data.filter(nms(data["boxes"], data["iou_preds"], self.box_nms_thresh))
        data["boxes"] = uncrop_boxes_xyxy(data["boxes"], crop_box)
        data["points"] = uncrop_points(data["points"], crop_box)
        data["crop_boxes"] = torch.tensor(crop_box).expand(len(data["rles"]), 4)
        return data

    def _process_batch(
        self,
        points: np.ndarray,
        im_size: tuple[int, ...],
        crop_box: list[int],
        orig_size: tuple[int, ...],
    ) -> MaskData:
        """一批点：每点三张掩码，过前三道筛子。points ``(N, 2)``，在裁图里。"""
        predictor, parts = self.predictor, [empty_data()]
        moved = predictor.transform.apply_coords(points, im_size)
        coords = torch.from_numpy(moved).float()  # MPS 没有 float64
        coords = coords.to(predictor.device)[:, None]  # (N, 1, 2)，一点一组
        labels = torch.ones(coords.shape[:2], dtype=torch.int, device=predictor.device)
        prompts = coords, labels, None, None
        # 第一道筛子，预测的 IoU；0 是不筛
        least = self.pred_iou_thresh if self.pred_iou_thresh > 0 else None
        for rows, low_res, iou in predictor.decoder.candidates(
            predictor.model, predictor.features, prompts, least
        ):
            data = MaskData(
                iou_preds=iou.float().cpu(), points=torch.from_numpy(points)[rows]
            )
            parts.append(self._filter_masks(data, low_res, crop_box, orig_size))
        return MaskData.join(parts)

    def _filter_masks(
        self,
        data: MaskData,
        low_res: torch.Tensor,
        crop_box: list[int],
        orig_size: tuple[int, ...],
    ) -> MaskData:
        """放大到裁图，过第二、三道筛子，写成 RLE。low_res ``(N, 4h, 4w)``。"""
        predictor, sam = self.predictor, self.predictor.model
        sizes = predictor.input_size, predictor.original_size
        logits = sam.postprocess_masks(low_res[:, None], *sizes)[:, 0]  # (N, H, W)
        # 第二道筛子，稳定性分数；0 是不筛
        data["stability_score"] = calculate_stability_score(
            logits, sam.mask_threshold, self.stability_score_offset
        ).cpu()
        stable = data["stability_score"] >= self.stability_score_thresh
        if self.stability_score_thresh <= 0:
            stable = torch.ones_like(stable)
        masks = (logits > sam.mask_threshold)[stable.to(logits.device)]  # (n, H, W)
        del logits  # 先变成布尔再挑，少一份浮点的拷贝
        data.filter(stable)
        # 第三道筛子，裁图的边：被裁断的不要
        orig_h, orig_w = orig_size
        data["boxes"] = batched_mask_to_box(masks).cpu()
        whole = ~is_box_near_crop_edge(data["boxes"], crop_box, [0, 0, orig_w, orig_h])
        data.filter(whole)
        masks = uncrop_masks(masks[whole.to(masks.device)], crop_box, orig_h, orig_w)
        data["rles"] = compact_rles(masks)  # 交出去时才换成列表
        return data

    @staticmethod
    def postprocess_small_regions(
        mask_data: MaskData, min_area: int, nms_thresh: float
    ) -> MaskData:
        """填小孔、去小岛，变了的掩码重算框和 RLE，再去一次重复；就地改 mask_data。

        没有改动的掩码在去重时优先。要 scikit-image。
        """
        intact = clean_regions(mask_data, min_area)
        mask_data.filter(nms(mask_data["boxes"], intact.float(), nms_thresh))
        return mask_data


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Any]:
    """进度条，单位是点；shown 为假时什么也不显示。"""
    if not shown:
        yield SimpleNamespace(update=lambda n: None)
        return
    with require("tqdm", "显示进度").tqdm(total=total, desc="撒点", unit="点") as bar:
        yield bar
