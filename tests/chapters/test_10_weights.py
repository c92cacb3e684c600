"""第 10 章：笔记本里的函数与 sam_lite 一致，练习的检查说得出错在哪里。"""

import pickle

import pytest
import torch

from chapters.common import assert_verdicts, course
from sam_lite import weights
from sam_lite.config import PRESETS
from sam_lite.files import huggingface as weights_huggingface
from sam_lite.model import sam_from_config

STEM = "10_weights"

# ---- 笔记本里的函数 -------------------------------------------------------------


def shapes(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return sam_from_config(PRESETS[name]).state_dict()


@pytest.fixture(scope="module")
def tiny() -> dict[str, torch.Tensor]:
    return weights.load("tiny").state_dict()


@pytest.mark.parametrize("name", PRESETS)
def test_recognize_agrees_with_package(name: str) -> None:
    recognize = course.from_chapter(STEM, "recognize")
    state = shapes(name)
    assert recognize(state) == weights.recognize(state).name == name


def test_recognize_refuses_strangers() -> None:
    recognize = course.from_chapter(STEM, "recognize")
    state = shapes("vit_b")
    del state["image_encoder.blocks.3.norm1.weight"]
    assert recognize(state) == "vit_b"  # 少一个名字不影响认型号，对账才查它
    state = {n: t for n, t in state.items() if ".blocks.3." not in n}
    with pytest.raises(LookupError, match="11 层"):
        recognize(state)


@pytest.mark.parametrize("name", PRESETS)
def test_rename_agrees_with_package(name: str) -> None:
    """整本字典换过去再换回来，每个张量回到自己的名字下，与包里的函数相同。"""
    rename = course.from_chapter(STEM, "rename")
    table = weights_huggingface.NAMES
    state = shapes(name)
    theirs = weights_huggingface.to_huggingface(state)
    for key in [*theirs, "stranger.weight", "vision_encoder.layers.3.layer_norm12.x"]:
        assert rename(key, table) == weights_huggingface.rename(key, table)
    del theirs[weights_huggingface.DUPLICATE]
    back = {rename(key, table): tensor for key, tensor in theirs.items()}
    assert set(back) == set(state)
    assert all(back[key] is state[key] for key in state)


def test_replace_collides() -> None:
    """笔记本里说逐行 replace 会撞名，确实会。"""
    careless = course.from_chapter(STEM, "rename_by_replace")
    table = course.from_chapter(STEM, "TOY")
    layers = ("proj_in", "layers.0", "proj_out")
    names = {careless(f"iou_prediction_head.{layer}", table) for layer in layers}
    assert len(names) == 2


def test_compare_finds_each_fault() -> None:
    compare = course.from_chapter(STEM, "compare")
    expected = shapes("vit_b")
    key, other = "mask_decoder.iou_token.weight", "image_encoder.neck.0.weight"
    assert compare(expected, expected) == ([], [], [])
    spoiled = {**expected, "stranger": torch.zeros(1), other: torch.zeros(2, 3)}
    del spoiled[key]
    assert compare(expected, spoiled) == ([key], ["stranger"], [other])


def test_assemble_agrees_with_package(tiny: dict[str, torch.Tensor]) -> None:
    """笔记本的 assemble 装出的模型，名字、数值、均值都与 sam_lite.load 的相同。"""
    assemble = course.from_chapter(STEM, "assemble")
    theirs = weights.load("tiny")
    mine = assemble(PRESETS["tiny"], tiny)
    assert not mine.training
    assert list(mine.state_dict()) == list(tiny)
    for name, tensor in mine.state_dict().items():
        assert torch.equal(tensor, tiny[name]), name
    assert torch.equal(mine.pixel_mean, theirs.pixel_mean)
    assert torch.equal(mine.pixel_std, theirs.pixel_std)
    image = torch.rand(3, 40, 56) * 255
    torch.testing.assert_close(mine.preprocess(image), theirs.preprocess(image))
    with pytest.raises(ValueError, match="iou_token"):
        wrong = {n: t for n, t in tiny.items() if "iou_token" not in n}
        assemble(PRESETS["tiny"], wrong)


def test_wanted_looks_without_executing() -> None:
    wanted = course.from_chapter(STEM, "wanted")

    class Note:
        def __reduce__(self):
            return print, ("不该看到这一句",)

    program = pickle.dumps(Note(), protocol=2)
    assert dict(wanted(program)) == {"__builtin__ print": 1}


def test_fingerprint_sees_names_and_numbers() -> None:
    """对调两个同形状的张量、改一个数，指纹都变；换次序不变。"""
    fingerprint = course.from_chapter(STEM, "fingerprint")
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    base = fingerprint({"h": a, "w": b})
    assert base == fingerprint({"w": b.clone(), "h": a})
    assert base != fingerprint({"h": b, "w": a})
    assert base != fingerprint({"h": a, "v": b})
    assert base != fingerprint({"h": a, "w": b + 1e-6})
    assert base != fingerprint({"h": a.T.contiguous(), "w": b})


# ---- 练习 ----------------------------------------------------------------------

HEAD = "image_encoder.blocks."


def sizes(
    heads: str = "width // head",
    window: str = "(min(rows.values()) + 1) // 2",
    layers: str = "tuple(i for i in sorted(rows) if rows[i] == 2 * grid - 1)",
    key: str = "int(name.split('.')[2])",
    grid: str = "grid",
) -> str:
    """练习 10.2 的一份答案，可以改坏一处。"""
    return f"""
def read_sizes(state):
    _, grid, _, width = state["image_encoder.pos_embed"].shape
    rows = {{}}
    for name, tensor in state.items():
        if name.startswith("{HEAD}") and name.endswith("rel_pos_h"):
            rows[{key}] = len(tensor)
            head = tensor.shape[1]
    return {{
        "heads": {heads},
        "window": {window},
        "grid": {grid},
        "global_layers": {layers},
    }}
"""


def read(
    order: str = "<",
    base: str = "8 + length",
    kind: str = "{'F16': '<f2', 'F32': '<f4'}[entry['dtype']]",
    out: str = "array.reshape(entry['shape'])",
) -> str:
    """练习 10.3 的一份答案，可以改坏一处。"""
    return f"""
def read_tensor(path, name):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("{order}Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    start, end = ({base} + offset for offset in entry["data_offsets"])
    array = np.frombuffer(data[start:end], dtype={kind})
    return {out}
"""


STACKED = 'found.add(" ".join(texts[-2:]))'
PLAIN = "found.add(arg)"


def audit(
    plain: str = PLAIN,
    stacked: str = STACKED,
    out: str = "found - SAFE",
) -> str:
    """练习 10.4 的一份答案，可以改坏一处。"""
    return f"""
SAFE = {{
    "collections OrderedDict",
    "torch FloatStorage",
    "torch._utils _rebuild_tensor_v2",
}}


def suspicious(path):
    with zipfile.ZipFile(path) as archive:
        (pkl,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        program = archive.read(pkl)
    found, texts = set(), []
    for op, arg, _ in pickletools.genops(program):
        if "UNICODE" in op.name:
            texts.append(arg)
        elif op.name == "GLOBAL":
            {plain}
        elif op.name == "STACK_GLOBAL":
            {stacked}
    return {out}
"""


WRONG = {
    "ex-10-1": [
        ("counts = (156, 434)", "次序反了"),
        ("counts = (398, 120)", "不止 120"),
        ("counts = (458, 180)", "按比例"),
        ("counts = (470, 192)", "只多一层"),
        ("counts = (412, 134)", "编码器的一层"),
        ("counts = (422, 144)", "MLP 和规范化"),
        ("counts = (416, 138)", "各算两个"),
        ("counts = (426, 148)", "四个规范化"),
        ("counts = (430, 152)", "忘了 MLP"),
        ("counts = (433, 155)", "数一层有几个"),
        ("counts = (398, 156)", "忘了加上解码器"),
        ("counts = (350, 156)", "忘了编码器"),
        ("counts = (602, 156)", "已经数过"),
        ("counts = (435, 156)", "146"),
        ("counts = 434", "两个整数"),
        ("counts = ('434', '156')", "字符串"),
    ],
    "ex-10-2": [
        (sizes(heads="head"), "一个头的宽度"),
        (sizes(heads="width"), "取成了宽度"),
        (sizes(heads="3 * width // head"), "三倍"),
        (sizes(heads="12"), "除以相对位置表的列数"),
        (sizes(window="min(rows.values())"), "表的行数"),
        (sizes(window="min(rows.values()) // 2"), "少了 1"),
        (sizes(window="(max(rows.values()) + 1) // 2"), "全局那一层"),
        (sizes(window="14"), "由窗口层的行数"),
        (sizes(grid="16 * grid"), "不是像素"),
        (sizes(grid="2 * grid - 1"), "行数"),
        (sizes(grid="64"), "第二维"),
        (
            sizes(layers="tuple(i for i in sorted(rows) if rows[i] < 2 * grid - 1)"),
            "反了",
        ),
        (
            sizes(layers="tuple(i for i in rows if rows[i] == 2 * grid - 1)"),
            "次序不对",
        ),
        (
            sizes(
                layers="tuple(int(i) for i in sorted(rows) if rows[i] == 2 * grid - 1)",
                key="name.split('.')[2]",
            ),
            "按整数",
        ),
        (sizes(key="name.split('.')[2]"), "不是字符串"),
        (sizes(key="1 + int(name.split('.')[2])"), "从 0 数"),
        (sizes(layers="(2, 5, 8, 11)"), "global_layers"),
        (
            sizes(layers="sum(r == 2 * grid - 1 for r in rows.values())"),
            "要一个元组",
        ),
        ("def read_sizes(state):\n    return 12, 14, 64, (2, 5)", "字典"),
    ],
    "ex-10-3": [
        (read(order=">"), "小端"),
        (read(base="0"), "从头之后数起"),
        (read(base="length"), "8 个字节"),
        (read(base="8"), "头的长度"),
        (read(kind="'<f4'"), "F16"),
        (read(kind="entry['dtype']"), "numpy 不认得"),
        (read(kind="{'F16': '>f2', 'F32': '>f4'}[entry['dtype']]"), "反了"),
        (read(out="array"), "形状"),
        (read(out="array.reshape(entry['shape']).astype('f8')"), "类型应该是"),
        (read(out="array.reshape(entry['shape']) + 1"), "数值不对"),
        (
            read(out="torch.from_numpy(array.copy()).reshape(entry['shape'])"),
            "numpy 数组",
        ),
    ],
    "ex-10-4": [
        (audit(stacked="pass"), "漏了 STACK_GLOBAL"),
        (audit(out="found"), "SAFE"),
        (audit(out="sorted(found - SAFE)"), "集合"),
        (audit(out="{n.split(' ')[0] for n in found - SAFE}"), "少了名字"),
        (audit(out="{n.split(' ')[-1] for n in found - SAFE}"), "少了模块"),
        (audit(out="{n.replace(' ', '.') for n in found - SAFE}"), "空格"),
        (audit(plain="pass"), "漏了 GLOBAL"),
        (
            audit(stacked='found.add(" ".join(reversed(texts[-2:])))'),
            "反了",
        ),
        (
            "def suspicious(path):\n"
            "    state = torch.load(path, weights_only=False)\n"
            "    return set()\n",
            "陷阱动了",
        ),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)
