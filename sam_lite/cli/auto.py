"""命令 ``sam-lite auto``：一个文件夹的照片，每张都分割出全部掩码，断了接着来。"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import viz
from ..auto_mask import SamAutomaticMaskGenerator
from ..cli import model as cli_model
from ..cli.parser import count
from ..decoding.embedding_file import fingerprints
from ..errors import SamLiteError
from ..files.atomic import atomic_file, check_writable, reason, sweep
from ..learn.interrupts import Interrupts
from ..masks.label_map import masks_to_label_map, overview, save_labels
from ..masks.records import coco

DESCRIPTION = """\
分割照片里的一切。INPUT 是一张照片，或一个文件夹（只看这一层，不进子文件夹）。
每张照片在 --out 里写三个文件：

  cat.jpg.png   标号图，16 位：0 是没有掩码，i 是第 i 张；小的盖在大的上面
  cat.jpg.jpg   每张掩码一种颜色的叠加图
  cat.jpg.json  COCO 的格式：一张图、它的全部掩码（RLE）和分数

JSON 最后写，所以有它就是做完了。再运行一次，做完的跳过；设置换了会停下来说明。
全部做完以后，合成一个 annotations.json。

几个进程分着做：torchrun --nproc-per-node 2 --no-python sam-lite auto 文件夹 --out 结果
有几块 NVIDIA 显卡的，每个进程用自己的那一块。

