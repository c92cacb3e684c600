"""安全地读权重文件：只读张量，绝不执行文件里的代码；读不了时说清为什么。"""

import pickle
import re
import zipfile
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from .. import ops
from ..errors import SamLiteError
from .huggingface import is_huggingface, to_official, weight_files
from .unpickle import read_pth

State = dict[str, torch.Tensor]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_state_dict(path: str | Path) -> State:
    """读出权重文件里的全部张量，名字一律是官方的。

    认得 ``.pth``（官方）、``.safetensors``，和 Hugging Face 的 SamModel 文件夹。文件
    是映射进内存的（mmap），用到哪里才读到哪里；所以模型还在用时，不要改动或截短
    这个文件。旧格式的 ``.pth`` 不能映射，整个读进来。

    错误：读不出来，或里面不是“名字到浮点张量”的字典时，抛 SamLiteError。
    """
    path = Path(path)
    files = weight_files(path) if path.is_dir() else [path]
    state: State = {}
    for file in files:
        content = read_file(file)
        check_state(content, file)
        state |= content
    return to_official(state) if is_huggingface(state) else state


def read_file(path: Path) -> Any:
    """读一个文件，里面是什么就返回什么；读不出来抛 SamLiteError。"""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise SamLiteError(f"没有这个权重文件：{path}。检查路径。") from error
    except OSError as error:
        raise SamLiteError(
            f"打不开 {path}（{error.strerror}）。检查它的权限，和磁盘是否正常。"
        ) from error
    if not head:
        raise SamLiteError(f"{path} 是空的，一个字节也没有。重新下载。")
    try:
        if path.suffix == ".safetensors":
            return ops.read_safetensors(path)
        if ops.oneflow.ACTIVE:  # 它的 load 离不开真的 PyTorch
            arrays = read_pth(path)
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        mapped = zipfile.is_zipfile(path)  # 2020 年以后的 torch.save 写的是 zip
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except SamLiteError:
        raise
    except Exception as error:
        # 不转述 torch 的原话：它会建议关掉 weights_only，那等于运行文件里的代码
        raise SamLiteError(f"{path} {explain(path, head, error)}") from error


def explain(path: Path, head: bytes, error: Exception) -> str:
    """读不出来的文件是怎么回事，怎么办：接在文件名后面的话。"""
    if head.lstrip()[:1] == b"<":
        return (
            "是一张网页，不是权重。下载时存下的多半是登录页或出错页：用浏览器打开它"
            "看看，再重新下载。"
        )
    if "TorchScript" in str(error):
        return (
            "是 TorchScript 的模型，里面是代码，不读。"
            "要的是 torch.save(model.state_dict(), …) 存的文件。"
        )
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted:
        return (
            f"里有代码：读它要调用 {wanted.group(1)}，这里不执行。来路不明就删掉它；"
            "如果是自己用 torch.save(model, …) 存的整个模型，改存 model.state_dict()。"
        )
    if path.suffix == ".safetensors":
        why = (str(error).splitlines() or [type(error).__name__])[0][:80]
        return f"不是完好的 safetensors（{why}）。它没下完整，或者坏了：重新下载。"
    if head[:4] == b"PK\x03\x04" or isinstance(error, EOFError | RuntimeError):
        return "不完整，读到一半就没有了。它没下完整，或者坏了：重新下载。"
    if isinstance(error, pickle.UnpicklingError):
        return (
            "不是 torch.save 写的权重文件，或者里面有代码，不读。"
            "检查是不是拿错了文件，或重新下载。"
        )
    return f"读不了（{type(error).__name__}）。它没下完整，或者坏了：重新下载。"


def check_state(state: Any, path: Path) -> None:
    """要一个不空的“名字到浮点张量”的字典，否则抛 SamLiteError，说出改法。"""
    if not isinstance(state, dict):
        raise SamLiteError(
            f"{path} 里是 {type(state).__name__}，应为“名字到张量”的字典。"
            "要的是 model.state_dict()。"
        )
    if not state:
        raise SamLiteError(f"{path} 里的字典是空的，一个张量也没有。")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            inner = isinstance(value, dict)
            mend = f"权重像是在 {name!r} 那一项里：取出来另存。" if inner else ""
            raise SamLiteError(
                f"{path} 里的 {name!r} 是 {type(value).__name__}，不是张量。"
                "要的是模型的 state_dict，不是整个训练检查点。" + mend
            )
        dense = ops.is_dense(value)
        if value.dtype not in FLOATS or not dense:
            kind = value.dtype if dense else value.layout
            raise SamLiteError(
                f"{path} 里的 {name} 是 {kind}，应为普通的浮点张量。量化过的权重先还原"
                "成浮点再存。"
            )


def check_finite(state: State, path: str | Path) -> None:
    """每个张量都是有限的数；有 NaN 或无穷大就抛 SamLiteError，点出名字。"""
    bad = [name for name, tensor in state.items() if not is_finite(tensor)]
    if bad:
        raise SamLiteError(
            f"{path} 里有 {len(bad)} 个张量含 NaN 或无穷大："
            + "、".join(bad[:3])
            + "。训练时发散了，或者文件坏了：换一个检查点，或重新下载。"
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """是不是全是有限的数。先看和：和有限，每一个就都有限，这比逐个查快几倍。"""
    return isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())
