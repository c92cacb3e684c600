"""命令 ``sam-lite verify``：查一个权重文件是什么、是不是官方的、完不完好。"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch

from ..files.download import digest
from ..files.huggingface import weight_files
from ..files.official import OFFICIAL_FILES
from ..files.reading import State, read_state_dict
from ..model import Sam, sam_from_config
from ..weights import check_fits, find_weights, recognize

DESCRIPTION = """\
查一个权重文件：大小、哈希、是不是官方的文件、型号、参数多少；名字和形状要全部对上，
数值要全是有限的。不是官方的也照查。有毛病时退出码是 1。

例：sam-lite verify sam_vit_b_01ec64.pth
    sam-lite verify tiny"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 verify 的全部选项。"""
    parser.description = DESCRIPTION
    text = "权重文件，或型号的名字"
    parser.add_argument("file", metavar="FILE", help=text)


def verify(args: argparse.Namespace) -> None:
    """印出文件和模型的情况；有毛病抛 SamLiteError。"""
    path = find_weights(args.file)
    for file in weight_files(path) if path.is_dir() else [path]:
        print(file_report(file))
    state = read_state_dict(path)
    config = recognize(state, path)
    with torch.device("meta"):  # 只要名字和形状，不占内存
        sam = sam_from_config(config)
    check_fits(sam, state, path)
    print(f"型号：{config.name}，输入边长 {config.image_size}")
    print(model_report(sam, state))
    print("名字和形状全部对上，数值全是有限的数")


def file_report(file: Path) -> str:
    """文件的名字、大小、哈希，是不是官方的，写成几行字。"""
    sums = digest(file, "md5", "sha256")
    names = [n for n, f in OFFICIAL_FILES.items() if f.sha256 == sums["sha256"]]
    official = f"是官方的 {names[0]}" if names else "不是官方文件，哈希不在表里"
    return (
        f"文件：{file}\n大小：{file.stat().st_size:,} 字节\n"
        f"MD5：{sums['md5']}\nSHA-256：{sums['sha256']}\n来源：{official}"
    )


def model_report(sam: Sam, state: State) -> str:
    """张量的个数和类型、参数的个数，整个的和三个部件各自的，写成几行字。"""
    counts: Counter[str] = Counter()
    for name, parameter in sam.named_parameters():
        counts[name.split(".")[0]] += parameter.numel()
    kinds = sorted(
        {str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}
    )
    lines = [
        f"张量：{len(state)} 个，{'、'.join(kinds)}",
        f"参数：{counts.total():,} 个",
    ]
    return "\n".join(lines + [f"  {part} {n:,} 个" for part, n in counts.items()])