例：sam-lite auto photos --out masks --pred-iou-thresh 0.8"""

# 自带的小权重没见过真实照片，打分偏低：照官方的 0.88、0.95 几乎一张也不剩
GENTLE = {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.5}
NUMBERS: dict[str, tuple[type, str]] = {
    "points_per_side": (int, "每边几个点，默认 32"),
    "pred_iou_thresh": (float, "预测的 IoU 要大于它，默认 0.88；tiny 是 0.4"),
    "stability_score_thresh": (float, "稳定性分数至少要有它，默认 0.95；tiny 是 0.5"),
    "stability_score_offset": (float, "算稳定性时阈值上下挪多少，默认 1"),
    "box_nms_thresh": (float, "框重叠超过它就去掉一张，默认 0.7"),
    "crop_n_layers": (int, "裁成小块再做几层，默认 0"),
    "crop_nms_thresh": (float, "各块之间去重复的阈值，默认 0.7"),
    "crop_overlap_ratio": (float, "相邻两块重叠几分之几，默认 0.341"),
    "crop_n_points_downscale_factor": (int, "每深一层，每边的点数除以它，默认 1"),
    "min_mask_region_area": (int, "更小的孔填上、岛去掉，像素；默认不做"),
    "min_mask_area": (int, "更小的掩码不要，像素；默认全要"),
}
PARAMETERS = inspect.signature(SamAutomaticMaskGenerator).parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 auto 的全部选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("input", metavar="INPUT", type=Path, help="照片，或照片的文件夹")
    out = "写到哪个文件夹；没有就建"
    add("--out", type=Path, required=True, metavar="FOLDER", help=out)
    for name, (kind, text) in NUMBERS.items():
        flag = "--" + name.replace("_", "-")
        add(flag, type=kind, metavar="N", help=text)
    text = "一批点的中间结果最多占多少 MB，默认 1024"
    add("--memory-limit-mb", type=count, default=1024, metavar="N", help=text)
    text = "已有的结果不管设置是否相同，全部重做"
    add("--overwrite", action="store_true", help=text)
    cli_model.add_arguments(parser)


def auto(args: argparse.Namespace) -> None:
    """做完还没做的照片，印出每张几张掩码；全做完就合成 annotations.json。

    读不了的照片说一声，接着做别的，最后退出码是 1；几个进程时只有最后做完的那个是 1
    ——torchrun 见一个进程出错，就把别的都停掉。
    """
    photos = find_photos(args.input)
    rank, world = my_share()
    prepare_folder(args.out, photos, sweeping=world == 1)
    args.device = cli_model.local_device(args.device)
    sam = cli_model.load_predictor(args).model
    options = settings(args, sam.name)
    generator = SamAutomaticMaskGenerator(
        sam,
        **options,
        points_per_batch="auto",
        output_mode="coco_rle",
        memory_limit_mb=args.memory_limit_mb,
    )
    # 指纹认得出重新训练过的权重；文件名认不出
    info: dict[str, Any] = {"model": cli_model.model_name(args)}
    info |= {"weights": fingerprints(sam, whole=True), "options": options}
    info["image_size"] = sam.image_encoder.img_size
    work(generator, photos[rank::world], args, info)
    failed = merge(args.out, photos, info)
    if failed:
        raise SamLiteError(f"{len(failed)} 张照片读不了：{'、'.join(failed)}")


def settings(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """结果由哪些参数决定：默认值也写全，明写一个默认值才不算换了设置。"""
    options = {name: PARAMETERS[name].default for name in NUMBERS}
    given = {name: getattr(args, name) for name in NUMBERS}
    options |= GENTLE if model == "tiny" else {}
    return options | {k: v for k, v in given.items() if v is not None}


def work(
    generator: SamAutomaticMaskGenerator,
    mine: list[Path],
    args: argparse.Namespace,
    info: dict[str, Any],
) -> None:
    """逐张做自己的一份，做过的、读不了的跳过。"""
    if args.overwrite:  # 先作废：半途停下，剩下的不会被当成做完的
        for photo in mine:
            outputs(args.out, photo)[2].unlink(missing_ok=True)
    with Interrupts() as stop:
        for i, photo in enumerate(mine):
            if stop:
                print(f"sam-lite：停下了，做完 {i}/{len(mine)} 张。", file=sys.stderr)
                raise SystemExit(stop.exit_code)
            done = read_done(args.out, photo, info)
            try:
                said = (
                    "已经做过" if done else one_photo(generator, photo, args.out, info)
                )
            except UnreadablePhotoError as error:
                said = f"跳过，{error}"
            print(f"{i + 1}/{len(mine)} {photo.name}：{said}", flush=True)


class UnreadablePhotoError(SamLiteError):
    """一张照片读不了，别的照片还能做。"""


class OtherSettingsError(SamLiteError):
    """结果是用别的设置做的。"""


def my_share() -> tuple[int, int]:
    """torchrun 给的（第几个进程，一共几个）；不是 torchrun 就是 (0, 1)。"""
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if not rank and not world:
        return 0, 1
    if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
        raise SamLiteError(
            f"环境变量 RANK={rank!r}、WORLD_SIZE={world!r} 说不通：不用 torchrun 就别设"
        )
    return int(rank), int(world)


def find_photos(source: Path) -> list[Path]:
    """要做的照片，按名字排序；一张也没有就抛 SamLiteError。"""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise SamLiteError(f"找不到 {source}：要一张照片，或照片的文件夹")
    kinds = Image.registered_extensions()
    known = {suffix for suffix, kind in kinds.items() if kind in Image.OPEN}
    try:
        photos = [
            path
            for path in sorted(source.iterdir())
            if path.suffix.lower() in known and not path.name.startswith(".")
            if path.is_file()
        ]
    except OSError as error:
        raise SamLiteError(f"{source} 读不了：{reason(error)}") from error
    if not photos:
        raise SamLiteError(f"{source} 里没有照片（不看子文件夹）")
    return photos


def prepare_folder(out: Path, photos: list[Path], sweeping: bool) -> None:
    """建好写结果的文件夹，试写一下；清掉上次被强行结束留下的临时文件。"""
    if out.exists() and not out.is_dir():
        raise SamLiteError(f"--out {out} 已经是一个文件，要一个文件夹")
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() == photos[0].parent.resolve():
        raise SamLiteError(f"--out {out} 就是照片的文件夹：换一个，免得结果当成照片")
    check_writable(out / "annotations.json")
    if sweeping:  # 别的进程正在写时不能清
        sweep(out / "annotations.json")
        for photo in photos:
            for file in outputs(out, photo):
                sweep(file)


def outputs(out: Path, photo: Path) -> tuple[Path, Path, Path]:
    """一张照片的三个结果：标号图、叠加图、JSON；名字里留着照片的扩展名。"""
    return (
        out / f"{photo.name}.png",
        out / f"{photo.name}.jpg",
        out / f"{photo.name}.json",
    )


def read_done(out: Path, photo: Path, info: dict[str, Any]) -> dict[str, Any] | None:
    """做完的结果；还没做完、照片换过了是 None，做的时候设置不同就抛 SamLiteError。"""
    file = outputs(out, photo)[2]
    try:
        done = json.loads(file.read_text(encoding="utf-8"))
        made_with, image = dict(done["info"]), done["images"][0]
        same_photo = image["bytes"] == photo.stat().st_size
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SamLiteError(
            f"{file} 读不懂（{error}）：删掉它，或加 --overwrite"
        ) from None
    if made_with != info:
        changed = [k for k in info if made_with.get(k) != info[k]]
        raise OtherSettingsError(
            f"{file} 是用别的设置做的（{'、'.join(changed)} 不同）：换一个 --out，"
            "或加 --overwrite 全部重做"
        )
    complete = all(path.is_file() for path in outputs(out, photo))
    return done if same_photo and complete else None


def one_photo(
    generator: SamAutomaticMaskGenerator,
    photo: Path,
    out: Path,
    info: dict[str, Any],
) -> str:
    """做一张，写三个文件，返回一句话。JSON 最后写。"""
    start = time.perf_counter()
    image = read_photo(photo)
    height, width = image.shape[:2]
    records = generator.generate(image)
    labels = masks_to_label_map(records, (height, width))
    label_file, picture, file = outputs(out, photo)
    save_labels(label_file, labels)
    viz.save_image(picture, overview(image, labels))
    whole = coco(photo.name, (height, width), records, info)
    whole["images"][0]["bytes"] = photo.stat().st_size
    write_json(file, whole)
    return f"{len(records)} 张掩码，{time.perf_counter() - start:.1f} s"


def read_photo(photo: Path) -> np.ndarray:
    """照片的像素，``(H, W, 3)``；读不了就抛 UnreadablePhotoError。"""
    try:
        return viz.read_photo(photo)
    except SamLiteError as error:
        raise UnreadablePhotoError(str(error)) from error


def merge(out: Path, photos: list[Path], info: dict[str, Any]) -> list[str]:
    """各张的 JSON 合成 annotations.json，编号重排；返回读不了的照片的名字。

    还有别的进程没做完的，就不合，返回空的。
    """
    parts, failed = [], []
    for photo in photos:
        try:
            done = read_done(out, photo, info)
        except OtherSettingsError:  # 别的进程正在全部重做，还没轮到的旧结果
            done = None
        if done:
            parts.append(done)
            continue
        try:
            read_photo(photo)  # 没有结果：是还没做，还是做不了
        except UnreadablePhotoError:
            failed.append(photo.name)
        else:
            print("其余的照片由别的进程做；最后做完的那个写 annotations.json。")
            return []
    whole = coco("", (0, 0), [], info) | {"images": []}
    for i, part in enumerate(parts, start=1):
        whole["images"].append(part["images"][0] | {"id": i})
        for annotation in part["annotations"]:
            number = len(whole["annotations"]) + 1
            whole["annotations"].append(annotation | {"id": number, "image_id": i})
    write_json(out / "annotations.json", whole)
    total = len(whole["annotations"])
    print(f"{out / 'annotations.json'}：{len(parts)} 张照片，{total} 张掩码")
    return failed


def write_json(file: Path, data: dict[str, Any]) -> None:
    """要么完整写好，要么一点不动。"""
    with atomic_file(file) as stream:
        stream.write(json.dumps(data).encode("ascii"))
