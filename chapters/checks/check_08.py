"""第 8 章的练习：对的答案、典型的错误和提示。"""

from unittest import mock

import torch
import torch.nn.functional as F
from checks.common import Bug, Code, Like, Part, Values, Wrong, shake

from sam_lite.mask_decoder import MaskDecoder
from sam_lite.two_way import TwoWayTransformer

NOT_A_SHAPE = {
    Like(7, lambda s: not isinstance(s, tuple)): "每个形状写成元组，例如 (7, 9)。"
}
ex_08_1 = Values(
    "要三个形状：(词元, 放大之后的图像, 掩码)。",
    [
        Part(
            (7, 9, 256),
            "词元的个数不对：输出词元和提示词元分开数。",
            NOT_A_SHAPE
            | {
                Like((7, 9), lambda s: len(s) != 3): (
                    "词元的形状有三维：(组数, 个数, 宽)。"
                ),
                Like((1, 9, 256), lambda s: s[0] == 1): "词元的第一维是提示的组数。",
                Like((7, 9, 768), lambda s: s[2] not in (256, -777)): (
                    "词元的宽不对：vit_b 的解码器处处是 256。"
                ),
                (7, 4, 256): "只数了提示词元，忘了输出词元。",
                (7, 5, 256): "只数了输出词元，忘了提示词元。",
                (7, 7, 256): "输出词元只数了三个：还有 IoU 词元和第 0 个掩码词元。",
                (7, 8, 256): (
                    "少了一个词元：IoU 词元、四个掩码词元、框的两个角，都数了吗？"
                ),
                (7, 10, 256): "多数了填充词元：有框的时候不补。",
            },
        ),
        Part(
            (7, 32, 256, 256),
            "放大之后的形状不对：通道除以 8，边长乘 4。",
            NOT_A_SHAPE
            | {
                Like((32, 256, 256), lambda s: len(s) != 4): (
                    "放大之后的图像有四维：(组数, 通道, 高, 宽)。"
                ),
                Like((1, 32, 256, 256), lambda s: s[0] == 1): (
                    "图像要照提示的组数复制，连稠密嵌入也是每组一份。"
                ),
                (7, 256, 256, 256): "放大之后的通道没有变少：每层转置卷积都减通道。",
                (7, 64, 128, 128): "只过了一层转置卷积，要过两层。",
                (7, 64, 256, 256): "通道是第一层之后的，边长是第二层之后的。",
                (7, 32, 128, 128): "边长只放大了两倍，两层一共是四倍。",
                (7, 256, 256, 32): "通道在第二维，不在最后。",
            },
        ),
        Part(
            (7, 3, 256, 256),
            "掩码的形状不对：(组数, 交出几张, 高, 宽)。",
            NOT_A_SHAPE
            | {
                (7, 4, 256, 256): (
                    "四张都算了，可是 multimask_output=True 只交出一部分。"
                ),
                (7, 1, 256, 256): "一张是 multimask_output=False 的时候。",
                (1, 3, 256, 256): "每组提示各有自己的掩码。",
                (7, 3, 1024, 1024): (
                    "解码器交出的是低分辨率的掩码，放大到照片是后处理的事。"
                ),
                (7, 3, 64, 64): "点积是在放大之后的图像上做的。",
                (7, 32, 256, 256): "32 个通道已经加成一张掩码了。",
            },
        ),
    ],
)


def convolved(masks_by_conv, vectors, upscaled):
    """结果，和调用了几次 conv2d。"""
    calls = mock.Mock(wraps=F.conv2d)
    with mock.patch.object(F, "conv2d", calls), mock.patch("torch.conv2d", calls):
        masks = masks_by_conv(vectors, upscaled)
    if masks is None:
        return None
    return {
        "结果": masks,
        "conv2d": ("没有用", "一次", "好几次")[min(calls.call_count, 2)],
    }


