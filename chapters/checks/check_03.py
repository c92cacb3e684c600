"""第 3 章练习的检查：与典型错误会给出的结果比，说出最可能错在哪里。"""

import copy
from itertools import product

import torch
from course import answered, expect
from torch import nn

H, W = 2, 3  # 高宽不等，弄反了看得出来


def ex_03_1(sizes) -> None:
    """官方 vit_b 的两种表的形状，和相对位置的总数。"""
    three = isinstance(sizes, tuple | list) and len(sizes) == 3
    expect(three, "要三项：两个形状、一个总数。")
    *shapes, total = (tuple(s) if isinstance(s, list) else s for s in sizes)
    for name, grid, shape in zip(("全局", "窗口"), (64, 14), shapes, strict=True):
        rows = 2 * grid - 1
        tip = f"{name}层的表"
        expect(
            isinstance(shape, tuple) and len(shape) == 2, f"{tip}是二维的 (行, 列)。"
        )
        expect(shape != (64, rows), f"{tip}行列写反了：一行是一个偏移的向量。")
        expect(shape[1] != 768, f"{tip}一行只有一个头那么宽：768 ÷ 12 = 64，各头共用。")
        expect(shape[0] != grid, f"{tip}要放得下负的偏移，不是每格一行。")
        expect(shape[0] != 2 * grid, f"{tip}多了一行：偏移 0 只有一个。")
        expect(shape[0] != rows**2, f"{tip}已经拆成高、宽两张短表，不是整表。")
        expect(shape[0] != grid**2, f"{tip}按偏移存，不是按词元存。")
        expect(shape == (rows, 64), f"{tip}的形状不对：先数偏移有几种，再看一行多宽。")
    one = 4 * 127 * 64 + 8 * 27 * 64
    expect(total != one, "总数少了一半：每层有高、宽两张表。")
    expect(total != 2 * one * 12, "又乘了头数：各头共用同一张表。")
    expect(total != 12 * 2 * 127 * 64, "窗口层的表短得多，不能都按全局层算。")
    expect(total != 2 * (127 + 27) * 64, "忘了乘层数：4 层全局，8 层窗口。")
    expect(total != 2 * (8 * 127 + 4 * 27) * 64, "层数弄反了：4 层全局，8 层窗口。")
    expect(total == 2 * one, "总数不对：行数乘一行的宽是一张表，每层两张，再按层数加。")


def ex_03_2(merge_heads) -> None:
    """merge_heads：先搬轴，再拼。"""
    for B, n, d, h, w in ((1, 2, 4, 2, 3), (3, 5, 2, 4, 3)):
        right = torch.arange(B * h * w * n * d).reshape(B, h, w, n * d)
        heads = right.reshape(B, h * w, n, d).permute(0, 2, 1, 3)
        mine = answered(merge_heads(heads, h, w))
        shape = tuple(mine.shape)
        expect(shape != (B, h * w, n * d), "少了最后一步：把 H·W 还原成高、宽两维。")
        expect(shape != (B, w, h, n * d), "高和宽弄反了：结果是 (B, H, W, C)。")
        expect(
            shape == (B, h, w, n * d), f"形状应是 {(B, h, w, n * d)}，你的是 {shape}。"
        )
        careless = heads.reshape(B, h, w, n * d)
        expect(not torch.equal(mine, careless), "没有先 permute：别的词元混进来了。")
        woven = heads.permute(0, 2, 3, 1).reshape(B, h, w, n * d)
        tip = "各头的通道交错着放了：头 0 的 d 个通道要连在一起，d 留在最后。"
        expect(not torch.equal(mine, woven), tip)
        turned = heads.permute(0, 2, 1, 3).reshape(B, w, h, n * d).transpose(1, 2)
        expect(not torch.equal(mine, turned), "词元是先行后列排的：按 (H, W) 还原。")
        expect(torch.equal(mine, right), "内容不对：拿 3.4 节的编号从头对一遍。")


def rel_bias(q, rel_pos_h, rel_pos_w, h, w, flaws=()):
    """偏置；flaws 里写着故意犯哪些错，检查拿它与答案比。"""
    i, j = torch.arange(h), torch.arange(w)
    rows, columns = i[:, None] - i[None, :], j[:, None] - j[None, :]
    rows = -rows if "行的符号" in flaws else rows
    columns = -columns if "列的符号" in flaws else columns
    q = q * q.shape[-1] ** -0.5 if "缩放" in flaws else q
    r_q = q.reshape(-1, h, w, q.shape[-1])
    rel_h = torch.einsum("bhwc,hkc->bhwk", r_q, rel_pos_h[rows + h - 1])
    rel_w = torch.einsum("bhwc,wkc->bhwk", r_q, rel_pos_w[columns + w - 1])
    if "键的次序" in flaws:
        bias = rel_h[..., None, :] + rel_w[..., :, None]
    else:
        bias = rel_h[..., :, None] + rel_w[..., None, :]
    return bias.reshape(-1, h * w, h * w)


