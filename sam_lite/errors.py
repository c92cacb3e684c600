"""sam_lite 自己抛出的错误：都是中文，都说清楚哪个参数、收到什么、应为什么、怎么改。"""


class SamLiteError(ValueError):
    """参数、文件或状态不对时抛出；它也是 ValueError，旧的 except 照样接得住。"""


class NoImageError(SamLiteError, RuntimeError):
    """还没有 set_image 就来问；官方这时抛 RuntimeError，所以它也是。"""


def problem(name: str, got: object, expected: str, mend: str = "") -> SamLiteError:
    """按统一的格式拼出一个错误：参数名、收到的、应有的、改法。"""
    return SamLiteError(f"{name} 不对：收到 {got}，应为{expected}。{mend}".strip())
