"""第 10 章：找到权重、认出型号、严格地装进模型。

文件怎么安全地读在 ``files/reading.py``，Hugging Face 的名字在
``files/huggingface.py``。
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from . import ops
from .config import PRESETS, TINY, VIT_B, VIT_H, VIT_L, SamConfig
from .errors import SamLiteError, problem
from .files import ASSETS
from .files.atomic import atomic_file
from .files.official import OFFICIAL_FILES, weights_dir
from .files.reading import FLOATS, State, check_finite, read_state_dict
from .model import Sam, sam_from_config
from .preprocess import PIXEL_MEAN, PIXEL_STD

SHIPPED_FILES = {"tiny": "sam_lite_tiny.safetensors"}


def load(
    name_or_path: str | Path = "tiny",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    image_size: int | None = None,
) -> Sam:
    """装好权重的模型，已在 eval 模式：给型号名，或给权重文件的路径。

    参数：
        name_or_path: ``"tiny"`` 用随包附带的小权重；``"vit_b"``、``"vit_l"``、
            ``"vit_h"`` 用已下载的官方权重（当前目录或 ``weights_dir()``）；其余当作
            路径：``.pth``、``.safetensors``，或 Hugging Face 的 SamModel 文件夹，型号
            从张量的形状认出。
        device: 放到哪个设备，默认 CPU。
        dtype: 浮点类型，默认 float32；半精度省一半内存。
        image_size: 输入边长，像素，默认是权重原来的（官方 1024）。换成别的，位置编码
            就插值到新的网格；越小越快，越粗。

    错误：型号或文件不存在、文件不是完好的权重、张量对不上、设备、类型或边长不能用时
    抛 SamLiteError。
    """
    if dtype is not None and dtype not in FLOATS:
        wanted = "torch 的 float16、bfloat16、float32、float64 之一"
        raise problem("dtype", repr(dtype), wanted)
    target = check_device(device)
    if ops.lacks_half(dtype, target):
        raise problem("dtype", repr(dtype), "float32：OneFlow 的 CPU 上没有半精度")
    path = find_weights(name_or_path)
    state = read_state_dict(path)
    config = recognize(state, path)
    if image_size is not None:
        config = replace(config, image_size=check_image_size(image_size, config))
        state = resize_state(state, config)
    return sam_from_state(config, state, path, dtype or torch.float32).to(target)


def load_as(config: SamConfig, name_or_path: str | Path) -> Sam:
    """把权重装进另一种输入边长、图像块、窗口的模型，好接着训练；eval 模式，在 CPU 上。

    错误：文件读不了，或者差的不止这三样（宽度、层数……不同），抛 SamLiteError。
    """
    path = find_weights(name_or_path)
    state = read_state_dict(path)
    found = recognize(state, path)
    if found.name != config.name:
        raise SamLiteError(
            f"{path} 是 {found.name} 的权重，装不进 {config.name}：只有输入边长、图像块"
            "和窗口可以不同。"
        )
    return sam_from_state(config, resize_state(state, config), path, torch.float32)


def check_device(device: str | torch.device | None) -> torch.device:
    """把设备名变成 torch.device，并放一个数上去试试；不能用就抛 SamLiteError。"""
    try:
        target = torch.device("cpu" if device is None else device)
        if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
            raise RuntimeError("没有这块显卡")  # 不等它去试：OneFlow 会中止进程
        torch.zeros(1, device=target).cpu()
        return target
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise problem(
            "device",
            repr(device),
            "这台机器上能用的设备",
            'CPU 写 "cpu"，NVIDIA 显卡写 "cuda"，苹果芯片写 "mps"。',
        ) from error


def check_image_size(image_size: int, config: SamConfig) -> int:
    """输入边长要是图像块边长的整数倍，至少一个窗口那么大；否则抛 SamLiteError。"""
    patch = config.patch_size
    smallest = patch * config.window_size
    whole = isinstance(image_size, int) and not isinstance(image_size, bool)
    if not whole or image_size % patch or image_size < smallest:
        raise problem(
            "image_size",
            repr(image_size),
            f"{patch} 的整数倍、不小于 {smallest} 的整数",
            f"这个模型原来的边长是 {config.image_size}。",
        )
    return image_size


def find_weights(name_or_path: str | Path) -> Path:
    """把型号名变成文件路径；给的就是路径时，只检查它在不在。

    错误：官方权重还没下载，或既不是型号名、也不是存在的文件时，抛 SamLiteError。
    """
    name = str(name_or_path)
    if name in SHIPPED_FILES:
        return ASSETS / SHIPPED_FILES[name]
    if name in OFFICIAL_FILES:
        file = OFFICIAL_FILES[name].name
        for folder in (Path.cwd(), weights_dir()):
            if (folder / file).is_file():
                return folder / file
        raise SamLiteError(
            f"还没有 {name} 的官方权重。下载它的命令：sam-lite download {name}。已经有 "
            f"{file} 的话，把它放到当前目录或 {weights_dir()}，也可以直接给路径："
            f'sam_lite.load("路径/{file}")。'
        )
    path = Path(name_or_path)
    if not path.exists():
        known = [*SHIPPED_FILES, *OFFICIAL_FILES]
        close = difflib.get_close_matches(name, known, n=1)
        mend = f"是不是 {close[0]!r}？" if close else "型号名写错了，或者路径不对。"
        wanted = f"型号名（{'、'.join(known)}）或一个存在的权重文件"
        raise problem("name_or_path", repr(name), wanted, mend)
    return path


def recognize(state: State, path: str | Path = "权重") -> SamConfig:
    """从张量的形状认出是哪个预设；换过输入边长、图像块、窗口的也认得。

    型号看主干的宽度（绝对位置编码的最后一维）和层数（有几个 Block）；输入边长由网格
    和图像块算出，窗口由窗口层的相对位置表算出。

    错误：不是官方的命名，或对不上任何预设时，抛 SamLiteError。
    """
    position = state.get("image_encoder.pos_embed")
    patch = state.get("image_encoder.patch_embed.proj.weight")
    if position is None or position.ndim != 4 or patch is None or patch.ndim != 4:
        mend = ""
        if any(key.startswith("module.") for key in state):
            mend = "名字前面的 module. 是 DataParallel 加上的，先去掉。"
        raise SamLiteError(
            f"{path} 不是 SAM 的权重：没有 image_encoder.pos_embed，或形状不对。{mend}"
            "前几个名字：" + "、".join(list(state)[:3])
        )
    prefix = "image_encoder.blocks."
    depth = len({key.split(".")[2] for key in state if key.startswith(prefix)})
    seen = (position.shape[-1], depth, patch.shape[-1])
    for c in PRESETS.values():
        if seen[:2] == (c.embed_dim, c.depth):
            windowed = min(set(range(depth)) - set(c.global_attn_indexes))
            table = state.get(f"{prefix}{windowed}.attn.rel_pos_h")  # (2w-1, d)
            window = c.window_size if table is None else (len(table) + 1) // 2
            size, patch_size = position.shape[1] * seen[2], seen[2]
            c = replace(c, image_size=size, patch_size=patch_size)
            return replace(c, window_size=window)
    raise SamLiteError(
        f"{path} 的宽度、层数是 {seen[:2]}，不是已知的型号："
        + "、".join(f"{c.name} {(c.embed_dim, c.depth)}" for c in PRESETS.values())
    )


def resize_state(state: State, config: SamConfig) -> State:
    """把与尺寸有关的张量插值到 config 的网格、窗口和图像块，其余原样。

    绝对位置编码按双三次缩放，相对位置表按线性缩放，后者与官方 ``get_rel_pos`` 遇到新
    尺寸时的做法相同；图像块的卷积核按面积缩放，各数之和不变，平坦的地方响应就不变。
    尺寸没有变的一个数都不动。
    """
    grid, patch = config.grid_size, config.patch_size
    resized = dict(state)
    position = state["image_encoder.pos_embed"]  # (1, n, n, C)，n 是旧网格
    if position.shape[1] != grid:
        resized["image_encoder.pos_embed"] = F.interpolate(
            position.float().permute(0, 3, 1, 2), (grid, grid), mode="bicubic"
        ).permute(0, 2, 3, 1)  # (1, grid, grid, C)
    kernel = state["image_encoder.patch_embed.proj.weight"]  # (C, 3, p, p)
    if kernel.shape[-1] != patch:
        smaller = F.interpolate(kernel.float(), (patch, patch), mode="area")
        smaller = smaller * (kernel.shape[-1] / patch) ** 2
        resized["image_encoder.patch_embed.proj.weight"] = smaller
    for i in range(config.depth):
        side = grid if i in config.global_attn_indexes else config.window_size
        for axis in "hw":
            name = f"image_encoder.blocks.{i}.attn.rel_pos_{axis}"
            table = state.get(name)  # (2n-1, d)
            if table is not None and len(table) != 2 * side - 1:
                columns = table.float().t()[None]  # (1, d, 2n-1)
                columns = F.interpolate(columns, 2 * side - 1, mode="linear")
                resized[name] = columns[0].t()  # (2·side-1, d)
    return resized


def sam_from_state(
    config: SamConfig, state: State, path: str | Path, dtype: torch.dtype
) -> Sam:
    """按尺寸造一个模型，直接用 state 里的张量作参数；eval 模式，在 CPU 上。

    模型先造成只有形状的空壳，省下随机初始化的时间；文件里的张量类型正好时原样拿来
    用，不另占一份内存。
    """
    with ops.shapes_only():
        sam = sam_from_config(config)
    check_fits(sam, state, path)
    ready = {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
    ops.put_state(sam, ready)
    # 均值和标准差不在权重文件里，meta 上的那两个也没有数
    sam.pixel_mean = torch.tensor(PIXEL_MEAN, dtype=dtype).reshape(-1, 1, 1)
    sam.pixel_std = torch.tensor(PIXEL_STD, dtype=dtype).reshape(-1, 1, 1)
    return sam.eval()


def check_fits(sam: Sam, state: State, path: str | Path) -> None:
    """名字和形状要全部对上，数值要有限；否则抛 SamLiteError 说出差在哪里。"""
    expected = sam.state_dict()
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    wrong = [
        f"{key} 是 {tuple(state[key].shape)}，应为 {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    complaints = [
        f"{title} {len(names)} 个：" + "、".join(names[:3])
        for title, names in (("缺少", missing), ("多出", extra), ("形状不对", wrong))
        if names
    ]
    if complaints:
        raise SamLiteError(f"{path} 与模型对不上。" + "；".join(complaints))
    check_finite(state, path)


def save(sam: Sam, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """把权重存成 safetensors，默认 float16，体积减半；写到一半出错，旧文件还在。

    错误：文件名不以 ``.safetensors`` 结尾，或写不了时，抛 SamLiteError。
    """
    save_state(sam.state_dict(), path, dtype)


def save_state(
    state: State, path: str | os.PathLike[str], dtype: torch.dtype = torch.float16
) -> None:
    """把 state_dict 存成 safetensors，同 ``save``。"""
    if Path(path).suffix != ".safetensors":
        raise problem("path", repr(str(path)), "以 .safetensors 结尾的文件名")
    ready = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in state.items()
    }
    with atomic_file(path) as file:
        file.write(ops.to_safetensors(ready, {"format": "pt"}))


def _build(config: SamConfig, checkpoint: str | Path | None) -> Sam:
    """官方 build_sam 的做法：给了检查点就装上，没给就随机初始化；eval 模式。

    错误：检查点是另一个型号的，抛 SamLiteError，说出该用哪一个。
    """
    if checkpoint is None:
        return sam_from_config(config).eval()
    state = read_state_dict(checkpoint)
    found = recognize(state, checkpoint)
    if found.name != config.name:
        raise SamLiteError(
            f"{checkpoint} 是 {found.name} 的权重，不是 {config.name} 的。改用 "
            f'sam_model_registry["{found.name}"]，或让 sam_lite.load 自己认。'
        )
    return sam_from_state(found, state, checkpoint, torch.float32)


def build_sam_vit_h(checkpoint: str | Path | None = None) -> Sam:
    """造一个 vit_h；checkpoint 为 None 时参数是随机的。"""
    return _build(VIT_H, checkpoint)


def build_sam_vit_l(checkpoint: str | Path | None = None) -> Sam:
    """造一个 vit_l；checkpoint 为 None 时参数是随机的。"""
    return _build(VIT_L, checkpoint)


def build_sam_vit_b(checkpoint: str | Path | None = None) -> Sam:
    """造一个 vit_b；checkpoint 为 None 时参数是随机的。"""
    return _build(VIT_B, checkpoint)


def build_sam_tiny(checkpoint: str | Path | None = None) -> Sam:
    """造一个 tiny；checkpoint 为 None 时用随包附带的权重。"""
    return _build(TINY, checkpoint or ASSETS / SHIPPED_FILES["tiny"])


build_sam = build_sam_vit_h

sam_model_registry: dict[str, Callable[..., Sam]] = {
    "default": build_sam_vit_h,
    "vit_h": build_sam_vit_h,
    "vit_l": build_sam_vit_l,
    "vit_b": build_sam_vit_b,
    "tiny": build_sam_tiny,
}
