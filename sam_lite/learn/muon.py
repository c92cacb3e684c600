"""Muon：隐藏层的矩阵，先把动量正交化，再走一步。

出自 Keller Jordan 等人 2024 年的 “Muon: An optimizer for hidden layers in neural
networks”（https://kellerjordan.github.io/posts/muon/）。梯度的奇异值往往相差悬殊，几个
大的方向占去整步；正交化之后各个方向一样快。嵌入、偏置、规范化层仍用 AdamW。

一步的均方根配成和 AdamW 差不多（乘 0.2·√较长的边），两者才能共用一个学习率。
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

ROUNDS = 5  # Newton–Schulz 迭代几次
# 五次多项式的系数，照原文：奇异值很快到约 0.7–1.2 之间
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """近似的 UVᵀ：奇异值都拉到 1 附近，方向不变。形状：``(m, n) -> (m, n)``。"""
    m, n = matrix.shape
    X = matrix.t() if m > n else matrix  # 矮的一边在前，乘法少
    X = X / (X.norm() + 1e-7)
    for _ in range(ROUNDS):
        G = X @ X.t()
        X = A * X + (B * G + C * G @ G) @ X
    return X.t() if m > n else X


class Muon(torch.optim.Optimizer):
    """Nesterov 动量，正交化，再走一步；权重衰减与 AdamW 相同。

    参数：
        params: 参数或参数组，二维或卷积核；组里的 ``parts`` 是竖着分成几份各自正交化，
            qkv 是 3。
        lr、weight_decay、momentum: 学习率、权重衰减、动量。
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults | {"parts": 1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """走一步；没有梯度的参数不动。"""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(momentum, group["momentum"]).flatten(1)  # (m, n)
                parts = ahead.chunk(group["parts"])
                scale = 0.2 * max(parts[0].shape) ** 0.5
                step = torch.cat([orthogonalize(part) for part in parts]) * scale
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(step.view_as(p), alpha=-group["lr"])


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """SAM 里归 Muon 管的：各个 Block、颈部、双向 Transformer、超网络的矩阵。"""
    homes = ("blocks.", "neck.", "transformer.", "hypernetworks_mlps.")
    return {
        name: p
        for name, p in model.named_parameters()
        if any(home in name for home in homes) and p.ndim > 1 and "rel_pos" not in name
    }
