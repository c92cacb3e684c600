"""场景里画什么：每样成分一个概率，可以一样一样地开关。

``BASE`` 是 ``make_scene`` 一向画的；``RICH`` 加上十张真照片上有、``BASE`` 里没有的东
西，给训练用。加一样或去一样，模型在真照片上好了还是坏了，见
``benchmarks/CONTENT.md``。
"""

import numbers
from dataclasses import dataclass, fields

from ..errors import problem


@dataclass(frozen=True)
class SceneContent:
    """每样成分的概率，0 是没有，1 是一向都有；不是 0 到 1 的数时抛 SamLiteError。

    成分画不画另用一串随机数来定，与画笔的互不相干：不改动的成分，画出来尽量不变。
    """

    # BASE 里已有的
    textures: float = 1.0  # 每种表面：花纹和深浅不匀；没有就是纯色
    palette: float = 1.0  # 每张图：颜色只从几个偏好的色相里取，往背景靠；没有就随便
    shading: float = 1.0  # 每张图：物体的明暗、高光、边缘变暗和影子
    clutter: float = 1.0  # 每张图：背景上的地平线、焦外的杂物；没有就是一种花纹
    thin: float = 1.0  # 每个无名形状：圆环、胶囊、粗线条；没有就换成椭圆
    parts: float = 0.5  # 每个物体：带部件
    groups: float = 0.12  # 每张图：换成一群相似的圆物
    camera: float = 1.0  # 每张图：照明不匀、偏色、模糊、噪声、JPEG；没有就只调曝光
    # RICH 里新添的
    natural: float = 0.0  # 每张图：自然的颜色，多是棕、绿、灰蓝，不鲜艳
    grain: float = 0.0  # 每种表面：顺着一个方向的细纹，像毛、草、木头、布
    packed: float = 0.0  # 每张图：铺满画面的砖、瓷砖、石子或鳞片
    letters: float = 0.0  # 每张图：添一串字母或数字，每个字一个物体
    slender: float = 0.0  # 每张图：添几样细长的东西：杆、铁塔、缆绳、血管、三脚架
    tissue: float = 0.0  # 每张图：换成切片那样的大块组织，里面是细纹和核
    cropped: float = 0.0  # 每张图：添一两个伸出画面的大物

    def __post_init__(self) -> None:
        """查每一项。"""
        for field in fields(self):
            rate = getattr(self, field.name)
            real = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
            if not (real and 0 <= rate <= 1):
                raise problem(field.name, repr(rate), "概率，在 0 到 1 之间")


BASE = SceneContent()
RICH = SceneContent(
    natural=0.6,
    grain=0.3,
    packed=0.12,
    letters=0.12,
    slender=0.25,
    tissue=0.08,
    cropped=0.25,
)
