"""这个文件夹的测试只在 OneFlow 的环境里运行（make test-oneflow）。

先让 oneflow 顶替 torch，再导入 sam_lite：就是使用者要写的那两行。
"""

import json
import os
import time
from pathlib import Path

import oneflow.mock_torch as mock

mock.enable()

REFERENCE = Path(os.environ["SAM_LITE_REFERENCE"])
STARTED = time.time()
LARGEST: dict[str, float] = {}
SECONDS: dict[str, float] = {}


def pytest_terminal_summary(terminalreporter, exitstatus) -> None:
    """印出每项的最大差、耗时，写进 REFERENCE/report.json。"""
    import torch

    facts = json.loads((REFERENCE / "torch.json").read_text(encoding="utf-8"))
    report = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "passed": exitstatus == 0,
        "tests": len(terminalreporter.stats.get("passed", [])),
        "minutes": round((time.time() - STARTED) / 60, 1),
        "oneflow": torch.__version__,
        "torch": facts["torch"],
        "threads": facts["threads"],
        "largest": LARGEST,
        "seconds": {"PyTorch": facts["seconds"], "OneFlow": SECONDS},
    }
    text = json.dumps(report, ensure_ascii=False, indent=1)
    (REFERENCE / "report.json").write_text(text, encoding="utf-8")
    terminalreporter.section("与 PyTorch 的最大差（绝对值）")
    for name, difference in LARGEST.items():
        terminalreporter.write_line(f"{difference:.1e}  {name}")
    terminalreporter.section("秒：PyTorch、OneFlow")
    for name, ours in SECONDS.items():
        terminalreporter.write_line(
            f"{facts['seconds'][name]:8.3f} {ours:8.3f}  {name}"
        )
