"""`make bench` 的机关：三方算得一样，比值、表格、退出码都对；不看快慢。"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks.cases import BY_KEY, CASES, Case, one_tensor  # noqa: E402
from benchmarks.contenders import Job, NotInstalledError, write_weights  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.report import (  # noqa: E402
    Outcome,
    Section,
    format_report,
    format_table,
    problems,
    relative_difference,
)
from benchmarks.worker import measure, measure_job, memory  # noqa: E402

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny 的随机权重，两种格式。"""
    where = tmp_path_factory.mktemp("weights")
    write_weights(where, "tiny")
    return where


# ---- 三方算的是同一件事 ----------------------------------------------------------


@pytest.mark.parametrize("key", ["encoder", "click", "clicks64", "load_touch"])
def test_contenders_agree(key: str, folder: Path) -> None:
    """tiny 上把每一方量一次，结果与官方相同。"""
    pytest.importorskip("transformers")
    case = BY_KEY[key]._replace(warmups=0, repeats=1)
    parts = {}
    for who, dtype in case.entries:
        _, parts[who] = measure_job(case, Job(who, "tiny", dtype, folder))
    assert all(np.ptp(part) > 0 for part in parts["official"].values())
    for who in ("sam_lite", "transformers"):
        assert set(parts[who]) == set(parts["official"])
        wrong = relative_difference(parts[who], parts["official"])
        assert wrong <= case.tolerance, who


def test_every_case_has_ours_first_and_a_reference() -> None:
    for case in CASES:
        assert case.entries[0][0] == "sam_lite"
        assert ("official", "float32") in case.entries
        assert len(set(case.entries)) == len(case.entries)
    assert len(BY_KEY) == len(CASES)


def test_bfloat16_runs_in_bfloat16(folder: Path) -> None:
    """bfloat16 的一项确实是半精度：与 float32 有差别，又差得不多。"""
    case = BY_KEY["encoder_bf16"]._replace(warmups=0)
    half = measure_job(case, Job("sam_lite", "tiny", "bfloat16", folder))[1]
    full = measure_job(case, Job("sam_lite", "tiny", "float32", folder))[1]
    assert 1e-3 < relative_difference(half, full) < case.tolerance


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


def test_warmups_are_not_timed() -> None:
    """热身要执行，但不计时；时间取中位数。"""
    calls: list[int] = []
    pauses = iter([0.2, 0.0, 0.0, 0.0])

    def run() -> None:
        calls.append(1)
        time.sleep(next(pauses))

    numbers, _ = measure(run, 1, 3)
    assert len(calls) == 4 and numbers["seconds"] < 0.1


def test_worker_runs_in_its_own_process(folder: Path) -> None:
    numbers, parts = command.spawn(
        BY_KEY["click"], Job("sam_lite", "tiny", "float32", folder), 1
    )
    assert numbers["seconds"] > 0 and numbers["cpu"] > 0
    assert set(parts) == {"iou", "logits", "area"} and parts["iou"].shape == (3,)


def test_worker_reports_an_error_in_one_line(tmp_path: Path) -> None:
    """没有权重文件：不崩，写明出了什么错。"""
    job = Job("sam_lite", "tiny", "float32", tmp_path)
    numbers, parts = command.spawn(BY_KEY["click"], job, 1)
    assert numbers["error"].startswith("出错：SamLiteError") and parts == {}


# ---- 轮流、比值、表格、退出码 ------------------------------------------------------


def fake(
    seconds: dict[str, float], difference: float = 0.0, absent: tuple[str, ...] = ()
):
    """假的测量：每一方用给定的秒数，transformers 差 difference。"""
    order: list[str] = []

    def run(case: Case, job: Job, threads: int) -> tuple[dict, dict]:
        order.append(job.contender)
        if job.contender in absent:
            return {"error": "没有安装"}, {}
        noise = difference if job.contender == "transformers" else 0.0
        value = seconds[job.contender]
        numbers = {"seconds": value, "cpu": 2 * value, "peak": 9e8}
        numbers["increase"] = 1e6 * value
        return numbers, {"x": np.array([1.0 + noise, -0.5])}

    run.order = order
    return run


TIMES = {"sam_lite": 2.0, "official": 3.0, "transformers": 5.0}


def sections(measure, rounds: int = 2) -> list[Section]:
    return command.run_all(["encoder"], ["tiny"], rounds, 1, measure)


def test_contenders_take_turns() -> None:
    measured = fake(TIMES)
    sections(measured)
    assert measured.order == ["sam_lite", "official", "transformers"] * 2


