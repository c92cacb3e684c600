"""Hugging Face 的 SamModel：它的名字与官方名字的对照表，和它的文件夹怎么读。

参数是同样的参数，一个数都不改，只是名字不同。表里左边是 ``transformers`` 的名字，右边
是官方的名字，``*`` 代表层号；表里没有的名字两边相同。
"""

import json
import re
from pathlib import Path

import torch

from ..errors import SamLiteError

ORIGINAL = "shared_image_embedding.positional_embedding"
DUPLICATE = "prompt_encoder.shared_embedding.positional_embedding"
_LAYERS = "mask_decoder.transformer.layers.*."
NAMES = {
    # 图像编码器
    "vision_encoder.pos_embed": "image_encoder.pos_embed",
    "vision_encoder.patch_embed.projection": "image_encoder.patch_embed.proj",
    "vision_encoder.layers.*.layer_norm1": "image_encoder.blocks.*.norm1",
    "vision_encoder.layers.*.layer_norm2": "image_encoder.blocks.*.norm2",
    "vision_encoder.layers.*.attn": "image_encoder.blocks.*.attn",
    "vision_encoder.layers.*.mlp": "image_encoder.blocks.*.mlp",
    "vision_encoder.neck.conv1": "image_encoder.neck.0",
    "vision_encoder.neck.layer_norm1": "image_encoder.neck.1",
    "vision_encoder.neck.conv2": "image_encoder.neck.2",
    "vision_encoder.neck.layer_norm2": "image_encoder.neck.3",
    # 提示编码器；随机傅里叶的矩阵在那边存了两份，见 DUPLICATE
    ORIGINAL: "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.point_embed": "prompt_encoder.point_embeddings",
    "prompt_encoder.mask_embed.conv1": "prompt_encoder.mask_downscaling.0",
    "prompt_encoder.mask_embed.layer_norm1": "prompt_encoder.mask_downscaling.1",
    "prompt_encoder.mask_embed.conv2": "prompt_encoder.mask_downscaling.3",
    "prompt_encoder.mask_embed.layer_norm2": "prompt_encoder.mask_downscaling.4",
    "prompt_encoder.mask_embed.conv3": "prompt_encoder.mask_downscaling.6",
    # 掩码解码器
    _LAYERS + "layer_norm1": _LAYERS + "norm1",
    _LAYERS + "layer_norm2": _LAYERS + "norm2",
    _LAYERS + "layer_norm3": _LAYERS + "norm3",
    _LAYERS + "layer_norm4": _LAYERS + "norm4",
    "mask_decoder.transformer.layer_norm_final_attn": (
        "mask_decoder.transformer.norm_final_attn"
    ),
    "mask_decoder.upscale_conv1": "mask_decoder.output_upscaling.0",
    "mask_decoder.upscale_layer_norm": "mask_decoder.output_upscaling.1",
    "mask_decoder.upscale_conv2": "mask_decoder.output_upscaling.3",
}
for _mlp in ("output_hypernetworks_mlps.*", "iou_prediction_head"):
    # 三层的 MLP，那边把头尾两层另取了名字
    for _theirs, _ours in (("proj_in", 0), ("layers.0", 1), ("proj_out", 2)):
        NAMES[f"mask_decoder.{_mlp}.{_theirs}"] = f"mask_decoder.{_mlp}.layers.{_ours}"

# 文件夹里的权重叫什么：一个文件，或者分成几片的目录，或者旧的格式
SINGLE, SHARDS = "model.safetensors", "model.safetensors.index.json"
OLD = "pytorch_model.bin"


def is_huggingface(state: dict[str, torch.Tensor]) -> bool:
    """这一份权重用的是不是 Hugging Face 的名字。"""
    return any(key.startswith("vision_encoder.") for key in state)


def to_official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """把 Hugging Face 的名字换成官方的；张量原样，表里没有的名字也原样。

    错误：随机傅里叶矩阵的两份不一样时抛 SamLiteError。
    """
    state = dict(state)
    if DUPLICATE in state:
        copy = state.pop(DUPLICATE)
        if not torch.equal(copy, state.setdefault(ORIGINAL, copy)):
            raise SamLiteError(
                f"{DUPLICATE} 和 {ORIGINAL} 应是同一个矩阵，这里却不同：文件有问题。"
            )
    return {rename(name, NAMES): tensor for name, tensor in state.items()}


def to_huggingface(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """反过来：把官方的名字换成 Hugging Face 的，可以交给 ``transformers``。"""
    back = {official: theirs for theirs, official in NAMES.items()}
    renamed = {rename(name, back): tensor for name, tensor in state.items()}
    return renamed | {DUPLICATE: renamed[ORIGINAL]}


def rename(name: str, table: dict[str, str]) -> str:
    """按表换名字的开头；``*`` 是一个层号，照抄过去。"""
    for old, new in table.items():
        pattern = re.escape(old).replace(r"\*", r"(\d+)") + r"(?=\.|$)"
        found = re.match(pattern, name)
        if found:
            number = found.group(1) if found.groups() else ""
            return new.replace("*", number) + name[found.end() :]
    return name


def weight_files(folder: Path) -> list[Path]:
    """Hugging Face 的模型文件夹里，权重是哪几个文件。

    错误：不是 SamModel 的文件夹、索引读不懂、分片不全时，抛 SamLiteError。
    """
    if (folder / "config.json").is_file():  # 没有就不管
        kind = read_json(folder / "config.json").get("model_type")
        if kind != "sam":
            raise SamLiteError(
                f"{folder} 里的 config.json 写着 model_type 是 {kind!r}，应为 'sam'："
                "这是别的模型。"
            )
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / SHARDS).is_file():
        return shards(folder)
    if (folder / OLD).is_file():
        return [folder / OLD]
    raise SamLiteError(
        f"文件夹 {folder} 里没有 {SINGLE}，也没有 {SHARDS} 或 {OLD}。"
        "给一个权重文件，或 Hugging Face 的 SamModel 文件夹。"
    )


def shards(folder: Path) -> list[Path]:
    """分片索引里提到的文件，不重复；只认同一文件夹里的名字。"""
    table = read_json(folder / SHARDS).get("weight_map")
    names = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    if not names or any(name != Path(name).name for name in names):
        raise SamLiteError(
            f"{folder / SHARDS} 读不懂：weight_map 应是名字到同一文件夹里的文件。"
        )
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise SamLiteError(f"文件夹 {folder} 里缺少分片：" + "、".join(absent))
    return [folder / name for name in names]


def read_json(path: Path) -> dict:
    """读一个 JSON 文件里的字典；读不懂就抛 SamLiteError。"""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SamLiteError(f"读不了 {path}（{type(error).__name__}）。") from error
