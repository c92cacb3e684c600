"""编码器的运算次数，矩阵乘法的速度。"""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))


from benchmarks import operations  # noqa: E402
from benchmarks.operations import product_rates, total_operations  # noqa: E402
from sam_lite.config import VIT_B  # noqa: E402


def test_operations_of_vit_b_are_those_on_the_page() -> None:
    """写在页上的 0.972 TFLOP；补的边也算。"""
    assert total_operations(VIT_B) == 972_077_334_528


def test_rate_is_operations_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """每次乘法恰好半秒时，速度是运算次数的两倍；1×1 卷积算的就是那个线性层。"""
    results = []

    def half_a_second(run) -> float:
        results.append(run())
        return 0.5

    monkeypatch.setattr(operations, "timed", half_a_second)
    rates = product_rates(torch.float32, side=8)
    assert rates == {"mm": 2048.0, "linear": 2048.0, "conv": 2048.0}
    mm, linear, conv = results
    assert mm.shape == linear.shape == (8, 8)
    torch.testing.assert_close(conv[0, :, :, 0].t(), linear)


def test_timing_leaves_out_the_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    """头一次不计时，其余取中位数。"""
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 25.0])
    monkeypatch.setattr(operations.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    assert operations.timed(lambda: calls.append(1)) == 3.0  # type: ignore[arg-type]
    assert len(calls) == 4
