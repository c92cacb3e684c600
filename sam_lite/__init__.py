"""sam_lite：最小而完整的 Segment Anything，与中文课程逐章对应。"""

from .auto_mask import SamAutomaticMaskGenerator
from .errors import SamLiteError, SamLiteWarning
from .model import Sam
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
