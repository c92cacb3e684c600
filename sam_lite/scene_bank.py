"""训练素材库：一大批场景先画好，压紧存在磁盘上，训练时按内存映射读取。

画一张场景要十几毫秒，比训练一步里分给它的时间还长；先画好、反复用（每次随机裁剪、
翻转、变色），训练就不必等画笔。画到一半被打断也不要紧：再次打开会接着画。
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .errors import SamLiteError
from .scenes import make_scenes

MAX_LABELS = 41  # 背景 0，加上最多 40 个物体


class SceneBank:
    """一个目录里的 N 张场景。

    文件：``images.npy`` ``(N, S, S, 3)``、``labels.npy`` ``(N, S, S)``、``parents.npy``
    ``(N, 41)``，都是 uint8；``parents[i, 0]`` 为 1 表示第 i 张已经画好（背景没有上级，
    这一格空着，正好拿来记）。``bank.json`` 记着场景数、边长和第一个种子。

    参数：
        directory: 存放的目录，没有就新建；已有素材库时接着用，绝不改写它的大小。
        count: 至少要多少张场景；已有的更多时全都用上。
        size: 边长，像素；first_seed: 第一张场景的种子。

    错误：目录里的素材库边长或种子不同、张数不够、文件损坏时抛 SamLiteError。
    """

    def __init__(
        self, directory: str | Path, count: int, size: int, first_seed: int = 0
    ) -> None:
        self.directory = Path(directory)
        self.first_seed = first_seed
        card = self.directory / "bank.json"
        if not card.exists():
            self._create(card, {"count": count, "size": size, "first_seed": first_seed})
        try:
            found = json.loads(card.read_text(encoding="utf-8"))
            same = found["size"] == size and found["first_seed"] == first_seed
            enough = found["count"] >= count
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SamLiteError(f"{card} 已损坏。删掉整个目录再画一次。") from error
        if not same or not enough:
            raise SamLiteError(
                f"{directory} 里的素材库是 {found['count']} 张、边长 {found['size']}、"
                f"种子从 {found['first_seed']} 起；要的是 {count} 张、边长 {size}、"
                f"种子从 {first_seed} 起。换一个目录，或删掉它重画。"
            )
        self.images = self._open("images")
        self.labels = self._open("labels")
        self.parents = self._open("parents")

    def _create(self, card: Path, wanted: dict[str, int]) -> None:
        """新建三个空文件，最后才写 bank.json：断在中间就等于没建。"""
        self.directory.mkdir(parents=True, exist_ok=True)
        N, S = wanted["count"], wanted["size"]
        shapes = {
            "images": (N, S, S, 3),
            "labels": (N, S, S),
            "parents": (N, MAX_LABELS),
        }
        for name, shape in shapes.items():
            path = self.directory / f"{name}.npy"
            if path.exists():
                raise SamLiteError(f"{path} 已经在了，却没有 bank.json。换一个空目录。")
            np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=shape)
        card.write_text(json.dumps(wanted), encoding="utf-8")

    def _open(self, name: str) -> np.memmap:
        path = self.directory / f"{name}.npy"
        try:
            return np.lib.format.open_memmap(path, mode="r+")
        except (OSError, ValueError) as error:
            raise SamLiteError(
                f"素材库文件 {path} 缺失或已损坏（{type(error).__name__}）。"
                "删掉整个目录再画一次。"
            ) from error

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
