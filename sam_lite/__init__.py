"""sam_lite：最小而完整的 Segment Anything，与中文课程逐章对应。

名字用到才导入：只用 OnnxSamPredictor 的环境里不必装 torch。
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .errors import SamLiteError, SamLiteWarning

if TYPE_CHECKING:
    from .auto_mask import SamAutomaticMaskGenerator
    from .model import Sam
    from .onnx.predictor import OnnxSamPredictor
    from .predictor import SamPredictor
    from .weights import (
        build_sam,
        build_sam_tiny,
        build_sam_vit_b,
        build_sam_vit_h,
        build_sam_vit_l,
        load,
        sam_model_registry,
    )

__version__ = "0.1.0"

__all__ = [
    "OnnxSamPredictor",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamLiteError",
    "SamLiteWarning",
    "SamPredictor",
    "build_sam",
    "build_sam_tiny",
    "build_sam_vit_b",
    "build_sam_vit_h",
    "build_sam_vit_l",
    "load",
    "sam_model_registry",
]

_MODULES = {  # 不在这里的名字都在 weights 里
    "OnnxSamPredictor": "onnx.predictor",
    "Sam": "model",
    "SamAutomaticMaskGenerator": "auto_mask",
    "SamPredictor": "predictor",
}


def __getattr__(name: str) -> Any:
    """头一次用到才导入：上面那些名字，或包里的模块（``sam_lite.viz``）。"""
    if name in __all__:
        module = import_module(f"{__name__}.{_MODULES.get(name, 'weights')}")
        return getattr(module, name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """列出全部名字，补全时看得到。"""
    return sorted({*globals(), *__all__})
