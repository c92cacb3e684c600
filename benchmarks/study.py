"""做上半天的比较怎么说话、怎么停：停下再敲一遍接着做，出错说一句话。"""

import sys
from collections.abc import Callable

from sam_lite.errors import SamLiteError


def note(text: str) -> None:
    """往标准错误写一行。"""
    print(text, file=sys.stderr, flush=True)


def attempt(action: Callable[[], object]) -> int:
    """执行 action，返回退出码：0 做完，130 被叫停，1 出错。"""
    try:
        action()
    except KeyboardInterrupt:
        note("停下了；再敲一遍同样的命令，接着做。")
        return 130
    except SamLiteError as error:
        note(str(error))
        return 1
    return 0
