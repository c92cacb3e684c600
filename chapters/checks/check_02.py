"""第 2 章的练习怎么检查。"""

import torch
import torch.nn.functional as F
from course import answered, expect
from torch import nn

from sam_lite.patch_embed import PatchEmbed


def ex_02_1(answer) -> None:
    """和 unfold 对账；高、宽、通道、块的边长都不相等，还有一批多张的。"""
    for shape, p in (((1, 3, 4, 6), 2), ((2, 2, 9, 6), 3), ((2, 1, 4, 12), 4)):
        B, C, H, W = shape
        x = torch.arange(B * C * H * W).reshape(shape).float()
        got = answered(answer(x.clone(), p))
        expect(isinstance(got, torch.Tensor), "要返回一个张量。")
        columns = F.unfold(x, p, stride=p)  # (B, C·p·p, 块数)
        grid = (B, H // p, W // p, C * p * p)
        right = columns.transpose(1, 2).reshape(grid)
        where = f"输入 {shape}、p = {p}"
        expect(got.shape == grid, cut_shape_hint(tuple(got.shape), grid, where))
        expect(torch.equal(got, right), cut_hint(got, x, p, right, where))


def cut_shape_hint(got: tuple, grid: tuple, where: str) -> str:
    """形状错在哪里。"""
    B, rows, cols, length = grid
    if got == (B, cols, rows, length):
        return f"块的行数和列数弄反了：{where}。"
    if got == (B, rows * cols, length):
        return f"行和列摊成一串了：{where}，SAM 要的是网格 {grid}。"
    return f"形状不对：{where}，应该是 {grid}，来的是 {got}。"


def cut_hint(got, x, p: int, right, where: str) -> str:
    """形状对、内容错：是哪一种。"""
    B, C, H, W = x.shape
    if torch.equal(got, x.reshape(right.shape)):
        return f"漏了 permute：{where}，形状对，内容是按内存次序硬掰的。"
    six = x.reshape(B, C, H // p, p, W // p, p)
    if torch.equal(got, six.permute(0, 2, 4, 3, 5, 1).reshape(right.shape)):
        return "块里把通道排到了最后；应当先一整块红，再一整块绿，再一整块蓝。"
    if torch.equal(got, six.permute(0, 2, 4, 1, 5, 3).reshape(right.shape)):
        return "块里的行和列弄反了：每块都被转置了。"
    if torch.equal(got, F.unfold(x, p, stride=p).reshape(right.shape)):
        return "结果像是 unfold 之后忘了 transpose：一块的数散到了好几块里。"
    if torch.equal(got.sum(-1), right.sum(-1)):
        return f"每块的数都在，块里的次序不对：{where}。"
    return f"内容不对：{where}，块里混进了别的块的数，看 permute 的次序。"


def ex_02_2(answer) -> None:
    """vit_h：一块 768 个数，4096 个词元，两样的参数个数。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 4,
        "要四个整数：(一块的数, 词元个数, 图像块嵌入的参数, 位置表的参数)。",
    )
    length, tokens, embed, table = answer
    expect(length != 256, "256 只数了一个通道，一块有红、绿、蓝三层。")
    expect(length != 1280, "1280 是向量的宽；一块的数只看图像块，和型号无关。")
    expect(length == 768, "一块的数不对：边长的平方乘 3 个通道。")
    expect(tokens != 64, "64 是一边的块数，词元个数是它的平方。")
    expect(tokens != 4097, "4097 多数了一个分类词元，SAM 没有它。")
    expect(tokens == 4096, "词元个数不对：一边 1024 / 16 块，再平方。")
    expect(embed != 768 * 1280, "漏了偏置：1280 个输出各有一个。")
    expect(
        embed != 768 * 1280 + 768, "偏置的个数不对：每个输出一个，不是每个输入一个。"
    )
    expect(embed != 768 * 768 + 768, "那是 vit_b 的宽，vit_h 宽 1280。")
    expect(embed == 768 * 1280 + 1280, "图像块嵌入的参数不对：矩阵 1280×768，加偏置。")
    expect(table != 4097 * 1280, "位置表多了一行：SAM 没有分类词元。")
    expect(table != 4096 * 768, "位置表也是 1280 宽，要加得上词元。")
    expect(table != 64 * 1280, "位置表每个词元一行，不是每行每列一个。")
    expect(table == 4096 * 1280, "位置表的参数不对：64×64 格，每格 1280 个数。")


class Wrong(PatchEmbed):
    """藏着一处错的 PatchEmbed。"""

    def __init__(self, error: str, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.error = error

    def forward(self, x):
        proj = self.proj
        out = proj(x)  # (B, C, H/p, W/p)
        B, C, H, W = out.shape
        if self.error == "漏了 permute":
            return out.reshape(B, H, W, C)
        if self.error == "通道没有挪到最后":
            return out
        if self.error == "高宽对调":
            return out.transpose(1, 3)
        if self.error == "漏加偏置":
            return F.conv2d(x, proj.weight, None, proj.stride).permute(0, 2, 3, 1)
        if self.error == "一块里的行列弄反":
            swapped = proj.weight.transpose(2, 3).reshape(proj.weight.shape)
            return F.conv2d(x, swapped, proj.bias, proj.stride).permute(0, 2, 3, 1)
        if self.error == "只算了第一张图":
            return super().forward(x[:1]).expand(B, -1, -1, -1)
        if self.error == "上下颠倒":
            return super().forward(x).flip(1)
        if self.error == "多了一个激活函数":
            return F.gelu(super().forward(x))  # relu 碰上全是正数就看不出来
        raise RuntimeError(self.error)


ERRORS = (
    "漏了 permute",
    "通道没有挪到最后",
    "高宽对调",
    "漏加偏置",
    "一块里的行列弄反",
    "只算了第一张图",
    "上下颠倒",
    "多了一个激活函数",
    "一运行就报错",
)


def ex_02_3(answer) -> None:
    """拿对的和各种错的去考它；核有方有长，通道有多有少，偏置从零开始。"""
    plans = (((2, 3), 3, 5), ((4, 4), 1, 3), ((3, 2), 2, 6))
    for kernel, in_chans, dim in plans:
        what = f"核 {kernel}、{in_chans} 通道"
        right = PatchEmbed(kernel, kernel, in_chans=in_chans, embed_dim=dim)
        expect(verdict_of(answer, right), f"冤枉了对的：{what}，判成了错。")
        zero = PatchEmbed(kernel, kernel, in_chans=in_chans, embed_dim=dim)
        nn.init.zeros_(zero.proj.bias)
        expect(verdict_of(answer, zero), f"冤枉了对的：{what}、偏置为零，判成了错。")
        for error in ERRORS:
            options = {"in_chans": in_chans, "embed_dim": dim}
            wrong = Wrong(error, kernel, kernel, **options)
            if error == "漏加偏置":
                nn.init.zeros_(wrong.proj.bias)  # 偏置碰巧是零，漏了也一样
            expect(not verdict_of(answer, wrong), f"放过了“{error}”：{missed(error)}")


def verdict_of(answer, embed) -> bool:
    """答案的判断；答案自己崩了就说出来。"""
    try:
        judged = answered(answer(embed))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        kind = getattr(embed, "error", "对的")
        text = (str(error).splitlines() or [""])[0]
        expect(
            False, f"检查自己崩了（交来的是“{kind}”）：{text}。{crashed(kind, text)}"
        )
    expect(isinstance(judged, bool), "要返回 True 或 False。")
    return judged


def crashed(kind: str, text: str) -> str:
    """检查崩了，多半因为什么。"""
    if "in-place" in text:
        return "参数要梯度，不能就地改：用 nn.init.normal_，或放进 torch.no_grad()。"
    if kind == "对的":
        return "交来的没有错：通道数和核的高、宽要从 weight.shape 里读，别写死。"
    return "把运行出错、形状对不上也判成 False。"


def missed(error: str) -> str:
    """放过了一种错，多半因为什么。"""
    if error == "漏加偏置":
        return "偏置是零时看不出来，先把它改成随机数。"
    if error == "只算了第一张图":
        return "批量要大于 1，每张图不同。"
    if error == "高宽对调":
        return "别只比形状，块的行数、列数也要不同。"
    return "只看形状不够，要和笨办法比数值，输入用随机数。"


def ex_02_4(answer) -> None:
    """各种尺寸，逐个和定义核对。"""
    for H, W, p in ((5, 7, 2), (450, 600, 16), (32, 48, 16), (40, 33, 8), (3, 9, 4)):
        got = answered(answer(H, W, p))
        where = f"高 {H}、宽 {W}、p = {p}"
        expect(
            isinstance(got, (tuple, list)) and len(got) == 3,
            "要返回三个整数：(行数, 列数, 扔掉的像素数)。",
        )
        right = (H // p, W // p)
        seen, lost = tuple(got[:2]), got[2]
        if seen != right:
            expect(seen != right[::-1], f"行数和列数弄反了：{where}。")
            up = (-(-H // p), -(-W // p))
            hint = "不填充时，凑不满的一块不算"
            expect(seen != up, f"行数、列数向上取整了：{where}。{hint}。")
        expect(seen == right, f"行数或列数不对：{where}。")
        if lost != H * W - right[0] * right[1] * p * p:
            expect(False, lost_hint(lost, H, W, p, where))


def lost_hint(lost: int, H: int, W: int, p: int, where: str) -> str:
    """扔掉的像素数错在哪里。"""
    right, bottom = W % p, H % p  # 右边、下边凑不满一块的有多宽、多高
    if lost == H * right + W * bottom:
        return f"角上的像素数了两遍：{where}。"
    if lost == (H - bottom) * right + (W - right) * bottom:
        return f"漏了右下角那一小块：{where}。"
    if lost == H * W - (H // p) * (W // p):
        return f"只减了块数，每块有 p·p 个像素：{where}。"
    return f"扔掉的像素数不对：{where}。总数减去用到的。"


def ex_02_5(answer) -> None:
    """和 F.interpolate 对账；新旧网格、通道数都不相同，有放大有缩小。"""
    for h, w, C, size in ((4, 6, 5, (8, 3)), (3, 5, 7, (6, 10)), (6, 4, 3, (3, 7))):
        pos = torch.randn(1, h, w, C, generator=torch.Generator().manual_seed(h))
        got = answered(answer(pos.clone(), size))
        expect(isinstance(got, torch.Tensor), "要返回一个张量。")
        where = f"({h}, {w}) 的表缩放到 {size}"
        right = bilinear(pos.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
        shape, (H, W) = tuple(got.shape), size
        expect(shape != (1, C, H, W), "忘了把通道挪回最后：算完还要 permute 一次。")
        expect(shape != (1, h, H, W), "忘了先 permute：缩放的成了宽和通道。")
        expect(shape != (1, W, H, C), f"高和宽弄反了：{where}。")
        expect(shape == (1, H, W, C), f"形状不对：{where}，来的是 {shape}。")
        expect(close(got, right), resize_hint(got, pos, size, where))


def bilinear(table, size, align: bool = False):
    """缩放最后两维。"""
    return F.interpolate(table, tuple(size), mode="bilinear", align_corners=align)


def close(got, expected) -> bool:
    return torch.allclose(got, expected, rtol=1e-4, atol=1e-5)


def resize_hint(got, pos, size, where: str) -> str:
    """形状对、数值错：是哪一种。"""
    _, h, w, C = pos.shape
    first = pos.permute(0, 3, 1, 2)  # (1, C, h, w)
    if close(got, bilinear(first, size, True).permute(0, 2, 3, 1)):
        return "align_corners 应该是 False：格子的中心对齐，不是边角对齐。"
    if close(got, F.interpolate(first, tuple(size)).permute(0, 2, 3, 1)):
        return '用的是最近邻插值：加上 mode="bilinear"。'
    if close(got, bilinear(pos.reshape(1, C, h, w), size).permute(0, 2, 3, 1)):
        return "通道挪到前面要用 permute，不能用 reshape：内容乱了。"
    if close(got, bilinear(first, size).reshape(1, *size, C)):
        return "通道挪回最后要用 permute，不能用 reshape：内容乱了。"
    return f"数值不对：{where}，查两次 permute 的次序。"
