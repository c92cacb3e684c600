"""exam：什么时候考，考的是不是 evaluate 的头几张，考了影不影响训练。"""

import json

import pytest
import torch
from parity.small import SMALL, randomize

from sam_lite import training
from sam_lite.config import TrainConfig
from sam_lite.learn import evaluation
from sam_lite.learn.data import Mixture
from sam_lite.learn.exam import SCORES, Exam
from sam_lite.learn.loop import Loop, SceneGradients
from sam_lite.learn.team import Team
from sam_lite.model import sam_from_config

CONFIG = TrainConfig(steps=3, batch=1, prompts=2, min_area=20, warmup=1)


def test_exams_come_at_every_multiple():
    """每 2 分钟一次；第一次问只记下起点，续跑不会补考。"""
    exam = Exam(2.0, 1, Team())
    minutes = (5.0, 5.9, 6.1, 7.9, 8.0, 13.0, 13.1)
    assert [exam.due(60 * m) for m in minutes] == [0, 0, 1, 0, 1, 1, 0]


def test_scores_are_those_of_evaluate(small_sam, monkeypatch):
    """与 evaluate 在同样几张场景上的分数相同。"""
    rows = []
    score = evaluation.score_model
    monkeypatch.setattr(
        evaluation, "score_model", lambda *a: rows.append(score(*a)) or rows[-1]
    )
    monkeypatch.setattr(evaluation, "score_baselines", lambda task: {})
    monkeypatch.setattr(evaluation, "summarise", lambda scores, size: {"all": scores})
    whole = evaluation.evaluate(small_sam, 3)["all"]
    found = Exam(1.0, 3, Team()).score(small_sam)
    assert set(found) == set(SCORES) and len(rows) == 3
    for name, value in found.items():
        assert value == pytest.approx(whole[name].mean())


def test_processes_share_the_scenes():
    """两个进程各评自己那几张，合起来不重不漏。"""
    sam, seen = randomize(sam_from_config(SMALL)).eval(), []

    class Half(Team):
        def gather(self, rows):
            seen.append(rows)
            return rows

    for rank in range(2):
        Exam(1.0, 3, Half(rank, 2)).score(sam)
    alone = Exam(1.0, 3, Half()).score(sam)
    assert [len(rows) for rows in seen] == [2, 1, 3]
    values = [value for rows in seen[:2] for row in rows for value in row["box"]]
    assert alone["box"] == pytest.approx(sum(values) / len(values))


def test_training_goes_on_as_if_there_were_no_exam(tmp_path):
    """考和不考，权重逐位相同；分数与同一步的记录写在一行。"""
    states = []
    for name in ("with", "without"):
        torch.manual_seed(0)
        sam = sam_from_config(SMALL)
        training.init_for_training(sam)
        gradients = SceneGradients(sam, CONFIG, Mixture(size=64))
        run = Loop(sam, CONFIG, gradients, tmp_path / name)
        exam = Exam(1e-9, 1, Team()) if name == "with" else None
        fused = [m for m in sam.modules() if hasattr(m, "fused")]

        def note(record, run=run, fused=fused):
            run.log(record)  # 考完又换回训练的样子
            assert run.sam.training and not any(m.fused for m in fused)

        run.run(note, exam=exam)
        assert not sam.training and fused and all(m.fused for m in fused)
        states.append(sam.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    text = (tmp_path / "with" / "log.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(SCORES) < set(row) and "loss" in row