FLAWS = {
    "缩放": "q 还在乘 1/√d：算偏置用没有缩放的 q",
    "行的符号": "高的方向还是键减查询：应是查询减键",
    "列的符号": "宽的方向成了键减查询：那里原来是对的",
    "键的次序": "键的两个轴次序反了：展平之后要先行后列",
}


def ex_03_3(fixed_bias) -> None:
    """fixed_bias：逐一试“还剩哪几处没改”，与答案对上的就是。"""
    torch.manual_seed(0)
    for batch, h, w, d in ((2, H, W, 4), (1, 4, 3, 5)):
        q = torch.randn(batch, h * w, d)
        tables = torch.randn(2 * h - 1, d), torch.randn(2 * w - 1, d)
        mine = answered(fixed_bias(q, *tables, h, w))
        shape = (batch, h * w, h * w)
        expect(mine.shape == shape, f"形状应是 {shape}，你的是 {tuple(mine.shape)}。")
        if torch.allclose(mine, rel_bias(q, *tables, h, w), atol=1e-4):
            continue
        for chosen in product((False, True), repeat=len(FLAWS)):
            left = [name for name, on in zip(FLAWS, chosen, strict=True) if on]
            if torch.allclose(mine, rel_bias(q, *tables, h, w, left), atol=1e-4):
                expect(False, "；".join(FLAWS[name] for name in left) + "。")
        expect(False, "和 bias_by_loop 对不上，也不是原来那三处错：逐行对照 3.7 节。")


def small_encoder() -> nn.Module:
    """三层的小编码器，第 1 层是全局的；表里都是随机数。"""
    from sam_lite.image_encoder import ImageEncoderViT

    torch.manual_seed(0)
    return ImageEncoderViT(
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


def ex_03_4(silence_global) -> None:
    """silence_global：全局的两张都清零，别的一个数不变。"""
    encoder = small_encoder()
    before = copy.deepcopy(encoder.state_dict())
    result = silence_global(encoder)
    after = encoder.state_dict()
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    expect(not (result is None and moved), "忘了返回编码器。")
    answered(result)
    tip = "改的是副本：要原地改，再返回同一个编码器。"
    expect(result is encoder, tip)
    expect(
        moved, "什么也没有变：用 zero_() 原地清零，只写 .zero() 或赋给局部变量不算。"
    )
    inside = {f"blocks.1.attn.rel_pos_{side}" for side in "hw"}
    windows = [key for key in moved if key.startswith(("blocks.0", "blocks.2"))]
    if windows and not inside & set(moved):
        expect(False, "清的是窗口 Block：window_size 为 0 的才是全局。")
    expect(not windows, "窗口 Block 也被清了：只动 window_size 为 0 的。")
    extra = sorted(set(moved) - inside)
    expect(not extra, f"多动了 {', '.join(extra)}：只清两张相对位置表。")
    missing = sorted(inside - set(moved))
    expect(not missing, f"还剩 {', '.join(missing)} 没清：高、宽各一张。")
    expect(all(not after[key].any() for key in inside), "表变了，可不是零。")
    kept = all(isinstance(encoder.get_parameter(key), nn.Parameter) for key in inside)
    expect(
        kept and encoder.get_parameter(min(inside)).requires_grad, "参数要留着梯度。"
    )


def ex_03_5(fold_bias) -> None:
    """fold_bias：q2 @ k2ᵀ 等于缩放后的分数加偏置。"""
    torch.manual_seed(0)
    for batch, h, w, d in ((2, H, W, 4), (1, 4, 3, 5)):
        scale = d**-0.5
        q, k = torch.randn(2, batch, h * w, d)
        rel_h, rel_w = torch.randn(batch, h * w, h), torch.randn(batch, h * w, w)
        result = answered(fold_bias(q, k, rel_h, rel_w, scale))
        pair = isinstance(result, tuple | list) and len(result) == 2
        expect(pair, "要返回 (q2, k2) 两个张量。")
        q2, k2 = result
        shape = (batch, h * w, d + h + w)
        both = f"{tuple(q2.shape)}、{tuple(k2.shape)}"
        tip = f"q2、k2 的形状都应是 {shape}，你的是 {both}。"
        expect(q2.shape == shape and k2.shape == shape, tip)
        mine = q2.double() @ k2.double().transpose(-2, -1)
        content = q @ k.transpose(-2, -1)
        bias = (rel_h[..., :, None] + rel_w[..., None, :]).reshape(content.shape)
        if torch.allclose(mine.float(), scale * content + bias, atol=1e-4):
            continue
        turned = (rel_h[..., None, :] + rel_w[..., :, None]).reshape(content.shape)
        for tip, wrong in (
            ("内容那一段忘了乘 scale。", content + bias),
            ("偏置也被乘了 scale：只有 q 那一段要乘。", scale * (content + bias)),
            ("scale 乘了两遍：q、k 只能有一个乘。", scale**2 * content + bias),
            ("键的行号列号错了：行是 j // W，列是 j % W。", scale * content + turned),
        ):
            expect(not torch.allclose(mine.float(), wrong, atol=1e-4), tip)
        tip = "q2 @ k2ᵀ 对不上：键的后两段应是行号、列号的 one-hot，"
        expect(False, tip + "次序与查询的两段相同。")
