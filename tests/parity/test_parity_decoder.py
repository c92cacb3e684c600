"""双向 Transformer 与掩码解码器：和官方逐层对照。"""

import pytest
import torch
from torch import nn

from parity.official import assert_near, ours, pair, same_weights, theirs


@pytest.mark.parametrize("rate", [1, 2])
def test_decoder_attention(rate: int) -> None:
    """带降维的注意力，查询与键个数不同。"""
    our, their = pair("DecoderAttention", 32, 4, rate)
    q, k, v = torch.randn(2, 5, 32), torch.randn(2, 11, 32), torch.randn(2, 11, 32)
    with torch.no_grad():
        assert_near(our(q=q, k=k, v=v), their(q=q, k=k, v=v))


@pytest.mark.parametrize("skip", [False, True])
def test_two_way_block(skip: bool) -> None:
    """一层双向注意力：第一层不加位置编码，其余层加。"""
    our, their = pair("TwoWayAttentionBlock", 32, 4, 40, nn.GELU, 4, skip)
    inputs = {
        "queries": torch.randn(2, 5, 32),
        "keys": torch.randn(2, 11, 32),
        "query_pe": torch.randn(2, 5, 32),
        "key_pe": torch.randn(2, 11, 32),
    }
    with torch.no_grad():
        assert_near(our(**inputs), their(**inputs))


@pytest.mark.parametrize("depth, rate", [(1, 2), (2, 2), (3, 1)])
def test_two_way_transformer(depth: int, rate: int) -> None:
    """整个双向 Transformer，长方形网格，词元与图像两路输出都相同。"""
    kwargs = {"embedding_dim": 32, "num_heads": 4, "mlp_dim": 40}
    our, their = pair(
        "TwoWayTransformer", depth, **kwargs, attention_downsample_rate=rate
    )
    image, pe = torch.randn(3, 32, 4, 6), torch.randn(3, 32, 4, 6)
    tokens = torch.randn(3, 7, 32)
    with torch.no_grad():
        assert_near(our(image, pe, tokens), their(image, pe, tokens))


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_mlp(layers: int, sigmoid: bool) -> None:
    """解码器的 MLP：层数与末尾的 sigmoid。"""
    our, their = pair("MLP", 6, 9, 4, layers, sigmoid)
    x = torch.randn(3, 6)
    assert_near(our(x), their(x))


def decoders(outputs: int = 3, **kwargs) -> tuple:
    """两边的掩码解码器，各配一个自己的双向 Transformer，权重相同。"""

    def build(api):
        transformer = api.TwoWayTransformer(
            depth=2, embedding_dim=32, num_heads=4, mlp_dim=40
        )
        return api.MaskDecoder(
            transformer_dim=32,
            transformer=transformer,
            num_multimask_outputs=outputs,
            **kwargs,
        )

    return same_weights(build(theirs), build(ours))


def decoder_inputs(batch: int, tokens: int) -> dict:
    return {
        "image_embeddings": torch.randn(1, 32, 4, 6),
        "image_pe": torch.randn(1, 32, 4, 6),
        "sparse_prompt_embeddings": torch.randn(batch, tokens, 32),
        "dense_prompt_embeddings": torch.randn(batch, 32, 4, 6),
    }


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("batch, tokens", [(1, 0), (1, 2), (3, 2), (5, 9)])
def test_mask_decoder(batch: int, tokens: int, multimask: bool) -> None:
    """一次一个或多个提示、没有稀疏词元、单掩码与多掩码，都与官方相同。"""
    our, their = decoders()
    inputs = decoder_inputs(batch, tokens)
    with torch.no_grad():
        expected = their(**inputs, multimask_output=multimask)
        assert_near(our(**inputs, multimask_output=multimask), expected)
        assert_near(our.predict_masks(**inputs), their.predict_masks(**inputs))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"outputs": 1},
        {"outputs": 5, "activation": nn.ReLU},
        {"iou_head_depth": 2, "iou_head_hidden_dim": 24},
        {"iou_head_depth": 4, "iou_head_hidden_dim": 12},
    ],
)
def test_mask_decoder_options(kwargs: dict) -> None:
    """掩码个数、激活函数、IoU 头的深浅都照官方的参数来。"""
    our, their = decoders(**kwargs)
    inputs = decoder_inputs(2, 3)
    with torch.no_grad():
        expected = their(**inputs, multimask_output=True)
        assert_near(our(**inputs, multimask_output=True), expected)
    assert our.num_mask_tokens == their.num_mask_tokens
    assert our.num_multimask_outputs == their.num_multimask_outputs
