"""走哪条路；结构、内容、图像一变，快路就让开或重算，结果总与易读的路相同。"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from decoding.common import embedding, slow
from sam_lite import SamPredictor
from sam_lite.decoding import batches, prompt_decoder
from sam_lite.decoding.fast import ImageDecoder
from sam_lite.decoding.prompt_decoder import plain_tensors

CLICK = {"point_coords": np.array([[20.0, 30.0]]), "point_labels": np.array([1])}


def test_half_precision(small_sam):
    sam = copy.deepcopy(small_sam).bfloat16()
    predictor = SamPredictor(sam)
    predictor.set_image(np.full((40, 64, 3), 90, np.uint8))
    logits = predictor.predict(**CLICK, return_logits=True)[0]
    predictor = SamPredictor(small_sam)
    predictor.set_image(np.full((40, 64, 3), 90, np.uint8))
    right = predictor.predict(**CLICK, return_logits=True)[0]
    assert np.abs(logits - right).max() < 0.1 * np.abs(right).max()


@torch.no_grad()
@pytest.mark.parametrize("plain", [True, False], ids=["快路", "易读的路"])
def test_candidates_are_those_above_the_score(small_sam, monkeypatch, plain):
    """只给大于阈值的，一张一条；一组里一张也不够的，不做上采样。"""
    monkeypatch.setattr(batches, "CACHE", 4 * 4 * 64 * 32)  # 4 组一批
    coords, labels = torch.rand(9, 1, 2) * 64, torch.ones(9, 1)
    given = (small_sam, embedding(small_sam), (coords, labels, None, None))
    if not plain:
        small_sam.mask_decoder.register_forward_hook(lambda *_: None)
    upscaled = []
    real = ImageDecoder.masks

    def masks(self, tokens, *rest):
        upscaled.append(len(tokens))
        return real(self, tokens, *rest)

    monkeypatch.setattr(ImageDecoder, "masks", masks)
    decoder = prompt_decoder.PromptDecoder()
    _, low_res, iou = map(torch.cat, zip(*decoder(*given, True), strict=True))
    least = float(iou.max(dim=1).values.median())
    upscaled.clear()
    found = zip(*decoder.candidates(*given, least), strict=True)
    rows, kept, scores = map(torch.cat, found)
    good = iou > least
    assert 0 < len(scores) == good.sum() < 27
    assert rows.tolist() == good.nonzero()[:, 0].tolist()
    torch.testing.assert_close(kept, low_res[good], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores, iou[good])
    assert sum(upscaled) == (good.any(dim=1).sum() if plain else 0)
    every = zip(*decoder.candidates(*given, None), strict=True)
    assert torch.cat(list(every)[2]).equal(iou.flatten())


# ---- 什么时候用、什么时候重算 ------------------------------------------------


@pytest.fixture
def predictor(small_sam) -> SamPredictor:
    predictor = SamPredictor(small_sam)
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    predictor.set_image(image)
    return predictor


def made(predictor) -> ImageDecoder | None:
    return predictor.decoder.fast


def test_the_picture_is_prepared_once(predictor):
    predictor.predict(**CLICK)
    first = made(predictor)
    predictor.predict(box=np.array([3, 4, 30, 38]))
    assert first is not None and made(predictor) is first
    predictor.set_image(np.zeros((64, 30, 3), np.uint8))
    predictor.predict(**CLICK)
    assert made(predictor) is not first


@pytest.mark.parametrize("points, fast", [(19, True), (20, False)])
def test_many_points_take_the_ordinary_road(points, fast, predictor, monkeypatch):
    """一组里的点（连官方补的一个）超过 MANY，就不走快路；两条路结果相同。"""
    g = np.random.default_rng(0)
    prompt = {"point_coords": g.uniform(0, 40, (points, 2))}
    prompt["point_labels"] = g.integers(0, 2, points)
    found = predictor.predict(**prompt, return_logits=True)
    assert (made(predictor) is not None) == fast
    monkeypatch.setattr(prompt_decoder, "MANY", 0 if fast else 100)
    other = predictor.predict(**prompt, return_logits=True)
    for a, b in zip(found, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def change_attention(sam) -> None:
    with torch.no_grad():
        layer = sam.mask_decoder.transformer.layers[1]
        layer.cross_attn_token_to_image.k_proj.weight.mul_(1.5)


def change_two_rows(sam) -> None:
    attention = sam.mask_decoder.transformer.layers[0].cross_attn_image_to_token
    with torch.no_grad():
        attention.q_proj.weight[:2] += 0.3


def change_no_mask(sam) -> None:
    with torch.no_grad():
        sam.prompt_encoder.no_mask_embed.weight.add_(0.4)


def change_position_code(sam) -> None:
    pe = sam.prompt_encoder.pe_layer
    pe.positional_encoding_gaussian_matrix.mul_(1.3)


def replace_position_code(sam) -> None:
    right = sam.prompt_encoder.get_dense_pe()
    sam.prompt_encoder.get_dense_pe = lambda: 0.5 * right


def change_upscaling(sam) -> None:
    sam.mask_decoder.output_upscaling[0].weight.data.mul_(1.1)


def hook(sam) -> None:
    sam.mask_decoder.register_forward_hook(lambda m, i, out: (2 * out[0], out[1]))


def replace_forward(sam) -> None:
    mlp = sam.mask_decoder.transformer.layers[0].mlp
    right = mlp.forward
    mlp.forward = lambda x: 2 * right(x)


class Low(nn.Module):
    """像 LoRA 那样包住一个线性层。"""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0.1 * x[..., : self.inner.out_features]


def swap_data(sam) -> None:
    """给 .data 赋新值，.to()、.half() 就是这样换的。"""
    layer = sam.mask_decoder.transformer.layers[1].cross_attn_image_to_token.q_proj
    layer.weight.data = layer.weight.data.flip(0)


def change_final_attention(sam) -> None:
    final = sam.mask_decoder.transformer.final_attn_token_to_image
    with torch.no_grad():
        final.k_proj.weight.mul_(1.7)


def pre_hook(sam) -> None:
    attention = sam.mask_decoder.transformer.layers[1].cross_attn_token_to_image
    attention.register_forward_pre_hook(lambda m, inputs: (2 * inputs[0], *inputs[1:]))


def replace_predict_masks(sam) -> None:
    right = sam.mask_decoder.predict_masks

    def twice(*args):
        masks, iou = right(*args)
        return 2 * masks, iou

    sam.mask_decoder.predict_masks = twice


def hook_the_prompt_encoder(sam) -> None:
    sam.prompt_encoder.register_forward_hook(lambda m, i, out: (2 * out[0], out[1]))


def replace_the_transformer(sam) -> None:
    """交叉注意力没有变，变的是 MLP：预先算好的还对，别的要用新的。"""
    new = copy.deepcopy(sam.mask_decoder.transformer)
    new.layers[0].mlp.lin2.weight.data.mul_(1.5)
    sam.mask_decoder.transformer = new


def wrap_linear(sam) -> None:
    attention = sam.mask_decoder.transformer.final_attn_token_to_image
    attention.q_proj = Low(attention.q_proj)


def load_other_weights(sam) -> None:
    state = {name: 1.2 * value for name, value in sam.mask_decoder.state_dict().items()}
    sam.mask_decoder.load_state_dict(state)


def train_a_step(sam) -> None:
    """训练里的一步，模型留在训练状态。"""
    parameters = list(sam.train().mask_decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    sum((p**2).sum() for p in parameters).backward()
    optimizer.step()


def put_new_parameter(sam) -> None:
    projection = sam.mask_decoder.transformer.layers[0].cross_attn_image_to_token.q_proj
    projection.weight = nn.Parameter(2 * projection.weight.detach())


CHANGES = [
    load_other_weights,
    train_a_step,
    put_new_parameter,
    change_attention,
    change_two_rows,
    change_no_mask,
    change_position_code,
    replace_position_code,
    change_upscaling,
    hook,
    pre_hook,
    swap_data,
    change_final_attention,
    replace_predict_masks,
    hook_the_prompt_encoder,
    replace_forward,
    replace_the_transformer,
    wrap_linear,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_changed_model_is_noticed_on_the_same_picture(predictor, change):
    """换权重、换部件、挂钩子以后，不重新 set_image，结果也照变。"""
    before = predictor.predict(**CLICK)[2]
    change(predictor.model)
    after = predictor.predict(**CLICK)[2]
    with torch.no_grad():
        image = predictor.features
        coords = predictor.transform.apply_coords(CLICK["point_coords"], (40, 64))
        points = torch.tensor(coords)[None], torch.tensor(CLICK["point_labels"])[None]
        sparse = predictor.model.prompt_encoder(points, None, None)[0]
        right = slow(predictor.model, image, sparse, True)[0][0].numpy()
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, right, atol=2e-5, rtol=1e-4)


def test_a_changed_embedding_is_noticed(predictor):
    """嵌入原地改过，或整个换掉，都重新算。"""
    before = predictor.predict(**CLICK)[2]
    predictor.features.mul_(0.3)
    changed = predictor.predict(**CLICK)[2]
    predictor.features = predictor.features / 0.3
    back = predictor.predict(**CLICK)[2]
    assert np.abs(changed - before).max() > 1e-2
    np.testing.assert_allclose(back, before, atol=1e-4)


def test_the_old_address_is_not_given_away(predictor):
    """嵌入换掉以后，新的张量不会落在旧的地址上：不然记号相同，认不出换过。"""
    predictor.predict(**CLICK)
    address = predictor.features.data_ptr()
    other = [predictor.features * 1.5]
    predictor.features = None
    other += [other[0].clone() for _ in range(300)]
    assert address not in {tensor.data_ptr() for tensor in other}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_precision_on_the_same_picture(predictor, dtype):
    """`.half()` 之类换了精度：和新建的预测器一个结果。"""
    predictor.predict(**CLICK)
    features = predictor.features.to(dtype)
    predictor.model.to(dtype)
    predictor.features = features
    found = predictor.predict(**CLICK)[2]
    assert made(predictor).keys.dtype == dtype
    fresh = SamPredictor(predictor.model)
    fresh.set_image(np.zeros((40, 64, 3), np.uint8))
    fresh.features = features
    np.testing.assert_array_equal(found, fresh.predict(**CLICK)[2])


def test_mixed_precision_does_not_leave_its_types_behind(predictor):
    before = predictor.predict(**CLICK)[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = predictor.predict(**CLICK)[2]
    after = predictor.predict(**CLICK)[2]
    np.testing.assert_array_equal(before, after)
    assert 0 < np.abs(mixed - before).max() < 0.2 * np.abs(before).max()


def test_a_model_made_in_inference_mode(small_sam):
    with torch.inference_mode():
        sam = copy.deepcopy(small_sam)
        predictor = SamPredictor(sam)
        predictor.set_image(np.zeros((40, 64, 3), np.uint8))
    predictor.predict(**CLICK)
    assert made(predictor) is not None


def test_nothing_is_made_twice(predictor):
    """模型没有动，点几次都用同一份；原地改了一个数，才换一份。"""
    predictor.predict(**CLICK)
    first = made(predictor)
    predictor.predict(**CLICK)
    assert made(predictor) is first
    change_attention(predictor.model)
    predictor.predict(**CLICK)
    assert made(predictor) is not first


def test_forgetting_the_picture_forgets_its_decoder(predictor):
    predictor.predict(**CLICK)
    predictor.reset_image()
    assert made(predictor) is None


def test_a_mask_prompt_takes_the_readable_path(predictor):
    low_res = predictor.predict(**CLICK)[2][:1]
    predictor.decoder.fast = None
    predictor.predict(**CLICK, mask_input=low_res)
    assert made(predictor) is None


def test_plain_means_every_part_is_the_original(small_sam):
    decoder = small_sam.mask_decoder
    assert plain_tensors(decoder) is not None
    decoder.output_upscaling[2] = nn.SiLU()
    assert plain_tensors(decoder) is None


def test_training_keeps_its_gradients(small_sam):
    """Sam.forward 不走快路，梯度照样在。"""
    record = {
        "image": torch.rand(3, 64, 64) * 255,
        "original_size": (64, 64),
        "point_coords": torch.tensor([[[9.0, 9.0]]]),
        "point_labels": torch.tensor([[1]]),
    }
    (out,) = small_sam([record], multimask_output=True)
    assert out["low_res_logits"].requires_grad
