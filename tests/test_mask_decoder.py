"""第 8 章：掩码解码器。"""

import pytest
import torch
from parity.small import randomize

from sam_lite.mask_decoder import MLP, MaskDecoder
from sam_lite.two_way import TwoWayTransformer


@pytest.fixture
def decoder() -> MaskDecoder:
    transformer = TwoWayTransformer(2, 32, 4, 40)
    return randomize(MaskDecoder(transformer_dim=32, transformer=transformer)).eval()


def inputs(prompts: int = 2, tokens: int = 3, images: int = 1) -> tuple:
    return (
        torch.randn(images, 32, 4, 6),
        torch.randn(1, 32, 4, 6),
        torch.randn(prompts, tokens, 32),
        torch.randn(prompts, 32, 4, 6),
    )


def test_mlp() -> None:
    """层间有 ReLU，末层没有；要求时末尾加 sigmoid。"""
    mlp = MLP(3, 7, 2, 2)
    x = torch.randn(5, 3)
    expected = mlp.layers[1](mlp.layers[0](x).clamp(min=0))
    torch.testing.assert_close(mlp(x), expected)
    mlp.sigmoid_output = True
    torch.testing.assert_close(mlp(x), expected.sigmoid())
    assert [tuple(m.weight.shape) for m in MLP(3, 7, 2, 3).layers] == [
        (7, 3),
        (7, 7),
        (2, 7),
    ]


def test_shapes_and_choice(decoder: MaskDecoder) -> None:
    """共四张掩码：单掩码取第 0 张，多掩码取第 1–3 张，IoU 同样取。"""
    values = inputs()
    masks, iou = decoder.predict_masks(*values)
    assert masks.shape == (2, 4, 16, 24) and iou.shape == (2, 4)
    single, single_iou = decoder(*values, multimask_output=False)
    several, several_iou = decoder(*values, multimask_output=True)
    assert torch.equal(single, masks[:, :1]) and torch.equal(single_iou, iou[:, :1])
    assert torch.equal(several, masks[:, 1:]) and torch.equal(several_iou, iou[:, 1:])


def test_prompts_do_not_mix(decoder: MaskDecoder) -> None:
    """一次解五组提示，与一组一组解的结果相同。"""
    image, pe, sparse, dense = inputs(prompts=5)
    together = decoder.predict_masks(image, pe, sparse, dense)
    for i in range(5):
        one = decoder.predict_masks(image, pe, sparse[i : i + 1], dense[i : i + 1])
        for a, b in zip(together, one, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, atol=1e-5, rtol=1e-4)


def test_batch_of_images(decoder: MaskDecoder) -> None:
    """两张图各三组提示一起解，与逐张解的结果相同（训练时用）。"""
    image, pe, sparse, dense = inputs(prompts=6, images=2)
    together = decoder.predict_masks(image, pe, sparse, dense)
    for i in range(2):
        mine = slice(3 * i, 3 * i + 3)
        alone = decoder.predict_masks(image[i : i + 1], pe, sparse[mine], dense[mine])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[mine], b, atol=1e-5, rtol=1e-4)


def test_dense_is_added_to_image(decoder: MaskDecoder) -> None:
    """稠密嵌入是加在图像嵌入上的：从这边挪到那边，结果不变。"""
    image, pe, sparse, dense = inputs(prompts=1)
    expected = decoder.predict_masks(image, pe, sparse, dense)
    swapped = decoder.predict_masks(dense, pe, sparse, image)
    for a, b in zip(swapped, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_mask_is_dot_product(decoder: MaskDecoder) -> None:
    """每张掩码 = 掩码词元经超网络变成的向量，与每个像素特征的点积。"""
    seen = {}
    decoder.output_upscaling.register_forward_hook(
        lambda _m, _i, out: seen.update(pixels=out)
    )
    for i, mlp in enumerate(decoder.output_hypernetworks_mlps):
        mlp.register_forward_hook(lambda _m, _i, out, i=i: seen.update({i: out}))
    masks, _ = decoder.predict_masks(*inputs())
    for i in range(4):
        expected = torch.einsum("bc,bchw->bhw", seen[i], seen["pixels"])
        torch.testing.assert_close(masks[:, i], expected, atol=1e-4, rtol=1e-4)


def test_no_prompt_tokens(decoder: MaskDecoder) -> None:
    """没有稀疏词元（只给掩码或什么都没给）也能解。"""
    masks, iou = decoder(*inputs(prompts=1, tokens=0), multimask_output=True)
    assert masks.shape == (1, 3, 16, 24) and iou.shape == (1, 3)


def test_gradients(decoder: MaskDecoder) -> None:
    """掩码和 IoU 的梯度传到每个参数。"""
    masks, iou = decoder.predict_masks(*inputs())
    loss = (masks * torch.randn_like(masks)).sum() + (iou * torch.randn(2, 4)).sum()
    loss.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().sum() > 0, name
