"""游程编码（RLE）：一张掩码写成“几个 0、几个 1、几个 0……”，按列从上到下数。

次序和格式照 COCO（``pycocotools``）：先列后行，第一个数是 0 的个数（可以是 0）。对应
官方 ``utils/amg.py`` 里同名的函数，这里没有逐张掩码的循环。
"""

from typing import Any

import numpy as np
import torch

from ..errors import problem

RLE = dict[str, Any]  # {"size": [高, 宽], "counts": 各段长度的列表，或 COCO 的字符串}


def compact_rles(masks: torch.Tensor) -> list[RLE]:
    """每张掩码的游程编码，counts 是 int32 数组：比 Python 的列表省八成内存。

    形状：布尔 ``(B, H, W)`` -> B 个 ``{"size": [H, W], "counts": 数组}``。
    """
    B, H, W = masks.shape
    if B == 0:
        return []
    # 每张掩码的前面垫一个 0：第一格是 1 时，第 0 段（0 的个数）长度正好是 0
    padded = np.zeros((B, W * H + 1), dtype=bool)
    padded[:, 1:] = masks.transpose(1, 2).flatten(1).cpu().numpy()  # 先列后行
    changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])  # 全部掩码首尾相接的位置
    owner, position = np.divmod(changes, W * H)
    last = np.searchsorted(owner, np.arange(B), side="right")  # 每张的最后一处之后
    position = np.insert(position, last, W * H)  # 每张以末尾收尾
    first = np.concatenate([[0], last[:-1] + np.arange(1, B)])  # 每张的第一处
    lengths = np.diff(position, prepend=0)
    lengths[first] = position[first]  # 每张从头数，不接着上一张
    counts = np.split(lengths.astype(np.int32), first[1:])
    return [{"size": [H, W], "counts": mine.copy()} for mine in counts]


def mask_to_rle_pytorch(tensor: torch.Tensor) -> list[RLE]:
    """每张掩码的游程编码。

    形状：布尔 ``(B, H, W)`` -> B 个 ``{"size": [H, W], "counts": [...]}``。
    """
    rles = compact_rles(tensor)
    return [{**rle, "counts": rle["counts"].tolist()} for rle in rles]


def rle_to_mask(rle: RLE) -> np.ndarray:
    """由各段的长度还原掩码，布尔 ``(H, W)``。

    错误：长度加起来不等于 H·W 时抛 SamLiteError。
    """
    H, W = rle["size"]
    counts = np.asarray(rle["counts"], dtype=np.int64)
    if counts.sum() != H * W:
        got = f"各段合计 {counts.sum()}"
        raise problem("counts", got, f"H×W = {H * W}，每段一个长度")
    values = np.arange(len(counts)) % 2 == 1  # 0、1 交替，从 0 开始
    return np.repeat(values, counts).reshape(W, H).T


def area_from_rle(rle: RLE) -> int:
    """掩码的面积，像素：1 的各段之和。"""
    return int(sum(rle["counts"][1::2]))


def coco_encode_rle(uncompressed_rle: RLE) -> RLE:
    """把长度的列表压成 COCO 的字符串，与 ``pycocotools`` 的结果相同。

    第四个数起，存与前面隔一个的差（相邻的列往往差不多长）；每个数拆成 5 位一组，从低位
    起，后面还有就加 32，最后加 48 变成可见的字符。
    """
    counts = uncompressed_rle["counts"]
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            five, value = value & 31, value >> 5
            # 剩下的全是符号位、且这一组的最高位就是它，才能停
            more = value != (-1 if five & 16 else 0)
            text.append(chr(48 + five + (32 if more else 0)))
    return {"size": list(uncompressed_rle["size"]), "counts": "".join(text)}


def coco_decode_rle(rle: RLE) -> RLE:
    """coco_encode_rle 的反方向：字符串变回长度的列表。"""
    counts: list[int] = []
    value = shift = 0
    for character in rle["counts"]:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:  # 这个数的最后一组
            if code & 16:  # 最高位是 1：负数
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return {"size": list(rle["size"]), "counts": counts}
