"""权重怎样进出模型：造一个空模型、装满它，读写 safetensors。"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import oneflow

TorchFunctionMode: Any = object
with suppress(NotImplementedError):  # OneFlow 没有
    TorchFunctionMode = importlib.import_module("torch.overrides").TorchFunctionMode


class NoInitialization(TorchFunctionMode):
    """跳过 ``nn.init`` 的初始化，张量原样交回。"""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """遇到初始化就什么也不做，别的照常。"""
        kwargs = kwargs or {}
        in_place = (torch.Tensor.normal_, torch.Tensor.uniform_)
        if getattr(func, "__module__", "") == "torch.nn.init" or func in in_place:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """在这段时间里造的模型只有形状，没有数：不占内存，也不花时间随机初始化。

    光在 meta 设备上造还不够：头一次在那里随机初始化，torch 要导入几百个模块，花一秒多。
    OneFlow 没有 meta 设备，照常造一个。
    """
    if oneflow.ACTIVE:
        yield
        return
    with torch.device("meta"), NoInitialization():
        yield


def put_state(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """把 shapes_only 里造的模型装满；名字要全部对上。

    张量原样拿来作参数，不另占内存；OneFlow 不会这样做，它逐个复制。
    """
    if oneflow.ACTIVE:
        module.to(next(iter(state.values())).dtype).load_state_dict(state, strict=True)
    else:
        module.load_state_dict(state, strict=True, assign=True)


def lacks_half(dtype: torch.dtype | None, device: torch.device) -> bool:
    """这个后端在这个设备上算不了这种半精度：OneFlow 在 CPU 上。"""
    halves = torch.float16, torch.bfloat16
    return oneflow.ACTIVE and device.type == "cpu" and dtype in halves


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """读一个 safetensors 文件；``safetensors.torch`` 离不开真的 PyTorch。"""
    if oneflow.ACTIVE:
        return oneflow.read_safetensors(path)
    from safetensors.torch import load_file

    return load_file(path)


def to_safetensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """写成 safetensors 的字节。"""
    if oneflow.ACTIVE:
        return oneflow.to_safetensors(tensors, metadata)
    from safetensors.torch import save

    return save(tensors, metadata)
