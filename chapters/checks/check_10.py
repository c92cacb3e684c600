"""第 10 章的练习：对的答案、典型的错误和提示。"""

import json
import numbers
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from checks.common import Code, Like, Part, Values, Wrong
from course import Mistake
from safetensors.numpy import save_file

MORE = {
    0: "双向 Transformer 也加了一层，解码器不止 120 个。",
    60: "不能按比例加：解码器里还有许多东西不随层数变。",
    72: "加成两层了：从 2 层到 3 层，只多一层。",
    14: "编码器的一层才是 14 个；双向 Transformer 的一层有三个注意力。",
    24: "只数了三个注意力，还有 MLP 和规范化。",
    18: "线性层和规范化都有 weight 和 bias，各算两个名字。",
    28: "忘了四个规范化（8 个名字），或者只数了两个注意力（有三个）。",
    32: "忘了 MLP 的两个线性层，4 个名字。",
}
TEXT = Like("434", lambda n: not isinstance(n, numbers.Number))
ex_10_1 = Values(
    "要两个整数：(一共几个名字, 其中 mask_decoder 有几个)。",
    [
        Part(
            434,
            "总数不对：146 + 14×层数里，146 是按两层双向 Transformer 算的。",
            {
                TEXT: "要两个整数，不是字符串或别的。",
                314 + 6 * 14: "总数忘了加上解码器多出的那一层。",
                314 + 36: "总数忘了编码器多出的 6 层。",
                314 + 18 * 14 + 36: "编码器只多 6 层，原来的 12 层已经数过了。",
            },
        ),
        Part(
            156,
            "解码器的个数不对：数一层有几个名字，加到 120 上。",
            {TEXT: "要两个整数，不是字符串或别的。"}
            | {120 + layer: hint for layer, hint in MORE.items()},
        ),
    ],
    whole={(156, 434): "两个数的次序反了：先总数，后解码器。"},
)


def states() -> dict[str, tuple]:
    """官方的三个，和三种官方没有的尺寸；隔一份把名字的次序反过来。"""
    cases = {}
    for number, (grid, window, heads, head, depth, whole) in enumerate(
        (
            (64, 14, 12, 64, 12, (2, 5, 8, 11)),
            (64, 14, 16, 64, 24, (5, 11, 17, 23)),
            (64, 14, 16, 80, 32, (7, 15, 23, 31)),
            (10, 4, 3, 8, 13, (2, 10, 12)),
            (9, 5, 2, 6, 4, (0,)),
            (20, 6, 5, 4, 11, ()),
        )
    ):
        width = heads * head
        shapes = {
            "image_encoder.pos_embed": (1, grid, grid, width),
            "image_encoder.patch_embed.proj.weight": (width, 3, 16, 16),
            "prompt_encoder.no_mask_embed.weight": (1, 256),
            "mask_decoder.iou_token.weight": (1, 256),
        }
        for i in range(depth):
            block = f"image_encoder.blocks.{i}"
            rows = 2 * (grid if i in whole else window) - 1
            shapes[f"{block}.norm1.weight"] = (width,)
            shapes[f"{block}.attn.rel_pos_h"] = (rows, head)
            shapes[f"{block}.attn.rel_pos_w"] = (rows, head)
            shapes[f"{block}.attn.qkv.weight"] = (3 * width, width)
            shapes[f"{block}.mlp.lin1.weight"] = (4 * width, width)
        state = {key: torch.empty(s, device="meta") for key, s in shapes.items()}
        state = dict(reversed(state.items())) if number % 2 else state
        cases[f"网格 {grid}、窗口 {window}、{heads} 个头、{depth} 层"] = (state,)
    return cases


def sizes_read(read_sizes, state):
    """四项；global_layers 先看是不是一串整数，再看是哪几层，最后看次序。"""
    got = read_sizes(state)
    keys = {"grid", "heads", "window", "global_layers"}
    if not isinstance(got, dict) or set(got) != keys:
        return got
    layers = got["global_layers"]
    if not isinstance(layers, tuple | list):
        raise Mistake(TUPLE)
    kinds = sorted({type(i).__name__ for i in layers})
    seen = {key: got[key] for key in ("grid", "heads", "window")}
    seen["global_layers 里的"] = "、".join(k for k in kinds if k != "int")
    seen["global_layers 是哪几层"] = set(layers)
    return seen | {"global_layers 的次序": tuple(layers)}


