"""打开导出的 ONNX 文件，核对元数据；和 ``predictor.py`` 一样不要 PyTorch。"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SamLiteError, require
from ..inputs.checks import check_path

FORMAT_VERSION = "1"  # 写在两个文件的元数据里


def open_session(path: str | Path, providers: Sequence[str]) -> Any:
    """用 onnxruntime 打开一个 ONNX 文件；打不开就抛 SamLiteError。"""
    runtime: Any = require("onnxruntime", "运行 ONNX 文件", extra="onnx")
    path = check_path(path)
    if not path.is_file():
        raise SamLiteError(
            f"没有这个 ONNX 文件：{path}。导出它：sam-lite export-onnx。"
        )
    known = runtime.get_available_providers()
    if isinstance(providers, str) or not set(providers) <= set(known):
        raise SamLiteError(f"providers {providers!r} 不对：这里能用的是 {known}。")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # 只说错误
    try:
        return runtime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # 它的错误没有共同的基类
        raise SamLiteError(
            f"{path} 打不开，可能没写完、没传完，或者不是 ONNX 文件；权重另存在 "
            f"{path.name}.data 里的，两个文件要放在一起。onnxruntime 说：{error}"
        ) from error


def read_facts(session: Any, path: str | Path, part: str) -> dict[str, str]:
    """文件的元数据；不是 sam_lite 导出的那个部分就抛 SamLiteError。"""
    facts = session.get_modelmeta().custom_metadata_map
    version, found = facts.get("sam_lite_format"), facts.get("part")
    names = {"encoder": "图像编码器", "decoder": "解码器"}
    if version != FORMAT_VERSION or found not in names:
        raise SamLiteError(
            f"{path} 不是 sam_lite 导出的（格式 {version}，这里要 {FORMAT_VERSION}）："
            "用 sam-lite export-onnx 重新导出。"
        )
    if found != part:
        raise SamLiteError(
            f"{path} 是{names[found]}，这里要{names[part]}：两个路径是不是写反了？"
        )
    if facts["changed_outputs"]:
        raise SamLiteError(
            f"{path} 导出时用了 {facts['changed_outputs']}，给不出 predict 要的输出："
            "不加这些选项重新导出；要用它的话，直接用 onnxruntime。"
        )
    return facts


def check_pair(encoder: dict[str, str], decoder: dict[str, str]) -> None:
    """编码器和解码器要出自同一个模型，否则抛 SamLiteError。"""
    titles = {"model": "型号", "image_size": "输入边长", "weights": "编码器权重的指纹"}
    for key, title in titles.items():
        if encoder[key] != decoder[key]:
            got = " 和 ".join(text[:12] for text in (encoder[key], decoder[key]))
            raise SamLiteError(
                f"编码器和解码器不配对：{title}是 {got}。用同一次导出的两个文件。"
            )
