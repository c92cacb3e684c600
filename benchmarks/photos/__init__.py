"""真照片上的分数：十张照片，物体的轮廓是手画的（硬币由阈值和标号得出）。

用法：``python -m benchmarks.photos``。``truth.py`` 读轮廓、画成掩码，``coins.py`` 写出
硬币的标号图，``page.py`` 填 PHOTOS.md 的表，``__main__.py`` 命令行。
"""
