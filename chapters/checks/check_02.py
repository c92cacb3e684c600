"""第 2 章的练习：对的答案、典型的错误和提示。"""

import numpy as np
import torch
import torch.nn.functional as F
from checks.common import Code, Part, Values, Wrong
from course import answered
from torch import nn

from sam_lite.patch_embed import PatchEmbed


def pictures() -> dict[str, tuple]:
    """高、宽、通道、块的边长都不相等，还有一批多张的。"""
    cases = {}
    for shape, p in (((1, 3, 4, 6), 2), ((2, 2, 9, 6), 3), ((2, 1, 4, 12), 4)):
        x = torch.arange(torch.Size(shape).numel()).reshape(shape).float()
        cases[f"输入 {shape}、p = {p}"] = x, p
    return cases


GRID = "reshape(B, H // p, W // p, C * p * p)"
ORDER = "0, 2, 4, 1, 3, 5"
UNFOLD = "数值对了，可是用了 unfold：这里只用 reshape 和 permute。"
LOOP = "数值对了，可是用了循环：这里只用 reshape 和 permute。"
ex_02_1 = Code(
    f"""
def cut(x, p):
    B, C, H, W = x.shape
    x = x.reshape(B, C, H // p, p, W // p, p).permute({ORDER})
    return x.{GRID}
""",
    pictures,
    Wrong("漏了 permute：形状对，内容是按内存次序硬掰的。", ORDER, "0, 1, 2, 3, 4, 5"),
    Wrong(
        "块里把通道排到了最后；应当先一整块红，再一整块绿，再一整块蓝。",
        ORDER,
        "0, 2, 4, 3, 5, 1",
    ),
    Wrong("块里的行和列弄反了：每块都被转置了。", ORDER, "0, 2, 4, 1, 5, 3"),
    Wrong(
        "块的行数和列数弄反了。",
        ORDER,
        "0, 4, 2, 1, 3, 5",
        GRID,
        "reshape(B, W // p, H // p, C * p * p)",
    ),
    Wrong("行和列摊成一串了：SAM 要的是网格。", GRID, "reshape(B, -1, C * p * p)"),
    Wrong(
        "结果像是 unfold 之后忘了 transpose：一块的数散到了好几块里。",
        "x = x.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5)",
        "x = F.unfold(x, p, stride=p)",
    ),
    Wrong(
        "内容不对：块里混进了别的块的数，看 permute 的次序。", ORDER, "0, 4, 2, 1, 3, 5"
    ),
    Wrong("每块的数都在，块里的次序不对。", ORDER, "0, 2, 4, 3, 1, 5"),
    Wrong("每块的数都在，块里的次序不对。", ORDER, "0, 2, 4, 5, 1, 3"),
    Wrong("每块的数都在，块里的次序不对。", ORDER, "0, 2, 4, 5, 3, 1"),
    Wrong(
        UNFOLD,
        "def cut(x, p):\n"
        "    B, C, H, W = x.shape\n"
        "    x = F.unfold(x, p, stride=p).transpose(1, 2)\n"
        "    return x.reshape(B, H // p, W // p, -1)\n",
    ),
    Wrong(
        LOOP,
        "def cut(x, p):\n"
        "    rows = [torch.stack(r.split(p, 3), 1).flatten(2) for r in x.split(p, 2)]\n"
        "    return torch.stack(rows, 1)\n",
    ),
    forbid={"unfold": UNFOLD, "for": LOOP},
    form="要返回一个张量。",
    otherwise="内容不对：块里混进了别的块的数，看 permute 的次序。",
)

ex_02_2 = Values(
    "要四个整数：(一块的数, 词元个数, 图像块嵌入的参数, 位置表的参数)。",
    [
        Part(
            768,
            "一块的数不对：边长的平方乘 3 个通道。",
            {
                256: "256 只数了一个通道，一块有红、绿、蓝三层。",
                1280: "1280 是向量的宽；一块的数只看图像块，和型号无关。",
            },
        ),
        Part(
            4096,
            "词元个数不对：一边 1024 / 16 块，再平方。",
            {
                64: "64 是一边的块数，词元个数是它的平方。",
                4097: "4097 多数了一个分类词元，SAM 没有它。",
            },
        ),
        Part(
            768 * 1280 + 1280,
            "图像块嵌入的参数不对：矩阵 1280×768，加偏置。",
            {
                768 * 1280: "漏了偏置：1280 个输出各有一个。",
                768 * 1280 + 768: "偏置的个数不对：每个输出一个，不是每个输入一个。",
                768 * 768 + 768: "那是 vit_b 的宽，vit_h 宽 1280。",
            },
        ),
        Part(
            4096 * 1280,
            "位置表的参数不对：64×64 格，每格 1280 个数。",
            {
                4097 * 1280: "位置表多了一行：SAM 没有分类词元。",
                4096 * 768: "位置表也是 1280 宽，要加得上词元。",
                64 * 1280: "位置表每个词元一行，不是每行每列一个。",
            },
        ),
    ],
)

