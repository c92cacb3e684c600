"""第 3 章的练习：对的答案、典型的错误和提示。"""

import copy

import torch
from checks.common import Bug, Code, Like, Part, Values, Wrong
from course import Unanswered
from torch import nn

from sam_lite.image_encoder import ImageEncoderViT

H, W = 2, 3  # 高宽不等，弄反了看得出来


def table(name: str, grid: int) -> Part:
    """边长 grid 的那一种层，相对位置表的形状。"""
    rows, tip = 2 * grid - 1, f"{name}层的表"
    return Part(
        (rows, 64),
        f"{tip}的形状不对：先数偏移有几种，再看一行多宽。",
        {
            Like(rows, lambda shape: not isinstance(shape, tuple) or len(shape) != 2): (
                f"{tip}是二维的 (行, 列)。"
            ),
            (64, rows): f"{tip}行列写反了：一行是一个偏移的向量。",
            Like((rows, 768), lambda shape: shape[1] == 768): (
                f"{tip}一行只有一个头那么宽：768 ÷ 12 = 64，各头共用。"
            ),
            Like((grid, 64), lambda s: s[0] == grid and s[1] != rows): (
                f"{tip}要放得下负的偏移，不是每格一行。"
            ),
            Like((2 * grid, 64), lambda shape: shape[0] == 2 * grid): (
                f"{tip}多了一行：偏移 0 只有一个。"
            ),
            (rows**2, 64): f"{tip}已经拆成高、宽两张短表，不是整表。",
            (grid**2, 64): f"{tip}按偏移存，不是按词元存。",
        },
    )


ONE = 4 * 127 * 64 + 8 * 27 * 64
ex_03_1 = Values(
    "要三项：两个形状、一个总数。",
    [
        table("全局", 64),
        table("窗口", 14),
        Part(
            2 * ONE,
            "总数不对：行数乘一行的宽是一张表，每层两张，再按层数加。",
            {
                ONE: "总数少了一半：每层有高、宽两张表。",
                2 * ONE * 12: "又乘了头数：各头共用同一张表。",
                12 * 2 * 127 * 64: "窗口层的表短得多，不能都按全局层算。",
                2 * (127 + 27) * 64: "忘了乘层数：4 层全局，8 层窗口。",
                2 * (8 * 127 + 4 * 27) * 64: "层数弄反了：4 层全局，8 层窗口。",
            },
        ),
    ],
)


def heads() -> dict[str, tuple]:
    return {
        f"{n} 个头、网格 {h}×{w}": (torch.randn(B, n, h * w, d), h, w)
        for B, n, d, h, w in ((1, 2, 4, 2, 3), (3, 5, 2, 4, 3))
    }


MERGE, SIZE = "out.permute(0, 2, 1, 3)", "reshape(B, H, W, n * d)"
ex_03_2 = Code(
    f"""
def merge_heads(out, H, W):
    B, n, _, d = out.shape
    return {MERGE}.{SIZE}
""",
    heads,
    Wrong("少了最后一步：把 H·W 还原成高、宽两维。", SIZE, "reshape(B, -1, n * d)"),
    Wrong("高和宽弄反了：结果是 (B, H, W, C)。", SIZE, "reshape(B, W, H, n * d)"),
    Wrong("没有先 permute：别的词元混进来了。", MERGE, "out"),
    Wrong(
        "各头的通道交错着放了：头 0 的 d 个通道要连在一起，d 留在最后。",
        MERGE,
        "out.permute(0, 2, 3, 1)",
    ),
    Wrong(
        "词元是先行后列排的：按 (H, W) 还原。",
        SIZE,
        "reshape(B, W, H, n * d).transpose(1, 2)",
    ),
    form="要返回一个张量。",
    otherwise="内容不对：拿 3.4 节的编号从头对一遍。",
)


def bias_inputs() -> dict[str, tuple]:
    return {
        f"网格 {h}×{w}": (
            torch.randn(batch, h * w, d),
            torch.randn(2 * h - 1, d),
            torch.randn(2 * w - 1, d),
            h,
            w,
        )
        for batch, h, w, d in ((2, H, W, 4), (1, 4, 3, 5))
    }


