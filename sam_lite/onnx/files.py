"""ONNX 文件：写好之前先查格式、和 PyTorch 对一遍；量化。

网络超过 2 GB 时（vit_h 的编码器），ONNX 的格式要求把权重另存一个 ``.onnx.data`` 文件，
两个要放在一起。
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import SamLiteError, require
from ..files.atomic import atomic_file, reason
from ..inputs.checks import check_path
from ..onnx.session import open_session

LARGEST_FILE = 2**31 - 2**20  # protobuf 的上限是 2 GB；留一点给图本身
TOLERANCE = 1e-4  # 与 PyTorch 的相对误差，再大就不写文件
COUNTED = ("stability_scores", "areas")  # 数像素得来的：恰在阈值上的像素可以差一个
COUNTED_TOLERANCE = 1e-2


@contextmanager
def drafts() -> Iterator[Path]:
    """给出一个临时的文件夹，用完就删；里面写不下时抛 SamLiteError。"""
    try:
        with tempfile.TemporaryDirectory(
            prefix="sam_lite_", ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)
    except OSError as error:
        where = tempfile.gettempdir()
        raise SamLiteError(f"写不了临时文件夹 {where}：{reason(error)}。") from error


def write_facts(draft: Path, name: str, facts: Mapping[str, str]) -> Path:
    """给网络写上元数据，查格式；返回文件夹里叫 name 的文件，太大的另有 name.data。

    错误：``onnx.checker`` 不认时抛 SamLiteError。
    """
    onnx: Any = require("onnx", "写 ONNX 文件", extra="onnx")
    model = onnx.load(draft)
    onnx.helper.set_model_props(model, dict(facts))
    path = draft.with_name(name)
    options: dict[str, Any] = {}
    if model.ByteSize() > LARGEST_FILE:
        options = {"save_as_external_data": True, "location": f"{name}.data"}
    onnx.save_model(model, path, **options)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SamLiteError(f"导出的 {name} 格式不对：{error}") from error
    return path


def install(draft: Path, path: Path) -> None:
    """把写好、查过的文件放到 path；有 ``.data`` 的，它先到。

    错误：写不了时抛 SamLiteError。
    """
    data = draft.with_name(f"{draft.name}.data")
    if data.exists():
        path.unlink(missing_ok=True)  # 半途断电，宁可没有，也不要新旧两半
        copy(data, path.with_name(data.name))
    copy(draft, path)


def copy(source: Path, target: Path) -> None:
    """把 source 抄成 target：要么抄完，要么不动。"""
    with open(source, "rb") as data, atomic_file(target) as file:
        shutil.copyfileobj(data, file)


@torch.no_grad()
def largest_difference(
    path: Path, module: nn.Module, examples: Sequence[Mapping[str, torch.Tensor]]
) -> float:
    """同样的输入，onnxruntime 跑文件、PyTorch 跑模块，返回最大的相对误差。

    相对误差是 max|a − b| / max|b|，逐个输出计算。数像素得来的两个输出另有容许值，不算
    在内。

    错误：形状不同，或误差超过容许值时，抛 SamLiteError。
    """
    session = open_session(path, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    largest = 0.0
    for example in examples:
        found = session.run(None, {k: v.numpy() for k, v in example.items()})
        expected = module(**example)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for name, a, b in zip(names, found, (x.numpy() for x in expected), strict=True):
            if a.shape != b.shape:
                raise SamLiteError(
                    f"导出的网络不对：{name} 的形状是 {a.shape}，PyTorch 是 {b.shape}。"
                )
            a, b = a.astype(float), b.astype(float)
            scale = np.abs(b).max(initial=1e-6)
            difference = float(np.abs(a - b).max(initial=0) / scale)
            limit = COUNTED_TOLERANCE if name in COUNTED else TOLERANCE
            if not difference <= limit:
                raise SamLiteError(
                    f"导出的网络不对：{name} 与 PyTorch 的相对误差是 {difference:.1e}，"
                    f"容许 {limit:.0e}。"
                )
            if name not in COUNTED:
                largest = max(largest, difference)
    return largest


def quantize(path: str | Path, out: str | Path) -> None:
    """把导出的文件量化：矩阵乘法的权重存成 8 位整数，乘的时候输入也现转成 8 位。

    卷积、注意力的打分（两边都是现算的数）不动。无符号的 8 位在老的 CPU 上也不溢出。

    错误：没装 onnx、onnxruntime，path 不是好的 ONNX 文件，或写不了时，抛 SamLiteError。
    """
    path, out = check_path(path), check_path(out)
    onnx: Any = require("onnx", "量化", extra="onnx")
    tools: Any = require("onnxruntime.quantization", "量化", extra="onnx")
    open_session(path, ["CPUExecutionProvider"])
    with drafts() as folder, quiet_logging():
        draft = folder / out.name
        tools.quantize_dynamic(
            path,
            draft,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=tools.QuantType.QUInt8,
        )
        onnx.checker.check_model(str(draft))
        open_session(draft, ["CPUExecutionProvider"])
        install(draft, out)


@contextmanager
def quiet_logging() -> Iterator[None]:
    """在这段时间里日志只留错误：量化工具为每个认不出类型的张量说一句。"""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
