"""可选的依赖：用到才导入，缺了说清怎么装。"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from .errors import SamLiteError


def require(name: str, purpose: str, extra: str = "course") -> ModuleType:
    """导入一个不在核心里的库；没装时抛 SamLiteError，说出装哪一组额外依赖。"""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SamLiteError(
            f'{purpose}要用 {name.split(".")[0]}：pip install "sam-lite[{extra}]"。'
        ) from error


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Any]:
    """进度条，单位是点；shown 为假时什么也不显示。"""
    if not shown:
        yield SimpleNamespace(update=lambda n: None)
        return
    with require("tqdm", "显示进度").tqdm(total=total, desc="撒点", unit="点") as bar:
        yield bar