TUPLE = "global_layers 要一个元组。"
KEY = 'int(name.split(".")[2])'
LAYERS = "tuple(i for i in sorted(rows) if rows[i] == full)"
ORDERED = (
    "global_layers 的次序不对：按整数从小到大排（按字符串排，10 会排在 2 前面；"
    "state 里的次序也不保证）。"
)
ex_10_2 = Code(
    f"""
def read_sizes(state):
    _, grid, _, width = state["image_encoder.pos_embed"].shape
    rows = {{}}
    for name, tensor in state.items():
        if name.startswith("image_encoder.blocks.") and name.endswith("rel_pos_h"):
            rows[{KEY}] = len(tensor)
            head = tensor.shape[1]
    heads, full, small = width // head, 2 * grid - 1, min(rows.values())
    window, layers = (small + 1) // 2, {LAYERS}
    return dict(grid=grid, heads=heads, window=window, global_layers=layers)
""",
    states,
    Wrong("grid 要网格的边长，不是像素。", "grid=grid", "grid=16 * grid"),
    Wrong(
        "grid 取成了相对位置表的行数：网格在 pos_embed 的形状里。",
        "grid=grid",
        "grid=2 * grid - 1",
    ),
    Wrong("grid 写死了：看 pos_embed 的第二维。", "grid=grid", "grid=64"),
    Wrong("heads 取成了一个头的宽度：还要拿宽度除以它。", "width // head,", "head,"),
    Wrong("heads 取成了宽度：还要除以一个头的宽度。", "width // head,", "width,"),
    Wrong(
        "heads 多了三倍：qkv 的 weight 里叠着三份。",
        "width // head,",
        "3 * width // head,",
    ),
    Wrong("heads 写死了：宽度除以相对位置表的列数。", "width // head,", "12,"),
    Wrong("window 取成了表的行数：行数是 2·边长 − 1。", "(small + 1) // 2", "small"),
    Wrong("window 少了 1：(行数 + 1) / 2，不是行数 // 2。", "small + 1", "small"),
    Wrong("window 取成了全局那一层的：窗口比网格小。", "min(rows", "max(rows"),
    Wrong("window 写死了：由窗口层的行数 r 得 (r + 1) / 2。", "(small + 1) // 2", "14"),
    Wrong("global_layers 反了：这些是窗口层。", "== full", "< full"),
    Wrong("global_layers 里要整数，不是字符串。", KEY, 'name.split(".")[2]'),
    Wrong(ORDERED, "in sorted(rows)", "in rows"),
    Wrong(ORDERED, "in sorted(rows)", "in sorted(rows, key=str)"),
    Wrong("global_layers 多了 1：层号从 0 数。", KEY, f"1 + {KEY}"),
    Wrong(
        "global_layers 每层数了两次：rel_pos_h、rel_pos_w 看一张就够。",
        "in sorted(rows)",
        "in sorted([*rows, *rows])",
    ),
    Wrong(
        "global_layers 写死了：行数等于 2·网格 − 1 的那几层。", LAYERS, "(2, 5, 8, 11)"
    ),
    Wrong(TUPLE, LAYERS, "sum(rows[i] == full for i in rows)"),
    ask=sizes_read,
    form="要返回一个字典，四个键是：heads、window、grid、global_layers。",
    otherwise="grid 看 pos_embed，heads 是宽度除以表的列数，window 和 global_layers "
    "看表的行数。",
)


def arrays() -> dict[str, tuple]:
    """三种形状、两种类型。"""
    rng = np.random.default_rng(0)
    kept = {
        "pos_embed": rng.normal(size=(1, 4, 6, 3)).astype(np.float32),
        "norm.weight": rng.normal(size=(5,)).astype(np.float16),
        "proj.weight": rng.normal(size=(7, 2)).astype(np.float32),
        "proj.bias": rng.normal(size=(2, 3)).astype(np.float16),
    }
    return {f"{k}，{v.dtype}，形状 {v.shape}": (kept, k) for k, v in kept.items()}


def from_file(read_tensor, kept, name):
    """写成文件再读；读的时候抛的错，也算一种结果。"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.safetensors"
        save_file(kept, path, metadata={"format": "np"})
        try:
            got = read_tensor(path, name)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return "头没有切对"
        except ValueError:
            return "字节数和形状配不上"
        except TypeError as error:
            if "not understood" in str(error):
                return "不认得的类型"
            raise
    return got if isinstance(got, np.ndarray) or got is None else "不是 numpy 数组"


BASE, KIND = "8 + length + offset", '{"F16": "<f2", "F32": "<f4"}[entry["dtype"]]'
OUT = 'array.reshape(entry["shape"])'
ex_10_3 = Code(
    f"""
import json, struct
from pathlib import Path
def read_tensor(path, name):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    start, end = ({BASE} for offset in entry["data_offsets"])
    array = np.frombuffer(data[start:end], dtype={KIND})
    return {OUT}
