"""第 7 章的练习怎么检查。"""

from itertools import product

import course
import torch
from checks.common import must_be, same, shake
from course import Mistake, answered, expect

from sam_lite.two_way import TwoWayAttentionBlock, TwoWayTransformer


def ex_07_1(answer) -> None:
    """5 + 2 + 3 = 10 个词元；问的是行，答的是列。"""
    names = ("词元", "词元看词元", "词元看图像", "图像看词元")
    expect(
        isinstance(answer, dict) and set(answer) == set(names),
        "要一个字典，四个键照题目原样。",
    )
    for name in names:
        answered(answer[name])
    hints = {
        5: "漏了 5 个输出词元：1 个 IoU 词元，4 个掩码词元。",
        7: "掩码词元是 4 个，不是 1 个。",
        9: "少了一个：框是两个角，两个词元；掩码词元是 4 个，不是 3 个。",
        11: "有框时不补填充。",
        12: "有框时不补填充；框是两个词元，掩码词元是 4 个。",
    }
    n = answer["词元"]
    expect(isinstance(n, int), "词元的个数要是一个整数。")
    expect(n == 10, hints.get(n, "词元数不对：输出词元、点、框的角，一样一样数。"))
    right = {"词元看词元": (10, 10), "词元看图像": (10, 4096), "图像看词元": (4096, 10)}
    for name, (asking, answering) in right.items():
        got = answer[name]
        expect(
            isinstance(got, (tuple, list)) and len(got) == 3,
            f"{name}要三个整数：(头数, 问的, 答的)。",
        )
        got = tuple(answered(x) for x in got)
        expect(got[0] != 12, f"{name}：12 是 vit_b 编码器的头数，解码器是 8 个。")
        expect(64 not in got[1:], f"{name}：64 是一边的格数，一共 64×64 格。")
        if asking != answering:
            turned = got == (8, answering, asking)
            expect(not turned, f"{name}的行和列反了：问的在前。")
        expect(got == (8, asking, answering), f"{name}的形状不对。")


def ex_07_2(answer) -> None:
    """非第 0 层的一层，两种尺寸都要和 sam_lite 的相同。"""
    for B, N, M in ((2, 3, 8), (1, 5, 6)):
        block = shake(TwoWayAttentionBlock(12, 3, 20))
        inputs = tuple(torch.randn(B, n, 12) for n in (N, M, N, M))
        with torch.no_grad():
            right = block(*inputs)
            block.forward = refuse
            got = answered(answer(block, *inputs))
            expect(
                isinstance(got, (tuple, list)) and len(got) == 2,
                "要返回两样：(queries, keys)。",
            )
            got = (
                must_be(got[0], (B, N, 12), "queries "),
                must_be(got[1], (B, M, 12), "keys "),
            )
            if not (same(got[0], right[0]) and same(got[1], right[1])):
                raise Mistake(forward_hint(block, inputs, got))


def refuse(*args):
    raise Mistake("不要直接调用 block，把四步写出来。")


def forward(block, inputs, *, value=0, early=0, old=0, **other) -> tuple:
    """一层的 forward；每个开关打开一处错误。"""
    queries, keys, query_pe, key_pe = inputs
    q = queries + query_pe
    first = block.self_attn(q, q, queries)
    queries = block.norm1(first if other.get("skip") else queries + first)
    q, k = queries + query_pe, keys + key_pe
    seen = block.cross_attn_token_to_image(q, k, k if value else keys)
    queries = queries + seen
    if not other.get("no_norm2"):
        queries = block.norm2(queries)
    if early:
        queries = queries + block.mlp(block.norm3(queries))
    else:
        queries = block.norm3(queries + block.mlp(queries))
    if not old:
        q = queries if other.get("bare") else queries + query_pe
    v = q if other.get("value4") else queries
    back = block.cross_attn_image_to_token(k, q, v)
    keys = back if other.get("lost") else keys + back
    return queries, keys if other.get("no_norm4") else block.norm4(keys)


