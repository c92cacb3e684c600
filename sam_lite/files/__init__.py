"""读写文件：要么完整写好，要么一点不动；官方权重、Hugging Face 的权重、下载。"""

from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"  # 随包的权重、照片、贴纸
