"""第 1 章的练习：对的答案、典型的错误和提示。"""

import numpy as np
import torch
import torch.nn.functional as F
from checks.common import Code, Like, Part, Values, Wrong

from sam_lite.preprocess import ResizeLongestSide

CENTERED = "照片不居中：填充全在右边和下边。"
TURNED = "高和宽弄反了：竖照片的高是最长边，高变成 1024。"
FILL = "填充不对：1024 减去缩放后的宽，1024 减去缩放后的高。"
SIZE = "高和宽不对：最长边变成 1024，另一边乘同一个比例。"
FRACTION = {Like(682.67, lambda n: n != int(n)): "像素是整数：四舍五入。"}
ex_01_1 = Values(
    "要四个整数：高、宽、右、下。",
    [
        Part(1024, SIZE),
        Part(683, SIZE, FRACTION),
        Part(341, FILL, {170: CENTERED, 171: CENTERED}),
        Part(0, FILL),
    ],
    whole={
        (683, 1024, 0, 341): TURNED,
        (683, 1024, 341, 0): TURNED,
        (1024, 682, 342, 0): "取整错了：682.67 四舍五入是 683，不是舍去小数。",
        (1024, 683, 0, 341): "右和下弄反了：缺的是宽，要在右边补列。",
        (1024, 1024, 0, 0): "这是拉满：短边也按最长边的比例缩放，宽高比不变。",
        (1536, 1024, 0, 0): "这是按最短边缩放：最长边才是 1024。",
        (3000, 2000, 0, 1000): "还没有缩放：先把最长边变成 1024。",
    },
)

# 高、宽都不同，有横有竖；倍数有大有小，取整之后 x、y 的倍数不一样
SIZES = [((4, 7), 10), ((7, 4), 10), ((33, 97), 64), ((640, 427), 256)]
NEW_SIZE = "ResizeLongestSide.get_preprocess_shape(*original_size, side)"


def boxes() -> dict[str, tuple]:
    """每组一个框在照片里，一个伸进填充，一个从左上角伸出去。"""
    cases = {}
    for size, side in SIZES:
        h, w = ResizeLongestSide.get_preprocess_shape(*size, side)
        inside = [0.1 * w, 0.2 * h, 0.7 * w, 0.9 * h]
        padded, out = [0.5 * w, 0.5 * h, side + 1, side + 1], [-2, -3, 0.4 * w, 0.5 * h]
        given = np.array([inside, padded, out])
        cases[f"{size[0]}×{size[1]} 的照片，边长 {side}"] = given, size, side
    return cases


ex_01_2 = Code(
    f"""
from sam_lite.preprocess import ResizeLongestSide
def restore_boxes(boxes, original_size, side):
    h, w = original_size
    new_h, new_w = {NEW_SIZE}
    corners = boxes.reshape(-1, 2, 2) / np.array([new_w / w, new_h / h])
    return corners.clip(0, (w, h)).reshape(-1, 4)
""",
    boxes,
    Wrong("方向反了：从输入回到照片是除，不是乘。", ") / np", ") * np"),
    Wrong(
        "高和宽弄反了：x 用宽的倍数，y 用高的倍数。",
        "new_w / w, new_h / h",
        "new_h / h, new_w / w",
    ),
    Wrong("小于 0 的也要裁，裁到 0。", "clip(0, ", "clip(None, "),
    Wrong("没有裁：伸进填充的框要停在照片边上。", ".clip(0, (w, h))", ""),
    Wrong(
        "裁的界限弄反了：x 到宽为止，y 到高为止。", "clip(0, (w, h))", "clip(0, (h, w))"
    ),
    Wrong(
        "用了没取整的倍数：x、y 按取整后的宽、高各算一个。",
        "new_w / w, new_h / h",
        "side / max(h, w)",
    ),
    Wrong(
        "形状应与来的相同，(B, 4)：角拆成 (B, 2, 2) 之后要还原。", ".reshape(-1, 4)", ""
    ),
    Wrong(
        "改动了传进来的数组：先复制，或算出新的。",
        "    h, w",
        "    boxes *= 1\n    boxes += 1e-3\n    h, w",
    ),
    kept=True,
    form="要返回一个数组，形状 (B, 4)。",
    otherwise="数值不对。",
)


def logits() -> dict[str, tuple]:
    cases = {}
    for size, side in (((20, 31), 16), ((31, 20), 16), ((9, 14), 24)):
        x = F.interpolate(torch.randn(2, 3, 5, 5), (side, side), mode="bicubic") + 0.3
        inner = ResizeLongestSide.get_preprocess_shape(*size, side)
        cases[f"{size[0]}×{size[1]} 的照片，边长 {side}"] = x, inner, size
    return cases


