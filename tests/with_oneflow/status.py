"""make test 的最后几行：make test-oneflow 有没有运行过，结果怎样，怎么运行。"""

import json
import sys
from pathlib import Path


def status(report: Path) -> str:
    """一两句话；还没有运行过就说怎么运行。"""
    how = "make test-oneflow（要 Linux x86_64、Python 3.10，下载约 1.9 GB）"
    if not report.is_file():
        return f"OneFlow 的测试没有运行过。运行它：{how}"
    facts = json.loads(report.read_text(encoding="utf-8"))
    worst = max(facts["largest"].values(), default=float("nan"))
    result = "全部通过" if facts["passed"] else "有没通过的"
    return (
        f"OneFlow {facts['oneflow']} 的测试最近一次运行在 {facts['date']}：{result}，"
        f"{facts['tests']} 项，与 PyTorch {facts['torch']} 最多相差 {worst:.1e}，"
        f"{facts['minutes']} 分钟。\n这一次没有运行它；要运行：{how}"
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print(status(Path(sys.argv[1])))
