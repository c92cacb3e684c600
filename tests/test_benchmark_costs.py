"""花费的表和图：量的东西对，记得住，换得掉，写出来的数对；不看快慢。"""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks import costs, costs_worker, gpu  # noqa: E402
from benchmarks.costs_figures import draw  # noqa: E402
from benchmarks.costs_page import format_costs  # noqa: E402
from benchmarks.costs_worker import Setting  # noqa: E402
from sam_lite.config import TINY  # noqa: E402

FOLDER = ROOT / "benchmarks"


def fake(difference: float = 0.0, broken: str = ""):
    """假的测量：官方 3 秒、300 MB，sam_lite 2 秒、100 MB。"""

    def run(setting: Setting) -> tuple[list[dict], dict]:
        if setting.contender == broken:
            return [{"error": "没有安装"}], {}
        official = setting.contender == "official"
        value, increase = (3.0, 3e8) if official else (2.0, 1e8)
        noise = 0.0 if official else difference
        counts = {"encoder": (1,), "points": (1, 64), "prompts": (1, 256)}
        row = {"seconds": value, "cpu": value, "increase": increase, "peak": 9e8}
        row["weights"] = 4e8
        return (
            [{"count": count, **row} for count in counts[setting.kind]],
            {"1 iou": np.array([1.0 + noise, 0.5])},
        )

    return run


def run(folder: Path, *arguments: str, measure=None) -> int:
    """把假的数记进 folder 的一次命令。"""
    return costs.main([*arguments, "--folder", str(folder)], measure or fake())


# ---- 真的量 --------------------------------------------------------------------


def test_both_contenders_get_the_same_weights() -> None:
    """同一个种子，两方逐个相同；换了边长也一样；没有哪个参数还是零。"""
    setting = Setting("encoder", "sam_lite", "tiny", 128, 1)
    mine = costs_worker.build("sam_lite", setting.config).state_dict()
    other = costs_worker.build("official", setting.config).state_dict()
    assert set(mine) == set(other)
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert all(tensor.any() for tensor in mine.values())
    assert mine["image_encoder.pos_embed"].shape == (1, 16, 16, 160)


