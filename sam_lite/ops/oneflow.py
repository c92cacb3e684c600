"""只在 OneFlow 0.9 下走的几条路；``ACTIVE`` 说现在是不是 OneFlow。

写法只用两边都有的名字，所以 PyTorch 的测试也能运行它们，与另一条路对照。
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import deserialize, numpy

ACTIVE = torch.__name__ == "oneflow"  # 真身是 OneFlow，由 mock_torch 换上
KINDS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def attention_folded(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """把相对位置折进 q·k：``[q·s, rel_h, rel_w] · [k, 第几行, 第几列]ᵀ``。

    第 j 个键的“第几行”“第几列”是 one-hot 向量，和 rel_h、rel_w 的点积正好取出它那一
    行、那一列的加项。OneFlow 的广播加法很慢（vit_b 的一层 40 秒），这样只要 0.8 秒。
    形状同 ``ops.attend``。
    """
    q = q * scale
    if rel is not None:
        rel_h, rel_w = rel
        H, W = rel_h.shape[4], rel_w.shape[4]
        cell = np.arange(H * W)[:, None]
        row = np.arange(H) == cell // W  # (HW, H)
        column = np.arange(W) == cell % W  # (HW, W)
        one_hot = np.concatenate([row, column], axis=1).astype(np.float32)
        where = torch.from_numpy(one_hot).to(k.device).to(k.dtype)
        where = where.expand(k.shape[0], k.shape[1], -1, -1)
        q = torch.cat([q, rel_h.flatten(2, 3), rel_w.flatten(2, 3)], dim=-1)
        k = torch.cat([k, where], dim=-1)  # (B, n, HW, d + H + W)
    scores = q @ k.transpose(-2, -1)  # (B, n, N, M)
    return scores.softmax(dim=-1) @ v


def resize_antialiased(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """抗锯齿的双线性缩放，逐个通道交给 Pillow。

    形状：``(B, C, H, W) -> (B, C, size[0], size[1])``。
    """
    B, C, H, W = image.shape
    planes = image.cpu().float().numpy().reshape(B * C, H, W)
    bilinear = Image.Resampling.BILINEAR
    resized = [
        np.asarray(Image.fromarray(plane).resize((size[1], size[0]), bilinear))
        for plane in planes
    ]
    stacked = torch.from_numpy(np.stack(resized)).reshape(B, C, size[0], size[1])
    return stacked.to(image.device)


def to_array(data: bytes, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """safetensors 里的一个张量；bfloat16 换成 float32，NumPy 没有它。

    kind 是文件里写的类型；不是浮点的抛 TypeError。
    """
    if kind not in KINDS:
        raise TypeError(f"{kind} 不是浮点类型")
    array = np.frombuffer(bytearray(data), KINDS[kind]).reshape(shape)
    return widen(array) if kind == "BF16" else array


def widen(halves: np.ndarray) -> np.ndarray:
    """bfloat16 的 16 位（存成 uint16）换成 float32：后面补 16 个 0。"""
    bits = np.asarray(halves.astype(np.uint32) << 16)  # 0 维的移位成了标量，变回数组
    return bits.view(np.float32)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """读一个 safetensors 文件，经过 NumPy。"""
    return {
        name: torch.from_numpy(to_array(item["data"], item["dtype"], item["shape"]))
        for name, item in deserialize(path.read_bytes())
    }


def to_safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """写成 safetensors 的字节，经过 NumPy。"""
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return numpy.save(arrays, metadata)
