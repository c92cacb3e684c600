"""命令行：在十张照片上打分，印出表格；``--write`` 记下来，写 PHOTOS.md。"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from sam_lite.cli import model as cli_model
from sam_lite.cli.parser import Parser, count
from sam_lite.errors import SamLiteError
from sam_lite.learn.photos import CLICKS, MODEL, evaluate_photos

from .. import store
from ..page import fill
from .page import format_table, parts_of
from .truth import BUNDLED, HERE, Photos

WEIGHTS = BUNDLED.parent / "sam_lite_tiny.safetensors"


def hash_weights() -> str:
    """随包的小权重的 SHA-256：结果是不是它的，一看便知。"""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def score(args: argparse.Namespace) -> dict[str, Any]:
    """打分，每张照片添上名字，每个物体添上名字。"""
    dataset = Photos()
    sam = cli_model.load_predictor(args).model
    result = evaluate_photos(sam, dataset, args.clicks, baselines=not args.line)
    for found, photo in zip(result["photos"], dataset.photos, strict=True):
        found |= {"name": photo.name, "names": photo.objects}
    return {"model": cli_model.model_name(args)} | result


def format_line(result: dict[str, Any]) -> str:
    """一行：模型的四个平均，和每张照片的框；给脚本和反复的比较用。"""
    means = " ".join(f"{key} {result['miou'][key]:.4f}" for key in MODEL)
    boxes = " ".join(f"{p['name']} {p['miou']['box']:.3f}" for p in result["photos"])
    return f"{result['model']}: {means} | box: {boxes}"


def write(folder: Path, result: dict[str, Any]) -> None:
    """写 photos/results.json 和 PHOTOS.md；分数留四位小数。"""
    rounded = json.loads(json.dumps(result), parse_float=lambda x: round(float(x), 4))
    rounded |= {"sha256": hash_weights()}
    store.write_json(folder / "photos" / "results.json", rounded)
    text = (HERE.parent / "PHOTOS.md").read_text(encoding="utf-8")
    store.write(folder / "PHOTOS.md", fill(text, parts_of(rounded)))


def main(arguments: list[str], folder: Path = HERE.parent) -> int:
    """执行一次，返回退出码。"""
    parser = Parser(prog="python -m benchmarks.photos")
    add = parser.add_argument
    add("--clicks", type=count, default=CLICKS, metavar="N", help="每个物体点几次")
    add("--line", action="store_true", help="只量模型，只印一行")
    add("--write", action="store_true", help="写 results.json 和 PHOTOS.md")
    cli_model.add_arguments(parser)
    args = parser.parse_args(arguments)
    others = (args.model, args.checkpoint, args.image_size, args.line)
    if args.write and (any(others) or args.clicks != CLICKS):
        parser.error("--write 只记随包的小权重、默认的设置，不和别的选项一起用")
    try:
        result = score(args)
    except SamLiteError as error:
        print(error, file=sys.stderr)
        return 1
    if args.write:
        write(folder, result)
    print(format_line(result) if args.line else format_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
