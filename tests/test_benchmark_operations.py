"""基准里数出的运算次数与 torch 自己数的一个不差；矩阵乘法的速度。"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from parity.small import SMALL  # noqa: E402

from benchmarks import operations  # noqa: E402
from benchmarks.operations import product_rates, total_operations  # noqa: E402
from sam_lite import ops  # noqa: E402
from sam_lite.attention import set_fused  # noqa: E402
from sam_lite.config import TINY, VIT_B, SamConfig  # noqa: E402
from sam_lite.model import sam_from_config  # noqa: E402


@pytest.mark.parametrize(
    "config",
    [SMALL, TINY, VIT_B, replace(SMALL, window_size=4), replace(VIT_B, image_size=512)],
    ids=["small", "tiny", "vit_b", "no_padding", "vit_b_512"],
)
def test_operations_equal_what_torch_counts(config: SamConfig) -> None:
    """模型只有形状、没有数，照逐步的写法走一遍，让 torch 数。"""
    side = config.image_size
    with ops.shapes_only():
        sam = set_fused(sam_from_config(config), False)
        x = torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        sam.image_encoder(x)
    assert total_operations(config) == counter.get_total_flops()
    if config == VIT_B:
        assert total_operations(config) == 972_077_334_528  # 写在页上的 0.972 TFLOP


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
