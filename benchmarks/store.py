"""results.json：每项的原始数字，带着日期和机器；新量的一项只换掉它自己。"""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam_lite.config import PRESETS
from sam_lite.files.atomic import atomic_file

from .cases import BY_KEY, Case
from .contenders import NAMES


@dataclass(frozen=True)
class Outcome:
    """一方在一项里的全部结果。"""

    contender: str  # NAMES 的键
    dtype: str = "float32"
    compiled: bool = False
    difference: float | None = None  # 与官方 float32 的最大相对误差；没有参照时是 None
    error: str = ""  # 没有安装、出错时的说明
    rounds: list[dict[str, Any]] = field(default_factory=list)  # worker 量的，一轮一份

    @property
    def label(self) -> str:
        """谁，什么精度。"""
        compiled = "，编译" if self.compiled else ""
        return f"{NAMES[self.contender]}，{self.dtype}{compiled}"

    def median(self, name: str) -> float | None:
        """各轮的中位数；没有量到时是 None。"""
        values = [r[name] for r in self.rounds if r.get(name) is not None]
        return statistics.median(values) if values else None


@dataclass(frozen=True)
class Section:
    """一项测量在一个位置（型号、边长、个数）上的结果，各方都在里面。"""

    case: str  # BY_KEY 的键
    variant: str
    side: int  # 输入边长；0 是型号自己的
    count: int  # 几个点，或几组提示；0 是这一项不看个数
    weight_bytes: int | None
    date: str
    machine: dict[str, str]  # 见 machine.py
    outcomes: list[Outcome] = field(default_factory=list)  # sam_lite 在最前

    @property
    def about(self) -> Case:
        """它在测量的表里的那一行。"""
        return BY_KEY[self.case]

    @property
    def title(self) -> str:
        """量什么，什么型号；边长、个数换过的也写出。"""
        side = f"，边长 {self.side}" if self.side else ""
        count = f"，{self.count} 个" if self.count else ""
        return f"{self.about.title}（{self.variant}{side}{count}）"

    @property
    def place(self) -> tuple[int, int, int, int]:
        """排在哪里；位置相同的，新的换掉旧的。"""
        row, variant = list(BY_KEY).index(self.case), list(PRESETS).index(self.variant)
        return row, variant, self.side, self.count

    def outcome(self, contender: str) -> Outcome | None:
        """这一方的第一份结果；没有量成就是 None。官方的第一份总是 float32。"""
        found = [o for o in self.outcomes if o.contender == contender and o.rounds]
        return found[0] if found else None


def merge(old: list[Section], new: list[Section]) -> list[Section]:
    """新量的换掉旧的，其余留着；次序照测量的表。"""
    kept = {section.place: section for section in [*old, *new]}
    return [kept[place] for place in sorted(kept)]


def read(path: Path) -> list[Section]:
    """读 results.json；还没有就是空的，表里已经没有的测量略去。"""
    if not path.is_file():
        return []
    return [
        Section(**{**item, "outcomes": [Outcome(**one) for one in item["outcomes"]]})
        for item in json.loads(path.read_text(encoding="utf-8"))
        if item["case"] in BY_KEY
    ]


def write(path: Path, text: str) -> None:
    """完整写好才换掉旧文件。"""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, found: Any) -> None:
    """写成 JSON，汉字照写。"""
    write(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")


def record(path: Path, new: list[Section]) -> list[Section]:
    """把量到的并进 results.json，返回现在的全部。"""
    known = merge(read(path), new)
    write_json(path, [asdict(section) for section in known])
    return known