ADD = "rel_h[..., :, None] + rel_w[..., None, :]"
BORROWED = "数值对了，可是借了现成的函数：把题里这一份的三处错改好。"
ex_03_3 = Code(
    f"""
def fixed_bias(q, rel_pos_h, rel_pos_w, H, W):
    i, j = torch.arange(H), torch.arange(W)
    R_h = rel_pos_h[i[:, None] - i[None, :] + H - 1]
    R_w = rel_pos_w[j[:, None] - j[None, :] + W - 1]
    r_q = q.reshape(-1, H, W, q.shape[-1])
    rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, R_h)
    rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, R_w)
    bias = {ADD}
    return bias.reshape(-1, H * W, H * W)
""",
    bias_inputs,
    Bug(
        "q 还在乘 1/√d：算偏置用没有缩放的 q。",
        "q.reshape",
        "(q * q.shape[-1] ** -0.5).reshape",
    ),
    Bug(
        "高的方向还是键减查询：应是查询减键。",
        "i[:, None] - i[None, :]",
        "i[None, :] - i[:, None]",
    ),
    Bug(
        "键的两个轴次序反了：展平之后要先行后列。",
        ADD,
        "rel_h[..., None, :] + rel_w[..., :, None]",
    ),
    Wrong(
        "宽的方向成了键减查询：那里原来是对的。",
        "j[:, None] - j[None, :]",
        "j[None, :] - j[:, None]",
    ),
    Wrong(
        BORROWED,
        "from sam_lite.attention import add_decomposed_rel_pos\n"
        "def fixed_bias(q, rel_pos_h, rel_pos_w, H, W):\n"
        "    zeros = q.new_zeros(len(q), H * W, H * W)\n"
        "    size = (H, W), (H, W)\n"
        "    return add_decomposed_rel_pos(zeros, q, rel_pos_h, rel_pos_w, *size)\n",
    ),
    forbid=dict.fromkeys(("bias_by_loop", "decomposed_rel_pos"), BORROWED)
    | dict.fromkeys(("rel_pos_by_axis", "add_decomposed_rel_pos"), BORROWED),
    form="要返回一个张量，形状 (B, H·W, H·W)。",
    otherwise="和 bias_by_loop 对不上，也不是原来那三处错：逐行对照 3.7 节。",
)


def encoders() -> list[tuple]:
    """三层的小编码器，第 1 层是全局的；表里都是随机数。"""
    encoder = ImageEncoderViT(
        img_size=64,
        embed_dim=8,
        depth=3,
        num_heads=2,
        out_chans=4,
        use_rel_pos=True,
        rel_pos_zero_init=False,
        window_size=3,
        global_attn_indexes=(1,),
    )
    return [(encoder,)]


def silenced(silence_global, encoder) -> dict[str, object]:
    """动了什么：全局的两张表，窗口层，别的。"""
    before = copy.deepcopy(encoder.state_dict())
    result = silence_global(encoder)
    after = encoder.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    if result is None and not moved:
        raise Unanswered
    inside = {f"blocks.1.attn.rel_pos_{side}" for side in "hw"}
    windows = {key for key in moved if key.startswith(("blocks.0", "blocks.2"))}
    parameters = [encoder.get_parameter(key) for key in sorted(inside)]
    return {
        "返回的": "没有"
        if result is None
        else "原来的"
        if result is encoder
        else "别的",
        "窗口层": bool(windows),
        "多动的": sorted(moved - inside - windows),
        "没有清的": sorted(inside - moved),
        "全是零": not any(after[key].any() for key in inside),
        "留着梯度": all(
            isinstance(p, nn.Parameter) and p.requires_grad for p in parameters
        ),
    }