""",
    arrays,
    Wrong(
        "头没有切对：长度是小端的 8 个字节，JSON 从第 8 个字节开始。", '"<Q"', '">Q"'
    ),
    Wrong(
        "头没有切对：长度是小端的 8 个字节，JSON 从第 8 个字节开始。",
        "data[8 : 8 + length]",
        "data[:length]",
    ),
    Wrong("data_offsets 从头之后数起，不是从文件开头。", BASE, "offset"),
    Wrong("忘了最前面的 8 个字节。", BASE, "length + offset"),
    Wrong("忘了加上头的长度。", BASE, "8 + offset"),
    Wrong(
        "字节数和形状配不上：F16 的一个数只有 2 字节，F32 的有 4 字节，看 dtype。",
        KIND,
        '"<f4"',
    ),
    Wrong(
        "字节数和形状配不上：F16 的一个数只有 2 字节，F32 的有 4 字节，看 dtype。",
        KIND,
        '"<f2"',
    ),
    Wrong(
        "numpy 不认得 F16、F32 这样的写法：要换成它的，例如小端的 <f4。",
        KIND,
        'entry["dtype"]',
    ),
    Wrong("数的字节次序反了，要小端。", '"<f2", "F32": "<f4"', '">f2", "F32": ">f4"'),
    Wrong("数都对，形状没有还原：reshape 成 entry 里的 shape。", OUT, "array"),
    Wrong("数都对，类型不对：照 entry 里的 dtype。", OUT, f'{OUT}.astype("f8")'),
    Wrong("读出来全是 1。", OUT, f"np.ones_like({OUT})"),
    Wrong("要返回 numpy 数组。", OUT, "torch.tensor(array)"),
    ask=from_file,
    dtypes=True,
    form="要返回 numpy 数组：检查起止字节和类型。",
    otherwise="数值不对：检查起止字节和类型。",
)

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


def pack(path: Path, content: object) -> None:
    """一个只有 data.pkl 的 .pth，新协议。"""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/version", "3\n")
        archive.writestr(f"{path.stem}/data.pkl", pickle.dumps(content, protocol=4))


CONTENTS = {
    "干净的": lambda path: torch.save({"w": torch.ones(2, 3)}, path),
    "新协议的空文件": lambda path: pack(path, {}),
    "有陷阱的": lambda path: torch.save({"x": Trap(), "y": Quiet()}, path),
    "新协议、有陷阱的": lambda path: pack(path, {"x": Trap()}),
}


def audited(suspicious, kind):
    """一份文件里的名字；陷阱动了也算一种结果。"""
    SPRUNG.clear()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pth"
        CONTENTS[kind](path)
        got = suspicious(path)
    if SPRUNG:
        return "陷阱动了"
    if got is None:
        return None
    return set(got) if isinstance(got, set | frozenset) else "不是集合"


STACKED = 'found.add(" ".join(texts[-2:]))'
ex_10_4 = Code(
    f"""
import pickletools, zipfile
SAFE = {{"collections OrderedDict", "torch FloatStorage"}}
SAFE |= {{"torch._utils _rebuild_tensor_v2"}}
def suspicious(path):
    with zipfile.ZipFile(path) as archive:
        (pkl,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        program = archive.read(pkl)
    found, texts = set(), []
    for op, arg, _ in pickletools.genops(program):
        if "UNICODE" in op.name:
            texts.append(arg)
        elif op.name == "GLOBAL":
            found.add(arg)
        elif op.name == "STACK_GLOBAL":
            {STACKED}
    return found - SAFE
""",
    lambda: {kind: (kind,) for kind in CONTENTS},
    Wrong(
        "陷阱动了：你执行了文件里的指令。只许用 pickletools 看。",
        "def suspicious(path):\n"
        "    state = torch.load(path, weights_only=False)\n    return set()\n",
    ),
    Wrong("忘了去掉 SAFE 里的名字。", " - SAFE", ""),
    Wrong("漏了 GLOBAL：torch.save 默认的协议写的就是它。", "found.add(arg)", "pass"),
    Wrong("漏了 STACK_GLOBAL：新协议的文件被当成了干净的。", STACKED, "pass"),
    Wrong(
        "只有模块，少了名字：要“模块 名字”，中间一个空格。",
        "found - SAFE",
        '{n.split(" ")[0] for n in found - SAFE}',
    ),
    Wrong(
        "只有名字，少了模块：要“模块 名字”，中间一个空格。",
        "found - SAFE",
        '{n.split(" ")[-1] for n in found - SAFE}',
    ),
    Wrong(
        "中间是空格，不是点号：照 GLOBAL 的写法。",
        "found - SAFE",
        '{n.replace(" ", ".") for n in found - SAFE}',
    ),
    Wrong("模块和名字反了：先放下的是模块。", "texts[-2:]", "texts[:-3:-1]"),
    Wrong("要返回一个集合。", "found - SAFE", "sorted(found - SAFE)"),
    ask=audited,
    form="要返回一个集合。",
    otherwise="名字不对。",
)
