"""lora：刚挂上什么也不变，合并之后还是一样，只有适配器得到梯度。"""

import copy

import pytest
import torch

from sam_lite import SamLiteError
from sam_lite.decoding.prompt_decoder import plain_tensors
from sam_lite.learn.lora import LowRank, add_lora, merge_lora, plain_state


def outputs(sam):
    """一张图、两组点的嵌入和掩码。"""
    image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    points = torch.tensor([[[10.0, 20.0]], [[40.0, 30.0]]]), torch.ones(2, 1)
    embedding = sam.image_encoder(image)
    sparse, dense = sam.prompt_encoder(points=points, boxes=None, masks=None)
    pe = sam.prompt_encoder.get_dense_pe()
    masks, _ = sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)
    return embedding, masks


def stir(parameters):
    with torch.no_grad():
        for p in parameters:
            p.add_(0.3 * torch.randn_like(p))


def test_new_adapters_change_nothing(small_sam):
    before = outputs(small_sam)
    add_lora(small_sam, 2)
    for a, b in zip(before, outputs(small_sam), strict=True):
        assert torch.equal(a, b)


def test_merged_model_equals_the_adapted_one_and_looks_official(small_sam):
    original = copy.deepcopy(small_sam)
    stir(add_lora(small_sam, 2))
    adapted = outputs(small_sam)
    assert (
        plain_tensors(small_sam.mask_decoder) is None
    )  # 快路要认得出，不然用的是原来的权重
    assert not torch.allclose(adapted[0], outputs(original)[0], atol=1e-3)
    state = plain_state(small_sam)
    merged = merge_lora(small_sam)
    assert state.keys() == merged.state_dict().keys()
    assert all(torch.equal(state[n], v) for n, v in merged.state_dict().items())
    for a, b in zip(adapted, outputs(merged), strict=True):
        torch.testing.assert_close(a, b)
    assert set(merged.state_dict()) == set(original.state_dict())
    assert plain_tensors(merged.mask_decoder) is not None
    assert all(p.requires_grad for p in merged.parameters())
    assert [type(m) for m in merged.modules()] == [type(m) for m in original.modules()]


def test_only_q_and_v_change(small_sam):
    original = copy.deepcopy(small_sam)
    stir(add_lora(small_sam, 2))
    merge_lora(small_sam)
    changed = set()
    for name, value in original.state_dict().items():
        if not torch.equal(value, small_sam.state_dict()[name]):
            changed.add(name.rpartition(".")[0].rpartition(".")[2])
    assert changed == {"qkv", "q_proj", "v_proj"}
    old, new = (
        s.image_encoder.blocks[0].attn.qkv.weight.chunk(3)
        for s in (original, small_sam)
    )
    assert [torch.equal(a, b) for a, b in zip(old, new)] == [False, True, False]


def test_only_adapters_learn_and_their_number_is_as_counted(small_sam):
    """编码器每层 q、v 各 2rC；解码器每个注意力的 q、v 各 r(输入 + 输出)。"""
    parameters = add_lora(small_sam, 2)
    sum(x.sum() for x in outputs(small_sam)).backward()
    with_grad = {p for p in small_sam.parameters() if p.grad is not None}
    assert with_grad == set(parameters)
    encoder = 3 * 2 * 2 * (24 + 24)  # 3 层，q 和 v，秩 2
    # 两层各三个注意力、末了一个：自注意力 32→32，交叉注意力 32→16
    decoder = 2 * 2 * (2 * (32 + 32) + 5 * (32 + 16))
    assert sum(p.numel() for p in parameters) == encoder + decoder


def test_seed_decides_the_adapters(small_sam):
    again, other = copy.deepcopy(small_sam), copy.deepcopy(small_sam)
    first = add_lora(small_sam, 2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, add_lora(again, 2, seed=1)))
    assert not all(torch.equal(a, b) for a, b in zip(first, add_lora(other, 2, seed=2)))


@pytest.mark.parametrize("rank", [0, -1, 2.5, True, "4"])
def test_bad_ranks_are_named(small_sam, rank):
    with pytest.raises(SamLiteError, match="lora_rank"):
        add_lora(small_sam, rank)
    assert all(p.requires_grad for p in small_sam.parameters())


def test_adapters_twice_is_an_error(small_sam):
    add_lora(small_sam, 2)
    count = sum(isinstance(m, LowRank) for m in small_sam.modules())
    with pytest.raises(SamLiteError, match="merge_lora"):
        add_lora(small_sam, 2)
    assert sum(isinstance(m, LowRank) for m in small_sam.modules()) == count
