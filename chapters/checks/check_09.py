"""第 9 章的练习怎么检查。"""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from course import Mistake, answered, expect

from sam_lite.preprocess import ResizeLongestSide

# ---- 9.1 --------------------------------------------------------------------

PLACES = (128**2 - 64**2) * 768  # 绝对位置多出的
TABLE = 2 * (128 - 64) * 64  # 一张全局相对位置表多出的


def ex_09_1(answer) -> None:
    """编码器多 9,502,720 个，另外两个部件一个也不多。"""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "要三个整数：（图像编码器，提示编码器，掩码解码器）。",
    )
    encoder, prompt, decoder = (answered(n) for n in answer)
    expect(
        prompt == 0,
        "提示编码器的数不对：它有没有哪个参数的形状里带着网格或边长？位置是算出来的。",
    )
    expect(
        decoder == 0,
        "掩码解码器的数不对：词元、线性层、转置卷积，形状里都没有网格。",
    )
    if encoder != PLACES + 8 * TABLE:
        raise Mistake(extra_hint(encoder))


def extra_hint(n) -> str:
    """编码器多出的个数错在哪里。"""
    mistakes = {
        PLACES: "忘了全局层的相对位置表，它的行数也跟着网格变。",
        8 * TABLE: "忘了绝对位置：每格一个 768 维向量，格子多了。",
        PLACES + 4 * TABLE: "每个全局层有高、宽两张相对位置表。",
        PLACES + 24 * TABLE: "只有 4 个全局层的表会变，窗口还是 14。",
        PLACES + 8 * 12 * TABLE: "相对位置表每行只有一个头那么宽，64，不是 768。",
        128**2 * 768 + 8 * 255 * 64: "题目问的是多出几个，不是一共几个。",
        128**2 * 768: "题目问的是多出几个，不是一共几个；相对位置表也要算。",
        64 * 768 + 8 * TABLE: "格子数是边长的平方：128×128 减 64×64，不是 128 减 64。",
        PLACES + 8 * 2 * 64 * 64 + 8 * 64: "表的行数是 2·边长 − 1，两次相减，−1 抵消。",
    }
    return "图像编码器的数不对：" + mistakes.get(
        n, "逐样列出形状里带着网格的参数，新的减旧的。"
    )


# ---- 9.2 --------------------------------------------------------------------


def resize(x: torch.Tensor, size, align: bool = False) -> torch.Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align)


def right_logits(low_res, side, input_size, original_size) -> torch.Tensor:
    x = resize(low_res, (side, side))[..., : input_size[0], : input_size[1]]
    return resize(x, original_size)


# 边长、缩放后的高宽、照片的高宽；裁线都不在整格上
CASES = (
    (64, (43, 64), (50, 75)),
    (96, (96, 58), (131, 79)),
    (128, (128, 69), (60, 32)),
)


