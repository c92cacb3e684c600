"""重画示意图：``python figures`` 画全部，``python figures costs training`` 只画这两个。

每个脚本的 ``main()`` 交出“名字 -> 图”，写成 SVG；画照片那几张 JPEG 的没有 ``main()``，
导入就画。
"""

import importlib
import sys

from style import HERE, to_svg

for script in sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py")):
    draw = getattr(importlib.import_module(script), "main", dict)
    for name, figure in draw().items():
        (HERE / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")
        print(f"写好了 figures/{name}.svg")
