"""程序画的场景：一张图，加上其中每样东西精确到像素的掩码。

``scene`` 画由形状拼成的物体，``stickers`` 把抠好的小图贴成场景，``cells`` 画一盘细胞。
其余的是它们的工具：``content`` 画什么，``shapes`` 形状，``looks`` 颜色、材质和背景，
``objects`` 把物体摆进画面，``packed`` 铺满画面的东西，``strokes`` 线条。
"""

from .scene import Scene, make_scene

__all__ = ["Scene", "make_scene"]
