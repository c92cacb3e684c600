"""模型尺寸的比较：benchmarks.shapes 试哪些、怎么记；training_curves.py 怎么画。"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
sys.path.insert(0, str(ROOT / "figures"))

import style  # noqa: E402
import training_curves  # noqa: E402

from benchmarks import shapes  # noqa: E402
from sam_lite.learn.interrupts import Interrupts  # noqa: E402
from sam_lite.model import sam_from_config  # noqa: E402
from sam_lite.scenes.bank import SceneBank  # noqa: E402

# 编的数：每列的终点依次低 0.1
RUNS = [
    {
        "label": name,
        "start": start,
        "points": [[2, 0.5, 0.4, 0.3, 0.2], [8, high, high - 0.1, high - 0.2, 0.1]],
    }
    for name, start, high in (
        ("256/16", "weights", 0.6),
        ("192/8", "weights", 0.7),
        ("宽 224", "nothing", 0.4),
    )
]


def test_each_panel_shows_its_own_scores():
    figure = training_curves.draw(RUNS)
    panels = [axes for axes in figure.axes if axes.lines]
    titles = [axes.get_title("left") for axes in panels]
    assert titles == list(training_curves.COLUMNS.values()) * 2
    assert [len(axes.lines) for axes in panels] == [2, 2, 2, 1, 1, 1]
    for axes, end in zip(panels[:3], (0.7, 0.5, 0.1), strict=True):
        assert axes.lines[1].get_xydata()[-1].tolist() == pytest.approx([8, end])
    names = [[t.get_text() for t in legend.texts] for legend in figure.legends]
    assert names == [["256/16", "192/8"], ["宽 224"]]
    assert "<text" not in style.to_svg(figure)


def test_fresh_shapes_change_one_thing_each():
    """从零的几种与头一种只差一样（连着它走的头数、全局层也算那一样）；都训练得动。"""
    together = [{"embed_dim", "num_heads"}, {"depth", "global_attn_indexes"}]
    together += [{"prompt_embed_dim", "iou_head_hidden_dim"}]
    fresh = [asdict(s.config) for s in shapes.all_shapes() if not s.resumed]
    changed = [{k for k in one if one[k] != fresh[0][k]} for one in fresh[1:]]
    assert changed == together
    labels = [shape.label for shape in shapes.all_shapes()]
    assert len(set(labels)) == len(labels)
    assert len({shapes.slug(shape) for shape in shapes.all_shapes()}) == len(labels)
    for shape in shapes.all_shapes():
        sam_from_config(shape.config)


def test_runs_are_recorded_in_order_and_not_repeated(tmp_path, monkeypatch, capsys):
    """真的训练几步：考的分数记成点；同名的换成新的；做过的跳过。"""
    monkeypatch.setattr(shapes, "CURVES", tmp_path / "curves.json")
    (tmp_path / "curves.json").write_text("[]\n", encoding="utf-8")
    bank = SceneBank(tmp_path / "bank", 4, 256)
    for _ in bank.fill(1):
        pass
    line = f"--bank {tmp_path / 'bank'} --scenes 4 --minutes 0.02 --eval-scenes 1"
    line += f" --init 没有这个文件 --work {tmp_path / 'work'} --only"
    assert shapes.main([*line.split(), "提示 64"]) == 0
    (run,) = shapes.read()
    assert run["label"] == "提示 64" and run["start"] == "nothing"
    assert run["steps"] >= 1 and run["parameters"] > 1e6
    ((minutes, *scores),) = run["points"][-1:]
    assert minutes >= 0.02 and len(scores) == 4 and all(0 <= s <= 1 for s in scores)
    shapes.record(run | {"label": "192/8"})
    shapes.record(run | {"steps": 7})
    assert [r["label"] for r in shapes.read()] == ["192/8", "提示 64"]
    assert shapes.read()[1]["steps"] == 7
    assert shapes.main([*line.split(), "提示 64"]) == 0
    assert shapes.read()[1]["steps"] == 7  # 没有重做
    assert shapes.main([*line.split(), "256/8"]) == 1  # 权重不在
    assert shapes.main([*line.split(), "512/8"]) == 1  # 没有这一种
    assert "--only 不对：收到 512/8" in capsys.readouterr().err


def test_an_interrupted_run_is_not_recorded(tmp_path, monkeypatch):
    shape = shapes.all_shapes()[-1]
    bank = SceneBank(tmp_path / "bank", 1, 256)
    for _ in bank.fill(1):
        pass
    line = f"--bank {tmp_path / 'bank'} --scenes 1 --init x --work {tmp_path}"
    monkeypatch.setattr(Interrupts, "__bool__", lambda self: True)
    with pytest.raises(KeyboardInterrupt), Interrupts() as stop:
        shapes.run(shape, shapes.make_parser().parse_args(line.split()), stop)


def test_the_committed_runs_are_well_formed():
    """时间一直往前，分数在 0 到 1 之间，名字不重，次序照名单。"""
    runs = json.loads(shapes.CURVES.read_text(encoding="utf-8"))
    labels = [shape.label for shape in shapes.all_shapes()]
    assert [run["label"] for run in runs] == labels
    for run in runs:
        minutes = [point[0] for point in run["points"]]
        assert minutes == sorted(minutes) and len(minutes) > 1
        assert all(0 <= x <= 1 for point in run["points"] for x in point[1:])
        assert all(len(point) == 5 for point in run["points"])
