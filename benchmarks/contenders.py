"""参加比较的三方：同一份随机权重，各自按自己的办法读进来。"""

import json
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import sam_lite
from sam_lite.config import PRESETS, SamConfig
from sam_lite.errors import SamLiteError
from sam_lite.files.huggingface import to_huggingface
from sam_lite.masks.nms import nms
from sam_lite.model import sam_from_config

TESTS = Path(__file__).resolve().parent.parent / "tests"
NAMES = {"sam_lite": "sam_lite", "official": "官方", "transformers": "transformers"}


class NotInstalledError(Exception):
    """某一方没有安装；表里那一行写明，其余照量。"""


@dataclass(frozen=True)
class Job:
    """一次测量的设定：谁，怎么跑，什么型号，权重在哪个文件夹。"""

    contender: str  # NAMES 的键
    variant: str  # PRESETS 的键
    folder: Path
    dtype: str = "float32"  # torch 的类型名
    compiled: bool = False  # 要量的那一部分经 torch.compile 编译
    device: str = "cpu"
    side: int = 0  # 输入边长，像素；0 是型号自己的
    count: int = 0  # 几个点，或几组提示

    @property
    def config(self) -> SamConfig:
        """型号的尺寸，边长换过。"""
        preset = PRESETS[self.variant]
        return replace(preset, image_size=self.side) if self.side else preset

    @property
    def checkpoint(self) -> Path:
        """官方格式的权重文件，sam_lite 和官方都读它。"""
        return self.folder / f"{self.variant}.pth"

    @property
    def huggingface(self) -> Path:
        """transformers 的模型文件夹，数与 ``checkpoint`` 里的相同，只换了名字。"""
        return self.folder / f"{self.variant}_huggingface"

    def place(self, x: Any) -> Any:
        """把模型或张量放到要用的设备上，转成要用的精度。"""
        return x.to(self.device, getattr(torch, self.dtype))

    def compile(self, module: Any) -> Any:
        """要编译的话，编译它。"""
        return torch.compile(module) if self.compiled else module

    def model(self) -> Any:
        """装好的模型，eval 模式，设备和精度已经换好。"""
        return self.place(load_model(self, import_contender(self.contender)).eval())

    def predictor(self, encoder: nn.Module | None = None) -> Any:
        """sam_lite 或官方的 SamPredictor；encoder 给了就换掉图像编码器。"""
        library, sam = import_contender(self.contender), self.model()
        if encoder is not None:
            sam.image_encoder = encoder
        return library.SamPredictor(sam)

    def generator(self, sam: Any, **options: Any) -> Any:
        """sam_lite 或官方的 SamAutomaticMaskGenerator。"""
        library = import_contender(self.contender)
        if self.contender == "official":
            # 测试里的替身按定义逐个比，很慢；换成与 torchvision 相当的，才比得公平
            module = sys.modules["segment_anything.automatic_mask_generator"]
            module.batched_nms = lambda b, s, _, iou_threshold: nms(b, s, iou_threshold)
        return library.SamAutomaticMaskGenerator(sam, **options)

    def shipped_model(self) -> Any:
        """装着自带权重的 tiny：sam_lite 的，或用官方的类拼的。"""
        mine = sam_lite.load()
        if self.contender == "sam_lite":
            return mine
        import_contender(self.contender)
        return assemble_official(self.config, mine.state_dict())


def tests_on_path() -> None:
    """官方包的替身和随机权重的写法都在测试里，借来用。"""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))


def import_contender(name: str) -> Any:
    """导入一方的库；没有装就抛 NotInstalledError。"""
    if name == "sam_lite":
        return sam_lite
    try:
        if name == "transformers":
            from transformers import SamModel  # noqa: F401 它是用到才导入的

            return sys.modules["transformers"]
        tests_on_path()
        from parity.official import segment_anything

        return segment_anything
    except ImportError as error:
        raise NotInstalledError(str(error)) from error


def load_model(job: Job, library: Any) -> Any:
    """照各家文档的写法，从磁盘读一个模型；官方没有的型号和边长按同样的步骤拼。"""
    if job.contender == "sam_lite":
        return sam_lite.load(job.checkpoint)
    if job.contender == "transformers":
        return library.SamModel.from_pretrained(job.huggingface)
    if job.variant in library.sam_model_registry and not job.side:
        return library.sam_model_registry[job.variant](checkpoint=job.checkpoint)
    state = torch.load(job.checkpoint, weights_only=True)
    return assemble_official(job.config, state)


def assemble_official(config: SamConfig, state: dict[str, torch.Tensor]) -> nn.Module:
    """用官方的类拼一个模型，装好权重，eval 模式。"""
    from parity.official import assemble, theirs

    sam = assemble(theirs, **asdict(config))
    sam.load_state_dict(state)
    return sam.eval()


def write_weights(job: Job, huggingface: bool = True) -> int:
    """照 job 的型号和边长写一份随机权重，官方的格式，还可以加上 transformers 的。

    返回权重的字节数。磁盘放不下时抛 SamLiteError。
    """
    c = job.config
    needed = (1 + huggingface) * 4 * 13 * c.depth * c.embed_dim**2  # 主干约 12·层·宽²
    free = shutil.disk_usage(job.folder).free
    if free < needed:
        raise SamLiteError(
            f"临时文件夹的磁盘只剩 {free / 1e9:.1f} GB，{job.variant} 的权重约要 "
            f"{needed / 1e9:.1f} GB。环境变量 TMPDIR 可以指到别的磁盘。"
        )
    tests_on_path()
    from parity.small import randomize

    state = randomize(sam_from_config(c)).state_dict()
    torch.save(state, job.checkpoint)
    if huggingface:
        job.huggingface.mkdir()
        text = json.dumps(huggingface_config(c), indent=1)
        (job.huggingface / "config.json").write_text(text, encoding="utf-8")
        # 随机傅里叶的矩阵在那边有两份，safetensors 不许两个名字共用一块内存
        theirs = {key: tensor.clone() for key, tensor in to_huggingface(state).items()}
        path = job.huggingface / "model.safetensors"
        save_file(theirs, path, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in state.values())


def warm_files(folder: Path) -> None:
    """把文件夹里的文件读一遍，各方读模型时都在页缓存里。"""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                while file.read(1 << 24):
                    pass


def huggingface_config(config: SamConfig) -> dict[str, Any]:
    """transformers 的 config.json；解码器 LayerNorm 的 eps 写成官方的 1e-5。"""
    c = config
    return {
        "model_type": "sam",
        "vision_config": {
            "hidden_size": c.embed_dim,
            "num_hidden_layers": c.depth,
            "num_attention_heads": c.num_heads,
            "image_size": c.image_size,
            "patch_size": c.patch_size,
            "window_size": c.window_size,
            "global_attn_indexes": list(c.global_attn_indexes),
            "output_channels": c.prompt_embed_dim,
            "num_pos_feats": c.prompt_embed_dim // 2,
            "mlp_dim": 4 * c.embed_dim,
        },
        "prompt_encoder_config": {
            "hidden_size": c.prompt_embed_dim,
            "image_size": c.image_size,
            "patch_size": c.patch_size,
            "mask_input_channels": c.mask_in_chans,
        },
        "mask_decoder_config": {
            "hidden_size": c.prompt_embed_dim,
            "num_hidden_layers": c.decoder_depth,
            "num_attention_heads": c.decoder_heads,
            "mlp_dim": c.decoder_mlp_dim,
            "iou_head_hidden_dim": c.iou_head_hidden_dim,
            "layer_norm_eps": 1e-5,  # 他们的默认值 1e-6 与官方不同
        },
    }
