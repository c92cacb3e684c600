"""少数几个算子：有易读、快速两条路，或者 PyTorch 与 OneFlow 写法不同。

各章的模块只管讲清楚计算，走哪条路在这里决定；读模型时可以跳过这个文件夹。
"""

from . import oneflow
from .attention import attend, attention_eager, attention_fused, sum_rel_pos
from .linear_layer import Linear, linear
from .resize import resize_antialiased
from .state import (
    NoInitialization,
    lacks_half,
    put_state,
    read_safetensors,
    shapes_only,
    to_safetensors,
)
from .tensors import (
    argsort_descending,
    count_true,
    detach,
    is_dense,
    lowest_highest,
    raw_bytes,
)

__all__ = [
    "Linear",
    "NoInitialization",
    "argsort_descending",
    "attend",
    "attention_eager",
    "attention_fused",
    "count_true",
    "detach",
    "is_dense",
    "lacks_half",
    "linear",
    "lowest_highest",
    "oneflow",
    "put_state",
    "raw_bytes",
    "read_safetensors",
    "resize_antialiased",
    "shapes_only",
    "sum_rel_pos",
    "to_safetensors",
]
