"""RESULTS.md 的全文：目标、编码器的下限、全部数字、机器、怎么量的。"""

from .aims import format_aims
from .bounds import format_bounds
from .report import Section, format_table, problems, table

TEXT = """\
# 时间和内存的比较

这一页由 `python -m benchmarks` 写出，原始的数在 [results.json](results.json)；换型号、
换输入边长、换点数的花费另见 [COSTS.md](COSTS.md)。{verdict}

## 目标

{aims}

还差在哪里：编码器见下面“离极限多远”。一次点击只有几十毫秒，各轮相差很大。它的乘法官方
是 3.6 GFLOP，sam_lite 是 1.7 GFLOP，少了一半多，照 `mm` 的速度约 10 毫秒；其余是图像
一侧 4096×256 的加法、规范化和 softmax，以及三张掩码先放大到 1024、再放大到原图，这两方
都要做。

## 全部数字

{numbers}

## 编码器离极限多远

运算次数由型号的尺寸数出（`operations.py`，测试里与 torch 的 `FlopCounterMode` 一个不
差）：vit_b 一张 1024 的图是 0.972 TFLOP。速度在量编码器的同一个进程里量，前后各一次取
平均：2048 阶方阵相乘，`mm` 一列是 `torch.mm`，“最快的写法”再加上 `F.linear` 和 1×1
卷积，取三者里最快的。有的 x86 机器（AMD）上 `mm` 用的 MKL 只用 AVX2，卷积用的 oneDNN
用得上 AVX-512，快一倍：所以时间可以比 `mm` 容许的还短，不到 1；后一列才是离这台机器的
极限有多远。括号里是最差的一轮。

{bounds}

## 机器

{dates}

{machines}

## 怎么量的

- 每个数都在新开的进程里量；三方轮流（甲乙丙甲乙丙），一轮一次，轮数见上表。各方同一份
  随机权重、同样的输入、同样的线程数。除了读模型，都先热身再计时。
- “时间 ÷ sam_lite”是同一轮里它的时间除以 sam_lite 的，取各轮的中位数，括号里是最差的
  一轮；大于 1 就是 sam_lite 快。别的程序也在用处理器时，墙上时钟会偏，所以另给进程
  自己用掉的 CPU 时间（各线程相加），它的比值受影响小得多。
- 内存增量是测量期间常驻内存的最高值减去开始之前的值（Linux 的 VmHWM；别的系统未测），
  模型已经装好，不在增量里。进程峰值连 Python、各个库和模型都算上。
- 误差是与官方 float32 的结果相比的最大相对误差，max|a − b| ÷ max|b|，超过容许值就报错
  退出。点击比的是预测的 IoU、低分辨率 logits 和放大之后各张掩码的面积；分割一切比的是
  张数，和各项的总和；读模型比的是每个参数的平方和。
- 一次点击、64 次点击和分割一切用现成的图像嵌入，不含编码器；64 次点击的“低分辨率”
  直接调用提示编码器和掩码解码器，照官方的写法一步步算，sam_lite 的快路（在
  `SamPredictor` 里）用不上，所以比放大到原图的一项还慢。
- 读模型：权重文件在页缓存里（刚读过一遍），三方一样；导入库的时间不算。sam_lite 把文件
  映射进内存，用到才读，所以另有一项读完再把每个参数读一遍。括号里是内存增量相当于
  几份权重。
- transformers 的解码器默认 LayerNorm 的 eps 是 1e-6，官方是 1e-5，这里写成 1e-5，算式
  才相同；注意力用它默认的实现（sdpa）。图片处理器用不依赖 torchvision 的那一个。官方包
  的 resize 和 batched_nms 用测试里等价的替身，不装 torchvision。
- 权重是随机的：时间和内存与训练好的相同，bfloat16 的误差只说明量级。
"""
MEASURED = ("测量", "日期", "轮数", "机器")


def distinct(machines: list[dict[str, str]]) -> list[dict[str, str]]:
    """用过的各台机器，不重复，照出现的次序。"""
    return [m for i, m in enumerate(machines) if m not in machines[:i]]


def machine_lines(machines: list[dict[str, str]]) -> str:
    """各台机器的说明，一台一串条目；不止一台时写出编号。"""
    known = distinct(machines)
    texts = ["\n".join(f"- {k}：{v}" for k, v in m.items()) for m in known]
    if len(known) == 1:
        return texts[0]
    return "\n\n".join(f"机器 {i + 1}：\n\n{text}" for i, text in enumerate(texts))


def format_dates(sections: list[Section]) -> str:
    """各项是哪天、在哪台机器上量的，几轮。"""
    known = distinct([s.machine for s in sections])
    body = [
        (
            f"{s.case.title}（{s.variant}，{s.outcomes[0].entry[1]}）",
            s.date,
            str(max(len(outcome.rounds) for outcome in s.outcomes)),
            str(known.index(s.machine) + 1),
        )
        for s in sections
    ]
    return table(body, MEASURED)


def format_report(sections: list[Section]) -> str:
    """RESULTS.md 的全文。"""
    wrong = problems(sections)
    return TEXT.format(
        verdict="全部在容许的误差之内。"
        if not wrong
        else "有问题：" + "；".join(wrong),
        aims=format_aims(sections),
        numbers=format_table(sections, "github"),
        bounds=format_bounds(sections),
        dates=format_dates(sections),
        machines=machine_lines([s.machine for s in sections]),
    )
