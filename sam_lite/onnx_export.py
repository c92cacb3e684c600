"""第 13 章：把编码器和解码器各导出成一个 ONNX 文件，在没有 PyTorch 的地方用。

导出的是 ``onnx/graphs.py`` 里的两个模块；写文件、检查、对照、量化在 ``onnx/files.py``，
用这两个文件的 ``OnnxSamPredictor`` 在 ``onnx/predictor.py``。
"""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .attention import set_fused
from .decoding.embedding_file import fingerprints
from .errors import SamLiteError, problem, require
from .files.atomic import check_writable
from .inputs.checks import check_path, describe, is_whole
from .model import Sam
from .onnx.files import drafts, install, largest_difference, write_facts
from .onnx.graphs import OnnxImageEncoder, SamOnnxModel
from .onnx.session import FORMAT_VERSION

OPSETS = range(12, 21)  # 11 里没有 einsum；描图的导出器最高写到 20
OPSET = 17  # 从 17 起有 LayerNormalization 这个算子
DECODER_INPUTS = (
    "image_embeddings",
    "point_coords",
    "point_labels",
    "mask_input",
    "has_mask_input",
    "orig_im_size",
)
# 新的导出器另要 onnxscript；老的 PyTorch 没有这个参数
OLD_EXPORTER: dict[str, Any] = {}
if "dynamo" in inspect.signature(torch.onnx.export).parameters:
    OLD_EXPORTER["dynamo"] = False


