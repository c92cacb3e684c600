"""训练素材库：一大批场景先画好，压紧存在磁盘上，训练时按内存映射读取。

画一张场景要十几毫秒，比训练一步里分给它的时间还长；先画好、反复用（每次随机裁剪、
翻转、变色），训练就不必等画笔。画到一半被打断也不要紧：再次打开会接着画。
"""

import json
import math
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SamLiteError
from ..files.atomic import atomic_file, reason, sweep, sync_folder
from ..learn.files import check_room, folder_lock, make_folder
from .content import BASE, SceneContent, differences
from .scene import make_scenes

MAX_LABELS = 41  # 背景 0，加上最多 40 个物体
COMMIT_EVERY = 32  # 每画这么多张，落到磁盘上一次，再记“画好了”


class SceneBank:
    """一个目录里的 N 张场景。

    文件：``images.npy`` ``(N, S, S, 3)``、``labels.npy`` ``(N, S, S)``、``parents.npy``
    ``(N, 41)``，都是 uint8；``parents[i, 0]`` 为 1 表示第 i 张已经画好（背景没有上级，
    这一格空着，正好拿来记）。``bank.json`` 记着场景数、边长、第一个种子和画什么。

    参数：
        directory: 存放的目录，没有就新建；已有素材库时接着用，绝不改写它的大小。
        count: 至少要多少张场景；已有的更多时全都用上。
        size: 边长至少多少像素；已有的更大时照用。
        first_seed: 第一张场景的种子；content: 画什么，见 ``content``。

    错误：目录里的素材库种子或画的成分不同、边长或张数不够、文件损坏、别的进程正在画、
    写不了时抛 SamLiteError。
    """

    def __init__(
        self,
        directory: str | Path,
        count: int,
        size: int,
        first_seed: int = 0,
        content: SceneContent = BASE,
    ) -> None:
        self.directory = Path(directory)
        self.first_seed, self.content = first_seed, content
        card = self.directory / "bank.json"
        if not card.exists():
            make_folder(self.directory)
            with folder_lock(self.directory, "画场景"):
                wanted = {"count": count, "size": size, "first_seed": first_seed}
                self._create(card, wanted | {"content": asdict(content)})
        try:
            found = json.loads(card.read_text(encoding="utf-8"))
            same = found["first_seed"] == first_seed
            enough = found["count"] >= count and found["size"] >= size
            drawn = SceneContent(**found.get("content", {}))  # 从前的没有这一项
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SamLiteError(f"{card} 已损坏。删掉整个目录再画一次。") from error
        if not same or not enough:
            raise SamLiteError(
                f"{directory} 里的素材库是 {found['count']} 张、边长 {found['size']}、"
                f"种子从 {found['first_seed']} 起；要的是至少 {count} 张、边长 {size}、"
                f"种子从 {first_seed} 起。换一个目录，或删掉它重画。"
            )
        check_content(self.directory, drawn, content)
        self._open(found["count"], found["size"])

    def _create(self, card: Path, wanted: dict[str, Any]) -> None:
        """新建三个空文件，最后才有 bank.json：断在中间，下次重建。"""
        if card.exists():  # 别的进程刚建好
            return
        shapes = bank_shapes(wanted["count"], wanted["size"])
        paths = {name: self.directory / f"{name}.npy" for name in shapes}
        making = self.directory / "bank.making"  # 有它，说明下面几个文件是自己的半成品
        for path in paths.values():
            if path.exists() and not making.exists():
                raise SamLiteError(f"{path} 已经在了，却没有 bank.json。换一个空目录。")
        for path in (making, *paths.values()):
            sweep(path)
        check_room(self.directory, sum(map(math.prod, shapes.values())), "场景")
        with atomic_file(making) as file:
            file.write(json.dumps(wanted).encode())
        for name, path in paths.items():
            with atomic_file(path) as file:  # 空洞文件：画到哪里，占到哪里
                header = {"descr": "|u1", "fortran_order": False, "shape": shapes[name]}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + math.prod(shapes[name]))
        os.replace(making, card)
        sync_folder(self.directory)

    def _open(self, count: int, size: int) -> None:
        """按内存映射打开三个文件，只读；形状不对、文件缺失或残缺时抛 SamLiteError。"""
        self.arrays: dict[str, np.memmap] = {}
        for name, shape in bank_shapes(count, size).items():
            path = self.directory / f"{name}.npy"
            try:
                array = np.lib.format.open_memmap(path, mode="r")
                if array.shape != shape or array.dtype != np.uint8:
                    raise ValueError(f"形状是 {array.shape}")
            except (OSError, ValueError) as error:
                raise SamLiteError(
                    f"素材库文件 {path} 缺失或已损坏（{type(error).__name__}）。"
                    "删掉整个目录再画一次。"
                ) from error
            self.arrays[name] = array
        self.images, self.labels = self.arrays["images"], self.arrays["labels"]
        self.parents = self.arrays["parents"]

    def __len__(self) -> int:
        """一共要多少张。"""
        return self.images.shape[0]

    def ready(self) -> np.ndarray:
        """已经画好的场景的编号，从小到大。"""
        return np.flatnonzero(self.parents[:, 0])

    def missing_bytes(self) -> int:
        """把没画的画完，磁盘上还要多少字节；事先占好的空间不算。"""
        files = [(self.directory / f"{name}.npy").stat() for name in self.arrays]
        holes = sum(
            max(0, f.st_size - 512 * getattr(f, "st_blocks", f.st_size)) for f in files
        )
        each = sum(array[0].nbytes for array in self.arrays.values())
        return min(holes, (len(self) - len(self.ready())) * each)

    def fill(self, workers: int | None = None) -> Generator[int, None, None]:
        """把没画好的画完；每画好一张，交出它的编号（好让调用者显示进度）。

        中途停下，画好的都留着，下次接着画。错误：磁盘装不下、别的进程正在画这个
        素材库、画的进程死了，抛 SamLiteError。
        """
        if len(self.ready()) == len(self):
            return
        with folder_lock(self.directory, "画场景"):
            todo = np.flatnonzero(self.parents[:, 0] == 0)
            check_room(self.directory, self.missing_bytes(), "场景还")
            try:
                yield from self._draw(todo, workers)
            except (OSError, SamLiteError) as error:
                text = f"{reason(error)}。" if isinstance(error, OSError) else error
                raise SamLiteError(
                    f"场景画到一半停了：{text}画好的 {len(self.ready())} 张都留着，"
                    "解决之后同一条命令接着画。"
                ) from error
            finally:  # 写和映射走的不是同一条路，写完重新映射才保证看得到
                self._open(len(self), self.images.shape[1])

    def _draw(self, todo: np.ndarray, workers: int | None) -> Iterator[int]:
        """画 ``todo`` 里的场景，一张张写进文件，一批批记“画好了”。

        用普通的写，不经内存映射：磁盘满时映射的写会让进程当场崩溃，连话都说不出。
        """
        drawn: list[tuple[int, np.ndarray]] = []  # 写了、还没记“画好了”的
        seeds = [self.first_seed + int(i) for i in todo]
        size, content = self.images.shape[1], self.content
        scenes = make_scenes(seeds, size, workers, content=content)
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(
                    open(self.directory / f"{name}.npy", "r+b", buffering=0)
                )
                for name in self.arrays
            }
            stack.callback(self._commit, files, drawn)
            for i, scene in zip(todo.tolist(), scenes, strict=True):
                put(files["images"], self.images, i, scene.image)
                put(files["labels"], self.labels, i, scene.labels)
                row = np.zeros(MAX_LABELS, np.uint8)
                row[: len(scene.parents)] = scene.parents
                row[0] = 1
                drawn.append((i, row))
                if len(drawn) == COMMIT_EVERY:
                    self._commit(files, drawn)
                yield i

    def _commit(
        self, files: dict[str, FileIO], drawn: list[tuple[int, np.ndarray]]
    ) -> None:
        """先让图落到磁盘上，再记“画好了”：断在前面就等于没画。"""
        for name in ("images", "labels"):
            os.fsync(files[name].fileno())
        for i, row in drawn:
            put(files["parents"], self.parents, i, row)
        drawn.clear()
        os.fsync(files["parents"].fileno())


def check_content(directory: Path, drawn: SceneContent, asked: SceneContent) -> None:
    """素材库里画的和要的成分不同时，抛 SamLiteError，说清是哪几样。"""
    if drawn != asked:
        raise SamLiteError(
            f"{directory} 里的素材库画的成分不同：{differences(drawn, asked)}。"
            "换一个目录，或删掉它重画。"
        )


def put(file: FileIO, array: np.memmap, i: int, values: np.ndarray) -> None:
    """把 ``values`` 写进 ``array`` 的文件里第 ``i`` 格。"""
    file.seek(array.offset + i * array[0].nbytes)
    rest = memoryview(values.tobytes())
    while rest:  # 一次不一定写得完
        rest = rest[file.write(rest) :]


def bank_shapes(count: int, size: int) -> dict[str, tuple[int, ...]]:
    """三个文件的名字和形状。"""
    return {
        "images": (count, size, size, 3),
        "labels": (count, size, size),
        "parents": (count, MAX_LABELS),
    }
