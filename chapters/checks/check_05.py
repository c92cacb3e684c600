"""第 5 章的练习怎么检查。"""

import torch
import torch.nn.functional as F
from checks.common import must_be, same, shake
from course import Mistake, answered, expect

from sam_lite.image_encoder import Block, ImageEncoderViT
from sam_lite.windows import window_partition, window_unpartition

C = 768
BODY = 12 * C * C + 13 * C  # 一个 Block 里除了相对位置表的全部参数


def ex_05_1(answer) -> None:
    """窗口 Block 7,091,328 个，全局 Block 7,104,128 个，只差在相对位置表。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        "要两个整数：(窗口层, 全局层)。",
    )
    right = [BODY + 2 * (2 * side - 1) * 64 for side in (14, 64)]
    got = [answered(n) for n in answer]
    expect(got != right[::-1], "两个数的次序反了：先窗口层，后全局层。")
    for n, side, name, exact in zip(got, (14, 64), ("窗口层", "全局层"), right):
        expect(n == exact, count_hint(n, side, name))


def count_hint(n: int, side: int, name: str) -> str:
    """参数个数错在哪里。"""
    rows = 2 * side - 1
    tables = 2 * rows * 64
    if n in (BODY, 12 * C * C):
        return f"{name}忘了两张相对位置表。"
    if n == BODY + rows * 64:
        return f"{name}只加了一张相对位置表：高、宽各有一张。"
    if n == BODY + 2 * rows * C:
        return f"{name}的相对位置表每行只有一个头那么宽，64，不是 768。"
    if n in (BODY + 2 * side * 64, BODY + 4 * side * 64, BODY + 2 * side * side * 64):
        return f"{name}的相对位置表不是 {rows} 行：距离从 -{side - 1} 到 {side - 1}。"
    if n == BODY - 3 * C + tables:
        return f"{name}的 qkv 忘了偏置，3 × 768 个。"
    if n == 12 * C * C + 4 * C + tables:
        return f"{name}忘了线性层的偏置。"
    if n == BODY - 4 * C + tables:
        return f"{name}忘了两个规范化。"
    if n == BODY - 2 * C + tables:
        return f"{name}有两个规范化，每个有 weight 和 bias。"
    if n == BODY + tables - 8 * C * C - 5 * C:
        return f"{name}忘了 MLP。"
    return f"{name}不对：把 qkv、proj、MLP、两个规范化、两张表逐项加一遍。"


def ex_05_2(answer) -> None:
    """整除、不整除、高宽不等的网格，都要和 Block 的 forward 相同。"""
    for H, W, w in ((4, 6, 2), (4, 6, 3), (5, 7, 3), (3, 9, 4)):
        case = f"网格 {H}×{W}、窗口 {w}"
        block = shake(Block(12, 3, use_rel_pos=True, window_size=w))
        x = torch.randn(2, H, W, 12)
        with torch.no_grad():
            right = block(x)
            block.attend = refuse
            got = must_be(answer(block, x), (2, H, W, 12), f"{case}，结果")
            if not same(got, right):
                raise Mistake(forward_hint(block, x, got, case))


def refuse(*args):
    raise Mistake("不要调用 block 或 block.attend，把三步写出来。")


def cut_and_paste(block: Block, x: torch.Tensor, layer) -> torch.Tensor:
    """切窗口，过 layer，拼回。"""
    windows, pad_hw = window_partition(x, block.window_size)
    return window_unpartition(layer(windows), block.window_size, pad_hw, x.shape[1:3])


def forward_hint(block: Block, x: torch.Tensor, got: torch.Tensor, case: str) -> str:
    """窗口层的 forward 错在哪里：逐个拿常见的写法来比。"""

    def finish(y: torch.Tensor) -> torch.Tensor:
        return y + block.mlp(block.norm2(y))

    normed = block.norm1(x)
    early = cut_and_paste(block, x, lambda t: block.attn(block.norm1(t)))
    seen = cut_and_paste(block, normed, block.attn)
    mistakes = {
        "还是先切窗口、后规范化：补上的格子变成了 norm1.bias": finish(x + early),
        "忘了切窗口：做成了全局注意力": finish(x + block.attn(normed)),
        "残差加到了规范化以后的 x 上，流被改写了": finish(normed + seen),
        "忘了注意力的残差": finish(seen),
        "忘了 MLP 的残差": block.mlp(block.norm2(x + seen)),
        "忘了 MLP 这一半": x + seen,
        "忘了 norm1": finish(x + cut_and_paste(block, x, block.attn)),
        "忘了 norm2": x + seen + block.mlp(x + seen),
        "MLP 读的是注意力之前的流": x + seen + block.mlp(block.norm2(x)),
    }
    for words, wrong in mistakes.items():
        if same(got, wrong):
            return f"{words}（{case}）。"
    return f"和正确的不同：{case}。对照 5.4 节的图，逐步核对次序。"


class Tensors:
    """只有张量、不能调用的一层。"""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.__dict__.update(tensors)

    def __call__(self, *args):
        raise Mistake("不要调用 neck 里的层，只用它们的 weight 和 bias。")


def ex_05_3(answer) -> None:
    """与 1×1 卷积加 LayerNorm2d 相同；数值很小的一组查 eps。"""
    for B, H, W, dim, out, size in ((2, 4, 6, 5, 3, 1.0), (1, 6, 4, 7, 6, 1e-3)):
        grid = size * torch.randn(B, H, W, dim)
        kernel = torch.randn(out, dim, 1, 1)
        weight, bias = torch.randn(out), torch.randn(out)
        neck = [Tensors(weight=kernel), Tensors(weight=weight, bias=bias)]
        case = f"网格 {H}×{W}、{dim} 个通道到 {out} 个"
        got = answered(answer(grid, neck))
        maps = grid @ kernel[:, :, 0, 0].T  # (B, H, W, out)
        right = F.layer_norm(maps, (out,), weight, bias, 1e-6).permute(0, 3, 1, 2)
        expect(isinstance(got, torch.Tensor), f"要返回一个张量：{case}。")
        last = tuple(got.shape) == (B, H, W, out)
        expect(not last, f"通道还在最后：{case}，结尾要 permute。")
        turned = tuple(got.shape) == (B, out, W, H)
        expect(not turned, f"高和宽弄反了：{case}，permute 的次序是 0, 3, 1, 2。")
        got = must_be(got, (B, out, H, W), f"{case}，结果")
        if not same(got, right):
            raise Mistake(half_hint(maps, weight, bias, got, case))


def half_hint(maps, weight, bias, got, case: str) -> str:
    """颈部前两步错在哪里。"""
    out = (maps.shape[-1],)
    centred = maps - maps.mean(-1, keepdim=True)
    unbiased = centred / (maps.var(-1, keepdim=True) + 1e-6).sqrt() * weight + bias
    mistakes = {
        "忘了规范化": maps,
        "忘了 weight 和 bias": F.layer_norm(maps, out, eps=1e-6),
        "忘了 bias": F.layer_norm(maps, out, weight, None, 1e-6),
        "忘了 weight": F.layer_norm(maps, out, None, bias, 1e-6),
        "eps 应该是 1e-6，不是默认的 1e-5": F.layer_norm(maps, out, weight, bias),
        "var() 要 unbiased=False，除以 n，不是 n - 1": unbiased,
    }
    for words, wrong in mistakes.items():
        if same(got, wrong.permute(0, 3, 1, 2)):
            return f"{words}：{case}。"
    if same(got, maps.reshape(got.shape)):
        return f"用 reshape 换轴会打乱数值，要用 permute：{case}。"
    return f"数值不同：{case}。先乘矩阵，再在通道上规范化，最后才换轴。"


def ex_05_4(answer) -> None:
    """规范化减一格里各通道的平均、除以标准差。"""
    right = {
        "全部乘 10": True,
        "全部加 5": True,
        "每个通道加一个各自的数": False,
        "每一格乘一个各自的正数": True,
    }
    hints = {
        "全部乘 10": "标准差也大了十倍，除掉就没了。",
        "全部加 5": "每一格的均值也多了 5，减掉就没了。",
        "每个通道加一个各自的数": (
            "减的是一格里各通道的平均，只减得掉公共的那一份；"
            "“偏置反正会被减掉”是 BatchNorm 的道理。"
        ),
        "每一格乘一个各自的正数": "每一格各算各的均值和标准差，自己的倍数自己除掉。",
    }
    expect(
        isinstance(answer, dict) and set(answer) == set(right),
        "要一个字典，四个键照题目原样。",
    )
    for name, value in answer.items():
        answered(value)
        expect(isinstance(value, bool), f"“{name}”要填 True 或 False。")
    for name, value in right.items():
        expect(answer[name] == value, f"“{name}”答错了：{hints[name]}")


def ex_05_5(answer) -> None:
    """跳过每一层都对一遍，传进去的编码器不许变。"""
    options = {"embed_dim": 12, "depth": 4, "num_heads": 3, "out_chans": 5}
    encoder = shake(
        ImageEncoderViT(
            32, 8, **options, use_rel_pos=True, window_size=3, global_attn_indexes=(1,)
        )
    )
    image = torch.randn(2, 3, 32, 32)
    before = encoder.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    with torch.no_grad():
        for i in range(4):
            right = run(encoder, image, [j for j in range(4) if j != i])
            got = answered(answer(encoder, image, i))
            changed = encoder.state_dict()
            expect(
                len(encoder.blocks) == 4
                and list(changed) == list(before)
                and all(torch.equal(changed[key], before[key]) for key in before),
                "传进去的 encoder 被改坏了：下次再用它，层就少了。",
            )
            expect(isinstance(got, torch.Tensor), "要返回图像嵌入，一个张量。")
            if not same(got, right):
                raise Mistake(skip_hint(encoder, image, i, got))


def run(encoder, image, layers, place=True, neck=True, swap=True) -> torch.Tensor:
    """只过 layers 里的 Block；三个开关各关掉一步。"""
    x = encoder.patch_embed(image)
    x = x + encoder.pos_embed if place else x
    for j in layers:
        x = encoder.blocks[j](x)
    x = x.permute(0, 3, 1, 2) if swap else x
    return encoder.neck(x) if neck else x


def skip_hint(encoder, image, i: int, got: torch.Tensor) -> str:
    """抽层错在哪里。"""
    rest = [j for j in range(4) if j != i]
    mistakes = {
        "什么也没有跳过": run(encoder, image, range(4)),
        "忘了加位置编码": run(encoder, image, rest, place=False),
        "忘了颈部": run(encoder, image, rest, neck=False),
        "颈部和前面的 permute 都忘了": run(
            encoder, image, rest, neck=False, swap=False
        ),
        "从第 i 层起全跳过了：要的是 continue，不是 break": run(
            encoder, image, range(i)
        ),
        "只跑了第 i 层，反了": run(encoder, image, [i]),
    }
    for words, wrong in mistakes.items():
        if same(got, wrong):
            return f"{words}（i = {i}）。"
    for j in range(4):
        if same(got, run(encoder, image, [k for k in range(4) if k != j])):
            return f"i = {i} 时跳过的是第 {j} 层：层号从 0 数。"
    return f"i = {i} 时不对：应该和 ImageEncoderViT.forward 只差跳过的那一层。"
