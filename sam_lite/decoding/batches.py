"""一次解码几组提示：CPU 上照处理器的缓存，自动掩码还可以照内存的上限。"""

import warnings

from ..errors import SamLiteWarning
from ..model import Sam

CACHE = 2**24  # 字节：一次解码的几组提示，图像一侧的张量合起来不超过它，免得挤出缓存
OFFICIAL_BATCH = 64  # 自动掩码的 points_per_batch 的默认值，照官方


def prompts_in_cache(cells: int, width: int) -> int:
    """一次解码几组提示：图像一侧 cells 格、每格 width 个数，vit_b 是 4 组。"""
    return max(1, CACHE // (4 * cells * width))


def largest_batch(model: Sam) -> int:
    """一批最多几个点：CPU 上是缓存放得下的，别的设备不限。

    再多并不更快，内存却成倍地涨。
    """
    if model.device.type != "cpu":
        return 2**31
    h, w = model.prompt_encoder.image_embedding_size
    return prompts_in_cache(h * w, model.mask_decoder.transformer_dim)


def prompts_at_once(
    asked: int | str, limit_mb: int, model: Sam, size: tuple[int, int]
) -> int:
    """一批解码几个点。

    给了数就照它，只是不超过 largest_batch。``"auto"`` 按内存的上限算，至少 1 个。
    """
    h, w = model.prompt_encoder.image_embedding_size
    width = model.mask_decoder.transformer_dim
    fit = largest_batch(model)
    if asked == "auto":
        side = model.image_encoder.img_size
        # 每个点三张掩码：放大到输入边长、再到原图，各一份浮点；加上几份布尔的
        mask = 4 * (side**2 + size[0] * size[1]) + 3 * size[0] * size[1]
        decode = 4 * 6 * h * w * width  # 解码器里同时活着的几张表
        return min(fit, max(1, limit_mb * 10**6 // (3 * mask + decode)))
    return min(fit, int(asked))


def warn_if_lowered(asked: int | str, model: Sam) -> None:
    """点了名要一大批、CPU 上却用不上时，发出 SamLiteWarning。

    默认的 64 在 CPU 上几乎总要减小，那不是谁的本意，不必说。
    """
    if asked == "auto" or int(asked) <= OFFICIAL_BATCH:
        return
    fit = largest_batch(model)
    if int(asked) > fit:
        text = (
            f"points_per_batch={asked} 用不上：CPU 上一批最多 {fit} 个点，"
            "再多也不更快。结果不变。"
        )
        warnings.warn(text, SamLiteWarning, stacklevel=3)  # 指到造生成器的那一行