@pytest.mark.parametrize("kind", list(costs_worker.KINDS))
def test_contenders_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny 上真的量一次：每个个数一行，两方的结果相同。"""
    monkeypatch.setattr(costs_worker, "POINTS", (1, 3))
    monkeypatch.setattr(costs_worker, "PROMPTS", (2,))

    def here(setting: Setting) -> tuple[list[dict], dict]:
        found, parts = costs_worker.measure_setting(setting._asdict())
        return found["rows"], parts

    who = ("official", "sam_lite")
    side = TINY.image_size
    rows = costs.run_all([Setting(kind, w, "tiny", side, 1) for w in who], here)
    expected = {"encoder": [1], "points": [1, 3], "prompts": [2]}[kind]
    assert [row["count"] for row in rows] == expected * 2
    assert all(row["seconds"] > 0 for row in rows)
    assert all(row["difference"] <= 1e-4 for row in rows)
    assert rows[0]["difference"] == 0


def test_worker_runs_in_its_own_process() -> None:
    rows, parts = costs.spawn(Setting("encoder", "sam_lite", "tiny", 128, 1))
    assert rows[0]["weights"] > 1e7 and rows[0]["seconds"] > 0
    assert parts["1 embedding"].shape == (1, 128, 16, 16)


def test_worker_reports_an_error() -> None:
    rows, parts = costs.spawn(Setting("encoder", "sam_lite", "nothing", 128, 1))
    assert rows[0]["error"].startswith("出错：KeyError") and parts == {}


# ---- 记下来，写出来 --------------------------------------------------------------


def test_choices_narrow_what_is_measured() -> None:
    """只要 vit_h 的 768：两方各一次；不挑就是全部。"""
    one = list(costs.settings(["encoder"], ["vit_h"], [768], 2))
    assert [(s.contender, s.variant, s.side) for s in one] == [
        ("official", "vit_h", 768),
        ("sam_lite", "vit_h", 768),
    ]
    assert one[0].config.grid_size == 48
    every = list(costs.settings(list(costs_worker.KINDS), [], [], 2))
    assert len(every) == 2 * (4 * 3 + 2) and len(set(every)) == len(every)


def test_page_shows_both_and_the_ratio(tmp_path: Path) -> None:
    assert run(tmp_path, "--variant", "vit_b", "--side", "512") == 0
    text = (tmp_path / "COSTS.md").read_text("utf-8")
    line = next(x for x in text.splitlines() if "| vit_b" in x)
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert cells[:5] == ["vit_b", "512", "400 MB", "100 MB", "300 MB"]
    assert cells[7:] == ["2.00 s", "3.00 s", "1.50", "1.50", "0.0e+00"]
    assert re.search(r"\| 64 +\|", text) and re.search(r"\| 256 +\|", text)


def test_memory_only_leaves_the_times_out(tmp_path: Path) -> None:
    """机器不空闲：内存照记，时间写“未测”，图里也不画时间。"""
    assert run(tmp_path, "--variant", "vit_b", "--memory") == 0
    text = (tmp_path / "COSTS.md").read_text("utf-8")
    line = next(x for x in text.splitlines() if "| vit_b" in x)
    assert "100 MB" in line and line.count("未测") == 2 and "2.00 s" not in line


def test_new_rows_replace_old_ones(tmp_path: Path) -> None:
    """再量一样东西：那几行换掉，别的一行不动。"""
    run(tmp_path, "--only", "encoder", "points", "--variant", "vit_b")
    old = json.loads((tmp_path / "costs.json").read_text("utf-8"))
    run(tmp_path, "--only", "points", measure=fake(1e-5))
    new = json.loads((tmp_path / "costs.json").read_text("utf-8"))
    assert len(new) == len(old) == 2 * (3 + 2)
    changed = {row["kind"] for row, before in zip(new, old) if row != before}
    assert changed == {"points"}


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_wrong_result_fails_the_command(tmp_path: Path, wrong: float) -> None:
    assert run(tmp_path, "--only", "points", measure=fake(wrong)) == 1


def test_a_missing_contender_is_told(tmp_path: Path, capsys) -> None:
    """官方没有装：退出码 1，写明是谁；那几行不进表。"""
    broken = fake(broken="official")
    assert run(tmp_path, "--only", "points", measure=broken) == 1
    assert "官方：没有安装" in capsys.readouterr().err
    assert "还没有量" in (tmp_path / "COSTS.md").read_text("utf-8")


def test_curves_end_where_the_numbers_say(tmp_path: Path) -> None:
    """两张图都画出；字都在字体里；同样的数画出的文件逐字节相同。"""
    run(tmp_path)
    rows = json.loads((tmp_path / "costs.json").read_text("utf-8"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        texts = draw(rows)
    assert set(texts) == {"costs_sides", "costs_counts"}
    for name, text in texts.items():
        assert (tmp_path / f"{name}.svg").read_text("utf-8") == text
        assert "<text" not in text


def test_committed_page_is_current() -> None:
    """仓库里的 COSTS.md 和图就是由 costs.json 写出的。"""
    rows = json.loads((FOLDER / "costs.json").read_text("utf-8"))
    assert (FOLDER / "COSTS.md").read_text("utf-8") == format_costs(rows)
    for name, text in draw(rows).items():
        assert (FOLDER / f"{name}.svg").read_text("utf-8") == text


def test_page_is_clean_chinese(tmp_path: Path) -> None:
    autocorrect = pytest.importorskip("autocorrect_py")
    run(tmp_path)
    text = (tmp_path / "COSTS.md").read_text("utf-8")
    autocorrect.load_config(json.dumps({"rules": {"fullwidth": 1, "space-word": 1}}))
    wrong = [
        line.old
        for line in autocorrect.lint_for(text, "markdown").lines
        if line.severity == autocorrect.Severity.Error
    ]
    assert wrong == []


# ---- 显卡 ----------------------------------------------------------------------


def test_gpu_table_walks_through_on_the_cpu(tmp_path: Path, monkeypatch) -> None:
    """没有显卡也能用 tiny 走一遍编码器：四种方式各一行，结果与官方相同。"""
    monkeypatch.setattr(torch, "compile", lambda module: module)  # 编译要几十秒
    arguments = ["--device", "cpu", "--variant", "tiny", "--only", "encoder"]
    arguments += ["--warmups", "0", "--repeats", "1", "--folder", str(tmp_path)]
    assert gpu.main(arguments) == 0
    rows = json.loads((tmp_path / "costs.json").read_text("utf-8"))
    modes = [(row["contender"], row["dtype"], row["compiled"]) for row in rows]
    assert modes == list(gpu.MODES)
    assert rows[1]["difference"] < 1e-4 < 1e-3 < rows[2]["difference"] < 0.05
    assert "没有运行过" in (tmp_path / "COSTS.md").read_text("utf-8")


def test_gpu_table_is_shown_once_measured() -> None:
    """在显卡上量过：写出表，不再说没有运行过。"""
    place = {"kind": "gpu", "variant": "vit_b", "side": 1024, "task": "encoder"}
    base = {**place, "machine": {"显卡": "某一块"}, "increase": 2e9, "difference": 0.0}
    found = [("official", False, 0.3), ("sam_lite", True, 0.1)]
    rows = [
        {**base, "contender": who, "dtype": "float32", "compiled": c, "seconds": s}
        for who, c, s in found
    ]
    text = format_costs(rows)
    assert "没有运行过" not in text and "显卡：某一块" in text
    line = next(x for x in text.splitlines() if "编译 " in x)
    assert "100 ms" in line and "3.00" in line and "2000 MB" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="这里有显卡")
def test_gpu_command_needs_a_gpu(capsys) -> None:
    assert gpu.main([]) == 2
    assert "没有能用的 NVIDIA 显卡" in capsys.readouterr().err
