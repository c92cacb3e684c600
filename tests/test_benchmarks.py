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
from benchmarks import store  # noqa: E402
from benchmarks.aims import AIMS, format_aims  # noqa: E402
from benchmarks.bounds import format_bounds, times_the_bound  # noqa: E402
from benchmarks.cases import BY_KEY, CASES, Case, one_tensor  # noqa: E402
from benchmarks.contenders import Job, NotInstalledError, write_weights  # noqa: E402
from benchmarks.page import format_report  # noqa: E402
from benchmarks.report import (  # noqa: E402
    Outcome,
    Section,
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


def run(tmp_path: Path, *arguments: str, measure=None) -> int:
    """在 tmp_path 里记结果的一次命令。"""
    common = ["--variant", "tiny", "--update", "--folder", str(tmp_path)]
    return command.main([*arguments, *common], measure or fake(TIMES))


def test_command_writes_report_and_json(tmp_path: Path) -> None:
    """报告和原始数字都写出；误差太大时退出码是 1。"""
    assert run(tmp_path, "--only", "encoder", "--rounds", "2") == 0
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "1.50（1.50）" in text and "处理器" in text
    assert str(tmp_path) not in text
    (found,) = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [len(one["rounds"]) for one in found["outcomes"]] == [2, 2, 2]
    wrong = fake(TIMES, 0.5)
    assert run(tmp_path, "--only", "encoder", "--rounds", "2", measure=wrong) == 1
    assert "有问题" in (tmp_path / "RESULTS.md").read_text("utf-8")


def test_update_replaces_only_what_was_measured(tmp_path: Path) -> None:
    """先量两项，再把其中一项量一遍：那一项换掉，另一项原样，次序照表。"""
    run(tmp_path, "--only", "click,encoder", "--rounds", "2")
    old = store.read(tmp_path / "results.json")
    assert [s.case.key for s in old] == ["encoder", "click"]
    slower = fake({**TIMES, "official": 8.0})
    run(tmp_path, "--only", "encoder", "--rounds", "1", measure=slower)
    new = store.read(tmp_path / "results.json")
    assert new[1] == old[1]
    assert [len(outcome.rounds) for outcome in new[0].outcomes] == [1, 1, 1]
    text = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "4.00（4.00）" in text and "1.50（1.50）" in text


def test_report_tells_machines_apart() -> None:
    """两项在不同的机器上量：都写出，各项写着是哪一台。"""
    one, two = sections(fake(TIMES)), sections(fake(TIMES))
    other = {**two[0].machine, "处理器": "另一个处理器"}
    moved = two[0]._replace(case=BY_KEY["click"], machine=other, date="2020-02-02")
    text = format_report([*one, moved])
    assert "机器 2：\n\n- 处理器：另一个处理器" in text
    line = next(x for x in text.splitlines() if "2020-02-02" in x)
    assert "一次点击" in line and line.rstrip(" |").endswith("2")
    assert "机器 1" not in format_report(one)


def test_only_full_runs_are_recorded_by_default() -> None:
    assert command.parse([]).update
    for arguments in (["--quick"], ["--only", "load"], ["--variant", "vit_l"]):
        assert not command.parse(arguments).update
        assert command.parse([*arguments, "--update"]).update
    with pytest.raises(SystemExit):
        command.parse(["--only", "encoder,nothing"])


def test_nothing_is_written_without_update(tmp_path: Path) -> None:
    arguments = ["--only", "encoder", "--variant", "tiny", "--folder", str(tmp_path)]
    assert command.main(arguments, fake(TIMES)) == 0
    assert list(tmp_path.iterdir()) == []


# ---- 目标，编码器的下限 -----------------------------------------------------------


def outcome(who: str, **fields: list) -> Outcome:
    """一方的几轮，每轮的各个数从 fields 里取。"""
    rounds = [dict(zip(fields, values)) for values in zip(*fields.values())]
    return Outcome((who, "float32"), rounds, 1e-6)


def test_bound_is_time_over_operations_per_rate() -> None:
    """vit_b 有 0.972 TFLOP；每秒 0.1 TFLOP 容许 9.72 秒，用了两倍。"""
    rates = {"mm": 0.1e12, "linear": 0.05e12, "conv": 0.2e12}
    one = outcome("sam_lite", seconds=[2 * 9.72077334528], rates=[rates])
    assert times_the_bound(one, "vit_b", best=False) == pytest.approx([2.0])
    assert times_the_bound(one, "vit_b", best=True) == pytest.approx([4.0])
    text = format_bounds([Section(BY_KEY["encoder"], "vit_b", 1, [one])])
    assert "100 GFLOP" in text and "200 GFLOP" in text
    assert "2.00（2.00）" in text and "4.00（4.00）" in text


@pytest.mark.parametrize("slow, reached", [(3.1, "是"), (2.9, "否")])
def test_aim_is_judged_by_the_median(slow: float, reached: str) -> None:
    """官方三轮的中位数是 slow 倍；最差的一轮只写出来。"""
    ours = outcome("sam_lite", seconds=[1.0, 1.0, 1.0])
    other = outcome("official", seconds=[9.0, slow, 2.0])
    section = Section(BY_KEY["everything"], "vit_b", 1, [ours, other])
    text = format_aims([section])
    line = next(x for x in text.splitlines() if "分割一切，32×32" in x)
    assert f"{slow:.2f}（2.00）" in line and "1.0e-06" in line
    assert line.rstrip(" |").endswith(reached)


def test_memory_aim_is_at_most_half() -> None:
    """6 ÷ 10 比一半多，没有达到；最差的一轮是最大的。"""
    ours = outcome("sam_lite", seconds=[1, 1], increase=[6, 7], peak=[4, 4])
    other = outcome("official", seconds=[2, 2], increase=[10, 10], peak=[10, 10])
    text = format_aims([Section(BY_KEY["encoder"], "vit_b", 1, [ours, other])])
    line = next(x for x in text.splitlines() if "内存增量" in x)
    assert "0.65（0.70）" in line and line.rstrip(" |").endswith("否")
    line = next(x for x in text.splitlines() if "进程峰值" in x)
    assert "0.40（0.40）" in line and line.rstrip(" |").endswith("是")


def test_every_aim_names_a_case_with_the_official_package() -> None:
    for aim in AIMS:
        assert ("official", "float32") in BY_KEY[aim.key].entries
    assert format_aims([]).count("没有量") == len(AIMS)


def test_encoder_rounds_carry_the_rates(folder: Path, monkeypatch) -> None:
    """编码器的两项在同一个进程里量矩阵乘法的速度，前后取平均；别的项不量。"""
    found = iter([{"mm": 1.0, "conv": 2.0}, {"mm": 3.0, "conv": 2.0}])
    monkeypatch.setattr("benchmarks.worker.product_rates", lambda dtype: next(found))
    job = Job("sam_lite", "tiny", "float32", folder)
    numbers, _ = measure_job(BY_KEY["encoder"], job)
    assert numbers["rates"] == {"mm": 2.0, "conv": 2.0}
    numbers, _ = measure_job(BY_KEY["click"]._replace(warmups=0, repeats=1), job)
    assert numbers["rates"] == {}


# ---- 写出来的东西 ----------------------------------------------------------------


def mistakes(text: str) -> list[str]:
    """排版检查挑出的行。"""
    autocorrect = pytest.importorskip("autocorrect_py")
    autocorrect.load_config(json.dumps({"rules": {"fullwidth": 1, "space-word": 1}}))
    return [
        line.old
        for line in autocorrect.lint_for(text, "markdown").lines
        if line.severity == autocorrect.Severity.Error
    ]


def test_report_is_clean_chinese() -> None:
    """生成的报告和 README 一样受排版检查。"""
    text = format_report(sections(fake(TIMES, absent=("transformers",))))
    assert mistakes(text) == []


def test_committed_report_is_current() -> None:
    """仓库里的 RESULTS.md 就是由 results.json 写出的。"""
    where = ROOT / "benchmarks"
    known = store.read(where / "results.json")
    assert (where / "RESULTS.md").read_text("utf-8") == format_report(known)


def test_one_tensor_is_the_embedding() -> None:
    assert list(one_tensor(torch.zeros(2))) == ["embedding"]
