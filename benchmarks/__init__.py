"""sam_lite 与官方 segment_anything、transformers 的时间和内存。

用法：``python -m benchmarks``（``__main__.py``，轮流地量）。``cases.py`` 量什么，
``contenders.py`` 各方怎样装模型，``worker.py`` 在单独的进程里量一次，``machine.py``
这台机器，``operations.py`` 编码器要做多少次运算，``store.py`` 记进 results.json，
``compare.py`` 误差、比值和目标，``page.py`` 填 RESULTS.md 和 COSTS.md。``photos/``
量的是质量。CONTENT.md 和 ``training/`` 是做完了的比较，只留下数。
"""
