"""第 4 章：把词元网格切成互不重叠的窗口，再原样拼回。"""

import torch
import torch.nn.functional as F


def window_partition(
    x: torch.Tensor, window_size: int
) -> tuple[torch.Tensor, tuple[int, int]]:
    """切成窗口；网格不能整除时，先在右边和下边补零。

    补上的词元也参加窗口里的注意力，官方没有遮住它们；拼回去时才裁掉。
    形状：``(B, H, W, C) -> (B·窗口数, w, w, C)``，另返回补零后的 ``(Hp, Wp)``。
    对应官方 ``image_encoder.py`` 的 ``window_partition``。
    """
    B, H, W, C = x.shape
    w = window_size
    pad_h = (w - H % w) % w
    pad_w = (w - W % w) % w
    if pad_h > 0 or pad_w > 0:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))  # 从最后一维往前数：C、W、H
    Hp, Wp = H + pad_h, W + pad_w
    # 高、宽各拆成“第几个窗口”和“窗口里第几格”，再把两个“第几个窗口”挪到一起
    x = x.reshape(B, Hp // w, w, Wp // w, w, C)  # (B, 窗行, w, 窗列, w, C)
    x = x.permute(0, 1, 3, 2, 4, 5)  # (B, 窗行, 窗列, w, w, C)
    return x.reshape(-1, w, w, C), (Hp, Wp)


def window_unpartition(
    windows: torch.Tensor,
    window_size: int,
    pad_hw: tuple[int, int],
    hw: tuple[int, int],
) -> torch.Tensor:
    """window_partition 的逆：拼回网格，裁掉补上的部分。

    形状：``(B·窗口数, w, w, C) -> (B, H, W, C)``。
    """
    Hp, Wp = pad_hw
    H, W = hw
    w = window_size
    rows, cols = Hp // w, Wp // w
    B = windows.shape[0] // (rows * cols)
    x = windows.reshape(B, rows, cols, w, w, -1)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(B, Hp, Wp, -1)  # (B, Hp, Wp, C)
    if Hp > H or Wp > W:
        x = x[:, :H, :W, :].contiguous()
    return x
