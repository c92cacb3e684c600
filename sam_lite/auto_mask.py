"""第 12 章：SamAutomaticMaskGenerator，在整张图上撒一个网格的点，收齐所有的掩码。

官方 ``utils/amg.py`` 里的东西分在几间：几何在 ``auto_mask_grid.py``，非极大值抑制在
``mask_nms.py``，游程编码在 ``mask_rle.py``，连通区域在 ``mask_regions.py``。记录和标号
图在 ``auto_mask_records.py``。
"""

from math import inf
from typing import Any

import numpy as np
import torch

from .decoding.path import PromptDecoder
from .inputs.checks import check_image
from .masks.grid import (
    batched_mask_to_box,
    build_all_layer_point_grids,
    calculate_stability_score,
    generate_crop_boxes,
    is_box_near_crop_edge,
    point_prompts,
    uncrop_boxes_xyxy,
    uncrop_masks,
    uncrop_points,
)
from .masks.nms import box_area, nms
from .masks.options import check_options, progress_bar, prompts_at_once
from .masks.records import (
    MaskData,
    Record,
    clean_regions,
    empty_data,
    write_record,
)
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
        options = {k: v for k, v in locals().items() if k not in ("self", "model")}
        check_options(options, model)
        self.predictor = SamPredictor(model)
        self.decoder = PromptDecoder()
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = int(crop_n_layers)
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.min_mask_area = min_mask_area
        self.memory_limit_mb = int(memory_limit_mb)
        if points_per_side is None:
            self.point_grids = [np.asarray(grid, float) for grid in point_grids or []]
        else:
            self.point_grids = build_all_layer_point_grids(
                points_per_side, crop_n_layers, crop_n_points_downscale_factor
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
        data = self._generate_masks(image, progress)
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

    def _generate_masks(self, image: np.ndarray, progress: bool) -> MaskData:
        """各块裁图的掩码合起来，去掉块与块之间重复的。"""
        size = image.shape[0], image.shape[1]
        boxes, layers = generate_crop_boxes(
            size, self.crop_n_layers, self.crop_overlap_ratio
        )
        crops = [(b, k) for b, k in zip(boxes, layers) if b[0] < b[2] and b[1] < b[3]]
        with progress_bar(
            sum(len(self.point_grids[layer]) for _, layer in crops), progress
        ) as bar:
            parts = [self._process_crop(image, *crop, size, bar) for crop in crops]
        data = MaskData.join(parts)
        if len(crops) > 1:
            scores = 1 / box_area(data["crop_boxes"])  # 小块看得细，优先
            data.filter(nms(data["boxes"], scores, self.crop_nms_thresh))
        return data

    def _process_crop(
        self,
        image: np.ndarray,
        crop_box: list[int],
        layer: int,
        orig_size: tuple[int, int],
        bar: Any,
    ) -> MaskData:
        """一块裁图：编码一次，撒点，去掉块内重复的，坐标搬回原图。"""
        x0, y0, x1, y1 = crop_box
        crop = image[y0:y1, x0:x1]
        self.predictor.set_image(crop)
        points = self.point_grids[layer] * np.array([x1 - x0, y1 - y0])
        size = y1 - y0, x1 - x0
        step = prompts_at_once(
            self.points_per_batch, self.memory_limit_mb, self.predictor.model, orig_size
        )
        parts = [empty_data()]
        for start in range(0, len(points), step):
            batch = points[start : start + step]
            parts.append(self._process_batch(batch, size, crop_box, orig_size))
            bar.update(len(batch))
        self.predictor.reset_image()
        self.decoder = PromptDecoder()  # 不再留着这块裁图的嵌入
        data = MaskData.join(parts)
        data.filter(nms(data["boxes"], data["iou_preds"], self.box_nms_thresh))
        data["boxes"] = uncrop_boxes_xyxy(data["boxes"], crop_box)
        data["points"] = uncrop_points(data["points"], crop_box)
        data["crop_boxes"] = torch.tensor(crop_box).expand(len(data["rles"]), 4)
        return data

    def _process_batch(
        self,
        points: np.ndarray,
        size: tuple[int, int],
        crop_box: list[int],
        orig_size: tuple[int, int],
    ) -> MaskData:
        """一批点：每点三张掩码，筛过、写成 RLE。points ``(N, 2)``，在裁图里。"""
        predictor = self.predictor
        coords = predictor.transform.apply_coords(points, size)
        prompts = point_prompts(coords, predictor.device)
        features, least = predictor.features, self.pred_iou_thresh
        parts = [empty_data()]
        for rows, low_res, iou in self.decoder(
            predictor.model, features, prompts, True, least if least > 0 else -inf
        ):
            data = MaskData(
                low_res=low_res.flatten(0, 1),
                iou_preds=iou.flatten().float().cpu(),
                points=torch.from_numpy(
                    points[rows.numpy()].repeat(iou.shape[1], axis=0)
                ),
            )
            if self.pred_iou_thresh > 0:
                data.filter(data["iou_preds"] > self.pred_iou_thresh)
            if len(data["iou_preds"]):
                parts.append(self._finish(data, size, crop_box, orig_size))
        return MaskData.join(parts)

    def _finish(
        self,
        data: MaskData,
        size: tuple[int, int],
        crop_box: list[int],
        orig_size: tuple[int, int],
    ) -> MaskData:
        """放大到裁图、筛稳定性、取框、扔掉被裁断的、写成 RLE。"""
        sam, (orig_h, orig_w) = self.predictor.model, orig_size
        low_res = data.pop("low_res")[:, None]  # (N, 1, 4h, 4w)
        logits = sam.postprocess_masks(low_res, self.predictor.input_size, size)[:, 0]
        data["stability_score"] = calculate_stability_score(
            logits, sam.mask_threshold, self.stability_score_offset
        ).cpu()
        keep = data["stability_score"] >= self.stability_score_thresh
        if self.stability_score_thresh <= 0:
            keep = torch.ones_like(keep)
        masks = (logits > sam.mask_threshold)[keep.to(logits.device)]  # (n, H, W)
        del logits  # 先变成布尔再挑，少一份浮点的拷贝
        data.filter(keep)
        data["boxes"] = batched_mask_to_box(masks).cpu()
        inside = ~is_box_near_crop_edge(data["boxes"], crop_box, [0, 0, orig_w, orig_h])
        data.filter(inside)
        masks = uncrop_masks(masks[inside.to(masks.device)], crop_box, orig_h, orig_w)
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
