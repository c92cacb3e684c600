"""训练素材库：一大批场景先画好，压紧存在磁盘上，训练时按内存映射读取。

画一张场景要十几毫秒，比训练一步里分给它的时间还长；先画好、反复用（每次随机裁剪、
翻转、变色），训练就不必等画笔。画到一半被打断也不要紧：再次打开会接着画。
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .scenes import make_scenes

MAX_LABELS = 41  # 背景 0，加上最多 40 个物体


class SceneBank:
    """一个目录里的 N 张场景。

    文件：``images.npy`` ``(N, S, S, 3)``、``labels.npy`` ``(N, S, S)``、``parents.npy``
    ``(N, 41)``，都是 uint8；``parents[i, 0]`` 为 1 表示第 i 张已经画好（背景没有上级，
    这一格空着，正好拿来记）。

    参数：
        directory: 存放的目录，没有就新建。
        count: 场景数；size: 边长，像素；first_seed: 第一张场景的种子。
    """

    def __init__(
        self, directory: str | Path, count: int, size: int, first_seed: int = 0
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.first_seed = first_seed
        self.images = self._open("images", (count, size, size, 3))
        self.labels = self._open("labels", (count, size, size))
        self.parents = self._open("parents", (count, MAX_LABELS))

    def _open(self, name: str, shape: tuple[int, ...]) -> np.memmap:
        path = self.directory / f"{name}.npy"
        if path.exists():
            array = np.lib.format.open_memmap(path, mode="r+")
            if array.shape == shape and array.dtype == np.uint8:
                return array
        return np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=shape)

    def __len__(self) -> int:
        """一共要多少张。"""
        return self.images.shape[0]

    def ready(self) -> np.ndarray:
        """已经画好的场景的编号，从小到大。"""
        return np.flatnonzero(self.parents[:, 0])

    def fill(self, workers: int | None = None) -> Iterator[int]:
        """把没画好的画完；每画好一张，交出它的编号（好让调用者显示进度）。"""
        todo = np.flatnonzero(self.parents[:, 0] == 0)
        size = self.images.shape[1]
        seeds = [self.first_seed + int(i) for i in todo]
        for i, scene in zip(todo, make_scenes(seeds, size, workers), strict=True):
            self.images[i] = scene.image
            self.labels[i] = scene.labels
            self.parents[i, : len(scene.parents)] = scene.parents
            self.parents[i, 0] = 1  # 最后才记“画好了”：断在前面就等于没画
            yield int(i)
