"""第 10 章的练习怎么检查。"""

import json
import numbers
import pickle
import pickletools
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from course import Mistake, answered, expect
from safetensors.numpy import save_file


def ex_10_1(answer) -> None:
    """一共 434 个名字，解码器 156 个。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        "要两个整数：(一共几个名字, 其中 mask_decoder 有几个)。",
    )
    total, decoder = (answered(n) for n in answer)
    whole = all(isinstance(n, numbers.Number) for n in (total, decoder))
    expect(whole, "要两个整数，不是字符串或别的。")
    expect(total != 156, "两个数的次序反了：先总数，后解码器。")
    layer = decoder - 120
    expect(layer != 0, "双向 Transformer 也加了一层，解码器不止 120 个。")
    expect(layer != 60, "不能按比例加：解码器里还有许多东西不随层数变。")
    expect(layer != 72, "加成两层了：从 2 层到 3 层，只多一层。")
    expect(layer != 14, "编码器的一层才是 14 个；双向 Transformer 的一层有三个注意力。")
    expect(layer != 24, "只数了三个注意力，还有 MLP 和规范化。")
    expect(layer != 18, "线性层和规范化都有 weight 和 bias，各算两个名字。")
    both = "忘了四个规范化（8 个名字），或者只数了两个注意力（有三个）。"
    expect(layer != 28, both)
    expect(layer != 32, "忘了 MLP 的两个线性层，4 个名字。")
    expect(layer == 36, "解码器的个数不对：数一层有几个名字，加到 120 上。")
    expect(total != 314 + 6 * 14, "总数忘了加上解码器多出的那一层。")
    expect(total != 314 + 36, "总数忘了编码器多出的 6 层。")
    expect(total != 314 + 18 * 14 + 36, "编码器只多 6 层，原来的 12 层已经数过了。")
    expect(
        total == 434, "总数不对：146 + 14×层数里，146 是按两层双向 Transformer 算的。"
    )


# ---- 10.2 --------------------------------------------------------------------


def encoder_state(
    grid: int, window: int, heads: int, head: int, depth: int, whole: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    """一份只有形状的编码器权重，名字照官方。"""
    width = heads * head
    state = {
        "image_encoder.pos_embed": (1, grid, grid, width),
        "image_encoder.patch_embed.proj.weight": (width, 3, 16, 16),
        "prompt_encoder.no_mask_embed.weight": (1, 256),
        "mask_decoder.iou_token.weight": (1, 256),
    }
    for i in range(depth):
        block = f"image_encoder.blocks.{i}"
        rows = 2 * (grid if i in whole else window) - 1
        state[f"{block}.norm1.weight"] = (width,)
        state[f"{block}.attn.rel_pos_h"] = (rows, head)
        state[f"{block}.attn.rel_pos_w"] = (rows, head)
        state[f"{block}.attn.qkv.weight"] = (3 * width, width)
        state[f"{block}.mlp.lin1.weight"] = (4 * width, width)
    return {name: torch.empty(shape, device="meta") for name, shape in state.items()}


def ex_10_2(answer) -> None:
    """官方的三个，和三种官方没有的尺寸；名字的次序也打乱一次。"""
    cases = (
        (64, 14, 12, 64, 12, (2, 5, 8, 11)),
        (64, 14, 16, 64, 24, (5, 11, 17, 23)),
        (64, 14, 16, 80, 32, (7, 15, 23, 31)),
        (10, 4, 3, 8, 13, (2, 10, 12)),
        (9, 5, 2, 6, 4, (0,)),
        (20, 6, 5, 4, 11, ()),
    )
    keys = ("heads", "window", "grid", "global_layers")
    for number, sizes in enumerate(cases):
        grid, window, heads, head, depth, whole = sizes
        state = encoder_state(*sizes)
        if number % 2:
            state = dict(reversed(state.items()))
        got = answered(answer(state))
        expect(
            isinstance(got, dict) and set(got) == set(keys),
            f"要返回一个字典，四个键是：{'、'.join(keys)}。",
        )
        case = f"网格 {grid}、窗口 {window}、{heads} 个头、{depth} 层"
        expect(got["grid"] == grid, grid_hint(got["grid"], grid, case))
        expect(got["heads"] == heads, heads_hint(got["heads"], heads, head, case))
        expect(got["window"] == window, window_hint(got["window"], sizes, case))
        layers = got["global_layers"]
        expect(isinstance(layers, (tuple, list)), "global_layers 要一个元组。")
        expect(tuple(layers) == whole, layers_hint(layers, whole, depth, case))


def grid_hint(got, grid: int, case: str) -> str:
    if got == 16 * grid:
        return f"grid 要网格的边长，不是像素：{case}。"
    if got == 2 * grid - 1:
        return f"grid 取成了相对位置表的行数：{case}，网格在 pos_embed 的形状里。"
    return f"grid 不对：{case}，看 pos_embed 的第二维。"


def heads_hint(got, heads: int, head: int, case: str) -> str:
    if got == head:
        return f"heads 取成了一个头的宽度：{case}，还要拿宽度除以它。"
    if got == heads * head:
        return f"heads 取成了宽度：{case}，还要除以一个头的宽度。"
    if got == 3 * heads:
        return f"heads 多了三倍：{case}，qkv 的 weight 里叠着三份。"
    return f"heads 不对：{case}，宽度除以相对位置表的列数。"


def window_hint(got, sizes, case: str) -> str:
    grid, window, *_ = sizes
    if got == 2 * window - 1:
        return f"window 取成了表的行数：{case}，行数是 2·边长 − 1。"
    if got == window - 1:
        return f"window 少了 1：{case}，(行数 + 1) / 2，不是行数 // 2。"
    if got == grid:
        return f"window 取成了全局那一层的：{case}，窗口比网格小。"
    return f"window 不对：{case}，由窗口层的行数 r 得 (r + 1) / 2。"


def layers_hint(got, whole, depth: int, case: str) -> str:
    got = tuple(got)
    if set(got) == set(range(depth)) - set(whole):
        return f"global_layers 反了：{case}，这些是窗口层。"
    if all(isinstance(i, str) for i in got) and got:
        return f"global_layers 里要整数，不是字符串：{case}。"
    if sorted(got) == sorted(whole):
        return (
            f"global_layers 的次序不对：{case}，按整数从小到大排（按字符串排，"
            "10 会排在 2 前面；state 里的次序也不保证）。"
        )
    if got == tuple(i + 1 for i in whole):
        return f"global_layers 多了 1：{case}，层号从 0 数。"
    if len(got) == 2 * len(whole):
        return f"global_layers 每层数了两次：{case}，rel_pos_h、rel_pos_w 看一张就够。"
    return f"global_layers 不对：{case}，应该是 {whole}：行数等于 2·网格 − 1 的那几层。"


# ---- 10.3 --------------------------------------------------------------------


def ex_10_3(answer) -> None:
    """三种形状、两种类型，逐个读出来比。"""
    numbers = np.random.default_rng(0)
    arrays = {
        "pos_embed": numbers.normal(size=(1, 4, 6, 3)).astype(np.float32),
        "norm.weight": numbers.normal(size=(5,)).astype(np.float16),
        "proj.weight": numbers.normal(size=(7, 2)).astype(np.float32),
        "proj.bias": numbers.normal(size=(2, 3)).astype(np.float16),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.safetensors"
        save_file(arrays, path, metadata={"format": "np"})
        data = path.read_bytes()
        for name, array in arrays.items():
            case = f"{name}，{array.dtype}，形状 {array.shape}"
            try:
                got = answered(answer(path, name))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise Mistake(
                    "头没有切对：长度是小端的 8 个字节，JSON 从第 8 个字节开始。"
                ) from error
            except ValueError as error:
                raise Mistake(value_hint(array, error, case)) from error
            except TypeError as error:
                if "not understood" not in str(error):
                    raise
                raise Mistake(
                    "numpy 不认得 F16、F32 这样的写法：要换成它的，例如小端的 <f4。"
                ) from error
            expect(
                isinstance(got, np.ndarray),
                f"要返回 numpy 数组：{case}。",
            )
            expect(got.shape == array.shape, f"形状是 {got.shape}：{case}。")
            same = np.array_equal(got, array) and got.dtype == array.dtype
            expect(same, bytes_hint(data, name, got, case))


def value_hint(array: np.ndarray, error: Exception, case: str) -> str:
    if array.dtype == np.float16 and "F16" not in str(error):
        return f"字节数和形状配不上：{case}。F16 的一个数只有 2 字节，看 dtype。"
    return f"字节数和形状配不上：{case}。{error}"


def bytes_hint(data: bytes, name: str, got: np.ndarray, case: str) -> str:
    """从几个常见的错误起点读一遍，看像哪一个。"""
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[name]
    start, end = entry["data_offsets"]
    for base, words in (
        (0, "data_offsets 从头之后数起，不是从文件开头"),
        (length, "忘了最前面的 8 个字节"),
        (8, "忘了加上头的长度"),
    ):
        part = data[base + start : base + end]
        if got.tobytes() == part:
            return f"{words}：{case}。"
    if got.tobytes() == got.dtype.type(1).tobytes() * got.size:
        return f"读出来全是 1：{case}。"
    right = np.frombuffer(
        data[8 + length + start : 8 + length + end],
        {"F16": "<f2", "F32": "<f4"}[entry["dtype"]],
    ).reshape(entry["shape"])
    if np.array_equal(got, right):
        return f"数都对，类型应该是 {right.dtype}，不是 {got.dtype}：{case}。"
    swapped = right.astype(right.dtype.newbyteorder(">")).tobytes()
    if got.tobytes() == swapped or np.array_equal(got, right.byteswap()):
        return f"数的字节次序反了，要小端：{case}。"
    return f"数值不对：{case}。检查起止字节和类型。"


# ---- 10.4 --------------------------------------------------------------------

SAFE = {
    "collections OrderedDict",
    "torch FloatStorage",
    "torch._utils _rebuild_tensor_v2",
}
SPRUNG: list[str] = []


def spring(text: str) -> str:
    """陷阱：真的被调用，就记下来。"""
    SPRUNG.append(text)
    return text


class Trap:
    """读的时候会调用 spring。"""

    def __reduce__(self):
        return spring, ("动了",)


class Quiet:
    """读的时候会调用一个无害的函数，但不在名单里。"""

    def __reduce__(self):
        return len, ("四个字呢",)


def pack(path: Path, content: object, protocol: int) -> None:
    """一个只有 data.pkl 的 .pth。"""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/version", "3\n")
        archive.writestr(
            f"{path.stem}/data.pkl", pickle.dumps(content, protocol=protocol)
        )


def globals_in(path: Path) -> tuple[set[str], set[str]]:
    """文件里由 GLOBAL 和由 STACK_GLOBAL 写的名字。"""
    with zipfile.ZipFile(path) as archive:
        (pkl,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        program = archive.read(pkl)
    plain: set[str] = set()
    stacked: set[str] = set()
    texts: list[str] = []
    for op, arg, _ in pickletools.genops(program):
        if "UNICODE" in op.name:
            texts.append(str(arg))
        elif op.name == "GLOBAL":
            plain.add(str(arg))
        elif op.name == "STACK_GLOBAL":
            stacked.add(" ".join(texts[-2:]))
    return plain, stacked


def ex_10_4(answer) -> None:
    """干净的、协议 2 的、协议 4 的，各一份；一个陷阱也不许动。"""
    SPRUNG.clear()
    with tempfile.TemporaryDirectory() as folder:
        clean, trap = Path(folder) / "clean.pth", Path(folder) / "trap.pth"
        torch.save({"w": torch.ones(2, 3)}, clean)
        torch.save({"w": torch.ones(2, 3), "x": Trap(), "y": Quiet()}, trap)
        new, empty = Path(folder) / "new.pth", Path(folder) / "empty.pth"
        pack(new, {"x": Trap()}, protocol=4)
        pack(empty, {}, protocol=4)
        for path in (clean, empty, trap, new):
            got = answer(path)
            expect(
                not SPRUNG, "陷阱动了：你执行了文件里的指令。只许用 pickletools 看。"
            )
            got = answered(got)
            plain, stacked = globals_in(path)
            right = (plain | stacked) - SAFE
            expect(isinstance(got, (set, frozenset)), "要返回一个集合。")
            expect(got == right, names_hint(set(got), plain, stacked))


def names_hint(got: set[str], plain: set[str], stacked: set[str]) -> str:
    """集合错在哪里。"""
    right = (plain | stacked) - SAFE
    if right and got == {name.split(" ")[0] for name in right}:
        return "只有模块，少了名字：要“模块 名字”，中间一个空格。"
    if right and got == {name.split(" ")[-1] for name in right}:
        return "只有名字，少了模块：要“模块 名字”，中间一个空格。"
    if got == {name.replace(" ", ".") for name in right} and right:
        return "中间是空格，不是点号：照 GLOBAL 的写法。"
    if got and got <= SAFE | right and got & SAFE:
        return "忘了去掉 SAFE 里的名字。"
    if plain - SAFE and not got:
        return "漏了 GLOBAL：torch.save 默认的协议写的就是它。"
    if stacked and not got:
        return "漏了 STACK_GLOBAL：新协议的文件被当成了干净的。"
    if got == {" ".join(reversed(name.split(" "))) for name in right} and right:
        return "模块和名字反了：先放下的是模块。"
    return f"名字不对：得到 {sorted(got)}，应该是 {sorted(right)}。"
