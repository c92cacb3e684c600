"""`make bench` 的机关：各方算得一样，比值、记录、表格、退出码都对；不看快慢。"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import page, store  # noqa: E402
from benchmarks.cases import BY_KEY, OFFICIAL, Case  # noqa: E402
from benchmarks.compare import (  # noqa: E402
    AIMS,
    problems,
    relative_difference,
    times_the_bound,
)
from benchmarks.contenders import Job, write_weights  # noqa: E402
from benchmarks.machine import kind_of  # noqa: E402
from benchmarks.store import Outcome, Section  # noqa: E402
from benchmarks.worker import measure, measure_job, memory, spawn  # noqa: E402
from sam_lite.errors import SamLiteError  # noqa: E402

HERE = ROOT / "benchmarks"
MEGABYTE = 1 << 20
MACHINE = {"处理器": "某处理器", "指令集": "avx2、avx512f"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """tiny 的随机权重，两种格式。"""
    job = Job("sam_lite", "tiny", tmp_path_factory.mktemp("weights"))
    write_weights(job)
    return job


# ---- 各方算的是同一件事 ----------------------------------------------------------


KEYS = ["encoder", "click", "clicks64", "load_touch", "end_to_end", "prompts"]


@pytest.mark.parametrize("key", KEYS)
def test_contenders_agree(key: str, job: Job) -> None:
    """tiny 上把每一方量一次，结果与官方相同。"""
    pytest.importorskip("transformers")
    case = BY_KEY[key]._replace(warmups=0, repeats=1, bound=False)
    parts = [
        measure_job(case, replace(job, count=3, **entry._asdict()))[1]
        for entry in case.entries
    ]
    expected = parts[case.entries.index(OFFICIAL)]
    assert all(np.ptp(part) > 0 for part in expected.values())
    for found in parts:
        assert set(found) == set(expected)
        assert relative_difference(found, expected) <= case.tolerance


def test_another_side_and_half_precision(tmp_path: Path) -> None:
    """换了边长，两方还是同一份权重；bfloat16 确实是半精度，又差得不多。"""
    job = Job("sam_lite", "tiny", tmp_path, side=128)
    write_weights(job, huggingface=False)
    case = BY_KEY["gpu_encoder"]._replace(warmups=0, repeats=1)
    ours, theirs, half = (
        measure_job(case, replace(job, **entry._asdict()))[1]
        for entry in case.entries[:3]
    )
    assert theirs["embedding"].shape == (1, 128, 16, 16)
    assert relative_difference(ours, theirs) < case.tolerance
    assert 1e-3 < relative_difference(half, theirs) < case.allowed("bfloat16")


# ---- 一次测量 ------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="峰值只在 Linux 上量")
def test_peak_sees_memory_that_was_given_back() -> None:
    """峰值抓得住用完就放的内存，也不把测量之前的峰值算进来。"""
    if memory("VmHWM") is None:
        pytest.skip("这个系统不给出 VmHWM")
    torch.ones(400 * MEGABYTE // 4)  # 之前用过、已经放掉的
    numbers, _ = measure(lambda: float(torch.ones(150 * MEGABYTE // 4).sum()), 0, 1)
    if numbers["increase"] is None:
        pytest.skip("这个系统不许重置 VmHWM")
    assert 140 * MEGABYTE < numbers["increase"] < 300 * MEGABYTE


def test_worker_measures_in_its_own_process_and_reports_an_error(job: Job) -> None:
    """数字和张量都取得回来；没有权重文件时不崩，写明出了什么错。"""
    numbers, parts = spawn(BY_KEY["click"], job, 1)
    assert numbers["seconds"] > 0 and numbers["cpu"] > 0 and numbers["rates"] == {}
    assert set(parts) == {"iou", "logits", "area"} and parts["iou"].shape == (3,)
    numbers, parts = spawn(BY_KEY["click"], replace(job, variant="vit_b"), 1)
    assert numbers["error"].startswith("出错：SamLiteError") and parts == {}


def test_encoder_rounds_carry_the_rates(job: Job, monkeypatch) -> None:
    """编码器的两项在同一个进程里量矩阵乘法的速度，前后取平均。"""
    found = iter([{"mm": 1.0, "conv": 2.0}, {"mm": 3.0, "conv": 2.0}])
    monkeypatch.setattr("benchmarks.worker.product_rates", lambda dtype: next(found))
    numbers, _ = measure_job(BY_KEY["encoder"], job)
    assert numbers["rates"] == {"mm": 2.0, "conv": 2.0}


# ---- 轮流，记下，退出码 ----------------------------------------------------------


class Fake:
    """假的测量：每一方用给定的秒数，transformers 差 difference；absent 的没有安装。"""

    def __init__(
        self, official: float = 3.0, difference: float = 0.0, absent: str = ""
    ) -> None:
        self.seconds = {"sam_lite": 2.0, "official": official, "transformers": 5.0}
        self.difference, self.absent = difference, absent
        self.order: list[str] = []

    def __call__(self, case: Case, job: Job, threads: int) -> tuple[dict, dict]:
        self.order.append(job.contender)
        if job.contender == self.absent:
            return {"error": "没有安装"}, {}
        wrong = self.difference if job.contender == "transformers" else 0.0
        value = self.seconds[job.contender]
        numbers = {"seconds": value, "cpu": 2 * value, "peak": 9e8}
        numbers["increase"] = 1e6 * value
        return numbers, {"x": np.array([1.0 + wrong, -0.5])}


def run(folder: Path, *arguments: str, measure=None) -> int:
    """把假的数记进 folder 的一次命令。"""
    common = ["--variant", "tiny", "--update", "--folder", str(folder)]
    return command.main([*arguments, *common], measure or Fake())


def row_of(folder: Path, name: str, *words: str) -> list[str]:
    """folder 里那一页上，几个词都有的头一行，拆成格子。"""
    lines = (folder / name).read_text("utf-8").splitlines()
    line = next(x for x in lines if x[0:1] == "|" and all(word in x for word in words))
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def test_contenders_take_turns_and_the_page_shows_ratios(tmp_path: Path) -> None:
    """轮流两轮；时间 3 ÷ 2，sam_lite 的内存是它的 2/3，旁边写着机器。"""
    measured = Fake()
    assert run(tmp_path, "--only", "encoder", "--rounds", "2", measure=measured) == 0
    assert measured.order == ["sam_lite", "official", "transformers"] * 2
    (found,) = store.read(tmp_path / "results.json")
    assert [len(it.rounds) for it in found.outcomes] == [2, 2, 2]
    kind = kind_of(found.machine)
    cells = row_of(tmp_path, "RESULTS.md", "（tiny）", "官方")
    assert kind and cells[-4:] == ["1.50（1.50）", "1.50（1.50）", "0.67", kind]
    ours = row_of(tmp_path, "RESULTS.md", "（tiny）", "sam_lite ")
    assert ours[3:5] == ["2.00 s（2.00 s）", "4.00 s"] and ours[-4:] == [""] * 4


def test_costs_stand_on_their_own_page(tmp_path: Path) -> None:
    """各个边长、各个个数一行，按大小排；旁边写着机器。"""
    assert run(tmp_path, "--only", "sides_tiny", "--rounds", "1") == 0
    cells = row_of(tmp_path, "COSTS.md", "| tiny ")
    assert cells[:2] == ["tiny", "96"] and cells[3:5] == ["2 MB", "3 MB"]
    assert cells[7:11] == ["2.00 s", "3.00 s", "1.50", "1.50"] and cells[-1]
    assert run(tmp_path, "--only", "points", "--rounds", "1") == 0
    known = store.read(tmp_path / "results.json")
    assert [s.side for s in known[:3]] == [96, 192, 384]
    assert [s.count for s in known[3:]] == [1, 2, 4, 8, 16, 32, 64]
    assert row_of(tmp_path, "COSTS.md", "| 64 ")[5] == "1.50"


def test_update_replaces_only_what_was_measured(tmp_path: Path) -> None:
    """先量两项，再把其中一项量一遍：那一项换掉，另一项原样，次序照表。"""
    run(tmp_path, "--only", "click,encoder", "--rounds", "2")
    old = store.read(tmp_path / "results.json")
    assert [s.case for s in old] == ["encoder", "click"]
    run(tmp_path, "--only", "encoder", "--rounds", "1", measure=Fake(official=8.0))
    new = store.read(tmp_path / "results.json")
    assert new[1] == old[1] and [len(it.rounds) for it in new[0].outcomes] == [1, 1, 1]
    assert row_of(tmp_path, "RESULTS.md", "图像编码器", "官方")[-4] == "4.00（4.00）"
    assert row_of(tmp_path, "RESULTS.md", "一次点击（", "官方")[-4] == "1.50（1.50）"


def test_what_was_measured_survives_a_break(tmp_path: Path) -> None:
    """量到一半被叫停：量完的一项已经记下，文件是完整的，不留临时文件。"""
    measured = Fake()

    def broken(case: Case, job: Job, threads: int) -> tuple[dict, dict]:
        if case.key == "click":
            raise KeyboardInterrupt
        return measured(case, job, threads)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--only", "encoder,click", "--rounds", "1", measure=broken)
    assert [s.case for s in store.read(tmp_path / "results.json")] == ["encoder"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "RESULTS.md", "COSTS.md"}


def test_missing_contender_keeps_its_row(tmp_path: Path) -> None:
    """没有安装的只试一次，写明，别的照量；没有官方就没有误差可比。"""
    measured = Fake(absent="transformers")
    assert run(tmp_path, "--only", "encoder", "--rounds", "2", measure=measured) == 0
    assert measured.order.count("transformers") == 1
    assert row_of(tmp_path, "RESULTS.md", "transformers")[3] == "没有安装"
    absent = Fake(absent="official")
    assert run(tmp_path, "--only", "click", "--rounds", "1", measure=absent) == 0
    assert row_of(tmp_path, "RESULTS.md", "一次点击（", "sam_lite ")[7] == "无参照"
    assert run(tmp_path, "--only", "sides_tiny", "--rounds", "1", measure=absent) == 0
    text = (tmp_path / "COSTS.md").read_text("utf-8")
    assert "| tiny" not in text and "还没有量" in text


def test_a_failing_case_is_reported(tmp_path: Path, capsys, monkeypatch) -> None:
    """sam_lite 没量成、误差太大、权重写不下：说出来，退出码是 1，别的照记。"""
    arguments = "--only", "encoder", "--rounds", "1"
    absent = Fake(absent="sam_lite")
    assert run(tmp_path, *arguments, measure=absent) == 1
    assert "图像编码器（tiny）：sam_lite，float32，没有安装" in capsys.readouterr().err
    assert run(tmp_path, *arguments, measure=Fake(difference=0.5)) == 1
    assert "transformers，float32，误差 5.0e-01，容许 2e-04" in capsys.readouterr().err
    assert "有问题" in (tmp_path / "RESULTS.md").read_text("utf-8")
    assert run(tmp_path, *arguments, measure=Fake(difference=float("nan"))) == 1
    real = command.write_weights

    def write(job: Job, *rest: bool) -> int:
        if job.side == 96:
            raise SamLiteError("磁盘只剩一点")
        return real(job, *rest)

    monkeypatch.setattr(command, "write_weights", write)
    assert run(tmp_path, "--only", "sides_tiny", "--rounds", "1") == 1
    assert "tiny 的权重没有写成：磁盘只剩一点" in capsys.readouterr().err
    assert [s.side for s in store.read(tmp_path / "results.json")] == [0, 192, 384]


def test_choices(tmp_path: Path) -> None:
    """只有量全部时才默认记下来；--only 认得项和表的名字；没有显卡就量不了显卡。"""
    assert command.parse([]).update
    assert {c.group for c in command.parse([]).cases} == {"results"}
    for arguments in (["--quick"], ["--only", "load"], ["--variant", "vit_l"]):
        assert not command.parse(arguments).update
        assert command.parse([*arguments, "--update"]).update
    assert command.parse(["--quick"]).rounds == 1 and command.parse([]).rounds == 5
    sides = command.parse(["--only", "sides", "--variant", "vit_h"])
    assert [c.chosen(sides.variants) for c in sides.cases] == [[], [], ["vit_h"]]
    for wrong in (["--only", "encoder,nothing"], ["--rounds", "0"]):
        with pytest.raises(SystemExit):
            command.parse(wrong)
    arguments = ["--only", "encoder", "--variant", "tiny", "--folder", str(tmp_path)]
    assert command.main([*arguments, "--rounds", "1"], Fake()) == 0
    assert list(tmp_path.iterdir()) == []
    if not torch.cuda.is_available():
        with pytest.raises(SamLiteError, match="没有能用的 NVIDIA 显卡"):
            command.main(["--only", "gpu"], Fake())


# ---- 比值，目标，下限 -----------------------------------------------------------


def section(key: str, ours: list[float], other: list[float], **more) -> Section:
    """两方的几轮，时间、CPU 时间、内存都是给的数。"""
    names = ("seconds", "cpu", "increase", "peak")
    outcomes = [
        Outcome(who, difference=1e-6, rounds=[dict.fromkeys(names, x) for x in values])
        for who, values in (("sam_lite", ours), ("official", other))
    ]
    fields = {"machine": MACHINE, "date": "2020-02-02", **more}
    return Section(key, "vit_b", 0, 0, 1, outcomes=outcomes, **fields)


def test_ratios_are_paired_within_a_round() -> None:
    """3/2、4/1，中位数 2.75，最差 1.5；少了一轮的一方，多出的不比。"""
    rows = page.number_rows(section("encoder", [2.0, 1.0, 9.0], [3.0, 4.0]))
    assert rows[1][-4:] == ("2.75（1.50）", "2.75（1.50）", "0.46", "某处理器，AVX-512")


def test_difference_is_relative_and_needs_the_same_shapes() -> None:
    a, b = {"x": np.array([2.0, 4.4])}, {"x": np.array([2.0, 4.0])}
    assert relative_difference(a, b) == pytest.approx(0.1)
    for wrong in ({"x": np.ones((2, 1))}, {}, {"x": np.array([2.0, np.nan])}):
        assert relative_difference(wrong, b) == float("inf")


def test_bound_is_time_over_operations_per_rate() -> None:
    """vit_b 有 0.972 TFLOP；每秒 0.1 TFLOP 容许 9.72 秒，用了两倍。"""
    rates = {"mm": 0.1e12, "linear": 0.05e12, "conv": 0.2e12}
    rounds = [{"seconds": 2 * 9.72077334528, "rates": rates}]
    one = Outcome("sam_lite", rounds=rounds)
    assert times_the_bound(one, "vit_b") == pytest.approx([2.0])
    assert times_the_bound(one, "vit_b", best=True) == pytest.approx([4.0])
    ((*_, mm, best, _),) = page.bound_rows(
        replace(section("encoder", [], []), outcomes=[one])
    )
    assert (mm, best) == ("2.00（2.00）", "4.00（4.00）")


@pytest.mark.parametrize(
    "what, ours, other, value, reached",
    [  # 中位数说了算，最差的一轮只写出来；速度越大越好，内存越小越好
        ("speed", [1.0, 1.0, 1.0], [9.0, 1.6, 1.0], "1.60（1.00）", "是"),
        ("speed", [1.0, 1.0, 1.0], [9.0, 1.4, 1.0], "1.40（1.00）", "否"),
        ("increase", [6, 7], [10, 10], "0.65（0.70）", "否"),
        ("increase", [4, 5], [10, 10], "0.45（0.50）", "是"),
    ],
)
def test_aims_are_judged_by_the_median(what, ours, other, value, reached) -> None:
    aim = next(a for a in AIMS if a.key == "encoder" and a.what == what)
    row = page.aim_row(aim, [section("encoder", ours, other)])
    assert row[1:] == (value, "1.0e-06", reached, "某处理器，AVX-512")
    assert page.aim_row(aim, [])[1] == "没有量"


# ---- 页 ----------------------------------------------------------------------


def test_pages_tell_machines_apart() -> None:
    """两项在不同的机器上量：都写出，各项写着是哪一台；只有一台就不编号。"""
    one, other = section("encoder", [1], [2]), {**MACHINE, "处理器": "另一个"}
    moved = section("click", [1], [2], machine=other, date="2020-02-03")
    parts = page.results([one, moved])
    assert "机器 2：\n\n- 处理器：另一个" in parts["machines"]
    line = next(x for x in parts["dates"].splitlines() if "2020-02-03" in x)
    assert "一次点击" in line and line.rstrip(" |").endswith("2")
    assert "机器 1" not in page.results([one])["machines"]
    assert "没有运行过" in page.costs([])["gpu"]
    found = section("gpu_encoder", [0.1], [0.3], machine={**MACHINE, "显卡": "某显卡"})
    text = page.costs([found])["gpu"]
    assert "没有运行过" not in text and "3.00（3.00）" in text and "某显卡" in text


def test_committed_pages_are_current(tmp_path: Path) -> None:
    """仓库里的两页就是由 results.json 填的；存一遍，一字不差。"""
    known = store.read(HERE / "results.json")
    page.write_pages(tmp_path, known)
    for name in ("RESULTS.md", "COSTS.md"):
        assert (tmp_path / name).read_text("utf-8") == (HERE / name).read_text("utf-8")
    assert problems(known) == []
    store.write(tmp_path / "again.json", (HERE / "results.json").read_text("utf-8"))
    store.record(tmp_path / "again.json", [])
    again = json.loads((tmp_path / "again.json").read_text("utf-8"))
    assert again == json.loads((HERE / "results.json").read_text("utf-8"))