def forward_hint(block, inputs, got) -> str:
    """还留着哪几处错，或者添了什么错。"""
    words = ("②的值里还加着位置编码", "MLP 还是先规范化", "④还沿用旧的 q")
    for switches in product((0, 1), repeat=3):
        if not any(switches):
            continue
        value, early, old = switches
        wrong = forward(block, inputs, value=value, early=early, old=old)
        if same(got[0], wrong[0]) and same(got[1], wrong[1]):
            left = [w for w, on in zip(words, switches, strict=True) if on]
            return f"还有 {len(left)} 处没有改：" + "；".join(left) + "。"
    others = {
        "skip": "①丢了残差：那是第 0 层的写法",
        "bare": "④的键忘了加 query_pe",
        "value4": "④的值里加了位置编码",
        "lost": "④丢了残差",
        "no_norm2": "②之后忘了 norm2",
        "no_norm4": "④之后忘了 norm4",
    }
    for name, said in others.items():
        wrong = forward(block, inputs, **{name: True})
        if same(got[0], wrong[0]) and same(got[1], wrong[1]):
            return said + "。"
    right = forward(block, inputs)
    if same(got[0], right[0]):
        return "queries 对了，keys 不对：查第四步。"
    return "queries 不对：从第一步起，逐步对照 7.4 节的表和 7.5 节的图。"


def ex_07_3(answer) -> None:
    """softmax 加权求和看不见什么。"""
    right = {
        "词元换个次序，看图像": True,
        "把一个词元重复一遍，看图像": False,
        "每个 k_proj.bias 换成随机数，看两边": True,
        "每个 v_proj.bias 换成随机数，看两边": False,
        "图像的格子和 image_pe 一起换次序，看词元": True,
    }
    hints = {
        "词元换个次序，看图像": "图像从词元加权求和，和次序无关。",
        "把一个词元重复一遍，看图像": "重复的那个在 softmax 里占了两份。",
        "每个 k_proj.bias 换成随机数，看两边": (
            "同一个查询的每个分数都多了同一个数，softmax 之后没有影响。"
        ),
        "每个 v_proj.bias 换成随机数，看两边": (
            "份额加起来是 1，加权之后偏置原样留下；"
            "后面的规范化只减得掉各通道公共的那一份。"
        ),
        "图像的格子和 image_pe 一起换次序，看词元": (
            "每一格的内容和位置没有拆散，只是排列的次序变了。"
        ),
    }
    expect(
        isinstance(answer, dict) and set(answer) == set(right),
        "要一个字典，五个键照题目原样。",
    )
    for name, value in answer.items():
        answered(value)
        expect(isinstance(value, bool), f"“{name}”要填 True 或 False。")
    for name, value in right.items():
        expect(answer[name] == value, f"“{name}”答错了：{hints[name]}")


def ex_07_4(answer) -> None:
    """几次提问都相同，k_proj 和 v_proj 不再被调用。"""
    Attention = course.from_chapter("07_two_way", "Attention")
    for heads, rate in ((3, 2), (2, 1)):
        attn = shake(Attention(12, heads, rate))
        keys, key_pe = torch.randn(1, 8, 12), torch.randn(1, 8, 12)
        questions = [torch.randn(B, N, 12) for B, N in ((1, 5), (1, 2), (2, 3))]
        with torch.no_grad():
            rights = [attn(q, keys + key_pe, keys) for q in questions]
            look = answered(answer(attn, keys, key_pe))
            expect(callable(look), "要返回一个函数 look(q)，不是结果本身。")
            calls = []
            for layer in (attn.k_proj, attn.v_proj):
                layer.register_forward_hook(lambda *args, calls=calls: calls.append(1))
            for q, right in zip(questions, rights, strict=True):
                got = must_be(look(q), tuple(q.shape), "look(q) ")
                if not same(got, right):
                    raise Mistake(look_hint(attn, (q, keys, key_pe), got))
            expect(
                not calls,
                "结果对了，可是 look 里又调用了 k_proj 或 v_proj："
                "每点一下还是要给每一格重算一遍。",
            )