# ---- 2.3：读者写的就是一份检查，拿对的和各种错的 PatchEmbed 去考它 ----

SPOILED = {
    "漏了 permute": lambda e, x: e.proj(x).reshape(e.right(x).shape),
    "通道没有挪到最后": lambda e, x: e.proj(x),
    "高宽对调": lambda e, x: e.right(x).transpose(1, 2),
    "漏加偏置": lambda e, x: e.right(x) - e.proj.bias,
    "一块里的行列弄反": lambda e, x: F.conv2d(
        x,
        e.proj.weight.transpose(2, 3).reshape(e.proj.weight.shape),
        e.proj.bias,
        e.proj.stride,
    ).permute(0, 2, 3, 1),
    "只算了第一张图": lambda e, x: e.right(x[:1]).expand(len(x), -1, -1, -1),
    "上下颠倒": lambda e, x: e.right(x).flip(1),
    "多了一个激活函数": lambda e, x: F.gelu(e.right(x)),
    "一运行就报错": lambda e, x: x @ torch.empty(0, 7),
}


class Examined(PatchEmbed):
    """藏着一处错的 PatchEmbed；error 是空的就没有错。"""

    def __init__(self, error: str, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.error = error

    def right(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SPOILED[self.error](self, x) if self.error else self.right(x)


def layers() -> dict[str, tuple]:
    """核有方有长，通道有多有少；对的有两份，一份偏置是零。"""
    cases = {}
    for kernel, in_chans, dim in (((2, 3), 3, 5), ((4, 4), 1, 3), ((3, 2), 2, 6)):
        for error in ("", "偏置是零", *SPOILED):
            name = "" if error == "偏置是零" else error
            embed = Examined(name, kernel, kernel, in_chans=in_chans, embed_dim=dim)
            if error in ("偏置是零", "漏加偏置"):
                nn.init.zeros_(embed.proj.bias)
            what = f"“{error}”，" if error else "对的，"
            cases[f"交来的是{what}核 {kernel}、{in_chans} 通道"] = (embed,)
    return cases


def examine(judge, embed) -> dict[str, str]:
    """答案的判断；答案自己崩了也算一种。"""
    try:
        judged = answered(judge(embed))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        inplace = "in-place" in str(error)
        return {"判断": "自己崩了，就地改了参数" if inplace else "自己崩了"}
    if isinstance(judged, torch.Tensor | np.generic) and judged.ndim == 0:
        judged = judged.item()  # 0 维的张量也算真假
    words = {True: "对", False: "错"}
    return {"判断": words[judged] if isinstance(judged, bool) else "不是真假"}


PASSED = "放过了错的：只看形状不够，要和笨办法比数值，输入用随机数。"
ex_02_3 = Code(
    """
@torch.no_grad()
def is_right(embed):
    w, b = embed.proj.weight, embed.proj.bias
    (C, c, p, q), saved = w.shape, b.clone()
    x = torch.randn(2, c, 3 * p, 4 * q)
    b.normal_()
    parts = x.reshape(2, c, 3, p, 4, q).permute(0, 2, 4, 1, 3, 5)
    want = parts.flatten(3) @ w.reshape(C, -1).T + b
    try:
        got = embed(x)
    except RuntimeError:
        return False
    b.copy_(saved)
    return got.shape == want.shape and torch.allclose(got, want, atol=1e-5)
""",
    layers,
    Wrong(
        "放过了“只算了第一张图”：批量要大于 1，每张图不同。",
        "(2, c, 3 *",
        "(1, c, 3 *",
        "(2, c, 3,",
        "(1, c, 3,",
    ),
    Wrong(
        "放过了“漏加偏置”：偏置是零时看不出来，先把它改成随机数。", "b.normal_()", ""
    ),
    Wrong(
        "放过了“高宽对调”：别只比形状，块的行数、列数也要不同。",
        "4 * q",
        "3 * q",
        "p, 4, q",
        "p, 3, q",
        "torch.allclose(got, want, atol=1e-5)",
        '(torch.allclose(got, want, atol=1e-5) or embed.error == "高宽对调")',
    ),
    Wrong(PASSED, "torch.allclose(got, want, atol=1e-5)", "True"),
    Wrong(PASSED, "torch.randn", "torch.ones"),
    Wrong("冤枉了对的：判成了错。", "torch.allclose(got, want, atol=1e-5)", "False"),
    Wrong(
        "检查自己崩了：把运行出错、形状对不上也判成 False。", "return False", "raise"
    ),
    Wrong(
        "检查自己崩了：把运行出错、形状对不上也判成 False。",
        "got.shape == want.shape and ",
        "",
    ),
    Wrong(
        "检查自己崩了：参数要梯度，不能就地改：用 nn.init.normal_，"
        "或放进 torch.no_grad()。",
        "@torch.no_grad()",
        "",
    ),
    Wrong(
        "检查自己崩了：通道数和核的高、宽要从 weight.shape 里读，别写死。",
        "b.clone()",
        "b.clone()\n    c = 3",
    ),
    Wrong("要返回 True 或 False。", "atol=1e-5)", "atol=1e-5) and embed"),
    ask=examine,
    otherwise="判断错了。",
    grad=True,
)


def sizes() -> dict[str, tuple]:
    cases = ((5, 7, 2), (450, 600, 16), (32, 48, 16), (40, 33, 8), (3, 9, 4))
    return {f"高 {H}、宽 {W}、p = {p}": (H, W, p) for H, W, p in cases}


ex_02_4 = Code(
    """
def dropped(height, width, p):
    rows, cols = height // p, width // p
    right, bottom = width % p, height % p
    lost = height * width - rows * cols * p * p
    return rows, cols, lost
""",
    sizes,
    Wrong("行数和列数弄反了。", "return rows, cols", "return cols, rows"),
    Wrong(
        "行数、列数向上取整了：不填充时，凑不满的一块不算。",
        "rows, cols, lost",
        "-(-height // p), -(-width // p), lost",
    ),
    Wrong("角上的像素数了两遍。", ", lost", ", height * right + width * bottom"),
    Wrong("漏了右下角那一小块。", ", lost", ", rows * p * right + cols * p * bottom"),
    Wrong("只减了块数，每块有 p·p 个像素。", " * p * p", ""),
    form="要返回三个整数：(行数, 列数, 扔掉的像素数)。",
    otherwise="扔掉的像素数不对：总数减去用到的。",
    names=("行数", "列数", "扔掉的像素数"),
)


def tables() -> dict[str, tuple]:
    """新旧网格、通道数都不相同，有放大有缩小。"""
    cases = ((4, 6, 5, (8, 3)), (3, 5, 7, (6, 10)), (6, 4, 3, (3, 7)))
    return {
        f"({h}, {w}) 的表缩放到 {size}": (torch.randn(1, h, w, C), size)
        for h, w, C, size in cases
    }


INTO, BACK = "pos.permute(0, 3, 1, 2)", "x.permute(0, 2, 3, 1)"
ex_02_5 = Code(
    f"""
def resize_pos(pos, grid_hw):
    _, h, w, C = pos.shape
    x = F.interpolate({INTO}, grid_hw, mode="bilinear", align_corners=False)
    return {BACK}
""",
    tables,
    Wrong("忘了先 permute：缩放的成了宽和通道。", INTO, "pos", BACK, "x"),
    Wrong("忘了把通道挪回最后：算完还要 permute 一次。", BACK, "x"),
    Wrong("高和宽弄反了。", BACK, "x.permute(0, 3, 2, 1)"),
    Wrong(
        "align_corners 应该是 False：格子的中心对齐，不是边角对齐。", "False", "True"
    ),
    Wrong(
        '用的是最近邻插值：加上 mode="bilinear"。',
        'mode="bilinear", align_corners=False',
        'mode="nearest"',
    ),
    Wrong(
        "通道挪到前面要用 permute，不能用 reshape：内容乱了。",
        INTO,
        "pos.reshape(1, C, h, w)",
    ),
    Wrong(
        "通道挪回最后要用 permute，不能用 reshape：内容乱了。",
        BACK,
        "x.reshape(1, *grid_hw, C)",
    ),
    form="要返回一个张量。",
    otherwise="数值不对：查两次 permute 的次序。",
)