SIDES = "block.attn.rel_pos_h, block.attn.rel_pos_w"
GLOBAL = "block.window_size == 0"
ex_03_4 = Code(
    f"""
def silence_global(encoder):
    with torch.no_grad():
        for block in encoder.blocks:
            if {GLOBAL}:
                for table in ({SIDES}):
                    table.zero_()
    return encoder
""",
    encoders,
    Wrong(
        "改的是副本：要原地改，再返回同一个编码器。",
        "    with",
        "    import copy\n    encoder = copy.deepcopy(encoder)\n    with",
    ),
    Wrong("忘了返回编码器。", "    return encoder\n", ""),
    Wrong(
        "清的是窗口 Block：window_size 为 0 的才是全局。",
        GLOBAL,
        "block.window_size > 0",
    ),
    Wrong("窗口 Block 也被清了：只动 window_size 为 0 的。", GLOBAL, "True"),
    Wrong(
        "多动了别的参数：只清两张相对位置表。",
        "table.zero_()",
        "table.zero_(); block.attn.proj.bias.zero_()",
    ),
    Wrong("还剩 rel_pos_w 没有清：高、宽各一张。", SIDES, "block.attn.rel_pos_h,"),
    Wrong("还剩 rel_pos_h 没有清：高、宽各一张。", SIDES, "block.attn.rel_pos_w,"),
    Wrong(
        "什么也没有变：用 zero_() 原地清零，只写 .zero() 或赋给局部变量不算。",
        "table.zero_()",
        "table = table * 0",
    ),
    Wrong("表变了，可不是零。", "table.zero_()", "table.add_(1)"),
    Wrong("参数要留着梯度。", "table.zero_()", "table.zero_().requires_grad_(False)"),
    ask=silenced,
    grad=True,
    otherwise="只清全局 Block 的两张相对位置表。",
)


def folded(fold_bias, q, k, rel_h, rel_w, scale):
    """q2、k2 的形状和它们的积；拆法不止一种，只看积。"""
    result = fold_bias(q, k, rel_h, rel_w, scale)
    if not isinstance(result, tuple | list) or len(result) != 2:
        return result
    q2, k2 = result
    fits = q2.shape[-1] == k2.shape[-1]
    product = (q2.double() @ k2.double().transpose(-2, -1)).float() if fits else None
    return {
        "q2 的形状": tuple(q2.shape),
        "k2 的形状": tuple(k2.shape),
        "q2 @ k2ᵀ": product,
    }


def fold_inputs() -> dict[str, tuple]:
    cases = {}
    for batch, h, w, d in ((2, H, W, 4), (1, 4, 3, 5)):
        q, k = torch.randn(2, batch, h * w, d)
        rel_h, rel_w = torch.randn(batch, h * w, h), torch.randn(batch, h * w, w)
        cases[f"网格 {h}×{w}、d = {d}"] = q, k, rel_h, rel_w, d**-0.5
    return cases


ex_03_5 = Code(
    """
def fold_bias(q, k, rel_h, rel_w, scale):
    H, W = rel_h.shape[-1], rel_w.shape[-1]
    j = torch.arange(H * W)
    places = torch.cat([F.one_hot(j // W, H), F.one_hot(j % W, W)], dim=1)
    places = places.to(k.dtype).expand(len(k), -1, -1)
    q2 = torch.cat([q * scale, rel_h, rel_w], dim=-1)
    return q2, torch.cat([k, places], dim=-1)
""",
    fold_inputs,
    Wrong("内容那一段忘了乘 scale。", "q * scale", "q"),
    Wrong(
        "偏置也被乘了 scale：只有 q 那一段要乘。",
        "[q * scale, rel_h, rel_w]",
        "[q * scale, rel_h * scale, rel_w * scale]",
    ),
    Wrong("scale 乘了两遍：q、k 只能有一个乘。", "[k,", "[k * scale,"),
    Wrong(
        "键的行号列号错了：行是 j // W，列是 j % W。",
        "j // W",
        "j % H",
        "j % W",
        "j // H",
    ),
    Wrong(
        "q2 @ k2ᵀ 对不上：键的后两段应是行号、列号的 one-hot，次序与查询的两段相同。",
        "rel_h, rel_w]",
        "rel_w, rel_h]",
    ),
    Wrong(
        "q2、k2 的形状都应是 (B, H·W, d+H+W)：查询后面接 rel_h 和 rel_w。",
        "rel_h, rel_w]",
        "rel_h]",
    ),
    ask=folded,
    form="要返回 (q2, k2) 两个张量。",
    otherwise="q2 @ k2ᵀ 对不上：键的后两段应是行号、列号的 one-hot，"
    "次序与查询的两段相同。",
)