def look_hint(attn, inputs, got) -> str:
    """记住图像的写法错在哪里。"""
    q, keys, key_pe = inputs
    placed = keys + key_pe
    v = attn.separate_heads(attn.v_proj(keys))
    sides = (
        attn.separate_heads(attn.q_proj(q)),
        attn.separate_heads(attn.k_proj(placed)),
    )
    raw = sides[0] @ sides[1].transpose(-2, -1)

    def finish(out: torch.Tensor) -> torch.Tensor:
        return attn.out_proj(out.transpose(1, 2).flatten(2))

    heads, d = attn.num_heads, attn.internal_dim
    one_head = attn.q_proj(q) @ attn.k_proj(placed).transpose(-2, -1)
    mistakes = {
        "值里不加位置编码：v 来自 keys": attn(q, placed, placed),
        "键忘了加 key_pe": attn(q, keys, keys),
        "忘了除以 √d": finish(raw.softmax(-1) @ v),
        "除的是一个头的宽，不是全部的内部宽度": finish((raw / d**0.5).softmax(-1) @ v),
        "没有拆成多个头": attn.out_proj(
            (one_head / (d // heads) ** 0.5).softmax(-1) @ attn.v_proj(keys)
        ),
        "忘了 softmax": finish(raw / (d // heads) ** 0.5 @ v),
    }
    for words, wrong in mistakes.items():
        if same(got, wrong):
            return f"{words}。"
    bare = ((raw / (d // heads) ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    if same(got, bare):
        return "忘了 out_proj。"
    return "和 attn(q, keys + key_pe, keys) 不同：逐步对照 table 和 forward。"


def ex_07_5(answer) -> None:
    """每一层之后的图像，两种大小。"""
    for depth, B, h, w in ((2, 2, 2, 3), (3, 1, 3, 2)):
        transformer = shake(TwoWayTransformer(depth, 12, 3, 20))
        inputs = (
            torch.randn(B, 12, h, w),
            torch.randn(1, 12, h, w),
            torch.randn(B, 4, 12),
        )
        with torch.no_grad():
            got = answered(answer(transformer, *inputs))
            right = after_layers(transformer, *inputs)
            expect(isinstance(got, (list, tuple)), "要返回一个列表。")
            expect(
                len(got) != depth,
                f"只有 {depth} 份：进第 0 层之前的那一份也要，一共 {depth + 1} 份。",
            )
            expect(len(got) == depth + 1, f"要 {depth + 1} 份，这里有 {len(got)} 份。")
            for i, value in enumerate(got):
                turned = getattr(value, "shape", None) == (B, 12, h * w)
                expect(not turned, "通道还在第二维：flatten(2) 之后要 permute。")
                must_be(value, (B, h * w, 12), f"第 {i} 份")
            if not all(same(a, b) for a, b in zip(got, right, strict=True)):
                raise Mistake(layers_hint(transformer, inputs, got))


def after_layers(transformer, image, pe, tokens, **wrong) -> list[torch.Tensor]:
    """逐层的图像；每个开关打开一处错误。"""
    flat = [x.flatten(2).permute(0, 2, 1) for x in (image, pe)]
    if wrong.get("reshape"):
        flat = [x.reshape(len(x), -1, x.shape[1]) for x in (image, pe)]
    keys, key_pe = flat
    key_pe = 0 * key_pe if wrong.get("no_key_pe") else key_pe
    queries, states = tokens, [keys]
    for layer in transformer.layers:
        query_pe = queries if wrong.get("drift") else tokens
        query_pe = 0 * tokens if wrong.get("no_query_pe") else query_pe
        fresh, keys = layer(queries, keys, query_pe, key_pe)
        queries = queries if wrong.get("stale") else fresh
        states.append(keys)
    return states


def layers_hint(transformer, inputs, got) -> str:
    """逐层的图像错在哪里。"""
    mistakes = {
        "drift": "第三个参数传成了更新过的 queries：query_pe 一直是最初的词元",
        "reshape": "用 reshape 换轴会打乱数值：先 flatten(2) 再 permute",
        "no_key_pe": "忘了图像的位置编码",
        "no_query_pe": "忘了 query_pe",
        "stale": "queries 没有更新：每层都从最初的词元出发",
    }
    for name, words in mistakes.items():
        wrong = after_layers(transformer, *inputs, **{name: True})
        if all(same(a, b) for a, b in zip(got, wrong, strict=True)):
            return f"{words}。"
    right = after_layers(transformer, *inputs)
    if all(same(a, right[-1]) for a in got):
        return "每一份都是最后的样子：每过一层就要收一次。"
    first = next(
        i for i, (a, b) in enumerate(zip(got, right, strict=True)) if not same(a, b)
    )
    return f"从第 {first} 份起不对（从 0 数）。"