def test_table_shows_ratios() -> None:
    """时间 3 ÷ 2，sam_lite 的内存是它的 2/3。"""
    table = format_table(sections(fake(TIMES)))
    row = next(line for line in table.splitlines() if "官方" in line)
    assert row.split()[-3:] == ["1.50（1.50）", "1.50（1.50）", "0.67"]
    ours = next(line for line in table.splitlines() if "sam_lite      float32" in line)
    assert "2.00 s（2.00 s）" in ours and "1.50" not in ours


def test_worst_round_is_shown() -> None:
    """比值在同一轮里算：3/2、4/1，中位数 2.75，最差 1.5。"""

    def outcome(who: str, values: list[float]) -> Outcome:
        rounds = [{"seconds": v, "cpu": v, "increase": v} for v in values]
        return Outcome((who, "float32"), rounds, 0.0)

    pair = [outcome("sam_lite", [2.0, 1.0]), outcome("official", [3.0, 4.0])]
    table = format_table([Section(BY_KEY["encoder"], "tiny", 1, pair)])
    assert "2.75（1.50）" in table and "0.46" in table


def test_missing_contender_keeps_its_row() -> None:
    measured = fake(TIMES, absent=("transformers",))
    found = sections(measured)
    assert measured.order.count("transformers") == 1  # 后面几轮不再试
    assert "没有安装" in format_table(found) and problems(found) == []


def test_without_the_reference_nothing_is_compared() -> None:
    found = sections(fake(TIMES, absent=("official",)))
    assert [o.difference for o in found[0].outcomes] == [None, None, None]
    assert "无参照" in format_table(found)


def test_ours_failing_is_a_problem() -> None:
    assert problems(sections(fake(TIMES, absent=("sam_lite",))))


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_too_large_a_difference_is_a_problem(wrong: float) -> None:
    assert not problems(sections(fake(TIMES, 1e-4)))
    assert "transformers" in problems(sections(fake(TIMES, wrong)))[0]


def test_difference_needs_the_same_shapes() -> None:
    one, two = {"x": np.ones(3)}, {"x": np.ones((3, 1))}
    assert relative_difference(one, two) == float("inf")
    a, b = {"x": np.array([2.0, 4.4])}, {"x": np.array([2.0, 4.0])}
    assert relative_difference(a, b) == pytest.approx(0.1)


def test_not_installed_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """库不在：NotInstalledError，而不是别的错。"""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NotInstalledError):
        Job("transformers", "tiny", "float32", ROOT).model()


def test_command_writes_report_and_json(tmp_path: Path) -> None:
    """报告和 JSON 都写出；误差太大时退出码是 1。"""
    report, data = tmp_path / "结果.md", tmp_path / "结果.json"
    arguments = ["--only", "encoder", "--variant", "tiny", "--rounds", "2"]
    arguments += ["--out", str(report), "--json", str(data)]
    assert command.main(arguments, fake(TIMES)) == 0
    text = report.read_text("utf-8")
    expected = "python -m benchmarks --only encoder --variant tiny --rounds 2`"
    assert expected in text and "1.50（1.50）" in text and "处理器" in text
    assert str(tmp_path) not in text
    results = json.loads(data.read_text("utf-8"))["results"]
    assert [len(r["rounds"]) for r in results] == [2, 2, 2]
    assert command.main(arguments, fake(TIMES, 0.5)) == 1
    assert "有问题" in report.read_text("utf-8")


def test_partial_runs_leave_the_report_alone() -> None:
    assert command.parse([]).out == command.RESULTS
    for arguments in (["--quick"], ["--only", "load"], ["--variant", "vit_l"]):
        assert command.parse(arguments).out is None
    with pytest.raises(SystemExit):
        command.parse(["--only", "encoder,nothing"])


def test_report_is_clean_chinese() -> None:
    """生成的报告和 README 一样受排版检查。"""
    autocorrect = pytest.importorskip("autocorrect_py")
    found = sections(fake(TIMES, absent=("transformers",)))
    text = format_report(found, describe_machine(2), "make bench", "2026-01-01", 2)
    autocorrect.load_config(json.dumps({"rules": {"fullwidth": 1, "space-word": 1}}))
    wrong = [
        line.old
        for line in autocorrect.lint_for(text, "markdown").lines
        if line.severity == autocorrect.Severity.Error
    ]
    assert wrong == []


def test_one_tensor_is_the_embedding() -> None:
    assert list(one_tensor(torch.zeros(2))) == ["embedding"]
