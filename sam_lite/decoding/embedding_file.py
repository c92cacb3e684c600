"""一张图像的嵌入存成文件、再读回来：编码最费时，存下来就不必再算。

文件是 safetensors：一个张量 ``features``，其余写在元数据里——谁编码的、原图多大、内容的
SHA-256。读的时候逐项核对，有一处对不上就不用：别的模型的嵌入形状可能一样，磁盘上坏了
一位的嵌入也读得出来，给出的掩码却是错的。早先存的文件没有 SHA-256，照样能读。
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .. import ops
from ..errors import SamLiteError, problem
from ..files.atomic import atomic_file, reason
from ..inputs.checks import check_path, check_size
from ..inputs.tensors import check_shape, check_tensor, check_values
from ..model import Sam
from ..preprocess import check_original_size
from .base import EncodedImage

FORMAT = "sam_lite image embedding"
VERSION = "1"
HASHED_AS = (torch.float32, torch.float16, torch.bfloat16)


@torch.no_grad()
def fingerprints(sam: Sam, whole: bool = False) -> str:
    """图像编码器的指纹：权重的每个张量取头 16 个数，连同均值、标准差算 SHA-256。

    嵌入只看编码器；whole 为真时，解码器和提示编码器也算上。

    按 float32、float16、bfloat16 舍入各算一个：用半精度编码的嵌入，全精度的同一个模型
    也认得。训练过的权重每个张量都变，所以不必逐字节读完几百兆。
    """
    part = sam if whole else sam.image_encoder
    tensors = [*part.state_dict().values(), sam.pixel_mean, sam.pixel_std]
    values = torch.cat([x.flatten()[:16].float() for x in tensors]).cpu()
    rounded = [values.to(dtype).float().numpy().tobytes() for dtype in HASHED_AS]
    return " ".join(hashlib.sha256(data).hexdigest() for data in rounded)


def digest(features: torch.Tensor) -> str:
    """张量内容的 SHA-256，十六进制：坏了一位也变。"""
    return hashlib.sha256(ops.raw_bytes(features.cpu())).hexdigest()


def describe_model(sam: Sam) -> dict[str, str]:
    """写进元数据、读时逐项核对的话：格式、版本、型号、输入边长、权重指纹。"""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": sam.name,
        "image_size": str(sam.image_encoder.img_size),
        "weights": fingerprints(sam),
    }


def save_embedding(path: str | Path, sam: Sam, image: EncodedImage) -> None:
    """把嵌入存成 safetensors；要么完整写好，要么一点不动。

    错误：文件夹不在、没有权限、磁盘满时抛 SamLiteError，旧文件还在。
    """
    path = check_path(path)
    metadata = describe_model(sam)
    for key in ("original_size", "input_size"):
        metadata[key] = " ".join(map(str, getattr(image, key)))
    features = ops.detach(image.features).cpu().contiguous()
    metadata["sha256"] = digest(features)
    data = ops.to_safetensors({"features": features}, metadata)
    with atomic_file(path) as file:
        file.write(data)


def load_embedding(
    path: str | Path, sam: Sam, size: tuple[int, int] | None = None
) -> EncodedImage:
    """读回嵌入，放到模型的设备上、转成模型的类型。

    错误：文件不在、读不了、不是这种文件，型号、输入边长、权重、内容的 SHA-256（文件里
    有才查）或图像大小（给了 size 才查）对不上时，抛 SamLiteError。
    """
    path = check_path(path)
    try:
        open(path, "rb").close()  # safe_open 把没有权限也说成文件不存在
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or list(file.keys()) != ["features"]:
                raise SamLiteError(f"{path} 不是 save_embedding 存的图像嵌入。")
            check_model(path, metadata, sam)
        features = ops.read_safetensors(path)["features"].clone()  # 不再连着文件
    except FileNotFoundError as error:
        raise SamLiteError(f"没有这个嵌入文件：{path}。检查路径。") from error
    except OSError as error:
        raise SamLiteError(f"读不了 {path}：{reason(error)}。") from error
    except SafetensorError as error:
        raise SamLiteError(
            f"{path} 不是完好的 safetensors 文件。可能没写完、没传完，或者是别的文件："
            "用 save_embedding 重新存一份。"
        ) from error
    if metadata.get("sha256", intact := digest(features)) != intact:
        raise SamLiteError(
            f"{path} 的内容和存的时候不同（SHA-256 对不上）：文件在磁盘上或传的路上"
            "坏了，或者有人改过。重新编码，再用 save_embedding 存一份。"
        )
    original, resized = read_sizes(path, metadata, sam, size)
    check_features(f"{path} 里的 features", features, sam)
    return EncodedImage(features.to(sam.device, sam.dtype), original, resized)


def check_model(path: Path, metadata: dict[str, str], sam: Sam) -> None:
    """嵌入要是同一个模型编码的：版本、型号、输入边长、权重指纹逐项核对。"""
    expected = describe_model(sam)
    titles = {"version": "文件格式的版本", "model": "型号", "image_size": "输入边长"}
    for key, title in titles.items():
        if metadata.get(key) != expected[key]:
            raise SamLiteError(
                f"{path} 的{title}是 {metadata.get(key)}，现在要 {expected[key]}。"
                "换成编码时用的模型，或用现在的模型重新编码。"
            )
    # 三种精度里有一种相同就是同一份权重：两边的精度可以不同
    if not set(metadata.get("weights", "").split()) & set(expected["weights"].split()):
        raise SamLiteError(
            f"{path} 是另一份 {sam.name} 权重编码的，和现在的模型对不上。"
            "换成编码时用的权重，或用现在的模型重新编码。"
        )


def read_sizes(
    path: Path, metadata: dict[str, str], sam: Sam, size: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """原图大小和缩放后的大小：彼此对得上，也对得上 size。返回这两个。"""
    sizes = []
    for key in ("original_size", "input_size"):
        words = metadata.get(key, "").split()
        numbers = [int(w) if w.isdecimal() and len(w) < 10 else 0 for w in words]
        sizes.append(check_size(f"{path} 里的 {key}", numbers))
    original, resized = sizes
    side = sam.image_encoder.img_size
    check_original_size(f"{path} 里的 original_size", original, resized, side)
    if size is not None and size != original:
        got, wanted = f"原图 {original} 的嵌入", f"现在的图像 {size}（高, 宽）"
        raise problem(str(path), got, f"{wanted}的嵌入", "多半是拿错了文件。")
    return original, resized


def check_features(name: str, features: torch.Tensor, sam: Sam) -> None:
    """张量要是这个模型的嵌入：浮点，形状对，有限。"""
    h, w = sam.prompt_encoder.image_embedding_size
    check_tensor(name, features, features.device, ("complex", "bool", "int"))
    check_shape(name, features, (1, sam.prompt_encoder.embed_dim, h, w))
    check_values(name, features)