def ex_09_2(answer) -> None:
    """横竖照片、放大缩小，都要和正确的次序相同。"""
    noise = torch.Generator().manual_seed(0)
    for side, inner, outer in CASES:
        low = torch.randn(2, 3, side // 4, side // 4, generator=noise) - 0.3
        case = f"边长 {side}，照片 {outer[0]}×{outer[1]}"
        got = answered(answer(low.clone(), side, inner, outer))
        expect(isinstance(got, torch.Tensor), f"要返回一个张量：{case}。")
        shape = (2, 3, *outer)
        expect(
            tuple(got.shape) == shape,
            f"形状是 {tuple(got.shape)}，应该是 {shape}：{case}。",
        )
        expect(got.dtype == torch.bool, "要返回布尔掩码，不是 logits 或概率。")
        right = right_logits(low, side, inner, outer) > 0
        if different(got, right):
            raise Mistake(masks_hint(got, low, side, inner, outer) + f"（{case}）")


def different(a: torch.Tensor, b: torch.Tensor) -> bool:
    """不同的像素多于三个；舍入可能翻转正好在边界上的一两个。"""
    return int((a != b).sum()) > 3


def masks_hint(got, low, side, inner, outer) -> str:
    """后处理错在哪里：拿常见的错法逐个来比。"""

    def same(x: torch.Tensor, threshold: float = 0) -> bool:
        return not different(got, x > threshold)

    # 题目里的三处，留着一处、两处或三处
    for wide, whole, soft in itertools.product((False, True), repeat=3):
        x = resize(low.sigmoid() if soft else low, (1024 if wide else side,) * 2)
        x = resize(crop(x, outer if whole else inner), outer)
        left = [
            "1024 写死了，要用 side" if wide else "",
            "裁成了 original_size，正方形里照片的大小是 input_size" if whole else "",
            "sigmoid 还在放大之前，边界会后退" if soft else "",
        ]
        if any(left) and same(x, 0.5 if soft else 0):
            return "还剩：" + "；".join(filter(None, left)) + "。"
    binary = right_logits((low > 0).float(), side, inner, outer)
    if same(binary, 0.5):
        return "取阈值在放大之前，边缘会成台阶。"
    if same(resize(low, outer)) or same(resize(resize(low, (side, side)), outer)):
        return "没有裁掉填充：放大到 side 以后，按 input_size 裁。"
    for cut in (math.floor, round, math.ceil):
        rows, columns = (cut(n * low.shape[-1] / side) for n in inner)
        x = low[..., :rows, :columns]
        if same(resize(x, outer)) or same(resize(resize(x, (side, side)), outer)):
            return "裁得太早：要先放大到 side，再裁。"
    x = crop(resize(low, (side, side), align=True), inner)
    if same(resize(x, outer, align=True)):
        return "align_corners 要是 False。"
    return "和正确的不同：次序是放大到 side，按 input_size 裁，缩放，最后和 0 比。"


def crop(x: torch.Tensor, size) -> torch.Tensor:
    return x[..., : size[0], : size[1]]


# ---- 9.3 --------------------------------------------------------------------

CAUGHT = {
    "编码器的头数写成 6": (
        True,
        "线性层不问头数，可是编码器还有相对位置表，每行一个头那么宽。",
    ),
    "解码器的头数写成 4": (
        False,
        "解码器的注意力有没有哪个张量的形状里带着头数？那里没有相对位置表。",
    ),
    "窗口写成 7": (True, "窗口层的相对位置表有几行？"),
    "全局层写成 (3, 5, 8, 11)": (
        True,
        "全局层和窗口层的相对位置表一样长吗？看第 2 层和第 3 层。",
    ),
    "提示编码器的 input_image_size 写成 (512, 512)": (
        False,
        "它只是坐标的除数，想想有没有哪个张量按它定大小。",
    ),
    "pixel_std 写成 (1, 1, 1)": (False, "看 9.5 节：它在不在 state_dict 里？"),
}


def ex_09_3(answer) -> None:
    """只有改了某个张量的形状，strict=True 才拦得住。"""
    expect(
        isinstance(answer, dict) and set(answer) == set(CAUGHT),
        "要一个字典，六个键照题目原样。",
    )
    for name, value in answer.items():
        answered(value)
        expect(isinstance(value, bool), f"“{name}”要填 True 或 False。")
    for name, (right, hint) in CAUGHT.items():
        expect(answer[name] == right, f"“{name}”答错了：{hint}")


# ---- 9.4 --------------------------------------------------------------------

SIDE = 64  # 假模型的边长
# 第一张照片五个框的 IoU：逐行的最大、第一行的最大、各列平均的最大都不同
SCORES = torch.tensor(
    [
        [0.2, 0.9, 0.5],
        [0.3, 0.1, 0.8],
        [0.1, 0.2, 0.9],
        [0.7, 0.6, 0.1],
        [0.4, 0.3, 0.9],
    ]
)
# 照片的高宽、框的个数
BATCHES = (
    (((30, 45), 5), ((50, 20), 1)),
    (((24, 24), 2), ((90, 61), 4), ((7, 50), 2)),
)


class FakeSam:
    """记下收到什么，掩码和 IoU 是随机的：挑错了一定不同。"""

    def __init__(self) -> None:
        self.image_encoder = SimpleNamespace(img_size=SIDE)
        self.calls = 0

    def __call__(self, batched_input, multimask_output):
        self.calls += 1
        expect(self.calls == 1, "sam 调用了不止一次：把全部字典放进一个列表。")
        expect(multimask_output in (True, 1), "multimask_output 要是 True，三张里挑。")
        expect(isinstance(batched_input, list), "sam 要收字典的列表。")
        self.records = batched_input
        self.results = [fake_result(i, one) for i, one in enumerate(batched_input)]
        return self.results


def fake_result(seed: int, record) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    shape = (len(record["boxes"]), 3)
    return {
        "masks": torch.rand(*shape, *record["original_size"], generator=noise) > 0.5,
        "iou_predictions": (
            SCORES if shape[0] == len(SCORES) else torch.rand(shape, generator=noise)
        ),
        "low_res_logits": torch.randn(*shape, SIDE // 4, SIDE // 4, generator=noise),
    }


def ex_09_4(answer) -> None:
    """只调用一次；字典写对；每个框留下 IoU 最高的一张。"""
    random = np.random.default_rng(0)
    for batch in BATCHES:
        photos = [random.integers(0, 256, (*hw, 3), np.uint8) for hw, _ in batch]
        boxes = [
            (random.uniform(0, 0.5, (n, 4)) + [0, 0, 0.5, 0.5]) * [w, h, w, h]
            for (h, w), n in batch
        ]
        sam = FakeSam()
        got = answered(answer(sam, photos, [b.tolist() for b in boxes]))
        expect(sam.calls == 1, "没有调用 sam。")
        expect(len(sam.records) == len(photos), "每张照片一个字典，个数对不上。")
        for record, photo, box in zip(sam.records, photos, boxes, strict=True):
            check_record(record, photo, box)
        expect(
            isinstance(got, (list, tuple)) and len(got) == len(photos),
            "要返回列表，每张照片一项。",
        )
        for masks, result in zip(got, sam.results, strict=True):
            check_best(answered(masks), result)


def check_record(record, photo, boxes) -> None:
    """交给模型的一个字典。"""
    resize = ResizeLongestSide(SIDE)
    hw, case = photo.shape[:2], f"照片 {photo.shape[0]}×{photo.shape[1]}"
    size = tuple(record["original_size"])
    expect(size == hw, f"original_size 是 {size}，应该是 {hw}，先高后宽。")
    right = torch.from_numpy(resize.apply_image(photo)).permute(2, 0, 1).float()
    image = record["image"].float()
    expect(
        image.shape == right.shape,
        f"image 的形状是 {tuple(image.shape)}，应该是 {tuple(right.shape)}：{case}。"
        "通道在前；边长从 sam.image_encoder.img_size 读。",
    )
    expect(
        torch.allclose(image, right),
        f"image 的数值不对：{case}。像素 0–255，不要自己规范化，forward 里会做。",
    )
    expect("boxes" in record, "字典里没有 boxes。")
    got, wanted = (
        torch.as_tensor(b, dtype=torch.float)
        for b in (record["boxes"], resize.apply_boxes(boxes, hw))
    )
    raw = torch.as_tensor(boxes, dtype=torch.float)
    unmoved = got.shape == raw.shape and torch.allclose(got, raw)
    expect(not unmoved, f"框还在照片的坐标里，要随图缩放：{case}。")
    expect(
        got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-3),
        f"框不对：{case}。用 to_record 或 apply_boxes。",
    )


def check_best(got, result) -> None:
    """挑出来的掩码。"""
    masks, iou = result["masks"], result["iou_predictions"]
    B, _, H, W = masks.shape
    expect(isinstance(got, torch.Tensor), "每张照片要一个张量。")
    hints = {
        (B, 3, H, W): "三张都留下了，只要最好的一张。",
        (B, B, H, W): "masks[:, best] 给每个框都取了全部 best，要一对下标。",
        (B, 1, H, W): "多出一维，要 (框数, H, W)。",
        (H, W): "只剩一张，要每个框一张。",
        (1, H, W): "只剩一张，要每个框一张。",
    }
    shape = tuple(got.shape)
    words = hints.get(shape, f"形状是 {shape}。")
    expect(shape == (B, H, W), f"{words}应该是 {(B, H, W)}。")
    expect(got.dtype == torch.bool, "要返回布尔掩码。")

    def chosen(index) -> torch.Tensor:
        return masks[torch.arange(B), index]

    if torch.equal(got, chosen(iou.argmax(1))):
        return
    mistakes = {
        "总是第 0 张，没有看 iou_predictions。": torch.zeros(B, dtype=torch.long),
        "挑了 IoU 最低的。": iou.argmin(1),
        "全部框用了同一个序号：每个框在自己那一行里挑。": iou.mean(0).argmax(),
        "全部框用了第一个框的序号：argmax 要写维度，一行挑一个。": iou[0].argmax(),
    }
    for words, index in mistakes.items():
        expect(not torch.equal(got, chosen(index)), words)
    raise Mistake("挑得不对：沿着 iou_predictions 的第 1 维取最大。")
