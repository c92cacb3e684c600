"""参加比较的三方：同一份随机权重，各自按自己的办法读进来。"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import sam_lite
from sam_lite.config import PRESETS, SamConfig
from sam_lite.files.huggingface import to_huggingface
from sam_lite.masks.nms import nms
from sam_lite.model import sam_from_config

TESTS = Path(__file__).resolve().parent.parent / "tests"
NAMES = {"sam_lite": "sam_lite", "official": "官方", "transformers": "transformers"}


class NotInstalledError(Exception):
    """某一方没有安装；表里那一行写明，其余照量。"""


@dataclass(frozen=True)
class Job:
    """一次测量的设定：谁、哪个型号、什么精度、权重在哪个文件夹。"""

    contender: str  # NAMES 的键
    variant: str  # PRESETS 的键
    dtype: str  # torch 的类型名
    folder: Path

    @property
    def config(self) -> SamConfig:
        """型号的尺寸。"""
        return PRESETS[self.variant]

    @property
    def checkpoint(self) -> Path:
        """官方格式的权重文件，sam_lite 和官方都读它。"""
        return self.folder / f"{self.variant}.pth"

    @property
    def huggingface(self) -> Path:
        """transformers 的模型文件夹，数与 ``checkpoint`` 里的相同，只换了名字。"""
        return self.folder / f"{self.variant}_huggingface"

    def model(self) -> Any:
        """装好的模型，eval 模式，已转成 ``dtype``。"""
        library = import_contender(self.contender)
        model = load_model(self, library).eval()
        return model.to(getattr(torch, self.dtype))

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
        from parity.official import assemble, theirs

        changes = {k: v for k, v in asdict(self.config).items() if k != "name"}
        sam = assemble(theirs, **changes)
        sam.load_state_dict(mine.state_dict())
        return sam.eval()


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
    """照各家文档的写法，从磁盘读一个模型；官方没有 tiny，按同样的步骤拼一个。"""
    if job.contender == "sam_lite":
        return sam_lite.load(job.checkpoint)
    if job.contender == "transformers":
        return library.SamModel.from_pretrained(job.huggingface)
    if job.variant in library.sam_model_registry:
        return library.sam_model_registry[job.variant](checkpoint=job.checkpoint)
    from parity.official import assemble, theirs

    sam = assemble(theirs, **asdict(job.config))
    sam.load_state_dict(torch.load(job.checkpoint, weights_only=True))
    return sam


def write_weights(folder: Path, variant: str) -> int:
    """把一份随机权重写成官方的和 transformers 的两种格式，返回权重的字节数。"""
    tests_on_path()
    from parity.small import randomize

    job = Job("sam_lite", variant, "float32", folder)
    state = randomize(sam_from_config(job.config)).state_dict()
    torch.save(state, job.checkpoint)
    job.huggingface.mkdir()
    text = json.dumps(huggingface_config(job.config), indent=1)
    (job.huggingface / "config.json").write_text(text, encoding="utf-8")
    # 随机傅里叶的矩阵在那边有两份，safetensors 不许两个名字共用一块内存
    theirs = {name: tensor.clone() for name, tensor in to_huggingface(state).items()}
    path = job.huggingface / "model.safetensors"
    save_file(theirs, path, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in state.values())


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
