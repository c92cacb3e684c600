"""模型的全部尺寸：一个 SamConfig，四个预设，一眼看完；以及训练和微调的全部设置。"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamConfig:
    """一个 SAM 的全部尺寸。

    预设见下面的 ``PRESETS``。官方三个模型只有前五项（含名字）不同，见官方
    ``build_sam.py``。
    """

    name: str
    embed_dim: int  # 图像编码器里每个词元的宽度
    depth: int  # 编码器有几个 Block
    num_heads: int  # 编码器的注意力头数，要整除 embed_dim
    global_attn_indexes: tuple[int, ...]  # 哪几个 Block 用全局注意力，其余用窗口注意力
    image_size: int = 1024  # 输入边长，像素；照片缩放、填充成这个正方形
    patch_size: int = 16  # 图像块边长，像素
    window_size: int = 14  # 窗口边长，单位是图像块；不整除网格时要填充
    prompt_embed_dim: int = 256  # 提示、掩码解码器、图像嵌入共同的宽度
    mask_in_chans: int = 16  # 编码掩码提示的那几层卷积的通道数
    decoder_depth: int = 2  # 双向 Transformer 的层数
    decoder_heads: int = 8  # 双向 Transformer 的注意力头数
    decoder_mlp_dim: int = 2048  # 双向 Transformer 里 MLP 的隐藏宽度
    iou_head_hidden_dim: int = 256  # IoU 头的隐藏宽度

    @property
    def grid_size(self) -> int:
        """图像嵌入的边长：一边有几个图像块。"""
        return self.image_size // self.patch_size


#                        名字    宽度 层数 头数 全局注意力层
VIT_B = SamConfig("vit_b", 768, 12, 12, (2, 5, 8, 11))  # 93,735,472 个参数
VIT_L = SamConfig("vit_l", 1024, 24, 16, (5, 11, 17, 23))  # 312,342,832 个参数
VIT_H = SamConfig("vit_h", 1280, 32, 16, (7, 15, 23, 31))  # 641,090,608 个参数
TINY = SamConfig(  # 2,918,304 个参数；窗口 7 不整除网格 24，和 vit_b 一样要填充
    "tiny",
    embed_dim=160,
    depth=6,
    num_heads=5,
    global_attn_indexes=(1, 3, 5),
    image_size=192,
    patch_size=8,
    window_size=7,
    prompt_embed_dim=128,
    decoder_heads=4,
    decoder_mlp_dim=512,
    iou_head_hidden_dim=128,
)

PRESETS = {config.name: config for config in (TINY, VIT_B, VIT_L, VIT_H)}


@dataclass(frozen=True)
class TrainConfig:
    """一次训练的全部设置。

    ``minutes`` 大于 0 时按时间安排学习率，到时就停；否则按 ``steps``，这时同一个种子
    在 CPU 上逐位可重复，中断再续也与一口气跑完相同。
    """

    steps: int = 20000  # 训练多少步
    minutes: float = 0.0  # 改按时间训练：一共多少分钟；0 是按步
    batch: int = 8  # 每步几张图，所有进程合计
    prompts: int = 8  # 每张图几组提示
    rounds: int = 3  # 一半的步只走第一轮；其余再纠正，总轮数在 2 到 rounds 里随机
    lr: float = 1e-3  # 最高学习率
    weight_decay: float = 0.05  # 每步权重缩小 lr 的几成；偏置不缩
    warmup: int = 200  # 学习率预热的步数：从接近零线性升上来
    schedule: str = "cosine"  # 预热之后："cosine" 按余弦降到零；"flat" 一直不变
    decay: float = 0.0  # flat 的末尾，用这么多分钟（按步训练时是步）线性降到零
    optimizer: str = "adamw"  # "muon" 是隐藏层的矩阵用 Muon，其余仍是 AdamW
    balanced_steps: int = 500  # 前这么多步里，均衡的 BCE 渐渐让位给 focal
    min_area: int = 100  # 物体至少占多少像素才拿来训练
    area_power: float = 0.25  # 挑中物体的机会与面积的几次方成正比；0 是一视同仁
    min_zoom: float = 0.55  # 随机裁剪最多裁到边长的几成；越小，物体放得越大
    box_share: float = 0.5  # 第一轮里框占几成，其余是一个正点
    ema: float = 0.998  # 权重的指数滑动平均，每步留旧的几成；存它、用它；0 是不用
    bfloat16: bool = False  # 用 bfloat16 自动混合精度；GPU 和带 AMX 的 CPU 上更快
    compile: bool = False  # 用 torch.compile 编译；开头多等一两分钟，之后快约四成
    seed: int = 0  # 随机种子


@dataclass(frozen=True)
class FitConfig:
    """一次微调（``training.fit``）的全部设置。

    ``parts`` 是学哪一部分：``"decoder"`` 只学解码器，编码器的结果算一次就存着；
    ``"decoder+prompt"`` 加上提示编码器；``"lora"`` 学编码器和解码器里的低秩适配器；
    ``"all"`` 全都学。``minutes`` 大于 0 时按时间安排学习率，到时就停，不看 ``epochs``。
    """

    parts: str = "decoder"  # 学哪一部分；decoder 最快，编码器只算一次
    epochs: int = 10  # 训练的照片过几遍；每过一遍评一次分
    minutes: float = 0.0  # 改按时间：多少分钟；0 是按遍数
    lr: float = 0.0  # 最高学习率；0 是按 parts 取：1e-4 到 1e-3
    batch: int = 2  # 每步几张照片，所有进程合计
    prompts: int = 8  # 每张照片几个物体，各一组提示
    rounds: int = 3  # 一半的步只走第一轮；其余再纠正，总轮数在 2 到 rounds 里随机
    lora_rank: int = 8  # 低秩适配器的秩，parts="lora" 时用
    validation: float = 0.25  # 没有另给验证的照片时，分出几成
    patience: int = 4  # 连着几遍没有进步就停
    cache_mb: int = 2048  # 编码的结果最多占多少内存，MB；存不下的每次重算
    bfloat16: bool = False  # 用 bfloat16 自动混合精度；GPU 和带 AMX 的 CPU 上更快
    seed: int = 0  # 随机种子
