"""可选的依赖：用到才导入，缺了说清怎么装。"""

import importlib
from types import ModuleType

from .errors import SamLiteError


def require(name: str, purpose: str, extra: str = "course") -> ModuleType:
    """导入一个不在核心里的库；没装时抛 SamLiteError，说出装哪一组额外依赖。"""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SamLiteError(
            f'{purpose}要用 {name.split(".")[0]}：pip install "sam-lite[{extra}]"。'
        ) from error
