"""低秩适配器（LoRA）：权重旁边加两个瘦长的矩阵，只训练它们，训练完加回权重里。

出自 Hu 等人的 "LoRA: Low-Rank Adaptation of Large Language Models"。挂在线性层的权重上
（PyTorch 的 parametrize）：读 ``layer.weight`` 得到的就是加过的，谁来算都照旧；层的类
换了名字，解码器的快路认出它不是原样的，就走慢而对的那条。
"""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..errors import problem
from ..model import Sam

# 名字的结尾 -> 权重竖着分几段，挂在哪几段上；编码器的 qkv 是 q、k、v 三段叠在一起
WHERE = {"qkv": (3, (0, 2)), "q_proj": (1, (0,)), "v_proj": (1, (0,))}


class LowRank(nn.Module):
    """给一个权重加上 ``up @ down``；up 从零开始，所以刚挂上时什么也不变。

    参数：
        weight: 线性层的权重 ``(N, C)``；rank 是两个矩阵的内侧边长 r。
        pieces、chosen: 竖着分几段，挂在哪几段上；g 给 down 随机数。
    """

    def __init__(
        self,
        weight: torch.Tensor,
        rank: int,
        pieces: int,
        chosen: tuple[int, ...],
        g: torch.Generator,
    ) -> None:
        super().__init__()
        (N, C), self.pieces, self.chosen = weight.shape, pieces, chosen
        down = torch.randn(len(chosen), rank, C, generator=g) / C**0.5
        self.down = nn.Parameter(down.to(weight))  # (段数, r, C)
        self.up = nn.Parameter(weight.new_zeros(len(chosen), N // pieces, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """形状：``(N, C) -> (N, C)``。"""
        parts = list(weight.chunk(self.pieces))
        for place, up, down in zip(self.chosen, self.up, self.down, strict=True):
            parts[place] = parts[place] + up @ down
        return torch.cat(parts)


def add_lora(sam: Sam, rank: int, seed: int = 0) -> list[nn.Parameter]:
    """给编码器的 q、v 和解码器各个注意力的 q、v 挂上适配器，别的全部冻结。

    返回适配器的参数；同样的种子，随机数相同。

    错误：rank 不是正整数、已经挂过时，抛 SamLiteError。
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise problem("lora_rank", repr(rank), "正整数，常用 4 到 16")
    check_plain(sam)
    sam.requires_grad_(False)
    g = torch.Generator().manual_seed(seed)
    for name, layer in list(sam.named_modules()):
        where = WHERE.get(name.rpartition(".")[2])
        if where and isinstance(layer, nn.Linear):
            adapter = LowRank(layer.weight, rank, *where, g)
            parametrize.register_parametrization(layer, "weight", adapter)
    return [p for p in sam.parameters() if p.requires_grad]


def check_plain(sam: Sam) -> None:
    """模型上已经挂着适配器，就抛 SamLiteError。"""
    if any(isinstance(module, LowRank) for module in sam.modules()):
        raise problem("sam", "挂着适配器的模型", "原样的模型", "先 merge_lora(sam)。")


def merge_lora(sam: Sam) -> Sam:
    """把适配器加进权重，拆掉，全部解冻，返回同一个模型：名字和层的类都恢复原样。"""
    for layer in list(sam.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    return sam.requires_grad_(True)


def plain_state(sam: Sam) -> dict[str, torch.Tensor]:
    """合并之后的 state_dict，模型不动；没有挂适配器时就是它自己的 state_dict。

    不能靠拷贝一个再合并：torch 拆适配器时改的是层的类，拷贝和原来的共用那个类。
    """
    state = {}
    for name, tensor in sam.state_dict().items():
        layer, hung, rest = name.partition(".parametrizations.weight.")
        if not hung:
            state[name] = tensor
        elif rest == "original":
            weight: Any = sam.get_submodule(layer).weight
            state[f"{layer}.weight"] = weight.detach()
    return state
