"""有官方 vit_b 权重的人核对一遍：哈希、严格装载、每个提示的预测 IoU。

    python tests/check_official_weights.py [--file FILE] [--picture PICTURE]

不给 --file 就下载（375 MB，存进 SAM_LITE_HOME；SAM_LITE_MIRROR 换镜像）。不给 --picture
就从 Hugging Face 下载 car.png（HF_ENDPOINT 换镜像，例如 https://hf-mirror.com）。
pytest 不收这个文件；它自己的测试是 ``test_check_official_weights.py``。
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import requests
from tabulate import tabulate

import sam_lite
from sam_lite import viz
from sam_lite.cli.segment import predict
from sam_lite.errors import SamLiteError
from sam_lite.files.atomic import atomic_file
from sam_lite.files.download import digest, download
from sam_lite.files.official import OFFICIAL_FILES, weights_dir

TOLERANCE = 2e-3
PICTURE_PATH = "ybelkada/segment-anything/resolve/main/assets/car.png"
PICTURE_SIZE = (2646, 1764)  # 宽、高


class Prompt(NamedTuple):
    """一个提示，和官方 vit_b 为三张候选预测的 IoU；没有记录的是 None。"""

    points: list[tuple[float, float, int]]  # x, y, 1 正点或 0 负点
    box: tuple[float, float, float, float] | None
    ious: tuple[float | None, float | None, float | None]


# transformers 的 tests/models/sam/test_modeling_sam.py 里为 facebook/sam-vit-base 和
# car.png 记下的数；那是同一套权重。
RECORDED = [
    Prompt([(400, 650, 1)], None, (0.9105, 0.9825, 0.9675)),
    Prompt([(220, 470, 1)], None, (0.7646, 0.7943, 0.7774)),
    Prompt([(820, 1080, 1)], None, (0.6765, 0.9379, 0.8803)),
    Prompt([(510, 1080, 1)], None, (0.3317, 0.7264, 0.7646)),
    Prompt([(400, 650, 1), (800, 650, 1)], None, (None, None, 0.9762)),
    Prompt([], (75, 275, 1725, 850), (0.5996, 0.7661, 0.7937)),
    Prompt([], (620, 900, 1000, 1255), (0.9773, 0.9881, 0.9522)),
    Prompt([(820, 1080, 1)], (650, 900, 1000, 1250), (None, None, 0.9566)),
    Prompt([(820, 1080, 0)], (620, 900, 1000, 1255), (None, None, 0.7894)),
]


def options(prompt: Prompt) -> list[str]:
    """这个提示在命令行上怎么写。"""
    texts = [f"--point={x},{y},{label}" for x, y, label in prompt.points]
    if prompt.box is not None:
        texts.append("--box=" + ",".join(map(str, prompt.box)))
    return texts


def get_picture() -> Path:
    """car.png 的路径；还没有就下载到权重的文件夹。"""
    path = weights_dir() / "car.png"
    if not path.exists():
        site = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        url = f"{site.rstrip('/')}/{PICTURE_PATH}"
        try:
            response = requests.get(url, timeout=30)
            response.raise_for_status()
        except requests.RequestException as error:
            raise SamLiteError(
                f"下载不了图片 {url}：{error}。用 HF_ENDPOINT 换镜像，"
                "或自己下载后给 --picture。"
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(response.content)
    return path


def check_hash(file: Path) -> None:
    """文件要正是官方的 vit_b，否则抛 SamLiteError：下面的数只对它成立。"""
    got, wanted = digest(file, "sha256")["sha256"], OFFICIAL_FILES["vit_b"].sha256
    if got != wanted:
        raise SamLiteError(f"{file} 不是官方的 vit_b：SHA-256 是 {got}，应为 {wanted}")
    print(f"{file}：SHA-256 相符")


def read_picture(file: Path) -> viz.Picture:
    """读图片；宽和高不对就抛 SamLiteError：那不是 car.png。"""
    picture = viz.read_photo(file)
    height, width = picture.shape[:2]
    if (width, height) != PICTURE_SIZE:
        wanted = "×".join(map(str, PICTURE_SIZE))
        raise SamLiteError(f"{file} 不是 car.png：{width}×{height}，应为 {wanted}")
    return picture


def compare(prompt: Prompt, got: np.ndarray) -> list[str]:
    """表里的一行：提示、应为、得到、最大的差、结果；只比记下了的。"""
    pairs = [(g, w) for g, w in zip(got, prompt.ious, strict=True) if w is not None]
    apart = [abs(g - w) for g, w in pairs]
    shown = [" ".join(f"{p[i]:.4f}" for p in pairs) for i in (1, 0)]
    good = all(d <= TOLERANCE for d in apart)  # NaN 也算不符
    result = "通过" if good else "不符"
    return [" ".join(options(prompt)), *shown, f"{max(apart):.4f}", result]


def check(file: Path, picture: Path) -> bool:
    """全部核对一遍，印出表格；都通过才返回真。"""
    check_hash(file)
    photo = read_picture(picture)
    predictor = sam_lite.SamPredictor(sam_lite.load(file))
    print("名字和形状全部对上，装好了")
    predictor.set_image(photo)
    rows = []
    for prompt in RECORDED:
        _, scores, _ = predict(predictor, prompt.points, prompt.box, multimask=True)
        rows.append(compare(prompt, np.asarray(scores)))
    headers = ["提示", "应为", "得到", "最大的差", "结果"]
    print(tabulate(rows, headers, disable_numparse=True))
    bad = sum(row[-1] == "不符" for row in rows)
    what = "全部通过" if not bad else f"{bad} 行不符"
    print(f"{len(rows)} 行，容许相差 {TOLERANCE:g}：{what}")
    return not bad


def main(argv: list[str] | None = None) -> int:
    """全部通过返回 0，有不符的、做不成的返回 1。"""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="vit_b 的权重；不给就下载")
    parser.add_argument("--picture", type=Path, help="car.png；不给就下载")
    args = parser.parse_args(argv)
    try:
        picture = args.picture or get_picture()  # 小的先来
        return 0 if check(args.file or download("vit_b"), picture) else 1
    except SamLiteError as error:
        print(f"做不成：{error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
