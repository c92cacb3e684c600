"""第 7 章的练习：对的答案、典型的错误和提示。"""

import course
import torch
from checks.common import Bug, Code, Like, Part, Values, Wrong, shake
from course import Mistake

from sam_lite.two_way import TwoWayAttentionBlock, TwoWayTransformer


def look(name: str, asking: int, answering: int) -> Part:
    """一种注意力的权重的形状。"""
    turned = {(8, answering, asking): f"{name}的行和列反了：问的在前。"}
    three = Like(10, lambda s: not isinstance(s, tuple) or len(s) != 3)
    return Part(
        (8, asking, answering),
        f"{name}的形状不对。",
        {
            three: f"{name}要三个整数：(头数, 问的, 答的)。",
            Like((12, asking, answering), lambda s: s[0] == 12): (
                f"{name}：12 是 vit_b 编码器的头数，解码器是 8 个。"
            ),
            Like((8, 10, 64), lambda s: 64 in s[1:]): (
                f"{name}：64 是一边的格数，一共 64×64 格。"
            ),
        }
        | (turned if asking != answering else {}),
    )


ex_07_1 = Values(
    "要一个字典，四个键照题目原样。",
    {
        "词元": Part(
            10,
            "词元数不对：输出词元、点、框的角，一样一样数。",
            {
                Like(
                    10.0, lambda n: not isinstance(n, int)
                ): "词元的个数要是一个整数。",
                5: "漏了 5 个输出词元：1 个 IoU 词元，4 个掩码词元。",
                7: "掩码词元是 4 个，不是 1 个。",
                9: "少了一个：框是两个角，两个词元；掩码词元是 4 个，不是 3 个。",
                11: "有框时不补填充。",
                12: "有框时不补填充；框是两个词元，掩码词元是 4 个。",
            },
        ),
        "词元看词元": look("词元看词元", 10, 10),
        "词元看图像": look("词元看图像", 10, 4096),
        "图像看词元": look("图像看词元", 4096, 10),
    },
)

REFUSED = "不要直接调用 block，把四步写出来。"


def refuse(*args):
    raise Mistake(REFUSED)


def layer_inputs() -> list[tuple]:
    """非第 0 层的一层，两种尺寸。"""
    cases = []
    for B, N, M in ((2, 3, 8), (1, 5, 6)):
        block = shake(TwoWayAttentionBlock(12, 3, 20))
        block.forward = refuse
        cases.append((block, *(torch.randn(B, n, 12) for n in (N, M, N, M))))
    return cases


MLP = "queries = block.norm3(queries + block.mlp(queries))"
LAST_Q = "k, q = k, queries + query_pe"
ex_07_2 = Code(
    f"""
def mended_forward(block, queries, keys, query_pe, key_pe):
    q = queries + query_pe
    queries = block.norm1(queries + block.self_attn(q, q, queries))
    q, k = queries + query_pe, keys + key_pe
    queries = queries + block.cross_attn_token_to_image(q, k, keys)
    queries = block.norm2(queries)
    {MLP}
    {LAST_Q}
    keys = keys + block.cross_attn_image_to_token(k, q, queries)
    return queries, block.norm4(keys)
""",
    layer_inputs,
    Bug("②的值里还加着位置编码。", "to_image(q, k, keys)", "to_image(q, k, k)"),
    Bug(
        "MLP 还是先规范化。", MLP, "queries = queries + block.mlp(block.norm3(queries))"
    ),
    Bug("④还沿用旧的 q。", LAST_Q, ""),
    Wrong(
        "①丢了残差：那是第 0 层的写法。",
        "norm1(queries + block.self_attn(q, q, queries))",
        "norm1(block.self_attn(q, q, queries))",
    ),
    Wrong("④的键忘了加 query_pe。", LAST_Q, "q = queries"),
    Wrong("④的值里加了位置编码。", "to_token(k, q, queries)", "to_token(k, q, q)"),
    Wrong("④丢了残差。", "keys = keys + block", "keys = block"),
    Wrong("②之后忘了 norm2。", "    queries = block.norm2(queries)\n", ""),
    Wrong("④之后忘了 norm4。", "block.norm4(keys)", "keys"),
    Wrong(
        "两样的次序反了：先 queries，后 keys。",
        "return queries, block.norm4(keys)",
        "return block.norm4(keys), queries",
    ),
    Wrong(
        "queries 对了，keys 不对：查第四步。",
        "to_token(k, q, queries)",
        "to_token(keys, q, queries)",
    ),
    Wrong(REFUSED, LAST_Q, "return block(queries, keys, query_pe, key_pe)"),
    form="要返回两样：(queries, keys)。",
    otherwise="从第一步起，逐步对照 7.4 节的表和 7.5 节的图；"
    "queries 对了而 keys 不对，查第四步。",
    names=("queries", "keys"),
)


def unchanged(name: str, right: bool, why: str) -> tuple[str, Part]:
    return name, Part(right, f"“{name}”答错了：{why}")


ex_07_3 = Values(
    "要一个字典，五个键照题目原样。",
    dict(
        [
            unchanged("词元换个次序，看图像", True, "图像从词元加权求和，和次序无关。"),
            unchanged(
                "把一个词元重复一遍，看图像", False, "重复的那个在 softmax 里占了两份。"
            ),
            unchanged(
                "每个 k_proj.bias 换成随机数，看两边",
                True,
                "同一个查询的每个分数都多了同一个数，softmax 之后没有影响。",
            ),
            unchanged(
                "每个 v_proj.bias 换成随机数，看两边",
                False,
                "份额加起来是 1，加权之后偏置原样留下；"
                "后面的规范化只减得掉各通道公共的那一份。",
            ),
            unchanged(
                "图像的格子和 image_pe 一起换次序，看词元",
                True,
                "每一格的内容和位置没有拆散，只是排列的次序变了。",
            ),
        ]
    ),
)


