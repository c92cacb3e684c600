"""第 12 章的练习：对的答案、典型的错误和提示。"""

import numpy as np
import torch
from checks.common import Bug, Code, Part, Values, Wrong

from sam_lite.masks.rle import mask_to_rle_pytorch

ex_12_1 = Values(
    "要三个整数：(编码次数, 点数, 掩码张数)。",
    [
        Part(
            1 + 4 + 16,
            "编码次数不对：每层各有几块？加起来。",
            {
                20: "编码次数漏了第 0 层：整张照片也要编码。",
                3: "3 是层数；同一层的每一块都要单独编码。",
                5: "编码次数漏了第 2 层，或第 2 层当成了 2×2 块。",
            },
        ),
        Part(
            3 * 576,
            "点数不对：每层是块数乘每边点数的平方，三层相加。",
            {
                21 * 576: "点数没有减：每深一层，每边的点数除以 2。",
                576 + 4 * 288 + 16 * 144: "除以 2 的是每边的点数，不是总点数。",
                576 + 144 + 36: "点数没有乘块数：每一块都要撒一遍。",
                2 * 576: "点数漏了一层：整张照片和两层裁图都要问。",
                576 + 20 * 144: "第 2 层每边要除两次 2，不是一次。",
            },
        ),
        Part(
            9 * 576,
            "掩码张数不对：还没有筛，每个点三张。",
            {3 * 576: "掩码张数等于点数了：每个点有几张？"},
        ),
    ],
)

ex_12_2 = Code(
    """
def smallest_radius(slope, thresh):
    d, q = 1 / slope, thresh**0.5
    return d * (1 + q) / (1 - q)
""",
    lambda: {
        f"slope={slope}、thresh={thresh} 时": (slope, thresh)
        for slope, thresh in ((1, 0.95), (2, 0.5), (0.5, 0.8), (4, 0.25))
    },
    Wrong("忘了开方：分数是比值的平方。", "thresh**0.5", "thresh"),
    Wrong("多开了一次，或平方写反了：q 是阈值的平方根。", "**0.5", "**2"),
    Wrong("坡度和 d 弄反了：坡度是 2，边只挪 1/2 像素。", "1 / slope", "slope"),
    Wrong("漏了坡度：坡越陡，需要的半径越小。", "1 / slope", "1"),
    Wrong("阈值是上下各挪 1，不是各挪半个。", "1 / slope", "0.5 / slope"),
    Wrong("分子和分母弄反了。", "(1 + q) / (1 - q)", "(1 - q) / (1 + q)"),
    Wrong(
        "取整了：要的是刚好达到的半径，不取整。",
        "return d * (1 + q) / (1 - q)",
        "return int(np.ceil(d * (1 + q) / (1 - q)))",
    ),
    form="要返回一个数。",
    otherwise="代回公式，得不到那个阈值。",
)


def placed() -> dict[str, tuple]:
    """各种位置的块和框。"""
    image = [0, 0, 300, 200]
    cases = {}
    for crop in (
        [0, 0, 170, 120],
        [130, 0, 300, 120],
        [130, 80, 300, 200],
        [60, 40, 230, 160],
    ):
        width, height = crop[2] - crop[0], crop[3] - crop[1]
        for left, right in ((2, 90), (60, width - 20), (40, 80), (21, width - 21)):
            for top, bottom in ((3, 50), (50, height), (30, 70), (20, height - 40)):
                box = [left, top, right, bottom]
                cases[f"块 {crop} 里的框 {box}，照片 {image}"] = box, crop, image
    return cases


