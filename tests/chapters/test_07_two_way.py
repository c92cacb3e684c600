"""第 7 章：笔记本里的类与 sam_lite 一致，练习的检查说得出错在哪里。"""

import pytest
import torch
from torch import nn

from chapters.common import assert_verdicts, course, load, shake
from sam_lite import two_way
from sam_lite.config import PRESETS
from sam_lite.model import sam_from_config

STEM = "07_two_way"


def part(name: str):
    return course.from_chapter(STEM, name)


def agree(mine: nn.Module, theirs: nn.Module, *inputs: torch.Tensor) -> None:
    for a, b in zip(mine(*inputs), theirs(*inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("heads, rate", [(1, 1), (4, 1), (3, 2), (2, 3)])
def test_attention(heads: int, rate: int) -> None:
    theirs = shake(two_way.Attention(12, heads, rate))
    mine = load(part("Attention")(12, heads, rate), theirs)
    q, k, v = (torch.randn(2, n, 12) for n in (5, 8, 8))
    torch.testing.assert_close(mine(q, k, v), theirs(q, k, v), atol=1e-4, rtol=1e-4)
    table = mine.table(q, k)
    assert table.shape == (2, heads, 5, 8)
    torch.testing.assert_close(table.sum(-1), torch.ones(2, heads, 5))
    assert mine.internal_dim == theirs.internal_dim
    with pytest.raises(AssertionError, match="num_heads"):
        part("Attention")(12, 5)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_block(skip: bool, rate: int, activation: type[nn.Module]) -> None:
    options = (12, 3, 20, activation, rate, skip)
    theirs = shake(two_way.TwoWayAttentionBlock(*options))
    mine = load(part("TwoWayAttentionBlock")(*options), theirs)
    assert [m.eps for m in mine.modules() if isinstance(m, nn.LayerNorm)] == [1e-5] * 4
    image_pe = torch.randn(1, 8, 12)  # 位置编码对一批共用
    shapes = ((2, 5, 12), (2, 8, 12), (2, 5, 12))
    agree(mine, theirs, *(torch.randn(shape) for shape in shapes), image_pe)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_transformer(depth: int) -> None:
    options = (depth, 12, 3, 20)
    theirs = shake(two_way.TwoWayTransformer(*options))
    mine = load(part("TwoWayTransformer")(*options), theirs)
    image, pe = torch.randn(2, 12, 3, 4), torch.randn(1, 12, 3, 4)
    agree(mine, theirs, image, pe, torch.randn(2, 5, 12))
    copied = part("transformer_like")(theirs)
    agree(copied, theirs, image, pe, torch.randn(2, 5, 12))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_the_same_keys_and_shapes(name: str) -> None:
    """四个型号的 Transformer 都装得进 transformer_like 造出的那个。"""
    with torch.device("meta"):
        theirs = sam_from_config(PRESETS[name]).mask_decoder.transformer
        mine = part("transformer_like")(theirs)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in mine.state_dict().items()} == expected
    heads = [m.num_heads for m in mine.modules() if hasattr(m, "num_heads")]
    assert set(heads) == {theirs.num_heads}


def test_walk_with_the_tokens_as_query_pe_is_the_forward() -> None:
    """动手改坏用的 walk，开关都不动时就是原样。"""
    mine = shake(part("TwoWayTransformer")(2, 12, 3, 20))
    image, pe = torch.randn(2, 12, 3, 4), torch.randn(1, 12, 3, 4)
    tokens = torch.randn(2, 5, 12)
    for a, b in zip(
        part("walk")(mine, image, pe, tokens, tokens),
        mine(image, pe, tokens),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_decoder_inputs_are_those_of_the_predictor() -> None:
    """与 sam_lite 交给 Transformer 的三样相同，正点、负点都有。"""
    import numpy as np

    import sam_lite

    torch.manual_seed(0)
    predictor = sam_lite.SamPredictor(sam_lite.load("tiny"))
    predictor.set_image(course.photo("coins")[:100, :160])
    seen = []
    predictor.model.mask_decoder.transformer.register_forward_pre_hook(
        lambda module, args: seen.extend(args)
    )
    prompt = np.array([[20.0, 30.0], [120.0, 60.0]]), np.array([1, 0])
    predictor.predict(*prompt)
    inputs = part("decoder_inputs")(predictor, *prompt)
    for a, b in zip(inputs, seen, strict=True):
        torch.testing.assert_close(a, b)


def sizes(n=10, own=(8, 10, 10), look=(8, 10, 4096), back=(8, 4096, 10)) -> str:
    pairs = {"词元": n, "词元看词元": own, "词元看图像": look, "图像看词元": back}
    return f"sizes = {pairs}"


STEPS = [
    "q = queries + query_pe",
    "queries = block.norm1(queries + block.self_attn(q, q, queries))",
    "q, k = queries + query_pe, keys + key_pe",
    "queries = queries + block.cross_attn_token_to_image(q, k, keys)",
    "queries = block.norm2(queries)",
    "queries = block.norm3(queries + block.mlp(queries))",
    "q = queries + query_pe",
    "keys = keys + block.cross_attn_image_to_token(k, q, queries)",
    "return queries, block.norm4(keys)",
]
PRE_MLP = "queries = queries + block.mlp(block.norm3(queries))"
PLACED = "queries = queries + block.cross_attn_token_to_image(q, k, k)"


def forward(changes: dict[int, str]) -> str:
    """mended_forward 的代码，有几步换成别的；换成空的就去掉。"""
    lines = [changes.get(i, line) for i, line in enumerate(STEPS)]
    body = "".join(f"    {line}\n" for line in lines if line)
    return f"def mended_forward(block, queries, keys, query_pe, key_pe):\n{body}"


BIASES = ("词元换个次序，看图像", "把一个词元重复一遍，看图像")
BIASES += ("每个 k_proj.bias 换成随机数，看两边", "每个 v_proj.bias 换成随机数，看两边")
BIASES += ("图像的格子和 image_pe 一起换次序，看词元",)


def truth(*values: object) -> str:
    return f"unchanged = {dict(zip(BIASES, values, strict=True))}"


def remember(
    k: str = "attn.k_proj(keys + key_pe)",
    v: str = "attn.v_proj(keys)",
    scale: str = "/ q.shape[-1] ** 0.5",
    softmax: str = ".softmax(-1)",
    out: str = "attn.out_proj",
    inside: bool = False,
) -> str:
    """remember 的代码；inside 把投影放进 look 里。"""
    projections = [
        f"k = attn.separate_heads({k})",
        f"v = attn.separate_heads({v})",
    ]
    inner = [
        "q = attn.separate_heads(attn.q_proj(q))",
        f"share = (q @ k.transpose(-2, -1) {scale}){softmax}",
        f"return {out}((share @ v).transpose(1, 2).flatten(2))",
    ]
    outer = [] if inside else projections
    inner = (projections if inside else []) + inner
    lines = ["def remember(attn, keys, key_pe):"]
    lines += [f"    {line}" for line in outer]
    lines += ["    def look(q):"] + [f"        {line}" for line in inner]
    return "\n".join([*lines, "    return look\n"])


ONE_HEAD = """
def remember(attn, keys, key_pe):
    k, v = attn.k_proj(keys + key_pe), attn.v_proj(keys)
    def look(q):
        d = attn.internal_dim // attn.num_heads
        share = (attn.q_proj(q) @ k.transpose(-2, -1) / d**0.5).softmax(-1)
        return attn.out_proj(share @ v)
    return look
"""


def layers(
    flat: str = "x.flatten(2).permute(0, 2, 1)",
    call: str = "queries, keys = layer(queries, keys, tokens, key_pe)",
    start: str = "[keys]",
    result: str = "states",
) -> str:
    return f"""
def image_after_layers(transformer, image, image_pe, tokens):
    keys, key_pe = ({flat} for x in (image, image_pe))
    queries, states = tokens, {start}
    for layer in transformer.layers:
        {call}
        states.append(keys)
    return {result}
"""


WRONG = {
    "ex-07-1": [
        (sizes(n=11), "不补填充"),
        (sizes(n=5), "漏了 5 个输出词元"),
        (sizes(n=7), "掩码词元是 4 个，不是 1 个"),
        (sizes(n=9), "框是两个角"),
        (sizes(n=13), "词元数不对"),
        (sizes(n=10.0), "一个整数"),
        (sizes(own=(12, 10, 10)), "编码器的头数"),
        (sizes(look=(8, 10, 64)), "64 是一边的格数"),
        (sizes(look=(8, 4096, 10)), "词元看图像的行和列反了"),
        (sizes(back=(8, 10, 4096)), "图像看词元的行和列反了"),
        (sizes(own=(10, 10)), "三个整数"),
        (sizes(back=(8, 4096, 5)), "图像看词元的形状不对"),
        ("sizes = {'词元': 10}", "四个键"),
    ],
    "ex-07-2": [
        (forward({3: PLACED, 5: PRE_MLP, 6: ""}), "还有 3 处"),
        (forward({3: PLACED}), "还有 1 处没有改：②的值"),
        (forward({5: PRE_MLP, 6: ""}), "MLP 还是先规范化；④还沿用"),
        (forward({6: ""}), "旧的 q"),
        (forward({1: "queries = block.norm1(block.self_attn(q, q, queries))"}), "①丢"),
        (forward({6: "q = queries"}), "④的键忘了"),
        (
            forward({7: "keys = keys + block.cross_attn_image_to_token(k, q, q)"}),
            "④的值",
        ),
        (
            forward({7: "keys = block.cross_attn_image_to_token(k, q, queries)"}),
            "④丢了残差",
        ),
        (forward({4: ""}), "忘了 norm2"),
        (forward({8: "return queries, keys"}), "忘了 norm4"),
        (forward({0: "q = queries"}), "queries 不对"),
        (
            forward({7: "keys = keys + block.cross_attn_image_to_token(keys, q, q)"}),
            "查第四步",
        ),
        (forward({8: "return queries"}), "两样"),
        (forward({8: "return keys, queries"}), "形状"),
        (forward({0: "return block(queries, keys, query_pe, key_pe)"}), "不要直接"),
    ],
    "ex-07-3": [
        (truth(False, False, True, False, True), "和次序无关"),
        (truth(True, True, True, False, True), "占了两份"),
        (truth(True, False, False, False, True), "softmax 之后没有影响"),
        (truth(True, False, True, True, True), "偏置原样留下"),
        (truth(True, False, True, False, False), "没有拆散"),
        (truth(1, False, True, False, True), "True 或 False"),
        ("unchanged = {}", "五个键"),
    ],
    "ex-07-4": [
        (remember(v="attn.v_proj(keys + key_pe)"), "值里不加"),
        (remember(k="attn.k_proj(keys)"), "忘了加 key_pe"),
        (remember(scale=""), "忘了除以"),
        (remember(scale="/ attn.internal_dim ** 0.5"), "一个头的宽"),
        (remember(softmax=""), "忘了 softmax"),
        (remember(inside=True), "又调用了"),
        (ONE_HEAD, "没有拆成多个头"),
        (
            "def remember(attn, keys, key_pe):\n"
            "    return lambda q: attn(q, keys + key_pe, keys)\n",
            "又调用了",
        ),
        (
            "def remember(attn, keys, key_pe):\n"
            "    return attn(keys, keys + key_pe, keys)\n",
            "一个函数",
        ),
        (remember(out=""), "形状"),
    ],
    "ex-07-5": [
        (layers(start="[]"), "进第 0 层之前"),
        (layers(flat="x.flatten(2)", call="pass"), "要 permute"),
        (layers(flat="x.reshape(len(x), -1, x.shape[1])"), "打乱"),
        (
            layers(call="queries, keys = layer(queries, keys, queries, key_pe)"),
            "一直是最初的词元",
        ),
        (
            layers(call="queries, keys = layer(queries, keys, tokens, 0 * key_pe)"),
            "图像的位置编码",
        ),
        (
            layers(call="queries, keys = layer(queries, keys, 0 * tokens, key_pe)"),
            "忘了 query_pe",
        ),
        (
            layers(call="_, keys = layer(tokens, keys, tokens, key_pe)"),
            "没有更新",
        ),
        (layers(result="[keys for _ in states]"), "每过一层就要收"),
        (layers(result="states[:1] + states[:0:-1]"), "从第 1 份起"),
        (layers(result="states + states"), "这里有"),
        (layers(result="keys"), "列表"),
    ],
}


def test_exercises() -> None:
    assert_verdicts(STEM, WRONG)
