"""Ctrl-C 和 SIGTERM（作业系统叫停）：先记下来，等手上的事做完再停。

Windows 上只会收到 Ctrl-C，别的都一样。
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """在 ``with`` 里接住 Ctrl-C 和 SIGTERM，出来时恢复原样。

    ``patient=True`` 时第一次只记下来，由循环在合适的地方调用 ``check()`` 停下；第二次
    当场抛 KeyboardInterrupt。``patient=False`` 时第一次就抛。原本被忽略的信号照旧忽略。
    """

    def __init__(self, patient: bool = True) -> None:
        self.patient = patient
        self.number = 0  # 收到的第一个信号；0 是还没有
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # 别的线程不许设
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __bool__(self) -> bool:
        return self.number != 0

    def check(self) -> None:
        """收到过信号就抛 KeyboardInterrupt；放在停下来也不丢东西的地方。"""
        if self:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """按惯例的退出码：Ctrl-C 是 130，SIGTERM 是 143。"""
        return 128 + (self.number or signal.SIGINT)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.number = bool(self), self.number or number
        if again or not self.patient:
            raise KeyboardInterrupt