FINAL = "out.reshape(B, M, H, W)"
ex_08_2 = Code(
    f"""
def masks_by_conv(vectors, upscaled):
    B, M, c = vectors.shape
    H, W = upscaled.shape[2:]
    kernels = vectors.reshape(B * M, c, 1, 1)
    out = F.conv2d(upscaled.reshape(1, B * c, H, W), kernels, groups=B)
    return {FINAL}
""",
    lambda: {
        f"B = {B}、M = {M}、c = {c}": (torch.randn(B, M, c), torch.randn(B, c, H, W))
        for B, M, c, H, W in ((2, 3, 5, 4, 6), (3, 2, 4, 5, 3), (1, 4, 6, 3, 5))
    },
    Wrong(
        "每组都用了第 0 组的权重：B 组要各用各的。",
        "vectors.reshape(",
        "vectors[:1].expand_as(vectors).reshape(",
    ),
    Wrong(
        "每组都用了第 0 组的权重：B 组要各用各的。",
        "def masks_by_conv(vectors, upscaled):\n"
        "    return F.conv2d(upscaled, vectors[0][:, :, None, None])\n",
    ),
    Wrong(
        "核的次序不对：前 M 个核要全是第 0 组的。",
        "vectors.reshape",
        "vectors.transpose(0, 1).reshape",
    ),
    Wrong(
        "结果拆错了：B·M 里 B 在外、M 在内。",
        FINAL,
        "out.reshape(M, B, H, W).transpose(0, 1)",
    ),
    Wrong("多了 sigmoid：要的是 logits。", FINAL, f"{FINAL}.sigmoid()"),
    Wrong("形状还是 (1, B·M, H, W)：拆回 (B, M, H, W)。", FINAL, "out"),
    Wrong(
        "数值对了，可是没有用 F.conv2d：照题面调用它一次。",
        "def masks_by_conv(vectors, upscaled):\n"
        "    masks = vectors @ upscaled.flatten(2)\n"
        "    return masks.unflatten(2, upscaled.shape[2:])\n",
    ),
    Wrong(
        "调用了不止一次 F.conv2d：用 groups 一次做完。",
        "def masks_by_conv(vectors, upscaled):\n"
        "    pairs = zip(vectors, upscaled)\n"
        "    out = [F.conv2d(u[None], v[:, :, None, None]) for v, u in pairs]\n"
        "    return torch.cat(out)\n",
    ),
    ask=convolved,
    form="要返回一个张量。",
    otherwise="数值不同：和 vectors @ upscaled.flatten(2) 逐组比一比。",
)


def decoded() -> list[tuple]:
    transformer = TwoWayTransformer(1, 32, 2, 8)
    decoder = shake(MaskDecoder(transformer_dim=32, transformer=transformer))
    return [
        (decoder, torch.randn(B, 5 + N, 32), torch.randn(B, h * w, 32), h, w)
        for B, N, h, w in ((2, 3, 4, 6), (1, 0, 5, 2))
    ]


ex_08_3 = Code(
    """
def mended_tail(decoder, hs, seen, h, w):
    B, _, C = seen.shape
    src = seen.transpose(1, 2).reshape(B, C, h, w)
    upscaled = decoder.output_upscaling(src)
    mlps = decoder.output_hypernetworks_mlps
    vectors = torch.stack([mlps[i](hs[:, 1 + i]) for i in range(4)], dim=1)
    masks = torch.einsum("bmc,bchw->bmhw", vectors, upscaled)
    return masks, decoder.iou_prediction_head(hs[:, 0])
""",
    decoded,
    Bug("第 0 个词元是 IoU 词元，掩码词元从第 1 个起。", "1 + i", "i"),
    Bug("还原成图之前要先把通道换到第二维。", "seen.transpose(1, 2)", "seen"),
    Bug("四个掩码词元各有自己的 MLP，不能都用第 0 个。", "mlps[i]", "mlps[0]"),
    Wrong("多了 sigmoid：要的是 logits。", "return masks", "return masks.sigmoid()"),
    Wrong("打分那一行本来没有错：IoU 词元是 hs[:, 0]。", "hs[:, 0]", "hs[:, 1]"),
    form="要返回两样：掩码和预测的 IoU。",
    otherwise="不对，也不是原来的三处错误之一：对照 8.5 节的 predict_masks。",
    names=("掩码", "预测的 IoU"),
    many="逐行再问提示 1 的三个问题。",  # 不把答案念出来
)


def picked() -> dict[str, tuple]:
    """第 0 行里第 0 张最高，也不取它。"""
    scores = torch.tensor(
        [
            [0.9, 0.2, 0.5, 0.4],
            [0.1, 0.8, 0.3, 0.2],
            [0.3, 0.1, 0.2, 0.7],
            [0.4, 0.6, 0.9, 0.5],
            [0.2, 0.7, 0.6, 0.1],
        ]
    )
    return {
        f"clicks = {clicks}": (
            torch.randn(len(clicks), 4, 3, 5),
            scores[: len(clicks)],
            torch.tensor(clicks),
        )
        for clicks in ([1, 3, 1, 2, 1], [2, 1, 1, 1, 5], [1], [2])
    }


