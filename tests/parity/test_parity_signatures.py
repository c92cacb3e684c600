"""签名、默认值、状态字典的键与形状：和官方一致。"""

import inspect

import pytest
import torch
from torch import nn

from parity.official import assemble, ours, theirs
from parity.small import SMALL
from sam_lite.model import sam_from_config

# 我们多出来的参数：必须在末尾、有默认值，而且列在这里。
EXTRA: dict[str, list[str]] = {}

OUR_SETTINGS = {"fused", "scale", "name"}  # 我们多出来的开关、中间量、型号名

CLASSES = [name for name, item in vars(theirs).items() if inspect.isclass(item)]
FUNCTIONS = [name for name, item in vars(theirs).items() if inspect.isfunction(item)]


def parameters(function) -> list[tuple]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


def assert_same_signature(our, their, name: str) -> None:
    found, expected = parameters(our), parameters(their)
    assert found[: len(expected)] == expected, name
    extra = found[len(expected) :]
    assert [item[0] for item in extra] == EXTRA.get(name, []), name
    assert all(item[2] is not inspect.Parameter.empty for item in extra), name


@pytest.mark.parametrize("name", CLASSES)
def test_class_signatures(name: str) -> None:
    """构造函数与每个公开方法：参数名、顺序、种类、默认值都相同。"""
    our, their = getattr(ours, name), getattr(theirs, name)
    assert our.__name__ == their.__name__
    methods = [m for m in vars(their) if not m.startswith("_")] + ["__init__"]
    for method in methods:
        expected, found = vars(their)[method], inspect.getattr_static(our, method)
        if isinstance(expected, property):
            assert isinstance(found, property), f"{name}.{method}"
        elif callable(expected) or isinstance(expected, staticmethod):
            assert type(found) is type(expected), f"{name}.{method}"
            pair = getattr(our, method), getattr(their, method)
            assert_same_signature(*pair, f"{name}.{method}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_signatures(name: str) -> None:
    """公开函数的签名相同。"""
    assert_same_signature(getattr(ours, name), getattr(theirs, name), name)


def test_registry() -> None:
    """登记表含官方的全部名字，`default` 指 vit_h，外加我们的 tiny。"""
    assert set(ours.sam_model_registry) == {*theirs.sam_model_registry, "tiny"}
    assert ours.sam_model_registry["default"] is ours.sam_model_registry["vit_h"]
    for name in theirs.sam_model_registry:
        builder, reference = ours.sam_model_registry, theirs.sam_model_registry
        assert_same_signature(builder[name], reference[name], f"registry[{name}]")
    assert ours.build_sam is ours.build_sam_vit_h


def settings(sam: nn.Module) -> dict[str, dict]:
    """每一层不在状态字典里的设定：头数、窗口、步幅、eps、激活函数的种类等。"""
    return {
        name: {
            "type": type(module).__name__,
            **{
                key: value
                for key, value in vars(module).items()
                if isinstance(value, (int, float, str, tuple))
                and not key.startswith("_")
                and key not in OUR_SETTINGS
            },
        }
        for name, module in sam.named_modules()
    }


@pytest.mark.parametrize(
    "name, keys, count",
    [
        ("vit_b", 314, 93_735_472),
        ("vit_l", 482, 312_342_832),
        ("vit_h", 594, 641_090_608),
    ],
)
def test_state_dict(name: str, keys: int, count: int) -> None:
    """三个官方尺寸的键、次序、形状、参数总数都对（meta 设备，不占内存）。"""
    with torch.device("meta"):
        our = ours.sam_model_registry[name]()
        their = theirs.sam_model_registry[name]()
    found = {k: tuple(v.shape) for k, v in our.state_dict().items()}
    expected = {k: tuple(v.shape) for k, v in their.state_dict().items()}
    assert found == expected
    assert len(found) == keys
    assert sum(p.numel() for p in our.parameters()) == count
    buffers = {k for k, _ in our.named_buffers()}
    assert buffers == {k for k, _ in their.named_buffers()}
    assert our.training is their.training is False
    assert settings(our) == settings(their)


def test_official_assembly() -> None:
    """照官方的写法一件件拼出来的模型，与由配置装出的一样。"""
    our, configured = assemble(ours), sam_from_config(SMALL).eval()
    assert settings(our) == settings(configured) == settings(assemble(theirs))
    our.load_state_dict(configured.state_dict(), strict=True)
