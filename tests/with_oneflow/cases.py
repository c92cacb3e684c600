"""两个后端都运行的同一批计算：PyTorch 的结果是标准，OneFlow 的与它相比。

只用两边都有的写法，所以这个文件不导入 pytest，也不问后端是谁。
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sam_lite
from sam_lite import viz
from sam_lite.attention import set_fused
from sam_lite.preprocess import ResizeLongestSide

PHOTOS = Path(sam_lite.__file__).parent / "assets" / "photos"
Arrays = dict[str, np.ndarray]
LOOSE = {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.5}


def photo(name: str = "coins") -> np.ndarray:
    return viz.read_photo(PHOTOS / f"{name}.jpg")


def prompts(image: np.ndarray) -> dict[str, dict[str, Any]]:
    """一个点、两个点、一个框、框加点，和几个框一起问；坐标按照片的大小摆。"""
    height, width = image.shape[:2]
    point = np.array([[0.87 * width, 0.15 * height]])
    two = np.array([[0.3 * width, 0.4 * height], [0.6 * width, 0.7 * height]])
    box = np.array([0.2 * width, 0.2 * height, 0.6 * width, 0.7 * height])
    return {
        "point": {"point_coords": point, "point_labels": np.array([1])},
        "points": {"point_coords": two, "point_labels": np.array([1, 0])},
        "box": {"box": box},
        "box_points": {
            "box": box,
            "point_coords": two,
            "point_labels": np.array([1, 0]),
        },
        "boxes": {"box": np.stack([box, box / 2, box * 0.8])},
    }


def keep(name: str, results: Any) -> Arrays:
    masks, iou, low_res = results
    return {f"{name}.masks": masks, f"{name}.iou": iou, f"{name}.low_res": low_res}


def predictor_case(sam: Any, image: np.ndarray) -> Arrays:
    """嵌入，各种提示，三张和一张掩码，上一次的掩码作提示。"""
    predictor = sam_lite.SamPredictor(sam)
    predictor.set_image(image)
    found: Arrays = {"embedding": predictor.get_image_embedding().numpy()}
    for name, prompt in prompts(image).items():
        for multimask in (True, False):
            results = predictor.predict(**prompt, multimask_output=multimask)
            found |= keep(f"{name}.{'three' if multimask else 'one'}", results)
    mask_input = found["point.one.low_res"]
    results = predictor.predict(**prompts(image)["points"], mask_input=mask_input)
    found |= keep("mask_and_points", results)
    return found | keep("mask", predictor.predict(mask_input=mask_input))


def tiny_case(folder: Path) -> Arrays:
    return predictor_case(sam_lite.load("tiny"), photo())


def vit_b_case(folder: Path) -> Arrays:
    return predictor_case(sam_lite.load(folder / "vit_b.pth"), photo("coffee"))


def vit_b_small_case(folder: Path) -> Arrays:
    """vit_b 换成 512 的输入边长：位置编码要插值。"""
    sam = sam_lite.load(folder / "vit_b.pth", image_size=512)
    return predictor_case(sam, photo("coffee"))


def tiny_resized_case(folder: Path) -> Arrays:
    return predictor_case(sam_lite.load("tiny", image_size=352), photo("cat"))


def readable_case(folder: Path) -> Arrays:
    """易读的路：注意力不走快路，解码器直接用 MaskDecoder。"""
    sam = set_fused(sam_lite.load("tiny"), False)
    image = photo()
    predictor = sam_lite.SamPredictor(sam)
    predictor.set_image(image)
    features = predictor.get_image_embedding()
    found: Arrays = {"embedding": features.numpy()}
    coords = predictor.transform.apply_coords(np.array([[[335.0, 44.0]]]), (303, 384))
    points = torch.from_numpy(coords).float(), torch.ones(1, 1)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(points=points, boxes=None, masks=None)
        low_res, iou = sam.mask_decoder(
            image_embeddings=features,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    return found | {"low_res": low_res.numpy(), "iou": iou.numpy()}


def forward_case(folder: Path) -> Arrays:
    """Sam.forward：大小不同的两张照片，各带各的提示。"""
    sam = sam_lite.load("tiny")
    records: list[dict[str, Any]] = []
    for name in ("coins", "cat"):
        image = photo(name)
        resized = ResizeLongestSide(sam.image_encoder.img_size).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        records.append({"image": tensor, "original_size": image.shape[:2]})
    records[0]["boxes"] = torch.tensor([[20.0, 30.0, 150.0, 140.0], [5, 5, 60, 70]])
    records[1]["point_coords"] = torch.tensor([[[90.0, 80.0], [10, 20]]])
    records[1]["point_labels"] = torch.tensor([[1, 0]])
    with torch.no_grad():
        results = sam(records, multimask_output=True)
    return {
        f"{i}.{name}": tensor.numpy()
        for i, result in enumerate(results)
        for name, tensor in result.items()
    }


def batch_case(folder: Path) -> Arrays:
    """几张照片一起编码，逐张问；点数不同的几组补齐了一起问。"""
    predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
    images = [photo("coins"), photo("cat"), photo("rocket")]
    predictor.set_images(images, batch_size=2)
    ragged = [[[30, 40]], [[90, 80], [20, 30]]], [[1], [1, 0]]
    masks, iou, low_res = predictor.predict_batch(
        point_coords_batch=[None, [[90, 80]], ragged[0]],
        point_labels_batch=[None, [1], ragged[1]],
        box_batch=[[20, 30, 200, 180], None, None],
    )
    found: Arrays = {}
    for i in range(3):
        found |= keep(str(i), (masks[i], iou[i], low_res[i]))
    return found


def saved_embedding_case(folder: Path) -> Arrays:
    """PyTorch 存下的嵌入文件，两边都读得，都用来问。"""
    image = photo()
    predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
    path = folder / "embedding.safetensors"
    if not path.exists():
        predictor.set_image(image)
        predictor.save_embedding(path)
    predictor.load_embedding(path, image)
    return keep("box", predictor.predict(**prompts(image)["box"]))


def records_to_arrays(records: list[dict[str, Any]]) -> Arrays:
    masks = [record["segmentation"] for record in records]
    return {
        "masks": np.stack(masks),
        "boxes": np.array([r["bbox"] + r["crop_box"] for r in records]),
        "points": np.array([r["point_coords"][0] for r in records]),
        "scores": np.array([r["predicted_iou"] for r in records]),
        "stability": np.array([r["stability_score"] for r in records]),
    }


def auto_mask_case(folder: Path) -> Arrays:
    generator = sam_lite.SamAutomaticMaskGenerator(
        sam_lite.load("tiny"), points_per_side=16, **LOOSE
    )
    return records_to_arrays(generator.generate(photo()))


def auto_mask_crops_case(folder: Path) -> Arrays:
    """有裁图，丢掉小的。"""
    generator = sam_lite.SamAutomaticMaskGenerator(
        sam_lite.load("tiny"),
        points_per_side=8,
        crop_n_layers=1,
        min_mask_area=200,
        **LOOSE,
    )
    return records_to_arrays(generator.generate(photo("coffee")))


def resize_case(folder: Path) -> Arrays:
    """张量的抗锯齿缩放，缩小和放大。"""
    image = np.ascontiguousarray(photo("cat").transpose(2, 0, 1))[None]
    tensor = torch.from_numpy(image).float()
    return {
        str(side): ResizeLongestSide(side).apply_image_torch(tensor).numpy()
        for side in (128, 256, 640)
    }


def weights_case(path_name: str) -> Callable[[Path], Arrays]:
    """读进来的每一个数。"""

    def case(folder: Path) -> Arrays:
        sam = sam_lite.load(folder / path_name)
        return {name: tensor.numpy() for name, tensor in sam.state_dict().items()}

    return case


FILES = ("tiny.pth", "tiny_half.pth", "tiny_bfloat16.pth", "tiny.safetensors")
FILES += ("tiny_bfloat16.safetensors", "huggingface")
CASES: dict[str, Callable[[Path], Arrays]] = {
    "tiny": tiny_case,
    "tiny_resized": tiny_resized_case,
    "readable": readable_case,
    "forward": forward_case,
    "batch": batch_case,
    "saved_embedding": saved_embedding_case,
    "auto_mask": auto_mask_case,
    "auto_mask_crops": auto_mask_crops_case,
    "resize": resize_case,
    "vit_b": vit_b_case,
    "vit_b_512": vit_b_small_case,
    **{f"file_{name}": weights_case(name) for name in FILES},
}


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """跑一遍热身，再跑 rounds 遍，取最短的一遍。"""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def timings(folder: Path) -> dict[str, float]:
    """编码一张照片、点一下，各要几秒；末尾取数，OneFlow 才真的算完。"""
    found = {}
    for name, model, rounds in (("tiny", "tiny", 5), ("vit_b", "vit_b.pth", 1)):
        where = model if name == "tiny" else folder / model
        predictor = sam_lite.SamPredictor(sam_lite.load(where))
        image = photo("coffee")

        def encode(predictor=predictor, image=image):
            predictor.set_image(image)
            predictor.get_image_embedding().numpy()

        found[f"{name} 编码一张照片"] = seconds(encode, rounds)
        point = prompts(image)["point"]
        found[f"{name} 点一下"] = seconds(
            lambda predictor=predictor, point=point: predictor.predict(**point), 5
        )
    return found
