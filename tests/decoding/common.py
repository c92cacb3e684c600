"""快路的测试共用：一张图的嵌入，易读的解码。"""

import torch


def embedding(sam, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    size = sam.prompt_encoder.image_embedding_size
    return torch.randn(1, sam.mask_decoder.transformer_dim, *size)


def slow(sam, image, sparse, multimask):
    h, w = image.shape[-2:]
    dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    return sam.mask_decoder(
        image_embeddings=image,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense.expand(len(sparse), -1, h, w),
        multimask_output=multimask,
    )
