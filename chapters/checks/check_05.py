"""第 5 章的练习：对的答案、典型的错误和提示。"""

import torch
from checks.common import Code, Part, Values, Wrong, shake
from course import Mistake

from sam_lite.image_encoder import Block, ImageEncoderViT

C = 768
BODY = 12 * C * C + 13 * C  # 一个 Block 里除了相对位置表的全部参数


def block_size(side: int, name: str) -> Part:
    """表的边长是 side 的一层，一共多少个参数。"""
    rows = 2 * side - 1
    tables = 2 * rows * 64
    length = f"{name}的相对位置表不是 {rows} 行：距离从 -{side - 1} 到 {side - 1}。"
    return Part(
        BODY + tables,
        f"{name}不对：把 qkv、proj、MLP、两个规范化、两张表逐项加一遍。",
        {
            BODY: f"{name}忘了两张相对位置表。",
            12 * C * C: f"{name}忘了两张相对位置表。",
            BODY + rows * 64: f"{name}只加了一张相对位置表：高、宽各有一张。",
            BODY + 2 * rows * C: (
                f"{name}的相对位置表每行只有一个头那么宽，64，不是 768。"
            ),
            BODY + 2 * side * 64: length,
            BODY + 4 * side * 64: length,
            BODY + 2 * side * side * 64: length,
            BODY - 3 * C + tables: f"{name}的 qkv 忘了偏置，3 × 768 个。",
            12 * C * C + 4 * C + tables: f"{name}忘了线性层的偏置。",
            BODY - 4 * C + tables: f"{name}忘了两个规范化。",
            BODY - 2 * C + tables: f"{name}有两个规范化，每个有 weight 和 bias。",
            BODY + tables - 8 * C * C - 5 * C: f"{name}忘了 MLP。",
        },
    )


SMALL, LARGE = block_size(14, "窗口层"), block_size(64, "全局层")
ex_05_1 = Values(
    "要两个整数：(窗口层, 全局层)。",
    [SMALL, LARGE],
    whole={(LARGE.right, SMALL.right): "两个数的次序反了：先窗口层，后全局层。"},
)

REFUSED = "不要调用 block 或 block.attend，把三步写出来。"


def refuse(*args):
    raise Mistake(REFUSED)


def blocks() -> dict[str, tuple]:
    """整除、不整除、高宽不等的网格。"""
    cases = {}
    for H, W, w in ((4, 6, 2), (4, 6, 3), (5, 7, 3), (3, 9, 4)):
        block = shake(Block(12, 3, use_rel_pos=True, window_size=w))
        block.attend = refuse
        cases[f"网格 {H}×{W}、窗口 {w}"] = block, torch.randn(2, H, W, 12)
    return cases


CUT = "window_partition(block.norm1(x), w)"
ATTEND = "window_unpartition(block.attn(t), w, hw, x.shape[1:3])"
LAST = "x + block.mlp(block.norm2(x))"
ex_05_2 = Code(
    f"""
from sam_lite.windows import window_partition, window_unpartition
def fixed_forward(block, x):
    w = block.window_size
    t, hw = {CUT}
    a = {ATTEND}
    x = x + a
    return {LAST}
""",
    blocks,
    Wrong(
        "还是先切窗口、后规范化：补上的格子变成了 norm1.bias。",
        CUT,
        "window_partition(x, w)",
        "block.attn(t)",
        "block.attn(block.norm1(t))",
    ),
    Wrong(
        "还是先切窗口、后规范化：补上的格子变成了 norm1.bias。",
        CUT,
        "window_partition(x, w)",
        "block.attn(t)",
        "t + block.attn(block.norm1(t))",
        "x = x + a",
        "x = a",
    ),
    Wrong("忘了切窗口：做成了全局注意力。", ATTEND, "block.attn(block.norm1(x))"),
    Wrong(
        "残差加到了规范化以后的 x 上，流被改写了。",
        "x = x + a",
        "x = block.norm1(x) + a",
    ),
    Wrong("忘了注意力的残差。", "x = x + a", "x = a"),
    Wrong("忘了 MLP 的残差。", LAST, "block.mlp(block.norm2(x))"),
    Wrong("忘了 MLP 这一半。", LAST, "x"),
    Wrong("忘了 norm1。", "block.norm1(x)", "x"),
    Wrong("忘了 norm2。", "block.norm2(x)", "x"),
    Wrong(
        "MLP 读的是注意力之前的流。",
        "x = x + a",
        "old = x; x = x + a",
        "block.norm2(x)",
        "block.norm2(old)",
    ),
    Wrong(REFUSED, ATTEND, "block.attend(block.norm1(x))"),
    form="要返回一个张量，形状和 x 一样。",
    otherwise="和正确的不同：对照 5.4 节的图，逐步核对次序。",
)

CALLED = "不要调用 neck 里的层，只用它们的 weight 和 bias。"


class Tensors:
    """只有张量、不能调用的一层。"""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.__dict__.update(tensors)

    def __call__(self, *args):
        raise Mistake(CALLED)


def necks() -> dict[str, tuple]:
    """数值很小的一组查 eps。"""
    cases = {}
    for B, H, W, dim, out, size in ((2, 4, 6, 5, 3, 1.0), (1, 6, 4, 7, 6, 1e-3)):
        neck = [
            Tensors(weight=torch.randn(out, dim, 1, 1)),
            Tensors(weight=torch.randn(out), bias=torch.randn(out)),
        ]
        case = f"网格 {H}×{W}、{dim} 个通道到 {out} 个"
        cases[case] = size * torch.randn(B, H, W, dim), neck
    return cases


