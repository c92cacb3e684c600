"""第 2 章：图像块嵌入。"""

import torch

from sam_lite.patch_embed import PatchEmbed


def test_equals_cut_flatten_multiply() -> None:
    """卷积等于“切块、摊平、乘矩阵”，逐块用循环核对。"""
    embed = PatchEmbed((2, 3), (2, 3), in_chans=3, embed_dim=5)
    picture = torch.randn(2, 3, 8, 18)
    result = embed(picture)
    assert result.shape == (2, 4, 6, 5)
    matrix = embed.proj.weight.reshape(5, -1)
    for row in range(4):
        for col in range(6):
            patch = picture[:, :, 2 * row : 2 * row + 2, 3 * col : 3 * col + 3]
            expected = patch.reshape(2, -1) @ matrix.T + embed.proj.bias
            torch.testing.assert_close(result[:, row, col], expected)


def test_official_shape() -> None:
    """默认参数就是 vit_b 的：1024 的图得到 64×64 的网格，通道在最后。"""
    with torch.device("meta"):
        result = PatchEmbed()(torch.zeros(1, 3, 1024, 1024))
    assert result.shape == (1, 64, 64, 768)
