"""训练曲线的数据：figures/training_curves.py 照它画；图过没过时由 test_figures 查。"""

import json
from pathlib import Path

CURVES = Path(__file__).resolve().parent.parent / "benchmarks" / "training"


def test_the_committed_runs_are_well_formed():
    """两类都有，名字不重；时间一直往前，四种分数在 0 到 1 之间。"""
    runs = json.loads((CURVES / "curves.json").read_text("utf-8"))
    assert {run["start"] for run in runs} == {"weights", "nothing"}
    assert len({run["label"] for run in runs}) == len(runs)
    for run in runs:
        minutes = [point[0] for point in run["points"]]
        assert minutes == sorted(minutes) and len(minutes) > 1
        assert all(0 <= x <= 1 for point in run["points"] for x in point[1:])
        assert all(len(point) == 5 for point in run["points"])
