"""命令 ``sam-lite export-onnx``：编码器和解码器各导出成一个 ONNX 文件。"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from ..cli import model as cli_model
from ..errors import SamLiteError
from ..onnx.files import quantize
from ..onnx_export import OPSET, OPSETS, export_decoder, export_encoder
from ..weights import load

DESCRIPTION = """\
编码器和解码器各导出成一个 ONNX 文件，写进文件夹 --out：

  sam_tiny_encoder.onnx   缩放好的照片 -> 图像嵌入
  sam_tiny_decoder.onnx   图像嵌入、点、框、掩码 -> 掩码，输入输出同官方的导出

每个文件先用 onnx.checker 查过，再用 onnxruntime 跑，和 PyTorch 对过，才写下去。
在 Python 里用：sam_lite.OnnxSamPredictor(编码器, 解码器)，不要 PyTorch。
头两个改输出的选项是给别的程序用的，加了它们，OnnxSamPredictor 就不收了。

例：sam-lite export-onnx --model vit_b --out onnx --quantize"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """加上 export-onnx 的全部选项。"""
    parser.description = DESCRIPTION
    add = parser.add_argument
    out = "写到哪个文件夹；没有就建"
    add("--out", type=Path, required=True, metavar="FOLDER", help=out)
    text = "另写两个量化的文件，名字末尾是 _int8：权重存成 8 位，小三分之二左右"
    add("--quantize", action="store_true", help=text)
    text = "解码器只给一张掩码，由点的个数和分数选出"
    add("--return-single-mask", action="store_true", help=text)
    text = "解码器用稳定性分数代替预测的 IoU"
    add("--use-stability-score", action="store_true", help=text)
    text = "解码器多给每张掩码的稳定性分数和面积"
    add("--return-extra-metrics", action="store_true", help=text)
    text = "GELU 换成 tanh 的近似式：有的运行环境算 erf 很慢"
    add("--gelu-approximate", action="store_true", help=text)
    text = f"算子集的版本，{OPSETS[0]} 到 {OPSETS[-1]}"
    add("--opset", type=int, default=OPSET, metavar="N", help=text)
    cli_model.add_model_arguments(parser)


def export_onnx(args: argparse.Namespace) -> None:
    """导出两个文件，印出大小、用时和与 PyTorch 的误差；``--quantize`` 再写两个。"""
    if args.out.exists() and not args.out.is_dir():
        raise SamLiteError(f"--out {args.out} 已经是一个文件，要一个文件夹")
    sam = load(cli_model.model_name(args), image_size=args.image_size)
    cli_model.check_model_name(args, sam)
    args.out.mkdir(parents=True, exist_ok=True)
    encoder = args.out / f"sam_{sam.name}_encoder.onnx"
    decoder = args.out / f"sam_{sam.name}_decoder.onnx"
    common = {"opset": args.opset, "gelu_approximate": args.gelu_approximate}
    print(f"模型 {cli_model.model_name(args)}，输入边长 {sam.image_encoder.img_size}")
    report(encoder, lambda: export_encoder(sam, encoder, **common))
    names = ("return_single_mask", "use_stability_score", "return_extra_metrics")
    options = {name: getattr(args, name) for name in names}
    report(decoder, lambda: export_decoder(sam, decoder, **options, **common))
    for path in (encoder, decoder) if args.quantize else ():
        small = path.with_name(f"{path.stem}_int8.onnx")
        report(small, lambda: quantize(path, small))  # noqa: B023 当场就调用


def report(path: Path, make: Callable[[], float | None]) -> None:
    """写一个文件：先说在写什么，写好了再说多大、多久、误差多少。"""
    print(f"{path}：", end="", flush=True)
    start = time.perf_counter()
    difference = make()
    data = path.with_name(f"{path.name}.data")
    size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
    text = f"{size / 1e6:.1f} MB，用时 {time.perf_counter() - start:.1f} s"
    if difference is not None:
        text += f"，与 PyTorch 的相对误差 {difference:.0e}"
    print(text)
