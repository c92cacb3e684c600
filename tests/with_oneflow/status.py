"""make test 的最后几行：make test-oneflow 有没有运行过，结果怎样，怎么运行。

    python tests/with_oneflow/status.py 报告.json [--ran] [--markdown 记录.md]

--ran 是刚刚运行过；给了 --markdown，就把报告写成一页 Markdown，
``benchmarks/oneflow.md`` 是这样来的。
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

HOW = "make test-oneflow（要 Linux x86_64、Python 3.10，下载约 1.9 GB）"


def status(facts: dict[str, Any] | None) -> str:
    """一两句话；还没有运行过就说怎么运行。"""
    if facts is None:
        return f"OneFlow 的测试没有运行过。运行它：{HOW}"
    worst = max(facts["largest"].values(), default=float("nan"))
    result = "全部通过" if facts["passed"] else "有没通过的"
    return (
        f"OneFlow {facts['oneflow']} 的测试最近一次运行在 {facts['date']}：{result}，"
        f"{facts['tests']} 项，与 PyTorch {facts['torch']} 最多相差 {worst:.1e}，"
        f"{facts['minutes']} 分钟。"
    )


def markdown(facts: dict[str, Any]) -> str:
    """一页 Markdown：在什么机器上，差多少，各要几秒。"""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.machine import describe_machine, kind_of

    machine = kind_of(describe_machine(facts["threads"]))
    result = "全部通过" if facts["passed"] else "有没通过的"
    lines = [
        "# OneFlow 与 PyTorch",
        "",
        f"`make test-oneflow`，{facts['date']}，{platform.system()} "
        f"{platform.machine()}，{machine}，{os.cpu_count()} 个逻辑核，"
        f"{facts['threads']} 个线程；"
        f"OneFlow {facts['oneflow']}，PyTorch {facts['torch']}；{facts['tests']} 项测试"
        f"{result}，用了 {facts['minutes']} 分钟。",
        "",
        "## 结果相差多少",
        "",
        "每一行是一项的全部输出里最大的绝对误差；布尔的掩码是不同的像素占几成，框和点要"
        "一模一样。缩放（`resize`）的像素除以 255。",
        "",
        "| 项 | 最大的差 |",
        "| --- | --- |",
        *(f"| `{name}` | {value:.1e} |" for name, value in facts["largest"].items()),
        "",
        "## 几秒",
        "",
        "同一次运行，先 PyTorch，后 OneFlow；热身一遍，取最短的一遍。",
        "",
        "| 做什么 | PyTorch | OneFlow | OneFlow ÷ PyTorch |",
        "| --- | --- | --- | --- |",
    ]
    for name, theirs in facts["seconds"]["PyTorch"].items():
        ours = facts["seconds"]["OneFlow"].get(name, float("nan"))
        lines.append(f"| {name} | {theirs:.3f} | {ours:.3f} | {ours / theirs:.1f} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """印出状态；给了 --markdown 就写成文件。"""
    report = Path(argv[0])
    facts = None
    if report.is_file():
        facts = json.loads(report.read_text(encoding="utf-8"))
    print(status(facts))
    if facts is not None and "--ran" not in argv:
        print(f"这一次没有运行它；要运行：{HOW}")
    if "--markdown" in argv and facts is not None:
        Path(argv[-1]).write_text(markdown(facts), encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main(sys.argv[1:])
