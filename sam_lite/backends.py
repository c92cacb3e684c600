"""第 14 章：同一个图像编码器，换算法、换精度、换运行环境，时间和误差一起比。

``prepare`` 给出的编码器放得回模型里，预测器和自动掩码照常用::

    sam.image_encoder = prepare(sam, "bfloat16")

OneFlow 不在这里：它换掉的是整个 ``torch``，同一个进程里只能有一个，见 README_zh.md。
"""

import copy
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .attention import set_fused
from .errors import SamLiteError, problem
from .inputs.checks import check_image, check_positive, describe
from .model import Sam
from .onnx.files import drafts
from .onnx.graphs import FixedSizes
from .onnx.session import open_session
from .onnx_export import OLD_EXPORTER, OPSET, check_ready, tracing
from .preprocess import ResizeLongestSide

BACKENDS = {
    "eager": "易读的写法，整张分数表都在内存里",
    "fused": "默认的快路，注意力分块或融合",
    "bfloat16": "快路，权重和算式都是 bfloat16",
    "compile": "torch.compile 现编译的",
    "onnxruntime": "导出成 ONNX，交给 ONNX Runtime",
}
COMPILERS = {"Windows": "cl", "Darwin": "clang++"}  # 别的系统是 g++
Run = Callable[[torch.Tensor], torch.Tensor]


class Row(NamedTuple):
    """compare 的一行。"""

    backend: str
    seconds: float  # 编码一张图，几轮的中位数
    speedup: float  # 同一轮里第一个后端的时间除以它的，取中位数；大于 1 是它快
    error: float  # 与第一个后端相比，最大绝对误差除以最大绝对值
    preparing: float  # 准备花的秒数：编译、导出、装载


