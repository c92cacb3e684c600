"""命令 ``sam-lite download``：下载官方权重。"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.download import download as download_file
from ..files.official import OFFICIAL_FILES

DESCRIPTION = """\
下载官方权重，核对大小和 SHA-256。断了会自动重试；停下来以后再运行同一条命令，
从断开的地方接着下。已经有一个完好的，就不再下载。

例：sam-lite download vit_b
    sam-lite download vit_b vit_h --dir weights"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 download 的全部选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    names = list(OFFICIAL_FILES)
    text = "，".join(f"{n} {f.size / 1e6:.0f} MB" for n, f in OFFICIAL_FILES.items())
    text = f"型号，可以写几个：{text}"
    add("names", nargs="+", choices=names, metavar="NAME", help=text)
    text = "放进哪个文件夹；不给就看环境变量 SAM_LITE_HOME，再不然是 ~/.cache/sam_lite"
    add("--dir", type=Path, metavar="DIR", help=text)
    text = (
        "镜像：文件名接在后面，里面有 .pth 就是文件的完整地址；\n"
        "不给就看环境变量 SAM_LITE_MIRROR，再不然是官方地址"
    )
    add("--mirror", metavar="URL", help=text)


def download(args: argparse.Namespace) -> None:
    """把点了名的几个型号依次下载好。"""
    for name in dict.fromkeys(args.names):  # 同一个写了两次，只下一次
        download_file(name, folder=args.dir, mirror=args.mirror)
