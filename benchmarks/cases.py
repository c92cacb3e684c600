"""量什么：最下面的 ``CASES`` 是一张表，一行一项。

一项测量给每一方一个准备函数：``prepare(job) -> run``。准备（读模型、造输入）不计时；
``run()`` 才是要量的，它的结果经 ``outputs`` 变成“名字 -> 张量”，拿来核对三方算得一样。
要加一项，写准备函数，在表里添一行。
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

import sam_lite
from sam_lite.files.huggingface import is_huggingface, to_official
from sam_lite.weights import ASSETS

from .contenders import Job, import_contender, load_model

Run = Callable[[], Any]
PICTURE = (750, 1000)  # 测量用的图，(高, 宽)


# ---- 输入：只由型号决定，三方相同 ------------------------------------------------


def noise(*shape: int) -> torch.Tensor:
    """固定种子的正态随机数。"""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def pixels(job: Job) -> torch.Tensor:
    """规范化之后的图像，``(1, 3, 边长, 边长)``。"""
    size = job.config.image_size
    return noise(1, 3, size, size).to(getattr(torch, job.dtype))


def embedding(job: Job) -> torch.Tensor:
    """代替图像嵌入的随机数，``(1, C, 网格, 网格)``；解码器花的时间与数值无关。"""
    c = job.config
    return noise(1, c.prompt_embed_dim, c.grid_size, c.grid_size)


def picture() -> np.ndarray:
    """由 50×50 的色块拼成的图，uint8，``(750, 1000, 3)``。"""
    coarse = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    return coarse.repeat(50, 0).repeat(50, 1)


def clicks() -> np.ndarray:
    """8×8 个点，``(64, 1, 2)``，原图上的 (x, y)。"""
    height, width = PICTURE
    x, y = np.meshgrid(
        (np.arange(8) + 0.5) * width / 8, (np.arange(8) + 0.5) * height / 8
    )
    return np.stack([x.ravel(), y.ravel()], axis=1)[:, None]


def scaled_clicks(job: Job) -> torch.Tensor:
    """搬到缩放后图上的 64 个点，``(64, 1, 2)``。"""
    scale = job.config.image_size / max(PICTURE)
    return torch.as_tensor(clicks() * scale, dtype=torch.float32)


class SavedEmbedding(nn.Module):
    """冒充图像编码器：不计算，交出现成的嵌入，只量解码器时用。"""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.img_size = job.config.image_size
        self.features = embedding(job)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """不看 x，返回 ``(1, C, 网格, 网格)``。"""
        return self.features


def processor(job: Job, library: Any) -> Any:
    """transformers 的图片处理器，边长与型号相同；用不依赖 torchvision 的那一个。"""
    kind = getattr(library, "SamImageProcessorPil", None) or library.SamImageProcessor
    side = job.config.image_size
    images = kind(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    return library.SamProcessor(images)


# ---- 图像编码器 ----------------------------------------------------------------


def encoder(job: Job) -> Run:
    """sam_lite、官方：编码一张图。"""
    sam, x = job.model(), pixels(job)
    return lambda: sam.image_encoder(x)


def encoder_huggingface(job: Job) -> Run:
    """transformers：编码一张图。"""
    model, x = job.model(), pixels(job)
    return lambda: model.get_image_embeddings(x)


# ---- 一次点击，64 次点击 ---------------------------------------------------------


def click(job: Job) -> Run:
    """sam_lite、官方：图像已经编码，点一下，三张掩码放大到原图。"""
    predictor = job.predictor(SavedEmbedding(job))
    predictor.set_image(picture())
    point, label = clicks()[27], np.array([1])
    return lambda: predictor.predict(point, label)


def click_huggingface(job: Job) -> Run:
    """transformers：同上。"""
    model, features = job.model(), embedding(job)
    enlarge = enlarger(job)
    points = scaled_clicks(job)[None, 27:28]  # (1, 1, 1, 2)

    def run() -> tuple[Any, ...]:
        found = model(image_embeddings=features, input_points=points)
        masks = enlarge(found.pred_masks)
        return masks[0].numpy(), found.iou_scores[0, 0], found.pred_masks[0, 0]

    return run


def clicks_decoder(job: Job) -> Run:
    """sam_lite、官方：64 个点一批，只到低分辨率掩码。"""
    sam, features, points = job.model(), embedding(job), scaled_clicks(job)
    labels = torch.ones(len(points), 1, dtype=torch.int)

    def run() -> tuple[Any, ...]:
        sparse, dense = sam.prompt_encoder((points, labels), None, None)
        low_res, iou = sam.mask_decoder(
            image_embeddings=features,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return None, iou, low_res

    return run


def clicks_decoder_huggingface(job: Job) -> Run:
    """transformers：同上。"""
    model, features, points = job.model(), embedding(job), scaled_clicks(job)[None]

    def run() -> tuple[Any, ...]:
        found = model(image_embeddings=features, input_points=points)
        return None, found.iou_scores[0], found.pred_masks[0]

    return run


def clicks_full(job: Job) -> Run:
    """sam_lite、官方：64 个点一批，掩码放大到原图。"""
    predictor = job.predictor(SavedEmbedding(job))
    predictor.set_image(picture())
    points = scaled_clicks(job)
    labels = torch.ones(len(points), 1, dtype=torch.int)
    return lambda: predictor.predict_torch(points, labels)


def clicks_full_huggingface(job: Job) -> Run:
    """transformers：同上。"""
    model, features, points = job.model(), embedding(job), scaled_clicks(job)[None]
    enlarge = enlarger(job)

    def run() -> tuple[Any, ...]:
        found = model(image_embeddings=features, input_points=points)
        masks = enlarge(found.pred_masks)
        return masks, found.iou_scores[0], found.pred_masks[0]

    return run


def enlarger(job: Job) -> Callable[[torch.Tensor], torch.Tensor]:
    """transformers 的后处理：``(1, B, 3, h, w)`` -> 原图大小 ``(B, 3, H, W)``。"""
    images = processor(job, import_contender(job.contender)).image_processor
    scale = job.config.image_size / max(PICTURE)
    inner = [int(side * scale + 0.5) for side in PICTURE]
    return lambda masks: images.post_process_masks(masks, [list(PICTURE)], [inner])[0]


# ---- 分割一切 ------------------------------------------------------------------


def everything(job: Job) -> Run:
    """sam_lite、官方：图像已经编码，32×32 个点，什么也不筛，全部写成记录。"""
    sam = job.model()
    sam.image_encoder = SavedEmbedding(job)
    options = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = job.generator(sam, output_mode="uncompressed_rle", **options)
    return lambda: generator.generate(picture())


def everything_shipped(job: Job) -> Run:
    """sam_lite、官方：自带的小权重和真实照片，默认阈值，图像已经编码。"""
    sam = job.shipped_model()
    with Image.open(ASSETS / "photos" / "coins.jpg") as file:
        photo = np.array(file.convert("RGB"))
    predictor = sam_lite.SamPredictor(sam_lite.load())
    predictor.set_image(photo)
    encoder = SavedEmbedding(job)
    encoder.img_size = sam.image_encoder.img_size
    encoder.features = predictor.features
    sam.image_encoder = encoder
    generator = job.generator(sam, output_mode="uncompressed_rle")
    return lambda: generator.generate(photo)


# ---- 从图片到掩码 ---------------------------------------------------------------


def end_to_end(job: Job) -> Run:
    """sam_lite、官方：set_image 加一次点击。"""
    predictor, image = job.predictor(), picture()
    point, label = clicks()[27], np.array([1])

    def run() -> tuple[Any, ...]:
        predictor.set_image(image)
        return predictor.predict(point, label)

    return run


def end_to_end_huggingface(job: Job) -> Run:
    """transformers：处理器、模型、后处理，同样的图和点。"""
    model, image = job.model(), picture()
    process = processor(job, import_contender(job.contender))
    point = [[clicks()[27].tolist()]]

    def run() -> tuple[Any, ...]:
        inputs = process(images=image, input_points=point, return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        inputs["input_points"] = inputs["input_points"].float()
        found = model(**inputs)
        masks = process.image_processor.post_process_masks(found.pred_masks, *sizes)
        return masks[0][0].numpy(), found.iou_scores[0, 0], found.pred_masks[0, 0]

    return run


# ---- 读模型 --------------------------------------------------------------------


def loading(job: Job) -> Run:
    """三方：从磁盘读一个模型，页缓存是热的，导入库不算。"""
    library = import_contender(job.contender)
    return lambda: load_model(job, library)


def loading_and_touching(job: Job) -> Run:
    """三方：读一个模型，再把每个参数都读一遍；映射文件的办法把读盘推迟到了这时。"""
    library = import_contender(job.contender)

    def run() -> Any:
        model = load_model(job, library)
        for parameter in model.parameters():
            parameter.detach().sum()
        return model

    return run


# ---- 结果变成可以核对的张量 -------------------------------------------------------


def one_tensor(result: torch.Tensor) -> dict[str, torch.Tensor]:
    """编码器的结果：图像嵌入。"""
    return {"embedding": result}


def three_parts(result: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """掩码、IoU、低分辨率 logits；布尔掩码只留各占多大面积，差几个像素不算不同。"""
    masks, iou, low_res = result
    parts = {"iou": torch.as_tensor(iou), "logits": torch.as_tensor(low_res)}
    if masks is not None:
        parts["area"] = torch.as_tensor(masks).double().mean(dim=(-2, -1))
    return parts


def records(result: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """分割一切的结果：几张，各项的总和；张数要一样，别的只差浮点舍入。"""
    names = ("area", "predicted_iou", "stability_score")
    total = [sum(record[name] for record in result) for name in names]
    runs = sum(len(record["segmentation"]["counts"]) for record in result)
    corners = [sum(record["bbox"]) for record in result]
    return {
        "count": torch.tensor([len(result) + 1]),  # 一张也没有时，相对误差才有意义
        "totals": torch.tensor(total, dtype=torch.float64) + 1,
        "runs": torch.tensor([runs + 1, sum(corners) + 1]),
    }


def parameter_sums(model: nn.Module) -> dict[str, torch.Tensor]:
    """每个参数的平方和，按官方的名字排好，``(参数个数,)``。"""
    state = dict(model.state_dict())
    state = to_official(state) if is_huggingface(state) else state
    sums = [state[name].double().square().sum() for name in sorted(state)]
    return {"parameters": torch.stack(sums)}


# ---- 表 -----------------------------------------------------------------------


class Case(NamedTuple):
    """一项测量。"""

    key: str  # --only 用的名字
    title: str
    entries: tuple[tuple[str, str], ...]  # 参加的（谁，精度），sam_lite 在最前
    prepare: tuple[Callable[[Job], Run], Callable[[Job], Run]]  # 官方接口，transformers
    outputs: Callable[[Any], dict[str, torch.Tensor]]
    tolerance: float  # 与官方 float32 的最大相对误差
    variants: tuple[str, ...] = ("vit_b",)
    warmups: int = 1
    repeats: int = 1  # 一个进程里计时几次，取中位数
    loads: bool = False  # 量的是读模型：内存再写成相当于几份权重
    bound: bool = False  # 量的是编码器：再与矩阵乘法的速度容许的时间相比


FLOAT32 = tuple((name, "float32") for name in ("sam_lite", "official", "transformers"))
BFLOAT16 = (
    ("sam_lite", "bfloat16"),
    ("official", "float32"),
    ("official", "bfloat16"),
    ("transformers", "bfloat16"),
)
NATIVE = FLOAT32[:2]  # transformers 没有同样的接口
LOADED = ("vit_b", "vit_h")

# fmt: off
CASES = (
    Case("encoder", "图像编码器", FLOAT32,
         (encoder, encoder_huggingface), one_tensor, 2e-4, bound=True),
    Case("encoder_bf16", "图像编码器", BFLOAT16,
         (encoder, encoder_huggingface), one_tensor, 0.05, bound=True),
    Case("click", "一次点击", FLOAT32,
         (click, click_huggingface), three_parts, 1e-3, warmups=3, repeats=15),
    Case("clicks64", "64 次点击，低分辨率", FLOAT32,
         (clicks_decoder, clicks_decoder_huggingface), three_parts, 1e-3, repeats=2),
    Case("clicks64_full", "64 次点击，放大到原图", FLOAT32,
         (clicks_full, clicks_full_huggingface), three_parts, 1e-3, repeats=2),
    Case("everything", "分割一切，32×32 点，不筛", NATIVE,
         (everything, everything), records, 1e-3, warmups=0),
    Case("everything_shipped", "分割一切，小权重，默认阈值", NATIVE,
         (everything_shipped, everything_shipped), records, 1e-3, ("tiny",)),
    Case("end_to_end", "图片加一次点击", FLOAT32,
         (end_to_end, end_to_end_huggingface), three_parts, 1e-3),
    Case("load", "读模型", FLOAT32,
         (loading, loading), parameter_sums, 0.0, LOADED, warmups=0, loads=True),
    Case("load_touch", "读模型并读遍参数", FLOAT32,
         (loading_and_touching, loading_and_touching), parameter_sums, 0.0, LOADED,
         warmups=0, loads=True),
)
# fmt: on
BY_KEY = {case.key: case for case in CASES}


def prepare(case: Case, job: Job) -> Run:
    """这一方的准备函数，执行完，返回要量的 run。"""
    return case.prepare[job.contender == "transformers"](job)