class Encoder(nn.Module):
    """换了后端的图像编码器，能放回 ``sam.image_encoder``；只能推理，不带梯度。

    参数：
        encoder: 原来的 ImageEncoderViT；权重、指纹都是它的，换回去也靠它。
        run: 真正算的函数，``(B, 3, 边长, 边长)`` 到 ``(B, C, h, w)``。
        dtype: run 收的类型。
    """

    def __init__(self, encoder: nn.Module, run: Run, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size: Any = encoder.img_size
        self.run, self.dtype = run, dtype

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """形状：``(B, 3, 边长, 边长) -> (B, C, h, w)``，类型同 image。"""
        return self.run(image.to(self.dtype)).to(image.dtype)


# ---- 这里有什么 ----------------------------------------------------------------


def available() -> dict[str, str]:
    """这台机器上能用的后端和版本，``{"fused": "torch 2.13.0", …}``。"""
    found = {}
    for name in BACKENDS:
        package = "onnxruntime" if name == "onnxruntime" else "torch"
        if not why_not(name):
            found[name] = f"{package} {version(package)}"
    return found


def why_not(backend: str) -> str:
    """这个后端为什么不能用、怎么补上；能用就是空字符串。名字不对抛 SamLiteError。"""
    if backend not in BACKENDS:
        expected = "、".join(BACKENDS)
        raise problem("backend", describe(backend), f"{expected} 之一")
    if backend == "compile":
        compiler = os.environ.get("CXX") or COMPILERS.get(platform.system(), "g++")
        if not shutil.which(compiler):
            return f"torch.compile 要 C++ 编译器，找不到 {compiler}：装上，或设 CXX。"
    for package in ("onnx", "onnxruntime") if backend == "onnxruntime" else ():
        try:
            version(package)
        except PackageNotFoundError:
            return f'{backend} 要用 {package}：pip install "sam-lite[onnx]"。'
    return ""


# ---- 准备一个编码器 -------------------------------------------------------------


def prepare(sam: Sam, backend: str = "fused") -> Encoder:
    """同一份权重、另一个后端的图像编码器；sam 原样不动。

    编译、导出都在这里做完，之后第一次调用就是全速。

    错误：名字不对，这里用不了，导出用的模型不在 CPU 或不是 float32，编译失败，都抛
    SamLiteError。
    """
    if why_not(backend):
        raise SamLiteError(why_not(backend))
    original: Any = sam.image_encoder
    if isinstance(original, Encoder):
        original = original.encoder
    if backend == "bfloat16":
        half = copy.deepcopy(original).to(torch.bfloat16)
        return Encoder(original, half.__call__, torch.bfloat16)
    if backend == "onnxruntime":
        return Encoder(original, exported(sam, original), torch.float32)
    # 副本和原来的共用参数，只是 fused 各记各的
    shared: dict[int, Any] = {id(p): p for p in original.parameters()}
    encoder = copy.deepcopy(original, shared)
    set_fused(encoder, backend == "fused")
    run = compiled(encoder, sam) if backend == "compile" else encoder.__call__
    return Encoder(original, run, sam.dtype)


def compiled(encoder: nn.Module, sam: Sam) -> Run:
    """编译一遍，跑一张空白的图；编译器出错时抛 SamLiteError。

    编的是易读的写法：分块的循环会被展开成几百份，所以编译时不分块，见
    ``plain_inference``。编译器会把相邻的小运算合成一个，不会替你分块，所以图大的时候
    还是 fused 快。
    """
    run: Any = torch.compile(encoder, dynamic=False)
    try:
        with torch.no_grad():
            run(blank_image(sam))
    except Exception as error:  # 编译的每一步各有各的错误
        text = (str(error).strip().splitlines() or [""])[0]
        raise SamLiteError(f"torch.compile 编译失败：{text}") from error
    return run.__call__


def exported(sam: Sam, encoder: nn.Module) -> Run:
    """导出成一个临时的 ONNX 文件，由 ONNX Runtime 装载；一次算一张，多张就循环。"""
    check_ready(sam, OPSET)
    with drafts() as folder:
        path = folder / "encoder.onnx"
        with tracing(sam), FixedSizes():
            torch.onnx.export(
                encoder,
                (blank_image(sam),),
                str(path),
                input_names=["image"],
                opset_version=OPSET,
                **OLD_EXPORTER,
            )
        session = open_session(path, ["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> torch.Tensor:
        found = [session.run(None, {"image": one[None].numpy()})[0] for one in images]
        return torch.from_numpy(np.concatenate(found))

    return run


def blank_image(sam: Sam) -> torch.Tensor:
    """一张全零的图，``(1, 3, 边长, 边长)``，类型和设备同模型。"""
    side = sam.image_encoder.img_size
    return torch.zeros((1, 3, side, side), dtype=sam.dtype, device=sam.device)


# ---- 比一比 --------------------------------------------------------------------


@torch.no_grad()
def compare(
    sam: Sam, image: np.ndarray, backends: Sequence[str] = (), rounds: int = 5
) -> list[Row]:
    """同一张图，各个后端轮流编码，一轮一次。每个后端一行 Row，头一个是比较的标准。

    参数：
        image: uint8，``(H, W, 3)``，RGB。
        backends: 比哪几个；不写就比这里能用的全部。
        rounds: 几轮。每轮里先空跑一次再计时：缓存刚被别的后端用过，它们的线程也可能
            还在空转。
    """
    rounds = check_positive("rounds", rounds)
    pixels = ResizeLongestSide(sam.image_encoder.img_size).apply_image(
        check_image(image)
    )
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).to(sam.device)
    x = sam.preprocess(tensor)[None]
    encoders, preparing = {}, {}
    for name in backends or available():
        start = time.perf_counter()
        encoders[name] = prepare(sam, name)
        preparing[name] = time.perf_counter() - start
    outputs: dict[str, torch.Tensor] = {}
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encoder in encoders.items():
            outputs[name] = encoder(x).cpu().float()
            start = time.perf_counter()
            encoder(x).cpu()  # 搬回来，GPU 才算真的做完
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(encoders))
    reference = outputs[first]
    rows = []
    for name, times in seconds.items():
        speedup = statistics.median(a / b for a, b in zip(seconds[first], times))
        error = (outputs[name] - reference).abs().max() / reference.abs().max()
        middle = statistics.median(times)
        rows.append(Row(name, middle, speedup, float(error), preparing[name]))
    return rows
