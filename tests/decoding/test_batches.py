import pytest
import torch

from sam_lite.decoding.batches import prompts_at_once


def test_auto_batches_follow_the_memory_limit(small_sam):
    size = (3000, 4000)  # 一个点的三张掩码，光 logits 就有 144 MB
    assert prompts_at_once("auto", 1, small_sam, size) == 1
    few = prompts_at_once("auto", 600, small_sam, size)
    assert 1 <= few < prompts_at_once("auto", 10**6, small_sam, size)
    assert prompts_at_once("auto", 600, small_sam, (30, 40)) > few
    assert prompts_at_once(3, 1, small_sam, size) == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_estimate_and_the_cap(small_sam, monkeypatch, device):
    """估计照注释里的账；缓存的上限只在 CPU 上有。"""
    monkeypatch.setattr(type(small_sam), "device", torch.device(device))
    cap = 2**24 // (4 * 64 * 32)  # 8×8 格，每格 32 个数
    mask = 4 * (64**2 + 8 * 9) + 3 * 8 * 9  # 一张掩码：输入边长 64，原图 (8, 9)
    one = 3 * mask + 4 * 6 * 64 * 32
    assert prompts_at_once("auto", 1, small_sam, (8, 9)) == 10**6 // one == 10
    most = 900 * 10**6 // one
    assert most > cap
    limited = device == "cpu"
    assert prompts_at_once("auto", 900, small_sam, (8, 9)) == (cap if limited else most)
    assert prompts_at_once(10**5, 1, small_sam, (8, 9)) == (cap if limited else 10**5)
