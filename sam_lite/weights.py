"""第 10 章：找到权重、认出型号、严格地装进模型。"""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from .config import PRESETS, TINY, VIT_B, VIT_H, VIT_L, SamConfig
from .errors import SamLiteError, problem
from .model import Sam, sam_from_config
from .official_files import OFFICIAL_FILES, weights_dir

ASSETS = Path(__file__).parent / "assets"

SHIPPED_FILES = {"tiny": "sam_lite_tiny.safetensors"}


def load(
    name_or_path: str | Path = "tiny",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Sam:
    """装好权重的模型，已在 eval 模式：给型号名，或给一个权重文件的路径。

    参数：
        name_or_path: ``"tiny"`` 用随包附带的小权重；``"vit_b"``、``"vit_l"``、
            ``"vit_h"`` 用已下载的官方权重（当前目录或 ``weights_dir()``）；其余当作
            ``.pth`` 或 ``.safetensors`` 文件的路径，型号从张量的形状认出。
        device: 放到哪个设备，默认 CPU。
        dtype: 浮点类型，默认 float32；半精度省一半内存。

    错误：型号或文件不存在、文件不是权重、张量对不上、设备或类型不能用时抛
    SamLiteError。
    """
    if dtype not in (None, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise problem(
            "dtype", repr(dtype), "torch 的 float16、bfloat16、float32、float64 之一"
        )
    target = check_device(device)
    path = find_weights(name_or_path)
    state = read_state_dict(path)
    sam = sam_from_config(recognize(state, path))
    load_strictly(sam, state, path)
    sam.to(device=target, dtype=dtype)
    return sam.eval()


def check_device(device: str | torch.device | None) -> torch.device:
    """把设备名变成 torch.device，并放一个数上去试试；不能用就抛 SamLiteError。"""
    try:
        target = torch.device("cpu" if device is None else device)
        torch.zeros(1, device=target).cpu()
        return target
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise problem(
            "device",
            repr(device),
            "这台机器上能用的设备",
            'CPU 写 "cpu"，NVIDIA 显卡写 "cuda"，苹果芯片写 "mps"。',
        ) from error


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
            f"还没有 {name} 的官方权重。下载 {file}，放到当前目录或 {weights_dir()}，"
            f'也可以直接给路径：sam_lite.load("路径/{file}")。'
        )
    path = Path(name_or_path)
    if not path.is_file():
        known = "、".join([*SHIPPED_FILES, *OFFICIAL_FILES])
        raise problem(
            "name_or_path", repr(name), f"型号名（{known}）或一个存在的权重文件"
        )
    return path


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """读出 ``.pth`` 或 ``.safetensors`` 里的全部张量，绝不执行文件里的代码。

    错误：读不出来、或里面不是“名字到张量”的字典时，抛 SamLiteError。
    """
    path = Path(path)
    if not path.is_file():
        raise SamLiteError(f"没有这个权重文件：{path}。检查路径，文件夹也不行。")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # 不转述 torch 的原话：它会建议关掉 weights_only，那等于运行文件里的代码
        raise SamLiteError(
            f"{path} 不是能安全读取的权重文件（{type(error).__name__}）。"
            "它可能没下完整，或者是别的文件：重新下载；如果是用 torch.save(model) "
            "存的整个模型，改存 model.state_dict()。"
        ) from error
    if not isinstance(state, dict) or not state:
        raise SamLiteError(f"{path} 里不是“名字到张量”的字典，或者是空的。")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise SamLiteError(
                f"{path} 里的 {name!r} 是 {type(value).__name__}，不是张量。"
                "要的是模型的 state_dict，不是整个训练检查点。"
            )
    return state


def save(sam: Sam, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """把权重存成 safetensors，默认 float16，体积减半；先写临时文件，再改名。"""
    from safetensors.torch import save_file

    path = Path(path)
    state = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in sam.state_dict().items()
    }
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(state, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def recognize(state: dict[str, torch.Tensor], path: str | Path = "权重") -> SamConfig:
    """从张量的形状认出是哪个预设。

    看三件事：主干的宽度（绝对位置编码的最后一维）、层数（有几个 Block）、网格边长。

    错误：不是官方的命名，或三个数对不上任何预设时，抛 SamLiteError。
    """
    position = state.get("image_encoder.pos_embed")
    if position is None or position.ndim != 4:
        mend = ""
        if any(key.startswith("module.") for key in state):
            mend = "名字前面的 module. 是 DataParallel 加上的，先去掉。"
        elif any(key.startswith("vision_encoder.") for key in state):
            mend = "这是 Hugging Face 的命名，目前只认官方的命名。"
        raise SamLiteError(
            f"{path} 里没有 image_encoder.pos_embed，不是官方命名的 SAM 权重。{mend}"
            "前几个名字：" + "、".join(map(str, list(state)[:3]))
        )
    prefix = "image_encoder.blocks."
    depth = len({key.split(".")[2] for key in state if key.startswith(prefix)})
    seen = (position.shape[-1], depth, position.shape[1])
    for config in PRESETS.values():
        if seen == (config.embed_dim, config.depth, config.grid_size):
            return config
    raise SamLiteError(
        f"{path} 的宽度、层数、网格边长是 {seen}，不是已知的型号："
        + "、".join(
            f"{c.name} {(c.embed_dim, c.depth, c.grid_size)}" for c in PRESETS.values()
        )
    )


def load_strictly(
    sam: Sam, state: dict[str, torch.Tensor], path: str | Path = "权重"
) -> None:
    """名字和形状全部对上才装；差一个都不装，抛 SamLiteError 说出差在哪里。"""
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
    sam.load_state_dict(state, strict=True)


def _build(config: SamConfig, checkpoint: str | Path | None) -> Sam:
    """官方 build_sam 的做法：给了检查点就装上，没给就随机初始化；eval 模式。"""
    sam = sam_from_config(config)
    if checkpoint is not None:
        load_strictly(sam, read_state_dict(checkpoint), checkpoint)
    return sam.eval()


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
