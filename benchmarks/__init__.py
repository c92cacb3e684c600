"""sam_lite 与官方 segment_anything、transformers 的时间和内存。

用法：``python -m benchmarks``。``contenders.py`` 三方怎样装模型，``cases.py`` 量什么，
``worker.py`` 在单独的进程里量一次，``machine.py`` 这台机器，``report.py`` 表格，
``__main__.py`` 命令行。
"""
