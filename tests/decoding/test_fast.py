"""快路与 MaskDecoder 相同，只差浮点舍入。"""

import pytest
import torch

from decoding.common import embedding, slow
from sam_lite.decoding import batches
from sam_lite.decoding.fast import ImageDecoder


def prompts(sam, groups: int, points: int) -> torch.Tensor:
    """稀疏嵌入，(groups, points+1, C)。"""
    coords = torch.rand(groups, points, 2) * sam.image_encoder.img_size
    labels = torch.randint(0, 2, (groups, points))
    return sam.prompt_encoder((coords, labels), None, None)[0]


@pytest.fixture
def fast(small_sam) -> ImageDecoder:
    encoder = small_sam.prompt_encoder
    dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    image = embedding(small_sam)
    return ImageDecoder(small_sam.mask_decoder, image, encoder.get_dense_pe(), dense)


@torch.no_grad()
@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("points", [0, 1, 12])
@pytest.mark.parametrize("groups", [1, 2, 7])
def test_equals_the_readable_decoder(
    small_sam, fast, groups, points, multimask, monkeypatch
):
    monkeypatch.setattr(batches, "CACHE", 4 * 4 * 64 * 32)  # 4 组一批
    assert batches.prompts_in_cache(64, 32) == 4
    sparse = prompts(small_sam, groups, points)
    right = slow(small_sam, embedding(small_sam), sparse, multimask)
    rows, masks, iou = zip(*fast.decode(sparse, multimask), strict=True)
    assert torch.cat(rows).tolist() == list(range(groups))
    torch.testing.assert_close(torch.cat(masks), right[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat(iou), right[1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_no_prompts_give_empty_results(fast, small_sam):
    ((rows, masks, iou),) = fast.decode(prompts(small_sam, 0, 1), True)
    assert (len(rows), masks.shape, iou.shape) == (0, (0, 3, 32, 32), (0, 3))
