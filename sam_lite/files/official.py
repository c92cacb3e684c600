"""官方权重的三个文件：名字、大小、哈希，从哪里来，放在哪里。"""

import os
from pathlib import Path
from typing import NamedTuple

# 官方的下载地址；文件名接在后面
OFFICIAL_URL = "https://dl.fbaipublicfiles.com/segment_anything/"


class OfficialFile(NamedTuple):
    """一个官方权重文件。"""

    name: str
    size: int  # 字节
    md5: str  # 文件名里的六位十六进制是它的开头
    sha256: str


OFFICIAL_FILES = {
    "vit_b": OfficialFile(
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "01ec64d29a2fca3f0661936605ae66f8",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": OfficialFile(
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "0b3195507c641ddb6910d2bb5adee89c",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": OfficialFile(
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "4b8939a88964f0f4ff5f5b2642c598a6",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def weights_dir() -> Path:
    """下载的权重放在哪里：环境变量 SAM_LITE_HOME，默认 ``~/.cache/sam_lite``。"""
    home = os.environ.get("SAM_LITE_HOME")
    return Path(home) if home else Path.home() / ".cache" / "sam_lite"
