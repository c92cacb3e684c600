"""第 9 章的练习：对的答案、典型的错误和提示。"""

from types import SimpleNamespace

import numpy as np
import torch
from checks.common import Bug, Code, Part, Values, Wrong
from course import Mistake, expect

PLACES = (128**2 - 64**2) * 768  # 绝对位置多出的
TABLE = 2 * (128 - 64) * 64  # 一张全局相对位置表多出的
EXTRA = {
    PLACES: "忘了全局层的相对位置表，它的行数也跟着网格变。",
    8 * TABLE: "忘了绝对位置：每格一个 768 维向量，格子多了。",
    PLACES + 4 * TABLE: "每个全局层有高、宽两张相对位置表。",
    PLACES + 24 * TABLE: "只有 4 个全局层的表会变，窗口还是 14。",
    PLACES + 96 * TABLE: "相对位置表每行只有一个头那么宽，64，不是 768。",
    128**2 * 768 + 8 * 255 * 64: "题目问的是多出几个，不是一共几个。",
    128**2 * 768: "题目问的是多出几个，不是一共几个；相对位置表也要算。",
    64 * 768 + 8 * TABLE: "格子数是边长的平方：128×128 减 64×64，不是 128 减 64。",
    PLACES + 8 * 2 * 64 * 64 + 8 * 64: "表的行数是 2·边长 − 1，两次相减，−1 抵消。",
}
ex_09_1 = Values(
    "要三个整数：（图像编码器，提示编码器，掩码解码器）。",
    [
        Part(
            PLACES + 8 * TABLE,
            "图像编码器的数不对：逐样列出形状里带着网格的参数，新的减旧的。",
            {n: f"图像编码器的数不对：{hint}" for n, hint in EXTRA.items()},
        ),
        Part(
            0,
            "提示编码器的数不对：它有没有哪个参数的形状里带着网格或边长？"
            "位置是算出来的。",
        ),
        Part(0, "掩码解码器的数不对：词元、线性层、转置卷积，形状里都没有网格。"),
    ],
)


