"""训练目录里的文件：检查点和曲线。

检查点留两个：新的 ``state.pt`` 写稳了才换下旧的，旧的改名成 ``state.prev.pt``，任何一刻
都至少有一个完好的。曲线 ``log.jsonl`` 很小，每次整个重写，所以不会有半行。
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..errors import SamLiteError
from ..files.atomic import atomic_file, flush_to_disk, reason

STATE_KEYS = {"config", "model", "mean", "optimizer", "step", "elapsed"}


def make_folder(folder: Path) -> None:
    """新建文件夹，已有的不动；建不了就抛 SamLiteError。"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = "同名的文件挡在那里" if folder.exists() else reason(error)
        raise SamLiteError(f"建不了文件夹 {folder}：{text}。") from error


class Checkpoints:
    """一个文件夹里的两个检查点：``state.pt`` 和上一个 ``state.prev.pt``。"""

    def __init__(self, folder: Path) -> None:
        self.current = folder / "state.pt"
        self.previous = folder / "state.prev.pt"
        self.trusted = False  # state.pt 是自己写的、或读过没坏的，才配换下上一个

    def count(self) -> int:
        """磁盘上有几个：0、1 或 2。"""
        return self.current.exists() + self.previous.exists()

    def save(self, state: dict[str, Any]) -> None:
        """写一个新的检查点；写不了时抛 SamLiteError，已有的两个都不动。"""
        data = io.BytesIO()  # 直接写文件，磁盘满时 torch 报的错认不出原因
        torch.save(state, data)
        try:
            with atomic_file(self.current) as file:
                file.write(data.getbuffer())
                flush_to_disk(file)
                if self.trusted and self.current.exists():
                    os.replace(self.current, self.previous)
        except SamLiteError as error:
            size = data.getbuffer().nbytes / 1e6
            raise SamLiteError(f"{error}一个检查点要 {size:.1f} MB。") from error
        self.trusted = True

    def load(self) -> tuple[dict[str, Any], str]:
        """读最新的好检查点，张量在 CPU 上；另返回一句警告，没事就是空的。

        错误：一个好的都没有时抛 SamLiteError，文件都不动。
        """
        found = [path for path in (self.current, self.previous) if path.exists()]
        broken: list[str] = []
        for path in found:
            try:
                state = read_state(path)
            except PermissionError as error:
                raise SamLiteError(f"没有权限读检查点 {path}。") from error
            except Exception as error:
                broken.append(f"{path} 已损坏（{type(error).__name__}）")
                continue
            self.trusted = path == self.current
            used = f"，改用上一个检查点 {path}（第 {state['step']} 步）"
            return state, broken[0] + used if broken else ""
        raise SamLiteError(
            "检查点不能用：" + "；".join(broken) + "。有备份就拷回来；没有的话，"
            "换一个 --out，或把坏文件移走，从头训练。"
        )


def read_state(path: Path) -> dict[str, Any]:
    """读一个检查点，绝不执行里面的代码；有一点不对就抛异常。"""
    with zipfile.ZipFile(path) as archive:  # torch.load 不验校验和，坏了也照读
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(bad)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or set(state) != STATE_KEYS:
        raise ValueError("缺少该有的键")
    return state


class Curve:
    """训练曲线 ``log.jsonl``：一行一个 JSON，步数一直增加。

    写不下时只用 ``warn`` 警告一次，记录留在内存里，下次一起写。
    """

    def __init__(self, path: Path, warn: Callable[[str], object]) -> None:
        self.path, self.warn = path, warn
        self.rows: list[dict[str, float]] = []
        self.error: SamLiteError | None = None  # 上一次没写成的原因

    def read(self, last_step: int) -> int:
        """读进已有的记录：不完整的行、重复的步、``last_step`` 之后的都去掉。

        返回文件里原来记到了第几步，没有记录是 0。
        """
        rows, seen, text = [], 0, ""
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            with suppress(ValueError, TypeError, KeyError):  # 断电留下的半行
                row = json.loads(line)
                if row["step"] > seen:
                    rows.append(row)
                    seen = row["step"]
        self.rows = [row for row in rows if row["step"] <= last_step]
        if text != self._text():
            self.write()
        return seen

    def add(self, row: dict[str, float]) -> None:
        """添一行，写进文件；与末一行是同一步的，并进那一行。"""
        if self.rows and self.rows[-1]["step"] == row["step"]:
            row = self.rows.pop() | row
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """整个写一遍；写不了就记下 ``error``，旧文件不动。"""
        before, self.error = self.error, None
        try:
            with atomic_file(self.path) as file:
                file.write(self._text().encode())
        except SamLiteError as error:
            self.error = error
            if before is None:
                self.warn(f"曲线没写成：{error}留在内存里，下次一起写。")

    def _text(self) -> str:
        return "".join(json.dumps(row) + "\n" for row in self.rows)