SHIFT = "box[0] + x, box[1] + y, box[2] + x, box[3] + y"
NEAR, FAR = "abs(b - c) <= 20", "abs(b - i) > 20"
ex_12_3 = Code(
    f"""
def is_cut(box, crop, image):
    x, y = crop[:2]
    box = [{SHIFT}]
    return any({NEAR} and {FAR} for b, c, i in zip(box, crop, image))
""",
    placed,
    Bug("box 的坐标是块里的，要先加上块左上角的 x、y。", f"[{SHIFT}]", "box"),
    Bug("贴着照片的边的不算切断：物体本来就到那里为止。", FAR, "True"),
    Wrong(
        "一条边一条边地看：左边贴着照片，不能给右边的切断说情。",
        "return any(",
        "if any(abs(b - i) <= 20 for b, i in zip(box, image)):\n"
        "        return False\n    return any(",
    ),
    Wrong(
        "x 和 y 加反了：两个 x 加块左边的 x，两个 y 加块上边的 y。",
        "x, y = crop",
        "y, x = crop",
    ),
    Wrong("有一条边切断就算，不必四条都贴着。", "any(", "all("),
    Wrong("正好相差 20 像素也算贴着。", "<= 20", "< 20", "> 20", ">= 20"),
    Wrong("真假弄反了：切断的返回真。", "return any", "return not any"),
    ask=lambda is_cut, *args: bool(is_cut(*args)),
    form="要返回真或假。",
    otherwise="四条边分别看。",
    exact=True,
)


def encoded() -> dict[str, tuple]:
    """几张掩码：两头有没有 0、空的、只有一个像素的。"""
    masks = [np.zeros((3, 7), bool) for _ in range(6)]
    masks[0][1, 3:6] = True  # 除以高、除以宽、取余，三种都不同
    masks[1][2, 6] = masks[1][0, 3] = True  # 以 1 结尾
    masks[2][0, 0] = True  # 以 1 开头
    masks[3][:, 4:6] = True
    masks[4][:] = True
    tall = np.zeros((8, 3), bool)
    tall[2:5, 1] = True
    cases = {}
    for mask in (*masks, tall):
        (rle,) = mask_to_rle_pytorch(torch.from_numpy(mask)[None])
        cases[f"size={rle['size']}、counts={rle['counts']} 时"] = (rle,)
    return cases


DECODED = "答案对了，可是把掩码还原出来了：只用 counts 和 H 就够。"
FIRST, LAST = "counts[0] // H", "(end - 1) // H"
END = "sum(counts) - (counts[-1] if len(counts) % 2 else 0)"
ex_12_4 = Code(
    f"""
def columns(rle):
    (H, W), counts = rle["size"], rle["counts"]
    if len(counts) == 1:
        return 0, 0
    end = {END}
    return {FIRST}, {LAST}
""",
    encoded,
    Wrong("除的该是高：按列数，一列有 H 个像素。", "// H", "// W"),
    Wrong("那是第几行：取商是列，取余是行。", "// H", "% H"),
    Wrong("最后一个 1 的位置没有减 1。", LAST, "end // H"),
    Wrong("末尾那段 0 没有减掉。", END, "sum(counts)"),
    Wrong("末尾一定是 0 吗？看 counts 的个数。", END, "sum(counts[:-1])"),
    Wrong("只看了第一段 1，后面还有。", LAST, FIRST),
    Wrong("是空掩码，要返回 (0, 0)。", "return 0, 0", "return -1, -1"),
    Wrong(
        DECODED,
        "from sam_lite.masks.rle import rle_to_mask\n"
        "def columns(rle):\n"
        "    found = np.flatnonzero(rle_to_mask(rle).any(axis=0))\n"
        "    return (found[0], found[-1]) if len(found) else (0, 0)\n",
    ),
    Wrong(
        DECODED,
        "def columns(rle):\n"
        "    values = np.arange(len(rle['counts'])) % 2\n"
        "    flat = np.repeat(values, rle['counts'])\n"
        "    found = np.flatnonzero(flat) // rle['size'][0]\n"
        "    return (found[0], found[-1]) if len(found) else (0, 0)\n",
    ),
    forbid=dict.fromkeys(("rle_to_mask", "repeat", "zeros", "decode"), DECODED),
    form="要返回两个整数：(第一列, 最后一列)。",
    otherwise="按列把每一段铺开，看第一个和最后一个 1 在哪一列。",
    names=("第一列", "最后一列"),
)


