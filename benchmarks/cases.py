"""量什么：最下面的 ``CASES`` 是一张表，一行一项。

一项测量给每一方一个准备函数：``prepare(job) -> run``。准备（读模型、造输入）不计时；
``run()`` 才是要量的，它的结果经 ``outputs`` 变成“名字 -> 张量”，拿来核对各方算得一样。
要加一项，写准备函数，在表里添一行。
"""

from collections.abc import Callable
from functools import partial
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
Prepare = Callable[[Job], Run]
Tensors = dict[str, torch.Tensor]
PICTURE = (750, 1000)  # 测量用的图，(高, 宽)


# ---- 输入：只由型号决定，各方相同 ------------------------------------------------


def noise(*shape: int) -> torch.Tensor:
    """固定种子的正态随机数。"""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def pixels(job: Job) -> torch.Tensor:
    """规范化之后的图像，``(1, 3, 边长, 边长)``。"""
    size = job.config.image_size
    return job.place(noise(1, 3, size, size))


def embedding(job: Job) -> torch.Tensor:
    """代替图像嵌入的随机数，``(1, C, 网格, 网格)``；解码器花的时间与数值无关。"""
    c = job.config
    return job.place(noise(1, c.prompt_embed_dim, c.grid_size, c.grid_size))


def picture() -> np.ndarray:
    """由 50×50 的色块拼成的图，uint8，``(750, 1000, 3)``。"""
    coarse = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    return coarse.repeat(50, 0).repeat(50, 1)


def grid_points(job: Job) -> np.ndarray:
    """8×8 个点，``(64, 2)``，原图上的 (x, y)。"""
    height, width = PICTURE
    side = (np.arange(8) + 0.5) / 8
    x, y = np.meshgrid(side * width, side * height)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def one_point(job: Job) -> np.ndarray:
    """其中的一个，``(1, 2)``。"""
    return grid_points(job)[27:28]


def random_points(job: Job) -> np.ndarray:
    """随机的 job.count 个点，``(count, 2)``，原图上的 (x, y)。"""
    return np.random.default_rng(0).random((job.count, 2)) * PICTURE[::-1]