def attentions() -> list[tuple]:
    Attention = course.from_chapter("07_two_way", "Attention")
    cases = []
    for heads, rate in ((3, 2), (2, 1)):
        keys, key_pe = torch.randn(1, 8, 12), torch.randn(1, 8, 12)
        asked = [torch.randn(B, N, 12) for B, N in ((1, 5), (1, 2), (2, 3))]
        cases.append((shake(Attention(12, heads, rate)), keys, key_pe, asked))
    return cases


def remembered(remember, attn, keys, key_pe, asked):
    """几次提问的结果，和提问时又投影了几次图像。"""
    look = course.answered(remember(attn, keys, key_pe))
    if not callable(look):
        return "不是函数"
    calls = []
    for layer in (attn.k_proj, attn.v_proj):
        layer.register_forward_hook(lambda *args: calls.append(1))
    return {"look(q)": [look(q) for q in asked], "又投影了": bool(calls)}


AGAIN = (
    "结果对了，可是 look 里又调用了 k_proj 或 v_proj：每点一下还是要给每一格重算一遍。"
)
SHARE = "(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)"
ex_07_4 = Code(
    f"""
def remember(attn, keys, key_pe):
    split, whole = attn.separate_heads, attn.internal_dim
    k = split(attn.k_proj(keys + key_pe))
    v = split(attn.v_proj(keys))
    def look(q):
        q = split(attn.q_proj(q))
        share = {SHARE}
        return attn.out_proj((share @ v).transpose(1, 2).flatten(2))
    return look
""",
    attentions,
    Wrong("值里不加位置编码：v 来自 keys。", "v_proj(keys)", "v_proj(keys + key_pe)"),
    Wrong("键忘了加 key_pe。", "k_proj(keys + key_pe)", "k_proj(keys)"),
    Wrong("忘了除以 √d。", " / q.shape[-1] ** 0.5", ""),
    Wrong("除的是一个头的宽，不是全部的内部宽度。", "q.shape[-1] **", "whole **"),
    Wrong(
        "没有拆成多个头。",
        "attn.separate_heads",
        "lambda x: x[:, None]",
        "q.shape[-1] **",
        "(whole // attn.num_heads) **",
    ),
    Wrong("忘了 softmax。", ".softmax(-1)", ""),
    Wrong("忘了 out_proj。", "attn.out_proj(", "("),
    Wrong(
        AGAIN,
        "def remember(attn, keys, key_pe):\n"
        "    return lambda q: attn(q, keys + key_pe, keys)\n",
    ),
    Wrong(
        "要返回一个函数 look(q)，不是结果本身。",
        "def remember(attn, keys, key_pe):\n"
        "    return attn(keys, keys + key_pe, keys)\n",
    ),
    ask=remembered,
    form="要返回一个函数 look(q)，它返回一个张量。",
    otherwise="和 attn(q, keys + key_pe, keys) 不同：逐步对照 table 和 forward。",
)


def transformers() -> dict[str, tuple]:
    """两种层数，两种大小。"""
    cases = {}
    for depth, B, h, w in ((2, 2, 2, 3), (3, 1, 3, 2)):
        sizes = (B, 12, h, w), (1, 12, h, w), (B, 4, 12)
        inputs = (torch.randn(size) for size in sizes)
        cases[f"{depth} 层"] = shake(TwoWayTransformer(depth, 12, 3, 20)), *inputs
    return cases


def as_list(answer, *args):
    """叠成一个张量的也收。"""
    states = answer(*args)
    stacked = isinstance(states, torch.Tensor) and states.ndim == 4
    return list(states) if stacked else states


CALL = "queries, keys = layer(queries, keys, tokens, key_pe)"
ex_07_5 = Code(
    f"""
def image_after_layers(transformer, image, image_pe, tokens):
    keys, key_pe = (x.flatten(2).permute(0, 2, 1) for x in (image, image_pe))
    queries, states = tokens, [keys]
    for layer in transformer.layers:
        {CALL}
        states.append(keys)
    return states
""",
    transformers,
    Wrong("少了一份：进第 0 层之前的那一份也要，一共 depth + 1 份。", "[keys]", "[]"),
    Wrong(
        "通道还在第二维：flatten(2) 之后要 permute。", ".permute(0, 2, 1)", "", CALL, ""
    ),
    Wrong(
        "用 reshape 换轴会打乱数值：先 flatten(2) 再 permute。",
        "x.flatten(2).permute(0, 2, 1)",
        "x.reshape(len(x), -1, x.shape[1])",
    ),
    Wrong(
        "第三个参数传成了更新过的 queries：query_pe 一直是最初的词元。",
        "keys, tokens, key_pe",
        "keys, queries, key_pe",
    ),
    Wrong("忘了图像的位置编码。", "tokens, key_pe)", "tokens, 0 * key_pe)"),
    Wrong("忘了 query_pe。", "keys, tokens, key_pe", "keys, 0 * tokens, key_pe"),
    Wrong(
        "queries 没有更新：每层都从最初的词元出发。",
        CALL,
        "_, keys = layer(tokens, keys, tokens, key_pe)",
    ),
    Wrong(
        "每一份都是最后的样子：每过一层就要收一次。",
        "return states",
        "return [keys for _ in states]",
    ),
    ask=as_list,
    form="要返回一个列表，一共 depth + 1 份。",
    otherwise="从头一份起，逐份核对。",
    names=tuple(f"第 {i} 份" for i in range(4)),
)
