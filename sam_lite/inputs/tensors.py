"""进门检查的张量部分：predict_torch、set_torch_image、Sam.forward 收到的东西。

形状、类型、设备之外，数值也查：在 GPU 上要等前面的计算做完才看得到数，每种提示等一回，
几十微秒，比起随后的解码可以不计。没有查的：坐标是否已经缩放、是否落在图内——缩放后
的图多大，预测器知道，但官方允许点落在填充里。
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import ops
from ..errors import SamLiteWarning, problem
from .checks import LARGEST_LOGIT, check_flag, check_size, describe

RECORD_PROMPTS = ("point_coords", "point_labels", "boxes", "mask_inputs")
RECORD_KEYS = {"image", "original_size", *RECORD_PROMPTS}


def check_tensor(
    name: str, value: Any, device: torch.device, refused: tuple[str, ...]
) -> None:
    """是张量、在模型的设备上、类型不在 refused 之列，否则抛 SamLiteError。"""
    if not isinstance(value, torch.Tensor):
        mend = f"torch.as_tensor(…, device={str(device)!r})。"
        raise problem(name, describe(value), "张量", mend)
    kind = str(value.dtype)
    if any(word in kind for word in refused):
        raise problem(name, f"{kind} 的张量", "浮点的张量", "用 .float() 转换。")
    if value.device != device:
        mend = f"用 .to({str(device)!r}) 搬过去。"
        raise problem(
            name, f"在 {value.device} 的张量", f"在 {device}，同模型一起", mend
        )


def check_shape(name: str, value: torch.Tensor, wanted: tuple[int | str, ...]) -> None:
    """形状要合 wanted；其中的字符串是任意大小，例如 ``("B", "N", 2)``。"""
    shape = tuple(value.shape)
    pairs = zip(shape, wanted, strict=False)
    same = all(isinstance(want, str) or size == want for size, want in pairs)
    if len(shape) != len(wanted) or not same:
        text = ", ".join(str(want) for want in wanted)
        raise problem(name, f"形状 {shape}", f"形状 ({text})")


def check_values(name: str, value: torch.Tensor) -> tuple[float, float]:
    """全部有限，否则抛 SamLiteError。返回最小、最大值，一个数也没有时是两个 0。"""
    if 0 in value.shape:
        return 0.0, 0.0
    low, high = ops.lowest_highest(ops.detach(value))
    if not float("-inf") < low <= high < float("inf"):
        raise problem(name, "无穷大或 NaN", "有限的数")
    return low, high


def check_image_tensor(
    name: str, image: Any, lead: tuple[int, ...], side: int, device: torch.device
) -> None:
    """缩放好的图像：形状 ``(*lead, H', W')``，不超过输入边长，像素 0–255。"""
    whole = isinstance(image, torch.Tensor) and image.dtype == torch.uint8
    refused = ("complex", "bool") if whole else ("complex", "bool", "int")
    check_tensor(name, image, device, refused)
    shape = tuple(image.shape)
    right = len(shape) == len(lead) + 2 and shape[:-2] == lead and 0 not in shape
    if not right or max(shape[-2:]) > side:
        raise problem(
            name,
            f"形状 {shape}",
            f"形状 ({', '.join(map(str, lead))}, 高, 宽)、最长边不超过 {side}",
            f"通道在前；先用 ResizeLongestSide({side}).apply_image_torch 缩放。",
        )
    if whole:
        return
    low, high = check_values(name, image)
    if 0 < high <= 1 or low < -1:  # 全黑的图不算；略小于 0 可能是缩放的过冲
        text = f"{name} 的像素在 {low:.3g} 到 {high:.3g} 之间，应为 0–255，未规范化。"
        warnings.warn(text, SamLiteWarning, stacklevel=4)


def check_prompt_tensors(
    prompts: Sequence[Any],
    mask_size: tuple[int, int],
    device: torch.device,
    names: Sequence[str] = ("point_coords", "point_labels", "boxes", "mask_input"),
) -> None:
    """B 组张量提示：形状、类型、设备、数值、组数。

    prompts 依次是点、标签、框、掩码，没有给的是 None；names 是它们在错误里的名字。
    """
    points, labels, boxes, masks = prompts
    if (points is None) != (labels is None):
        given, missing = (1, 0) if points is None else (0, 1)
        raise problem(names[missing], "None", f"与 {names[given]} 成对的张量")
    counts = {}
    if points is not None:
        check_tensor(names[0], points, device, ("complex", "bool"))
        check_shape(names[0], points, ("B", "N", 2))
        check_values(names[0], points)
        check_labels(names[1], labels, tuple(points.shape[:2]), device)
        counts[names[0]] = len(points)
    if boxes is not None:
        check_tensor(names[2], boxes, device, ("complex", "bool"))
        check_shape(names[2], boxes, ("B", 4))
        check_values(names[2], boxes)
        if bool((boxes[:, :2] > boxes[:, 2:]).any()):
            raise problem(names[2], "颠倒的框", "左上角在前：x0 ≤ x1、y0 ≤ y1")
        counts[names[2]] = len(boxes)
    if len(set(counts.values())) > 1:
        raise problem(names[2], f"{len(boxes)} 个", f"{len(points)} 个，每组点一个")
    if masks is not None:
        check_tensor(names[3], masks, device, ("complex", "bool", "int"))
        check_shape(names[3], masks, ("B", 1, *mask_size))
        largest = max(map(abs, check_values(names[3], masks)))
        if largest > LARGEST_LOGIT:
            wanted = f"绝对值不超过 {LARGEST_LOGIT:g} 的 logits"
            raise problem(names[3], f"{largest:g}", wanted)
        B = next(iter(counts.values()), 1)
        if 1 not in (B, len(masks)) and len(masks) != B:
            wanted = f"{B} 张，每组提示一张，或共用的一张"
            raise problem(names[3], f"{len(masks)} 张", wanted)


def check_labels(
    name: str, labels: Any, shape: tuple[int, ...], device: torch.device
) -> None:
    """每个点一个标签，只有 1、0、-1；布尔和浮点类型的也行，官方都收。"""
    check_tensor(name, labels, device, ("complex",))
    check_shape(name, labels, shape)
    kinds = labels.to(torch.float)
    if not bool(((kinds == -1) | (kinds == 0) | (kinds == 1)).all()):
        wanted = "1（正点）、0（负点）或 -1（填充）"
        mend = "框不要写成标签 2、3 的点，用 boxes。"
        raise problem(name, sorted(set(kinds.flatten().tolist()))[:5], wanted, mend)


def check_batched_input(sam: Any, batched_input: Any, multimask_output: Any) -> None:
    """Sam.forward 收到的全部：字典的列表，至少一条，都合规矩；否则抛 SamLiteError。"""
    check_flag("multimask_output", multimask_output)
    if not isinstance(batched_input, (list, tuple)) or not len(batched_input):
        got, mend = describe(batched_input), "只有一张图也要放进列表：[{…}]。"
        raise problem("batched_input", got, "字典的列表，每图一个", mend)
    for i, record in enumerate(batched_input):
        check_record(sam, f"batched_input[{i}]", record)


def check_record(sam: Any, name: str, record: Any) -> None:
    """Sam.forward 的一条输入：键不缺不多，图像、原图大小和提示都合规矩。"""
    if not isinstance(record, Mapping):
        raise problem(name, describe(record), "一个字典")
    missing = {"image", "original_size"} - set(record)
    extra = {key for key in record if key not in RECORD_KEYS}
    if missing or extra:
        raise problem(
            name,
            f"缺少 {sorted(missing)}、多出 {sorted(map(str, extra))} 的字典",
            "只含这些键的字典：" + "、".join(sorted(RECORD_KEYS)),
        )
    side, mask_size = sam.image_encoder.img_size, sam.prompt_encoder.mask_input_size
    check_image_tensor(f"{name}['image']", record["image"], (3,), side, sam.device)
    check_size(f"{name}['original_size']", record["original_size"])
    names = [f"{name}['{key}']" for key in RECORD_PROMPTS]
    prompts = [record.get(key) for key in RECORD_PROMPTS]
    check_prompt_tensors(prompts, mask_size, sam.device, names)
