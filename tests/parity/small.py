"""测试用的小模型：尺寸小、每个参数都是非零随机数。"""

import torch
from torch import nn

from sam_lite.config import SamConfig

# 各维大小互不相同，轴弄反了一定出错；窗口 3 不整除 8×8 的网格，填充是真的。
SMALL = SamConfig(
    "small",
    embed_dim=24,
    depth=3,
    num_heads=3,
    global_attn_indexes=(1,),
    image_size=64,
    patch_size=8,
    window_size=3,
    prompt_embed_dim=32,
    mask_in_chans=12,
    decoder_heads=4,
    decoder_mlp_dim=40,
    iou_head_hidden_dim=20,
)


def random_like(name: str, tensor: torch.Tensor, parent: nn.Module) -> torch.Tensor:
    """给一个参数配随机数；矩阵按输入宽度缩放，激活值因此大小适中。"""
    noise = torch.randn(tensor.shape)
    if "gaussian_matrix" in name or isinstance(parent, nn.Embedding):
        return noise
    if tensor.ndim == 1:  # 偏置，或规范化层的 weight
        return 0.2 * noise + (1.0 if name.endswith("weight") else 0.0)
    if "rel_pos" in name or "pos_embed" in name:
        return 0.3 * noise
    if isinstance(parent, nn.ConvTranspose2d):  # 它的输入通道在第 0 维
        return noise / tensor.shape[0] ** 0.5
    return noise / tensor[0].numel() ** 0.5


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """把所有参数和随机频率矩阵换成非零随机数（偏置、位置编码、嵌入也在内）。"""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, tensor in module.state_dict().items():
            parent = module.get_submodule(name.rpartition(".")[0])
            tensor.copy_(random_like(name, tensor, parent))
        for part in module.modules():  # 预测的 IoU 在 1 附近，相对误差才有意义
            if hasattr(part, "iou_prediction_head"):
                part.iou_prediction_head.layers[-1].bias.add_(1.0)
    return module
