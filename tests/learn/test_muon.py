"""muon：更新是正交的，一步与手算相同，只管隐藏层的矩阵。"""

import numpy as np
import pytest
import torch
from parity.small import SMALL
from torch import nn

from sam_lite.learn.muon import Muon, hidden_matrices, orthogonalize
from sam_lite.model import sam_from_config


def stretched(m, n):
    """奇异值从 1 到 0.03 的矩阵，和它的 U、Vᵀ。"""
    U, _, Vt = np.linalg.svd(np.random.default_rng(m * n).normal(size=(m, n)))
    k = min(m, n)
    values = np.geomspace(1, 0.03, k)
    return U[:, :k] * values @ Vt[:k], U[:, :k], Vt[:k]


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (32, 32)])
def test_every_direction_becomes_equally_long(shape):
    """奇异值拉到 0.7–1.2，左右奇异向量不变。"""
    matrix, U, Vt = stretched(*shape)
    found = orthogonalize(torch.tensor(7.0 * matrix, dtype=torch.float32)).numpy()
    core = U.T @ found @ Vt.T  # 该是对角的
    values = np.diag(core)
    assert values.min() > 0.67 and values.max() < 1.2
    assert np.abs(core - np.diag(values)).max() < 1e-4


def by_hand(p, grad, momentum, lr, decay, parts):
    """float64 的一步，Newton–Schulz 也照公式再写一遍。"""
    momentum = 0.95 * momentum + 0.05 * grad
    ahead = (0.05 * grad + 0.95 * momentum).reshape(len(p), -1)
    steps = []
    for X in np.split(ahead, parts):
        longest = max(X.shape)
        X = X / np.linalg.norm(X)
        for _ in range(5):
            U, s, Vt = np.linalg.svd(X, full_matrices=False)
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            X = U * s @ Vt
        steps.append(0.2 * np.sqrt(longest) * X)
    step = np.concatenate(steps).reshape(p.shape)
    return p * (1 - lr * decay) - lr * step, momentum


@pytest.mark.parametrize(
    ("shape", "parts"), [((6, 10), 1), ((10, 6), 1), ((24, 8), 3), ((8, 8, 3, 3), 1)]
)
def test_two_steps_by_hand(shape, parts):
    """普通矩阵、分三份的 qkv、卷积核：动量、权重衰减、每份的幅度都算在内。"""
    rng = np.random.default_rng(0)
    value, momentum = rng.normal(size=shape), np.zeros(shape)
    p = nn.Parameter(torch.tensor(value))
    optimizer = Muon([{"params": [p], "parts": parts}], lr=0.1, weight_decay=0.3)
    for _ in range(2):
        grad = rng.normal(size=shape)
        value, momentum = by_hand(value, grad, momentum, 0.1, 0.3, parts)
        p.grad = torch.tensor(grad)
        optimizer.step()
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=1e-5, atol=1e-6)


def test_a_step_is_about_as_long_as_one_of_adamw():
    """更新的均方根约 0.2，AdamW 平常的一步也是这么大。"""
    for shape in ((40, 40), (40, 160), (160, 40)):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape)
        Muon([p], lr=1.0).step()
        assert 0.15 < p.detach().square().mean().sqrt() < 0.25


def test_only_hidden_matrices_are_taken():
    """Block、颈部、双向 Transformer、超网络的矩阵；嵌入、相对位置、IoU 头都不归它。"""
    names = set(hidden_matrices(sam_from_config(SMALL)))
    for taken in (
        "image_encoder.blocks.0.attn.qkv.weight",
        "image_encoder.blocks.2.mlp.lin2.weight",
        "image_encoder.neck.2.weight",
        "mask_decoder.transformer.final_attn_token_to_image.q_proj.weight",
        "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight",
    ):
        assert taken in names
    for name in names:
        assert name.endswith("weight") and "norm" not in name
    refused = ("rel_pos", "pos_embed", "patch_embed", "iou", "prompt", "upscaling")
    assert not [name for name in names for word in refused if word in name]


def test_parameters_without_a_gradient_stay():
    p = nn.Parameter(torch.ones(3, 3))
    Muon([p], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(p, torch.ones(3, 3))