def as_prompts(job: Job, points: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """每点各成一组提示，搬到缩放后的图上：坐标 ``(B, 1, 2)``，标签 ``(B, 1)``。"""
    scale = job.config.image_size / max(PICTURE)
    where = torch.as_tensor(points[:, None] * scale, dtype=torch.float32)
    return where, torch.ones(len(points), 1, dtype=torch.int)


class SavedEmbedding(nn.Module):
    """冒充图像编码器：不计算，交出现成的嵌入，只量解码器时用。"""

    def __init__(self, features: torch.Tensor, side: int) -> None:
        super().__init__()
        self.img_size = side
        self.features = features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """不看 x，返回 ``(1, C, 网格, 网格)``。"""
        return self.features


def saved(job: Job) -> SavedEmbedding:
    """现成的随机嵌入。"""
    return SavedEmbedding(embedding(job), job.config.image_size)


# ---- sam_lite 和官方：接口相同 ---------------------------------------------------


def encoder(job: Job) -> Run:
    """编码一张图。"""
    run, x = job.compile(job.model().image_encoder), pixels(job)
    return lambda: run(x)


def one_set(job: Job, points: Callable[[Job], np.ndarray]) -> Run:
    """图像已经编码，这些点是一组提示，三张掩码放大到原图。"""
    predictor = job.predictor(saved(job))
    predictor.set_image(picture())
    where = points(job)
    return lambda: predictor.predict(where, np.ones(len(where)))


def many_sets(job: Job, points: Callable[[Job], np.ndarray]) -> Run:
    """图像已经编码，每点各成一组提示，一批问完，掩码放大到原图。"""
    predictor = job.predictor(saved(job))
    predictor.set_image(picture())
    where, labels = as_prompts(job, points(job))
    return lambda: predictor.predict_torch(where, labels)


def low_resolution(job: Job) -> Run:
    """64 个点一批，一步步直接调用两个部件，只到低分辨率掩码。"""
    sam, features, prompts = (
        job.model(),
        embedding(job),
        as_prompts(job, grid_points(job)),
    )

    def run() -> tuple[Any, ...]:
        sparse, dense = sam.prompt_encoder(prompts, None, None)
        low_res, iou = sam.mask_decoder(
            image_embeddings=features,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return None, iou, low_res

    return run


def everything(job: Job) -> Run:
    """图像已经编码，32×32 个点，什么也不筛，全部写成记录。"""
    sam = job.model()
    sam.image_encoder = saved(job)
    sam.mask_decoder = job.compile(sam.mask_decoder)
    options = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = job.generator(sam, output_mode="uncompressed_rle", **options)
    return lambda: generator.generate(picture())


def everything_shipped(job: Job) -> Run:
    """自带的小权重和真实照片，默认阈值，图像已经编码。"""
    sam = job.shipped_model()
    with Image.open(ASSETS / "photos" / "coins.jpg") as file:
        photo = np.array(file.convert("RGB"))
    predictor = sam_lite.SamPredictor(sam_lite.load())
    predictor.set_image(photo)
    side = sam.image_encoder.img_size
    sam.image_encoder = SavedEmbedding(predictor.features, side)
    generator = job.generator(sam, output_mode="uncompressed_rle")
    return lambda: generator.generate(photo)


def end_to_end(job: Job) -> Run:
    """set_image 加一次点击。"""
    predictor, image, point = job.predictor(), picture(), one_point(job)

    def run() -> tuple[Any, ...]:
        predictor.set_image(image)
        return predictor.predict(point, np.ones(1))

    return run


# ---- transformers -------------------------------------------------------------


def encoder_huggingface(job: Job) -> Run:
    """编码一张图。"""
    model, x = job.model(), pixels(job)
    return lambda: model.get_image_embeddings(x)


def decoder_huggingface(
    job: Job, points: Callable[[Job], np.ndarray], enlarge: bool = True
) -> Run:
    """图像已经编码，每点各成一组提示；enlarge 为真就把掩码放大到原图。"""
    model, features = job.model(), embedding(job)
    where = as_prompts(job, points(job))[0][None]  # (1, B, 1, 2)
    images = processor(job).image_processor
    scale = job.config.image_size / max(PICTURE)
    inner = [int(side * scale + 0.5) for side in PICTURE]

    def run() -> tuple[Any, ...]:
        found = model(image_embeddings=features, input_points=where)
        low_res, masks = found.pred_masks, None
        if enlarge:
            masks = images.post_process_masks(low_res, [list(PICTURE)], [inner])[0]
        return masks, found.iou_scores[0], low_res[0]

    return run


def end_to_end_huggingface(job: Job) -> Run:
    """处理器、模型、后处理，同样的图和点。"""
    model, image, process = job.model(), picture(), processor(job)
    point = [one_point(job).tolist()]

    def run() -> tuple[Any, ...]:
        inputs = process(images=image, input_points=point, return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        inputs["input_points"] = inputs["input_points"].float()
        found = model(**inputs)
        masks = process.image_processor.post_process_masks(found.pred_masks, *sizes)
        return masks[0], found.iou_scores[0], found.pred_masks[0]

    return run


def processor(job: Job) -> Any:
    """transformers 的图片处理器，边长与型号相同；用不依赖 torchvision 的那一个。"""
    library = import_contender(job.contender)
    kind = getattr(library, "SamImageProcessorPil", None) or library.SamImageProcessor
    side = job.config.image_size
    images = kind(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    return library.SamProcessor(images)


# ---- 各方相同：读模型 -----------------------------------------------------------


def loading(job: Job, touch: bool = False) -> Run:
    """从磁盘读一个模型，页缓存是热的，导入库不算。

    映射文件的办法把读盘推迟到用的时候；touch 为真就再把每个参数都读一遍。
    """
    library = import_contender(job.contender)

    def run() -> Any:
        model = load_model(job, library)
        for parameter in model.parameters() if touch else ():
            parameter.detach().sum()
        return model

    return run


# ---- 结果变成可以核对的张量 -------------------------------------------------------


def one_tensor(result: torch.Tensor) -> Tensors:
    """编码器的结果：图像嵌入。"""
    return {"embedding": result}


def three_parts(result: tuple[Any, ...]) -> Tensors:
    """掩码、IoU、低分辨率 logits；布尔掩码只留各占多大面积，差几个像素不算不同。

    只有一组提示时，有没有“第几组”这一维不计较。
    """
    masks, iou, low_res = result
    parts = {"iou": torch.as_tensor(iou), "logits": torch.as_tensor(low_res)}
    if masks is not None:
        parts["area"] = torch.as_tensor(masks).double().mean(dim=(-2, -1))
    return {name: part.squeeze(0) for name, part in parts.items()}


def only_iou(result: tuple[Any, ...]) -> Tensors:
    """只核对预测的 IoU：几百组的掩码太占内存。"""
    return {"iou": torch.as_tensor(result[1])}


def records(result: list[dict[str, Any]]) -> Tensors:
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


def parameter_sums(model: nn.Module) -> Tensors:
    """每个参数的平方和，按官方的名字排好，``(参数个数,)``。"""
    state = dict(model.state_dict())
    state = to_official(state) if is_huggingface(state) else state
    sums = [state[name].double().square().sum() for name in sorted(state)]
    return {"parameters": torch.stack(sums)}


# ---- 表 -----------------------------------------------------------------------


class Entry(NamedTuple):
    """参加一项的一方：谁，什么精度，编译不编译。"""

    contender: str
    dtype: str = "float32"
    compiled: bool = False


OURS, OFFICIAL, TRANSFORMERS = map(Entry, ("sam_lite", "official", "transformers"))
HALF = Entry("sam_lite", "bfloat16")
ALL = (OURS, OFFICIAL, TRANSFORMERS)
TWO = (OURS, OFFICIAL)  # transformers 没有同样的接口，或不必再比
HALVES = (HALF, OFFICIAL, *(Entry(e.contender, "bfloat16") for e in ALL[1:]))
ON_GPU = (OURS, OFFICIAL, HALF, Entry("sam_lite", "bfloat16", True))


class Case(NamedTuple):
    """一项测量。"""

    key: str  # --only 用的名字
    title: str
    group: str  # 在哪一张表里；--only 也可以用它
    entries: tuple[Entry, ...]  # 参加的各方，sam_lite 在最前，官方的 float32 是参照
    prepare: Prepare  # sam_lite 和官方
    huggingface: Prepare | None
    outputs: Callable[[Any], Tensors]
    tolerance: float  # float32 与官方 float32 的最大相对误差
    half: float = 0.05  # bfloat16 的
    variants: tuple[str, ...] = ("vit_b",)
    sides: tuple[int, ...] = (0,)  # 输入边长；0 是型号自己的
    counts: tuple[int, ...] = (0,)  # 几个点，或几组提示
    warmups: int = 1
    repeats: int = 1  # 一个进程里计时几次，取中位数
    device: str = "cpu"
    loads: bool = False  # 量的是读模型：内存再写成相当于几份权重
    bound: bool = False  # 量的是编码器：再与矩阵乘法的速度容许的时间相比

    def preparation(self, job: Job) -> Prepare:
        """这一方的准备函数。"""
        if job.contender == "transformers":
            assert self.huggingface is not None
            return self.huggingface
        return self.prepare

    def allowed(self, dtype: str) -> float:
        """这个精度容许的误差。"""
        return self.tolerance if dtype == "float32" else self.half

    def chosen(self, variants: list[str]) -> list[str]:
        """要量的型号；换过边长的项各有各的边长，只能从自己的型号里挑。"""
        if not variants:
            return list(self.variants)
        fixed = self.sides != (0,)
        return [v for v in variants if not fixed or v in self.variants]


LARGE = (512, 768, 1024)
POINTS = (1, 2, 4, 8, 16, 32, 64)
BOTH = ("vit_b", "vit_h")
INFINITE = float("inf")  # 半精度的分割一切会换掉一些掩码，只写出来，不算错

one = partial(one_set, points=one_point)
one_theirs = partial(decoder_huggingface, points=one_point)
many = partial(many_sets, points=grid_points)
many_theirs = partial(decoder_huggingface, points=grid_points)
few = partial(many_sets, points=random_points)
low_theirs = partial(many_theirs, enlarge=False)
touching = partial(loading, touch=True)

# fmt: off
CASES = (
    Case("encoder", "图像编码器", "results", ALL,
         encoder, encoder_huggingface, one_tensor, 2e-4, bound=True),
    Case("encoder_bf16", "图像编码器", "results", HALVES,
         encoder, encoder_huggingface, one_tensor, 2e-4, bound=True),
    Case("click", "一次点击", "results", ALL,
         one, one_theirs, three_parts, 1e-3, warmups=3, repeats=15),
    Case("clicks64", "64 次点击，低分辨率", "results", ALL,
         low_resolution, low_theirs, three_parts, 1e-3, repeats=2),
    Case("clicks64_full", "64 次点击，放大到原图", "results", ALL,
         many, many_theirs, three_parts, 1e-3, repeats=2),
    Case("everything", "分割一切，32×32 点，不筛", "results", TWO,
         everything, None, records, 1e-3, warmups=0),
    Case("everything_shipped", "分割一切，小权重，默认阈值", "results", TWO,
         everything_shipped, None, records, 1e-3, variants=("tiny",)),
    Case("end_to_end", "图片加一次点击", "results", ALL,
         end_to_end, end_to_end_huggingface, three_parts, 1e-3),
    Case("load", "读模型", "results", ALL,
         loading, loading, parameter_sums, 0.0, variants=BOTH, warmups=0, loads=True),
    Case("load_touch", "读模型并读遍参数", "results", ALL,
         touching, touching, parameter_sums, 0.0, variants=BOTH, warmups=0, loads=True),
    # 花费怎样变：输入边长、一组里的点数、几组提示
    Case("sides_tiny", "图像编码器", "sides", TWO,
         encoder, None, one_tensor, 1e-3, variants=("tiny",), sides=(96, 192, 384)),
    Case("sides_vit_b", "图像编码器", "sides", TWO,
         encoder, None, one_tensor, 1e-3, sides=LARGE),
    Case("sides_large", "图像编码器", "sides", TWO,
         encoder, None, one_tensor, 1e-3, variants=("vit_l", "vit_h"), sides=LARGE,
         warmups=0),
    Case("points", "一组提示", "points", TWO,
         partial(one_set, points=random_points), None, three_parts, 1e-3,
         counts=POINTS, warmups=2, repeats=9),
    Case("prompts", "几组提示", "prompts", TWO,
         few, None, only_iou, 1e-3, counts=(1, 4, 16), repeats=3),
    Case("prompts_many", "几组提示", "prompts", TWO,
         few, None, only_iou, 1e-3, counts=(64, 256), warmups=0),
    # 显卡
    Case("gpu_encoder", "图像编码器", "gpu", ON_GPU,
         encoder, None, one_tensor, 1e-3, variants=BOTH, warmups=2, repeats=5,
         device="cuda"),
    Case("gpu_everything", "分割一切，32×32 点，不筛", "gpu", ON_GPU,
         everything, None, records, 1e-3, INFINITE, BOTH, warmups=2, repeats=5,
         device="cuda"),
)
# fmt: on
BY_KEY = {case.key: case for case in CASES}
GROUPS = tuple(dict.fromkeys(case.group for case in CASES))