NORM = "F.layer_norm(x, x.shape[-1:], neck[1].weight, neck[1].bias, 1e-6)"
TURN = "x.permute(0, 3, 1, 2)"
CONV = "数值对了，可是用了卷积：1×1 的卷积就是给每一格乘一个矩阵。"
RESHAPED = "x.reshape(len(x), -1, *x.shape[1:3])"
ex_05_3 = Code(
    f"""
def first_half(grid, neck):
    x = F.linear(grid, neck[0].weight[:, :, 0, 0])
    x = {NORM}
    return {TURN}
""",
    necks,
    Wrong("通道还在最后：结尾要 permute。", TURN, "x"),
    Wrong("高和宽弄反了：permute 的次序是 0, 3, 1, 2。", TURN, "x.permute(0, 3, 2, 1)"),
    Wrong("忘了规范化。", NORM, "x"),
    Wrong("忘了 weight 和 bias。", "neck[1].weight, neck[1].bias", "None, None"),
    Wrong("忘了 bias。", "neck[1].bias", "None"),
    Wrong("忘了 weight。", "neck[1].weight", "None"),
    Wrong("eps 应该是 1e-6，不是默认的 1e-5。", ", 1e-6", ""),
    Wrong(
        "var() 要 unbiased=False，除以 n，不是 n - 1。",
        NORM,
        "(x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()"
        " * neck[1].weight + neck[1].bias",
    ),
    Wrong("用 reshape 换轴会打乱数值，要用 permute。", TURN, RESHAPED),
    Wrong("用 reshape 换轴会打乱数值，要用 permute。", TURN, RESHAPED, NORM, "x"),
    Wrong(CALLED, NORM, "neck[1](x)"),
    Wrong(
        CONV,
        "F.linear(grid, neck[0].weight[:, :, 0, 0])",
        "F.conv2d(grid.permute(0, 3, 1, 2), neck[0].weight).permute(0, 2, 3, 1)",
    ),
    forbid={"conv2d": CONV, "Conv2d": CONV},
    form="要返回一个张量，形状 (B, out, H, W)。",
    otherwise="数值不同：先乘矩阵，再在通道上规范化，最后才换轴。",
)


def unchanged(name: str, right: bool, why: str) -> tuple[str, Part]:
    return name, Part(right, f"“{name}”答错了：{why}")


ex_05_4 = Values(
    "要一个字典，四个键照题目原样。",
    dict(
        [
            unchanged("全部乘 10", True, "标准差也大了十倍，除掉就没了。"),
            unchanged("全部加 5", True, "每一格的均值也多了 5，减掉就没了。"),
            unchanged(
                "每个通道加一个各自的数",
                False,
                "减的是一格里各通道的平均，只减得掉公共的那一份；"
                "“偏置反正会被减掉”是 BatchNorm 的道理。",
            ),
            unchanged(
                "每一格乘一个各自的正数",
                True,
                "每一格各算各的均值和标准差，自己的倍数自己除掉。",
            ),
        ]
    ),
)


def skipped() -> dict[str, tuple]:
    """跳过每一层都对一遍。"""
    options = {"embed_dim": 12, "depth": 4, "num_heads": 3, "out_chans": 5}
    options |= {"use_rel_pos": True, "window_size": 3, "global_attn_indexes": (1,)}
    encoder = shake(ImageEncoderViT(32, 8, **options))
    image = torch.randn(2, 3, 32, 32)
    return {f"i = {i}": (encoder, image, i) for i in range(4)}


ex_05_5 = Code(
    """
def skip_block(encoder, image, i):
    x = encoder.patch_embed(image) + encoder.pos_embed
    for j, block in enumerate(encoder.blocks):
        if j != i:
            x = block(x)
    return encoder.neck(x.permute(0, 3, 1, 2))
""",
    skipped,
    Wrong("什么也没有跳过。", "j != i", "True"),
    Wrong("忘了加位置编码。", " + encoder.pos_embed", ""),
    Wrong("忘了颈部。", "encoder.neck(x.permute(0, 3, 1, 2))", "x.permute(0, 3, 1, 2)"),
    Wrong("颈部和前面的 permute 都忘了。", "encoder.neck(x.permute(0, 3, 1, 2))", "x"),
    Wrong("从第 i 层起全跳过了：要的是 continue，不是 break。", "j != i", "j < i"),
    Wrong("只跑了第 i 层，反了。", "j != i", "j == i"),
    Wrong("跳过的不是第 i 层：层号从 0 数。", "j != i", "j != (i - 1) % 4"),
    Wrong("跳过的不是第 i 层：层号从 0 数。", "j != i", "j != (i + 1) % 4"),
    Wrong("跳过的不是第 i 层：层号从 0 数。", "j != i", "j != 3 - i"),
    Wrong(
        "传进去的 encoder 被改坏了：下次再用它，层就少了。",
        "def skip_block(encoder, image, i):\n"
        "    del encoder.blocks[i]\n    return encoder(image)\n",
    ),
    kept=True,
    form="要返回图像嵌入，一个张量。",
    otherwise="应该和 ImageEncoderViT.forward 只差跳过的那一层。",
)