EARLY = "阈值取早了：先缩放 logits，最后才与 0 比。"
ex_01_3 = Code(
    """
def to_photo(logits, input_size, original_size):
    h, w = input_size
    x = logits[..., :h, :w]
    x = F.interpolate(x, original_size, mode="bilinear", align_corners=False)
    return x > 0
""",
    logits,
    Wrong("高和宽弄反了：input_size 是（高, 宽）。", "h, w = input", "w, h = input"),
    Wrong("忘了裁掉补上的部分。", "[..., :h, :w]", ""),
    Wrong(EARLY, "[..., :h, :w]", "[..., :h, :w].gt(0).float()", "> 0", "> 0.5"),
    Wrong("align_corners=True 会让轮廓错开，用 False。", "False", "True"),
    Wrong(
        "阈值取早了，align_corners 也要用 False。",
        "[..., :h, :w]",
        "[..., :h, :w].gt(0).float()",
        "> 0",
        "> 0.5",
        "False",
        "True",
    ),
    Wrong("阈值不对：分数大于 0 才算物体。", "> 0", "> 0.5"),
    Wrong("还没有变成掩码：最后与 0 比，得到布尔值。", "return x > 0", "return x"),
    Wrong(
        "高和宽弄反了：original_size 已经是（高, 宽），照样交给 interpolate。",
        "x, original_size",
        "x, original_size[::-1]",
    ),
    Wrong("形状不对：original_size 是（高, 宽），前两维不动。", "x > 0", "(x > 0)[0]"),
    form="要返回张量。",
    otherwise="掩码不对：裁、缩放、与 0 比，一步步对照。",
)


def points() -> dict[str, tuple]:
    cases = {}
    for size, side in SIZES:
        h, w = size
        given = np.array([[[0.0, 0.0], [w, h]], [[0.3 * w, 0.6 * h], [w, 0.0]]])
        cases[f"{h}×{w} 的照片，边长 {side}"] = given, size, side
    return cases


ex_01_4 = Code(
    f"""
from sam_lite.preprocess import ResizeLongestSide
def centered_coords(coords, original_size, side):
    new_h, new_w = {NEW_SIZE}
    shift = np.array([(side - new_w) // 2, (side - new_h) // 2])
    scale = np.array([new_w / original_size[1], new_h / original_size[0]])
    return coords * scale + shift
""",
    points,
    Wrong("没有平移：照片居中，左边和上边也有填充。", " + shift", ""),
    Wrong(
        "平移得太早：先缩放，再加填充的宽度。",
        "coords * scale + shift",
        "(coords + shift) * scale",
    ),
    Wrong("x、y 的平移弄反了。", "+ shift", "+ shift[::-1]"),
    Wrong("平移了全部填充：左边和上边只有一半。", "+ shift", "+ 2 * shift"),
    Wrong("填充的方向反了：点往右、往下移，要加。", "+ shift", "- shift"),
    Wrong("高和宽弄反了：x 用宽的倍数，y 用高的倍数。", "* scale", "* scale[::-1]"),
    Wrong(
        "用了没取整的倍数：x、y 按取整后的宽、高各算一个。",
        "* scale",
        "* side / max(original_size)",
    ),
    Wrong(
        "x 和 y 在最后一维：取 coords[..., 0]，不是 coords[:, 0]。",
        "coords * scale + shift",
        "np.stack([coords[:, i] * scale[i] + shift[i] for i in (0, 1)], 1)",
    ),
    Wrong("没有往下取整：左边补 (side - new_w) // 2 列。", "// 2", "/ 2"),
    form="形状应与点相同。",
    otherwise="数值不对。",
)

ex_01_5 = Code(
    """
def half_pixel_gap(old, new):
    s = new / old
    return (0.5 - 0.5 * s) / s
""",
    lambda: {
        f"{old} 缩放到 {new}": (old, new)
        for old, new in ((6000, 1024), (384, 1024), (1024, 1024), (500, 300))
    },
    Wrong("单位不对：这是输入的像素，再除以 s 换成照片的像素。", ") / s", ")"),
    Wrong("正负反了：官方坐标减去真正的中心。", "(0.5 -", "-(0.5 -"),
    Wrong("倍数反了：s 是 new / old。", "new / old", "old / new"),
    Wrong("换算的方向反了：输入像素换成照片像素，要除以 s。", ") / s", ") * s"),
    Wrong("只有一边的 0.5：两式都有，真正的中心是 (i + 0.5)·s。", " - 0.5 * s", ""),
    form="要返回一个数。",
    otherwise="数值不对。",
)