def low_res() -> dict[str, tuple]:
    """横竖照片、放大缩小；裁线都不在整格上。"""
    return {
        f"边长 {side}，照片 {outer[0]}×{outer[1]}": (
            torch.randn(2, 3, side // 4, side // 4) - 0.3,
            side,
            inner,
            outer,
        )
        for side, inner, outer in (
            (64, (43, 64), (50, 75)),
            (96, (96, 58), (131, 79)),
            (128, (128, 69), (60, 32)),
        )
    }


def nearly(a: np.ndarray, b: np.ndarray) -> bool:
    """最多差三个像素；舍入可能翻转正好在边界上的一两个。"""
    return a.dtype == b.dtype and int((a != b).sum()) <= 3


CUT = "x = x[..., : input_size[0], : input_size[1]]"
GROW = "low_res, (side, side)"
LARGE = f"x = resize({GROW})"
END = "x = resize(x, original_size)"
NO_CUT = "没有裁掉填充：放大到 side 以后，按 input_size 裁。"
SOON = "裁得太早：要先放大到 side，再裁。"


def early(rows: str) -> str:
    """在低分辨率上裁。"""
    edge = rows.format("0"), rows.format("1")
    return f"x = low_res[..., : {edge[0]}, : {edge[1]}]"


DOWN, UP = "input_size[{}] // 4", "-(-input_size[{}] // 4)"
ex_09_2 = Code(
    f"""
def to_masks(low_res, side, input_size, original_size):
    options = dict(mode="bilinear", align_corners=False)
    resize = lambda x, size: F.interpolate(x, size, **options)
    at = 0
    {LARGE}
    {CUT}
    {END}
    return x > at
""",
    low_res,
    Bug("1024 写死了，要用 side。", "(side, side)", "(1024, 1024)"),
    Bug(
        "裁成了 original_size，正方形里照片的大小是 input_size。",
        CUT,
        CUT.replace("input", "original"),
    ),
    Bug(
        "sigmoid 还在放大之前，边界会后退。",
        "resize(low_res",
        "resize(low_res.sigmoid()",
        "at = 0",
        "at = 0.5",
    ),
    Wrong(
        "取阈值在放大之前，边缘会成台阶。",
        "resize(low_res",
        "resize((low_res > 0).float()",
        "at = 0",
        "at = 0.5",
    ),
    Wrong(NO_CUT, CUT, ""),
    Wrong(NO_CUT, LARGE, "x = low_res", CUT, ""),
    Wrong(SOON, CUT, "", GROW, "x, (side, side)", "at = 0", f"at = 0; {early(DOWN)}"),
    Wrong(SOON, CUT, "", GROW, "x, (side, side)", "at = 0", f"at = 0; {early(UP)}"),
    Wrong(SOON, CUT, "", LARGE, early(DOWN)),
    Wrong(SOON, CUT, "", LARGE, early(UP)),
    Wrong("align_corners 要是 False。", "False", "True"),
    Wrong("要返回布尔掩码，不是 logits 或概率。", "return x > at", "return x"),
    Wrong("形状不对：忘了缩放到 original_size。", END, ""),
    close=nearly,
    form="要返回一个张量。",
    otherwise="和正确的不同：次序是放大到 side，按 input_size 裁，缩放，最后和 0 比。",
)


def caught(name: str, right: bool, why: str) -> tuple[str, Part]:
    return name, Part(right, f"“{name}”答错了：{why}")


ex_09_3 = Values(
    "要一个字典，六个键照题目原样。",
    dict(
        [
            caught(
                "编码器的头数写成 6",
                True,
                "线性层不问头数，可是编码器还有相对位置表，每行一个头那么宽。",
            ),
            caught(
                "解码器的头数写成 4",
                False,
                "解码器的注意力有没有哪个张量的形状里带着头数？那里没有相对位置表。",
            ),
            caught("窗口写成 7", True, "窗口层的相对位置表有几行？"),
            caught(
                "全局层写成 (3, 5, 8, 11)",
                True,
                "全局层和窗口层的相对位置表一样长吗？看第 2 层和第 3 层。",
            ),
            caught(
                "提示编码器的 input_image_size 写成 (512, 512)",
                False,
                "它只是坐标的除数，想想有没有哪个张量按它定大小。",
            ),
            caught(
                "pixel_std 写成 (1, 1, 1)", False, "看 9.5 节：它在不在 state_dict 里？"
            ),
        ]
    ),
)

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
TWICE = "sam 调用了不止一次：把全部字典放进一个列表。"
THREE = "multimask_output 要是 True，三张里挑。"


class FakeSam:
    """记下收到什么，掩码和 IoU 是随机的：挑错了一定不同。"""

    def __init__(self) -> None:
        self.image_encoder = SimpleNamespace(img_size=SIDE)
        self.records: list | None = None

    def __call__(self, batched_input, multimask_output):
        expect(self.records is None, TWICE)
        expect(multimask_output in (True, 1), THREE)
        expect(isinstance(batched_input, list), "sam 要收字典的列表。")
        self.records = batched_input
        return [fake_result(i, one) for i, one in enumerate(batched_input)]


def fake_result(seed: int, record) -> dict[str, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    shape = (len(record["boxes"]), 3)
    known = shape[0] == len(SCORES)
    return {
        "masks": torch.rand(*shape, *record["original_size"], generator=noise) > 0.5,
        "iou_predictions": SCORES if known else torch.rand(shape, generator=noise),
        "low_res_logits": torch.randn(*shape, SIDE // 4, SIDE // 4, generator=noise),
    }


def albums() -> list[tuple]:
    """几批照片和框；框的数目各不相同。"""
    random = np.random.default_rng(0)
    cases = []
    for batch in (
        (((30, 45), 5), ((50, 20), 1)),
        (((24, 24), 2), ((90, 61), 4), ((7, 50), 2)),
    ):
        photos = [random.integers(0, 256, (*hw, 3), np.uint8) for hw, _ in batch]
        boxes = [
            (random.uniform(0, 0.5, (n, 4)) + [0, 0, 0.5, 0.5]) * [w, h, w, h]
            for (h, w), n in batch
        ]
        cases.append((FakeSam(), photos, [box.tolist() for box in boxes]))
    return cases


def chosen(best_masks, sam, photos, boxes):
    """交给模型的字典，和挑出来的掩码。"""
    got = best_masks(sam, photos, boxes)
    if got is None:
        return None
    if sam.records is None:
        raise Mistake("没有调用 sam。")
    if len(sam.records) != len(photos):
        raise Mistake("每张照片一个字典，个数对不上。")
    seen = {}
    for i, record in enumerate(sam.records):
        seen[f"第 {i} 个字典的 original_size"] = tuple(record["original_size"])
        seen[f"第 {i} 个字典的 image"] = torch.as_tensor(record["image"]).float()
        boxes = record.get("boxes")
        expect(boxes is not None, "字典里没有 boxes。")
        seen[f"第 {i} 个字典的 boxes"] = torch.as_tensor(boxes).float()
    return seen | {"掩码": got}


ONE = "只剩一张，要每个框一张：(框数, H, W)。"
PICK = "masks[rows, iou.argmax(1)]"
SPOIL = "sam(records"
ex_09_4 = Code(
    f"""
from sam_lite.preprocess import ResizeLongestSide
def best_masks(sam, photos, boxes):
    resize, records = ResizeLongestSide(sam.image_encoder.img_size), []
    for photo, box in zip(photos, boxes):
        image = torch.from_numpy(resize.apply_image(photo)).permute(2, 0, 1).float()
        size = photo.shape[:2]
        moved = torch.as_tensor(resize.apply_boxes(np.array(box), size)).float()
        records.append(dict(image=image, original_size=size, boxes=moved))
    chosen = []
    for one in sam(records, multimask_output=True):
        masks, iou = one["masks"], one["iou_predictions"]
        rows = torch.arange(len(iou))
        chosen.append({PICK})
    return chosen
""",
    albums,
    Wrong(
        "original_size 不对：先高后宽。",
        "size = photo.shape[:2]",
        "size = photo.shape[1::-1]",
        "np.array(box), size",
        "np.array(box), size[::-1]",
    ),
    Wrong(
        "image 的形状不对：通道在前；边长从 sam.image_encoder.img_size 读。",
        ".permute(2, 0, 1)",
        "",
    ),
    Wrong(
        "image 的形状不对：通道在前；边长从 sam.image_encoder.img_size 读。",
        "sam.image_encoder.img_size",
        "1024",
    ),
    Wrong(
        "image 的数值不对：像素 0–255，不要自己规范化，forward 里会做。",
        "0, 1).float()",
        "0, 1).float() / 255",
    ),
    Wrong(
        "框还在照片的坐标里，要随图缩放。",
        "resize.apply_boxes(np.array(box), size)",
        "np.array(box)",
    ),
    Wrong("框不对：用 to_record 或 apply_boxes。", "boxes=moved", "boxes=moved + 1"),
    Wrong("三张都留下了，只要最好的一张。", PICK, "masks"),
    Wrong(
        "masks[:, best] 给每个框都取了全部 best，要一对下标。",
        PICK,
        "masks[:, iou.argmax(1)]",
    ),
    Wrong("多出一维，要 (框数, H, W)。", PICK, "masks[:, :1]"),
    Wrong(ONE, PICK, "masks[0, iou[0].argmax()]"),
    Wrong(ONE, PICK, "masks[0, iou[0].argmax()][None]"),
    Wrong("要返回布尔掩码。", PICK, f"{PICK}.float()"),
    Wrong("总是第 0 张，没有看 iou_predictions。", PICK, "masks[:, 0]"),
    Wrong("挑了 IoU 最低的。", "argmax", "argmin"),
    Wrong(
        "全部框用了同一个序号：每个框在自己那一行里挑。",
        PICK,
        "masks[:, iou.mean(0).argmax()]",
    ),
    Wrong(
        "全部框用了第一个框的序号：argmax 要写维度，一行挑一个。",
        PICK,
        "masks[:, iou[0].argmax()]",
    ),
    Wrong(THREE, "output=True", "output=False"),
    Wrong(TWICE, "chosen = []", "chosen = []; sam(records[:1], True)"),
    Wrong("每张照片一个字典，个数对不上。", SPOIL, "sam(records[:1]"),
    Wrong("没有调用 sam。", "def best_masks(sam, photos, boxes):\n    return [1, 2]\n"),
    ask=chosen,
    form="要返回列表，每张照片一项，各是一个张量。",
    otherwise="挑得不对：沿着 iou_predictions 的第 1 维取最大；框用 apply_boxes 缩放。",
)