BEST = "1 + iou[:, 1:].argmax(1)"
RULE = f"torch.where(clicks > 1, 0, {BEST})"
ex_08_4 = Code(
    f"""
def pick(masks, iou, clicks):
    rows, index = torch.arange(len(masks)), {RULE}
    return masks[rows, index], iou[rows, index]
""",
    picked,
    Wrong("argmax 从 0 数，切掉了第 0 张以后要加 1。", BEST, "iou[:, 1:].argmax(1)"),
    Wrong("点一下的也挑中了第 0 张：它不参加比较。", BEST, "iou.argmax(1)"),
    Wrong("点一下和点几下弄反了。", RULE, f"torch.where(clicks > 1, {BEST}, 0)"),
    Wrong("点了几下的没有取第 0 张：每组各看各的 clicks。", RULE, BEST),
    Wrong("点一下的没有从第 1–3 张里挑：每组各看各的 clicks。", RULE, "0 * clicks"),
    Wrong(
        "每组各看各的 clicks：整批照第 0 组的点数挑了。",
        RULE,
        f"{BEST} if clicks[0] == 1 else 0 * clicks",
    ),
    Wrong(
        "整批用了同一张，要每组各挑各的。", RULE, f"({BEST})[:1].expand(len(clicks))"
    ),
    Wrong("四张一起比了，没有看 clicks。", RULE, "iou.argmax(1)"),
    Wrong("挑成分数最低的了。", "argmax", "argmin"),
    Wrong("点两下就不算一下了：是 clicks > 1。", "clicks > 1", "clicks > 2"),
    Wrong("掩码对了，分数不是这一张的。", "iou[rows, index]", "iou.amax(1)"),
    Wrong(
        "每组只要一张：掩码是 (B, H, W)，没有“第几张”那一维。",
        "masks[rows, index]",
        "masks[rows, index][:, None]",
    ),
    form="要返回两样：挑中的掩码和它的分数。",
    otherwise="挑的不对：逐组核对编号。",
    names=("掩码", "分数"),
)


def channels(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """一组权重和特征：各通道特征的大小相差很多，正负都有。"""
    noise = torch.Generator().manual_seed(seed)
    size = torch.rand(12, generator=noise) ** 2 * 3 + 0.05
    upscaled = torch.randn(12, 5, 9, generator=noise)
    upscaled += torch.randn(12, 1, 1, generator=noise)
    vector = torch.randn(12, generator=noise)
    return vector, upscaled * size[:, None, None]


ex_08_5 = Code(
    """
def channels_needed(vector, upscaled, target):
    parts = vector[:, None, None] * upscaled
    order = parts.abs().mean((1, 2)).argsort(descending=True)
    sums, final = parts[order].cumsum(0) > 0, parts.sum(0) > 0
    iou = (sums & final).sum((1, 2)) / (sums | final).sum((1, 2))
    good = (iou >= target).int()
    return 1 + int(good.argmax())
""",
    lambda: {
        f"第 {seed} 组，target = {target}": (*channels(seed), target)
        for seed in range(6)
        for target in (0.57, 0.83, 0.93, 1.0)
    },
    Wrong(
        "排序只看了权重的大小，没有看特征。", "parts.abs().mean((1, 2))", "vector.abs()"
    ),
    Wrong("忘了绝对值，负的贡献被排到了最后。", ".abs()", ""),
    Wrong(
        "先平均、后取绝对值，正负抵消了。", ".abs().mean((1, 2))", ".mean((1, 2)).abs()"
    ),
    Wrong("从小到大排了，要从大到小。", "descending=True", ""),
    Wrong("没有排序。", "parts[order]", "parts"),
    Wrong("排序看的是特征，没有乘权重。", "order = parts", "order = upscaled"),
    Wrong("少数了一个：第一个通道是 1，不是 0。", "1 + int", "int"),
    Wrong("多数了一个。", "1 + int", "2 + int"),
    Wrong(
        "交并比有升有降，要第一个不低于 target 的部分和。",
        "1 + int(good.argmax())",
        "int(good.sum())",
    ),
    Wrong(
        "交并比有升有降，要第一个不低于 target 的部分和。",
        "good.argmax()",
        "(1 - good).sum()",
    ),
    form="要返回一个整数：用了几个通道。",
    exact=True,
    otherwise="交并比有升有降，要第一个不低于 target 的部分和。",
)