def rivals() -> dict[str, tuple]:
    """环和芯、三连环、正好等于阈值、空掩码、随机的、同分。"""
    ring = np.zeros((2, 12, 15), bool)
    ring[0, 1:11, 1:14] = True
    ring[0, 2:10, 2:13] = False
    ring[1, 2:10, 2:13] = True
    chain = np.zeros((3, 12, 20), bool)
    for i in range(3):
        chain[i, 2:9, 3 * i : 3 * i + 10] = True
    equal = np.zeros((2, 4, 9), bool)
    equal[0, 1, 0:6] = equal[1, 1, 0:3] = True  # IoU 正好 0.5
    rng = np.random.default_rng(0)
    noise, scores = rng.random((9, 5, 7)) < 0.6, np.round(rng.random(9), 1)
    tied = np.array([0.7, 0.7, 0.7, 0.7, 0.9, 0.7])
    return {
        "环和芯": (ring, np.array([0.6, 0.9]), 0.5),
        "三张一张压一张": (chain, np.array([0.9, 0.8, 0.7]), 0.5),
        "IoU 正好等于阈值": (equal, np.array([0.4, 0.8]), 0.5),
        "空掩码，与谁的 IoU 都是 0": (np.zeros((2, 4, 6), bool), tied[3:5], 0.5),
        f"9 张、阈值 0.4、分数 {scores.tolist()}": (noise, scores, 0.4),
        f"6 张、阈值 0.5、分数 {tied.tolist()}": (
            np.concatenate([chain] * 2),
            tied,
            0.5,
        ),
    }


def listed(nms_of_masks, masks, scores, threshold):
    """留下的下标；写成数组也行。"""
    kept = nms_of_masks(masks, scores, threshold)
    array = np.asarray(kept)
    if kept is None or array.ndim > 1:
        return kept if kept is None else "是掩码"
    if len(array) and array.dtype.kind not in "iu":
        return "不是整数"
    return {"留下的": sorted(array.tolist()), "次序": array.astype(int).tolist()}


ORDER = "sorted(range(len(masks)), key=lambda i: -scores[i])"
UNION = "(masks[i] | masks[j]).sum()"
ex_12_5 = Code(
    f"""
def nms_of_masks(masks, scores, threshold):
    kept, seen = [], []
    for i in {ORDER}:
        ious = [(masks[i] & masks[j]).sum() / max({UNION}, 1) for j in kept]
        if not any(iou > threshold for iou in ious):
            kept.append(i)
        seen.append(i)
    return kept
""",
    rivals,
    Wrong(
        "比的还是框：环和芯的框几乎重合，掩码却不重叠。",
        "    kept, seen = [], []\n",
        """    kept, seen, full = [], [], np.zeros_like(masks)
    for mask, out in zip(masks, full):
        if mask.any():
            rows, cols = np.nonzero(mask)
            out[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1] = True
    masks = full
""",
    ),
    Wrong("从分数低的开始留了：要从高到低。", "-scores[i]", "scores[i]"),
    Wrong("已经出局的还在压别人：只和留下的比。", "for j in kept", "for j in seen"),
    Wrong(
        "分母是小的那张的面积：IoU 的分母是并。",
        UNION,
        "min(masks[i].sum(), masks[j].sum())",
    ),
    Wrong(
        "同分的次序变了：要按原来的先后，用稳定的排序。",
        ORDER,
        'np.argsort(scores, kind="stable")[::-1]',
    ),
    Wrong("正好等于阈值的也去掉了：大于才算重复。", "iou > ", "iou >= "),
    Wrong(
        "留下的对了，次序不对：按分数从高到低，不是按下标。",
        "return kept",
        "return sorted(kept)",
    ),
    Wrong(
        "要返回下标的列表，不是掩码。", "return kept", "return [masks[i] for i in kept]"
    ),
    Wrong(
        "要返回下标（整数）的列表，不是真假值或分数。",
        "return kept",
        "return [scores[i] for i in kept]",
    ),
    ask=listed,
    form="要返回下标的列表。",
    otherwise="按分数从高到低一张一张来，只和留下的比。",
    exact=True,
)
