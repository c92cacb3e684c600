"""提示编码器与官方对照：点、填充点、框、掩码，单独与合用。"""

import pytest
import torch

from parity.official import assert_near, pair

GRID, SIZE = (5, 7), (40, 56)  # 长宽不同，x 与 y 弄反就会露馅


def encoders() -> tuple:
    return pair("PromptEncoder", 32, GRID, SIZE, 12)


def points(batch: int, count: int, labels=None) -> tuple:
    coords = torch.rand(batch, count, 2) * torch.tensor([56.0, 40.0])
    if labels is None:
        labels = torch.randint(0, 2, (batch, count))
    return coords, labels


def boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * 20
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * 19], dim=1)


def test_position_encoding() -> None:
    """位置编码：默认尺度、给定尺度、网格、点坐标；scale 的含义也相同。"""
    for kwargs in ({}, {"num_pos_feats": 6, "scale": 2.5}, {"scale": -1.0}):
        our, their = pair("PositionEmbeddingRandom", **kwargs)
        assert_near(our((4, 6)), their((4, 6)))
        coords = torch.rand(3, 5, 2) * 40
        expected = their.forward_with_coords(coords, (40, 56))
        assert_near(our.forward_with_coords(coords, (40, 56)), expected)
    torch.manual_seed(3)
    scaled = type(our)(6, 2.5).positional_encoding_gaussian_matrix
    torch.manual_seed(3)
    assert_near(scaled, type(their)(6, 2.5).positional_encoding_gaussian_matrix)


def test_dense_pe() -> None:
    """整张网格的位置编码与官方相同。"""
    our, their = encoders()
    assert_near(our.get_dense_pe(), their.get_dense_pe())


ABSENT = -torch.ones(3, 4)
PROMPTS = {
    "无提示": lambda: {},
    "一个点": lambda: {"points": points(1, 1)},
    "许多点": lambda: {"points": points(3, 6)},
    "整数标签": lambda: {"points": points(2, 3, torch.ones(2, 3, dtype=torch.int))},
    "浮点标签": lambda: {"points": points(2, 3, torch.zeros(2, 3))},
    "布尔标签": lambda: {"points": points(2, 3, torch.rand(2, 3) > 0.5)},
    "uint8 标签": lambda: {"points": points(2, 3, torch.ones(2, 3).byte())},
    "填充点混在中间": lambda: {
        "points": points(2, 4, torch.tensor([[1, -1, 0, 1], [0, 1, -1, -1]]))
    },
    "全是填充点": lambda: {"points": points(3, 4, ABSENT)},
    "一个框": lambda: {"boxes": boxes(1)},
    "几个框": lambda: {"boxes": boxes(4)},
    "点加框": lambda: {"points": points(3, 2), "boxes": boxes(3)},
    "掩码": lambda: {"masks": torch.randn(2, 1, 20, 28) * 5},
    "点加掩码": lambda: {
        "points": points(2, 3),
        "masks": torch.randn(2, 1, 20, 28) * 5,
    },
    "点、框、掩码": lambda: {
        "points": points(2, 3),
        "boxes": boxes(2),
        "masks": torch.randn(2, 1, 20, 28) * 5,
    },
    "许多点共用一张掩码": lambda: {
        "points": points(3, 2),
        "masks": torch.randn(1, 1, 20, 28) * 5,
    },
    "整数坐标": lambda: {"points": (torch.tensor([[[3, 5]]]), torch.ones(1, 1))},
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompt_encoder(kind: str) -> None:
    """每种提示的稀疏嵌入与稠密嵌入都与官方相同，输入不被改动。"""
    our, their = encoders()
    prompts = {"points": None, "boxes": None, "masks": None, **PROMPTS[kind]()}
    coords = prompts["points"][0].clone() if prompts["points"] else None
    with torch.no_grad():
        assert_near(our(**prompts), their(**prompts))
    if coords is not None:
        assert torch.equal(prompts["points"][0], coords)


def test_prompt_encoder_attributes() -> None:
    """官方代码会读的属性都在，值相同。"""
    our, their = encoders()
    for name in (
        "embed_dim",
        "input_image_size",
        "image_embedding_size",
        "mask_input_size",
        "num_point_embeddings",
    ):
        assert getattr(our, name) == getattr(their, name), name
