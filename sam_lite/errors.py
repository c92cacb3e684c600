"""sam_lite 自己抛出的错误：都是中文，都说清楚哪个参数、收到什么、应为什么、怎么改。"""

import importlib
import re
from types import ModuleType


class SamLiteError(ValueError):
    """参数、文件或状态不对时抛出；它也是 ValueError，旧的 except 照样接得住。"""


class SamLiteWarning(UserWarning):
    """输入能用、但多半不是本意时发出；``warnings.simplefilter("error")`` 可当错误。"""


class NoImageError(SamLiteError, RuntimeError):
    """还没有 set_image 就来问；官方这时抛 RuntimeError，所以它也是。"""


def problem(name: str, got: object, expected: str, mend: str = "") -> SamLiteError:
    """按统一的格式拼出一个错误：参数名、收到的、应有的、改法。"""
    message = glue(name, "不对：收到", str(got)) + glue("，应为", expected)
    return SamLiteError(f"{message}。{mend}")


def glue(*parts: str) -> str:
    """把几段话接起来，汉字和西文、数字之间留一个空格。"""
    text = parts[0]
    for part in parts[1:]:
        pair = text[-1:] + part[:1]
        mixed = re.search("[一-鿿]", pair) and re.search("[!-~]", pair)
        text += (" " if mixed else "") + part
    return text


def require(name: str, purpose: str, extra: str = "course") -> ModuleType:
    """导入一个不在核心里的库；没装时抛 SamLiteError，说出装哪一组额外依赖。"""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SamLiteError(
            f'{purpose}要用 {name.split(".")[0]}：pip install "sam-lite[{extra}]"。'
        ) from error
