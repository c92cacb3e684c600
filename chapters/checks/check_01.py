"""第 1 章练习的检查：尺寸、框搬回照片、后处理、居中的填充、半个像素。"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from course import answered, expect

from sam_lite.preprocess import ResizeLongestSide

# 高、宽都不同，有横有竖；倍数有大有小，取整之后 x、y 的倍数不一样
SIZES = [((4, 7), 10), ((7, 4), 10), ((33, 97), 64), ((640, 427), 256)]


def ex_01_1(answer: Sequence[int]) -> None:
    """3000×2000 的竖照片：1024×683，右边补 341 列。"""
    if isinstance(answer, (np.ndarray, torch.Tensor)):
        answer = answer.tolist()
    expect(
        isinstance(answer, Sequence) and len(answer) == 4,
        "要四个整数：高、宽、右、下。",
    )
    expect(all(int(n) == n for n in answer), "像素是整数：四舍五入。")
    got = tuple(int(n) for n in answer)
    right = (1024, 683, 341, 0)
    said = {
        (683, 1024, 0, 341): "高和宽弄反了：竖照片的高是最长边，高变成 1024。",
        (683, 1024, 341, 0): "高和宽弄反了：竖照片的高是最长边，高变成 1024。",
        (1024, 682, 342, 0): "取整错了：682.67 四舍五入是 683，不是舍去小数。",
        (1024, 683, 0, 341): "右和下弄反了：缺的是宽，要在右边补列。",
        (1024, 1024, 0, 0): "这是拉满：短边也按最长边的比例缩放，宽高比不变。",
        (1536, 1024, 0, 0): "这是按最短边缩放：最长边才是 1024。",
        (3000, 2000, 0, 1000): "还没有缩放：先把最长边变成 1024。",
    }
    expect(got not in said, said.get(got, ""))
    expect(got[:2] == right[:2], "高和宽不对：最长边变成 1024，另一边乘同一个比例。")
    expect(got[2] not in (170, 171), "照片不居中：填充全在右边和下边。")
    expect(got[2:] == right[2:], "填充不对：1024 减去缩放后的宽，1024 减去缩放后的高。")


def new_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """取整之后的（高, 宽）。"""
    return ResizeLongestSide.get_preprocess_shape(*size, side)


def same(got: Any, wanted: Any) -> bool:
    """形状相同，数值也相同。"""
    got, wanted = np.asarray(got, dtype=float), np.asarray(wanted, dtype=float)
    return got.shape == wanted.shape and bool(np.allclose(got, wanted, atol=1e-6))


def ex_01_2(restore_boxes: Callable[..., Any]) -> None:
    """除以两个倍数，裁到照片以内。"""
    for size, side in SIZES:
        h, w = size
        new_h, new_w = new_size(size, side)
        # 第一个框在照片里，第二个伸进填充
        inside = [0.1 * new_w, 0.2 * new_h, 0.7 * new_w, 0.9 * new_h]
        boxes = np.array([inside, [0.5 * new_w, 0.5 * new_h, side + 1, side + 1]])
        given = boxes.copy()
        got = answered(restore_boxes(boxes, size, side))
        expect(np.array_equal(boxes, given), "改动了传进来的数组：先复制，或算出新的。")
        expect(np.shape(got) == (2, 4), f"形状应是 (2, 4)，得到 {np.shape(got)}。")

        xy = given.reshape(-1, 2, 2)
        scale, one = np.array([new_w / w, new_h / h]), side / max(h, w)

        def clip(x: np.ndarray, wide: float = w, tall: float = h) -> np.ndarray:
            return x.clip(0, (wide, tall)).reshape(-1, 4)

        right = clip(xy / scale)
        mistakes = {
            "方向反了：从输入回到照片是除，不是乘": clip(xy * scale),
            "高和宽弄反了：x 用宽的倍数，y 用高的倍数": clip(xy / scale[::-1]),
            "没有裁：伸进填充的框要停在照片边上": (xy / scale).reshape(-1, 4),
            "裁的界限弄反了：x 到宽为止，y 到高为止": clip(xy / scale, h, w),
            "用了没取整的倍数：x、y 按取整后的宽、高各算一个": clip(xy / one),
        }
        check_against(got, right, mistakes, f"{h}×{w} 的照片，边长 {side}")


def check_against(got: Any, right: Any, mistakes: dict[str, Any], where: str) -> None:
    """答案对就过；像哪一种典型错误，就说哪一种。"""
    if same(got, right):
        return
    for hint, wrong in mistakes.items():
        # 有的输入上，错的写法碰巧也对，那就认不出来
        expect(same(wrong, right) or not same(got, wrong), f"{hint}（{where}）。")
    values = np.asarray(right, dtype=float)
    shown = f"，应是 {values.round(3).tolist()}" if values.size <= 8 else ""
    expect(False, f"数值不对（{where}）{shown}。")


def ex_01_3(to_photo: Callable[..., Any]) -> None:
    """裁、缩放、与 0 比。"""
    generator = torch.Generator().manual_seed(0)
    for size, side in [((20, 31), 16), ((31, 20), 16), ((9, 14), 24)]:
        coarse = torch.randn(2, 3, 5, 5, generator=generator)
        logits = F.interpolate(coarse, (side, side), mode="bicubic") + 0.3
        h, w = new_size(size, side)
        got = answered(to_photo(logits, (h, w), size))
        expect(torch.is_tensor(got), "要返回张量。")

        def finish(x: torch.Tensor, shape=size, align: bool = False) -> torch.Tensor:
            return F.interpolate(x, shape, mode="bilinear", align_corners=align)

        cut = logits[..., :h, :w]
        right = finish(cut) > 0
        expect(
            got.shape == right.shape,
            f"形状应是 {tuple(right.shape)}，得到 {tuple(got.shape)}："
            "original_size 是（高, 宽），前两维不动。",
        )
        expect(got.dtype == torch.bool, "还没有变成掩码：最后与 0 比，得到布尔值。")
        hard = (cut > 0).float()
        mistakes = {
            "高和宽弄反了：input_size 是（高, 宽）": finish(logits[..., :w, :h]) > 0,
            "忘了裁掉补上的部分": finish(logits) > 0,
            "阈值取早了：先缩放 logits，最后才与 0 比": finish(hard) > 0.5,
            "align_corners=True 会让轮廓错开，用 False": finish(cut, align=True) > 0,
            "阈值取早了，align_corners 也要用 False": finish(hard, align=True) > 0.5,
            "阈值不对：分数大于 0 才算物体": finish(cut) > 0.5,
        }
        check_against(got, right, mistakes, f"{size[0]}×{size[1]} 的照片，边长 {side}")


def ex_01_4(centered_coords: Callable[..., Any]) -> None:
    """缩放，再平移。"""
    for size, side in SIZES:
        h, w = size
        new_h, new_w = new_size(size, side)
        coords = np.array([[[0.0, 0.0], [w, h]], [[0.3 * w, 0.6 * h], [w, 0.0]]])
        got = answered(centered_coords(coords.copy(), size, side))
        expect(
            np.shape(got) == (2, 2, 2),
            f"形状应与点相同，(2, 2, 2)，得到 {np.shape(got)}。",
        )
        scale = np.array([new_w / w, new_h / h])
        shift = np.array([(side - new_w) // 2, (side - new_h) // 2])
        right = coords * scale + shift
        rows = [coords[:, i] * scale[i] + shift[i] for i in (0, 1)]
        mistakes = {
            "没有平移：照片居中，左边和上边也有填充": coords * scale,
            "平移得太早：先缩放，再加填充的宽度": (coords + shift) * scale,
            "x、y 的平移弄反了": coords * scale + shift[::-1],
            "平移了全部填充：左边和上边只有一半": coords * scale + 2 * shift,
            "填充的方向反了：点往右、往下移，要加": coords * scale - shift,
            "高和宽弄反了：x 用宽的倍数，y 用高的倍数": coords * scale[::-1] + shift,
            "用了没取整的倍数：x、y 按取整后的宽、高各算一个": coords * side / max(h, w)
            + shift,
            "x 和 y 在最后一维：取 coords[..., 0]，不是 coords[:, 0]": np.stack(
                rows, 1
            ),
            "没有往下取整：左边补 (side - new_w) // 2 列": coords * scale
            + (side - np.array([new_w, new_h])) / 2,
        }
        check_against(got, right, mistakes, f"{h}×{w} 的照片，边长 {side}")


def ex_01_5(half_pixel_gap: Callable[..., Any]) -> None:
    """照片上的偏差：0.5 / s - 0.5。"""
    for old, new in [(6000, 1024), (384, 1024), (1024, 1024), (500, 300)]:
        got = answered(half_pixel_gap(old, new))
        s = new / old
        right = 0.5 / s - 0.5
        mistakes = {
            "单位不对：这是输入的像素，再除以 s 换成照片的像素": [0.5 - 0.5 * s],
            "正负反了：官方坐标减去真正的中心": [0.5 - 0.5 / s],
            "倍数反了：s 是 new / old": [0.5 * s - 0.5],
            "换算的方向反了：输入像素换成照片像素，要除以 s": [(0.5 - 0.5 * s) * s],
            "只有一边的 0.5：两式都有，真正的中心是 (i + 0.5)·s": [0.5 / s],
        }
        check_against([got], [right], mistakes, f"{old} 缩放到 {new}")
