"""figures/training_curves.py：从训练的记录取点，画成四格。"""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "figures"))

import style  # noqa: E402
import training_curves  # noqa: E402

# 编的数：框 0.5 升到 0.7，其余依次低 0.1
RUNS = [
    {"label": name, "shape": shape, "points": [[0, *low], [60, *high]]}
    for name, shape, low, high in (
        ("大块", "256/16", (0.5, 0.4, 0.3, 0.2), (0.6, 0.5, 0.4, 0.3)),
        ("小块", "192/8", (0.5, 0.4, 0.3, 0.2), (0.7, 0.6, 0.5, 0.4)),
    )
]


def test_each_panel_shows_its_own_scores():
    figure = training_curves.draw(RUNS)
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title("left") for axes in panels] == list(training_curves.TITLES)
    for i, axes in enumerate(panels):
        lines = [line.get_xydata().tolist() for line in axes.lines]
        ends = [[60, 0.6 - 0.1 * i], [60, 0.7 - 0.1 * i]]
        for line, end in zip(lines, ends, strict=True):
            assert line[0] == pytest.approx([0, 0.5 - 0.1 * i])
            assert line[1] == pytest.approx(end)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names == ["大块（256/16）", "小块（192/8）"]
    assert "<text" not in style.to_svg(figure)


def test_points_come_from_the_log(tmp_path, monkeypatch):
    """只取小考的行；同名的一次换成新的，别的不动。"""
    scores = {"box": 0.71, "click": 0.4, "click_oracle": 0.53, "clicks3": 0.62}
    rows = [
        {"step": 50, "minutes": 1.0, "loss": 0.9, "click0": 0.3},
        {"step": 70, "minutes": 2.0} | scores,
        {"step": 100, "minutes": 3.5, "loss": 0.8} | scores,
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    data = tmp_path / "curves.json"
    data.write_text(json.dumps(RUNS), encoding="utf-8")
    monkeypatch.setattr(training_curves, "DATA", data)
    training_curves.add_run(log, "小块", "192/8")
    first, second = training_curves.read_runs()
    assert first == RUNS[0] and second["shape"] == "192/8"
    points = [[2.0, 0.71, 0.4, 0.53, 0.62], [3.5, 0.71, 0.4, 0.53, 0.62]]
    assert second["points"] == points


def test_the_committed_runs_are_well_formed():
    """时间一直往前，分数在 0 到 1 之间，名字不重。"""
    runs = training_curves.read_runs()
    assert len({run["label"] for run in runs}) == len(runs)
    assert len(runs) <= 2 * len(training_curves.COLORS)
    for run in runs:
        minutes = [point[0] for point in run["points"]]
        assert minutes == sorted(minutes) and len(minutes) > 1
        assert all(0 <= x <= 1 for point in run["points"] for x in point[1:])
        assert all(len(point) == 5 for point in run["points"])