def export_encoder(
    sam: Sam, path: str | Path, *, opset: int = OPSET, gelu_approximate: bool = False
) -> float:
    """导出图像编码器；输入 ``image``，输出 ``image_embeddings``，见 OnnxImageEncoder。

    文件查过格式、和 PyTorch 对过才写。返回对照的最大相对误差。

    参数：
        opset: ONNX 算子集的版本，12 到 20。
        gelu_approximate: GELU 换成 tanh 的近似式，有的运行环境算 erf 很慢。

    错误：opset 不对，模型不在 CPU、不是 float32，没装 onnx、onnxruntime，写不了，或与
    PyTorch 的误差超过 1e-4 时，抛 SamLiteError。
    """
    side = sam.image_encoder.img_size
    generator = torch.Generator().manual_seed(0)
    # 描图用一种形状，对照用另一种：烤死了长宽的话，对照时就会露馅
    sizes = ((side, side // 2), (side * 5 // 8, side))
    images = [
        torch.randint(0, 256, (h, w, 3), generator=generator, dtype=torch.uint8)
        for h, w in sizes
    ]
    return export(
        OnnxImageEncoder(sam),
        path,
        [{"image": image} for image in images],
        ["image_embeddings"],
        {"image": {0: "height", 1: "width"}},
        opset=opset,
        gelu_approximate=gelu_approximate,
    )


def export_decoder(
    sam: Sam,
    path: str | Path,
    *,
    return_single_mask: bool = False,
    use_stability_score: bool = False,
    return_extra_metrics: bool = False,
    opset: int = OPSET,
    gelu_approximate: bool = False,
) -> float:
    """导出提示编码器和掩码解码器；输入、输出见 SamOnnxModel.forward，返回同上。

    组数 B、点数 N、掩码提示的张数、原图的大小都可以变。比官方多的是一次问几组；附加指标
    的名字是 ``stability_scores`` 和 ``areas``，官方的脚本把它们写错了。

    参数：
        return_single_mask、use_stability_score、return_extra_metrics: 见 SamOnnxModel；
            用了前两个的文件，OnnxSamPredictor 不收。
        opset、gelu_approximate 与错误: 见 export_encoder。
    """
    options = (return_single_mask, use_stability_score, return_extra_metrics)
    outputs = ["masks", "iou_predictions", "low_res_masks"]
    if return_extra_metrics:
        outputs[2:2] = ["stability_scores", "areas"]
    groups = {0: "num_groups", 1: "num_points"}
    dynamic: dict[str, dict[int, str]] = {
        "point_coords": groups,
        "point_labels": groups,
    }
    dynamic["mask_input"] = {0: "num_masks"}
    return export(
        SamOnnxModel(sam, *options),
        path,
        decoder_examples(sam),
        outputs,
        dynamic,
        opset=opset,
        gelu_approximate=gelu_approximate,
    )


def decoder_examples(sam: Sam) -> list[dict[str, torch.Tensor]]:
    """各种提示各一份输入：头一份描图，其余的对照。"""
    generator = torch.Generator().manual_seed(0)
    side, encoder = sam.image_encoder.img_size, sam.prompt_encoder
    embedding = (1, encoder.embed_dim, *encoder.image_embedding_size)
    sizes = [(side * 3 // 4, side), (side * 2 + 1, side), (side // 3, side // 2)]
    kinds = [  # 组数、每组各点的标签、掩码张数
        (2, [1, 0, -1], 2),  # 描图用 2，不用 1：1 碰上广播，烤死了也看不出来
        (1, [1, -1], 0),
        (3, [2, 3], 3),
        (1, [1, 0, 2, 3], 1),
        (1, [], 1),
    ]
    examples = []
    for i, (B, labels, masks) in enumerate(kinds):
        coords = torch.rand((B, len(labels), 2), generator=generator) * side
        mask_shape = (max(1, masks), 1, *encoder.mask_input_size)
        examples.append(
            {
                "image_embeddings": torch.randn(embedding, generator=generator),
                "point_coords": coords,
                "point_labels": torch.tensor([labels] * B, dtype=torch.float32),
                "mask_input": torch.randn(mask_shape, generator=generator),
                "has_mask_input": torch.tensor([float(masks > 0)]),
                "orig_im_size": torch.tensor(sizes[i % 3], dtype=torch.float32),
            }
        )
    return examples


def export(
    module: Any,
    path: str | Path,
    examples: Sequence[dict[str, torch.Tensor]],
    outputs: Sequence[str],
    dynamic_axes: dict[str, dict[int, str]],
    *,
    opset: int,
    gelu_approximate: bool,
) -> float:
    """描图，写上元数据，查格式，对照，都好了才写到 path。返回最大相对误差。"""
    path, sam = check_path(path), module.model
    check_ready(sam, opset)
    check_writable(path)
    encoder = isinstance(module, OnnxImageEncoder)
    facts = {
        "sam_lite_format": FORMAT_VERSION,
        "part": "encoder" if encoder else "decoder",
        "model": sam.name,
        "image_size": str(module.img_size),
        "weights": fingerprints(sam).split()[0],
        "mask_threshold": str(sam.mask_threshold),
        "changed_outputs": "" if encoder else changed_outputs(module),
    }
    with drafts() as folder, gelu(sam, gelu_approximate):
        draft = folder / "draft.onnx"
        with tracing(sam):
            torch.onnx.export(
                module.eval(),
                tuple(examples[0].values()),
                str(draft),
                input_names=list(examples[0]),
                output_names=list(outputs),
                dynamic_axes=dynamic_axes,
                opset_version=opset,
                **OLD_EXPORTER,
            )
        draft = write_facts(draft, path.name, facts)
        difference = largest_difference(draft, module, examples[1:])
        install(draft, path)
    return difference


def changed_outputs(module: SamOnnxModel) -> str:
    """哪些选项改了原有的输出；附加指标只是多给，不算。"""
    names = ("return_single_mask", "use_stability_score")
    return "、".join(name for name in names if getattr(module, name))


def check_ready(sam: Sam, opset: int) -> None:
    """库要装了，算子集的版本要写得了，模型要在 CPU 上、是 float32。"""
    require("onnx", "导出 ONNX", extra="onnx")
    require("onnxruntime", "导出时的对照", extra="onnx")
    if not is_whole(opset) or opset not in OPSETS:
        wanted = f"{OPSETS[0]} 到 {OPSETS[-1]} 的整数"
        raise problem("opset", describe(opset), wanted, f"一般用 {OPSET}。")
    if sam.device.type != "cpu" or sam.dtype != torch.float32:
        got = f"在 {sam.device}、{sam.dtype} 的模型"
        raise problem("sam", got, "CPU 上的 float32 模型", "先 sam.cpu().float()。")


@contextmanager
def gelu(sam: Sam, approximate: bool) -> Iterator[None]:
    """在这段时间里，真则全部 GELU 换成 tanh 的近似式；之后还原。"""
    layers = [m for m in sam.modules() if isinstance(m, nn.GELU)]
    before = [layer.approximate for layer in layers]
    try:
        for layer in layers:
            layer.approximate = "tanh" if approximate else layer.approximate
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.approximate = old


@contextmanager
def tracing(sam: Sam) -> Iterator[None]:
    """描图的这段时间，注意力走逐步的写法；没有说明就烤进去的数，是错误。"""
    before = [(m, m.fused) for m in sam.modules() if hasattr(m, "fused")]
    set_fused(sam, False)
    try:
        # 记下来，完了再看：这种警告出自 C++，当场变成异常会乱
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield
        for warning in said:
            if issubclass(warning.category, torch.jit.TracerWarning):
                raise SamLiteError(
                    "导出不了：有个数随输入而变，描图时却要烤进图里。"
                    f"{warning.filename} 第 {warning.lineno} 行：{warning.message}"
                )
    finally:
        for module, fused in before:
            setattr(module, "fused", fused)  # noqa: B010
