"""``python -m sam_lite.cli`` 与命令 ``sam-lite`` 相同。"""

from . import main

raise SystemExit(main())
