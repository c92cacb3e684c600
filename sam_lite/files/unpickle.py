"""不靠 PyTorch 读官方的 ``.pth``：一个 zip，里面有一份 pickle 和各张量的字节。

pickle 能让读的人执行任意函数。这里的 Unpickler 只认得五种名字，全都与代码无关；遇到别的
就停下，什么也不执行。没有 PyTorch 的后端（OneFlow）用它。
"""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SamLiteError
from ..ops.oneflow import widen

OLD_FORMAT = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # 旧格式开头的记号
STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.uint16,  # NumPy 没有 bfloat16，先当作 16 位的整数
}


class TensorUnpickler(pickle.Unpickler):
    """只认得张量、参数和字典的 Unpickler；张量读成 NumPy 数组。

    参数：
        archive: torch.save 写的 zip。
        folder: zip 里的文件夹名，末尾有 ``/``。
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(folder + "data.pkl"))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        """pickle 要一个名字时问这里；表里没有的一律不给，抛 UnpicklingError。"""
        allowed = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": lambda array, *rest: array,
        }
        allowed |= {f"torch.{storage}": storage for storage in STORAGES}
        wanted = f"{module}.{name}"
        if wanted not in allowed:
            raise pickle.UnpicklingError(f"GLOBAL {wanted} is not allowed")
        return allowed[wanted]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """一块存储：在 zip 里是单独一个文件，几个张量可以共用一块。"""
        _, kind, key, _, _ = pid
        data = self.archive.read(f"{self.folder}data/{key}")
        return np.frombuffer(bytearray(data), STORAGES[kind])

    def tensor(
        self, storage: np.ndarray, start: int, size: Any, stride: Any, *rest: Any
    ) -> np.ndarray:
        """存储里的一个张量；大小和步幅超出存储时，NumPy 抛 ValueError。"""
        item = storage.itemsize
        strides = [item * step for step in stride]
        view: np.ndarray = np.ndarray(
            size, storage.dtype, storage, item * start, strides
        )
        array = np.ascontiguousarray(view).reshape(view.shape)  # 0 维的仍是 0 维
        return widen(array) if storage.dtype == np.uint16 else array


def read_pth(path: Path) -> Any:
    """读 torch.save 写的 ``.pth``，张量都是 NumPy 数组，bfloat16 换成 float32。

    错误：旧的格式抛 SamLiteError；里面有代码时抛 pickle.UnpicklingError；不完整、不是
    torch.save 写的时抛别的异常，由 reading.explain 说清楚。
    """
    with open(path, "rb") as file:
        if file.read(len(OLD_FORMAT)) == OLD_FORMAT:
            raise SamLiteError(
                f"{path} 是 2020 年以前的格式，这里不读。在 PyTorch 里读进来，再用 "
                "torch.save 存一次，或用 sam_lite.weights.save 存成 safetensors。"
            )
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return TensorUnpickler(archive, names[0][: -len("data.pkl")]).load()
