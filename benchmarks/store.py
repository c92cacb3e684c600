"""results.json：各项的原始数字，每项带着日期和机器；可以只换其中几项。"""

import json
from pathlib import Path
from typing import Any

from sam_lite.config import PRESETS
from sam_lite.files.atomic import atomic_file

from .cases import BY_KEY
from .report import Outcome, Section

ORDER = [(key, variant) for key in BY_KEY for variant in PRESETS]


def as_json(sections: list[Section]) -> list[dict[str, Any]]:
    """全部原始数字，可以写成 JSON。"""
    return [
        {
            "case": section.case.key,
            "variant": section.variant,
            "weight_bytes": section.weight_bytes,
            "date": section.date,
            "machine": section.machine,
            "outcomes": [
                {
                    "contender": outcome.entry[0],
                    "dtype": outcome.entry[1],
                    "difference": outcome.difference,
                    "error": outcome.error,
                    "rounds": outcome.rounds,
                }
                for outcome in section.outcomes
            ],
        }
        for section in sections
    ]


def from_json(found: list[dict[str, Any]]) -> list[Section]:
    """as_json 的逆；表里已经没有的测量略去。"""
    return [
        Section(
            BY_KEY[item["case"]],
            item["variant"],
            item["weight_bytes"],
            [
                Outcome(
                    (one["contender"], one["dtype"]),
                    one["rounds"],
                    one["difference"],
                    one["error"],
                )
                for one in item["outcomes"]
            ],
            item["date"],
            item["machine"],
        )
        for item in found
        if item["case"] in BY_KEY
    ]


def merge(old: list[Section], new: list[Section]) -> list[Section]:
    """新量的换掉旧的，其余留着；次序照测量的表。"""
    kept = {(s.case.key, s.variant): s for s in [*old, *new]}
    return [kept[name] for name in ORDER if name in kept]


def read(path: Path) -> list[Section]:
    """读 results.json；还没有就是空的。"""
    if not path.is_file():
        return []
    return from_json(json.loads(path.read_text(encoding="utf-8")))


def write(path: Path, text: str) -> None:
    """完整写好才换掉旧文件。"""
    with atomic_file(path) as file:
        file.write(text.encode())


def save(path: Path, sections: list[Section]) -> None:
    """写 results.json。"""
    write(path, json.dumps(as_json(sections), ensure_ascii=False, indent=1) + "\n")
