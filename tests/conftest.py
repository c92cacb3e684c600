"""所有测试共用：固定随机种子、小模型，末尾打印与官方实现的最大相对误差。"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from parity.small import SMALL, randomize

from sam_lite.model import Sam, sam_from_config

# 这里面的在另一个环境里运行：make test-oneflow
collect_ignore = ["with_oneflow"]
# 小张量上多线程只会更慢，机器忙时尤其慢；要多核的测试自己改（见 vit_b 的对照）
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@contextlib.contextmanager
def without_privilege() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """``with ordinary_user():`` 里是普通用户；root 不受文件权限约束，测不出来。"""
    return without_privilege


@pytest.fixture
def small_sam() -> Sam:
    """一个每个参数都非零的小模型：输入 64×64，网格 8×8，低分辨率掩码 32×32。"""
    return randomize(sam_from_config(SMALL)).eval()


@pytest.fixture
def listening() -> Iterator[None]:
    """后台启动的进程（nohup、脚本里的 &）生来忽略 Ctrl-C；测试期间恢复成听得见。"""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if any("浏览器测试" in str(report.longrepr) for report in skipped):
        terminalreporter.section("没有运行浏览器里的测试")
        terminalreporter.write_line(
            "这台机器上没有 Chromium，或没装 playwright。装好再跑："
        )
        terminalreporter.write_line(
            "apt-get install chromium（Debian），pip install playwright"
        )
    official = sys.modules.get("parity.official")
    if official is None or not official.LARGEST:
        return
    terminalreporter.section("与官方实现的最大相对误差")
    for test, difference in official.LARGEST.items():
        terminalreporter.write_line(f"{difference:.1e}  {test}")
