"""成分的比较：组的名单、设置、接着做、写出来的那一页。"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks import content as study  # noqa: E402
from benchmarks import content_page as page  # noqa: E402
from sam_lite.errors import SamLiteError  # noqa: E402
from sam_lite.scenes.content import BASE, NEW, OLD, RICH  # noqa: E402

FOLDER = ROOT / "benchmarks"
KEYS = tuple(page.COLUMNS)


def scores(box: float) -> dict:
    """一组的结果：框是 box，别的都是 0.4。"""
    one = dict.fromkeys(KEYS, 0.4) | {"box": box}
    return {
        "miou": one,
        "miou_objects": one,
        "photos": dict.fromkeys(page.TITLES, one),
        "scenes": {"base": one, "rich": one},
    }


def test_every_arm_changes_one_thing():
    arms = {arm.name: arm for arm in study.all_arms()}
    assert len(arms) == 4 + len(OLD) + len(NEW) and set(arms) == set(page.WORDS)
    for name, arm in arms.items():
        old, new = asdict(BASE), asdict(arm.content)
        changed = [key for key in old if old[key] != new[key]]
        if name[0] in "+-":
            assert changed == [name[1:]]
            assert new[name[1:]] == (0 if name[0] == "-" else getattr(RICH, name[1:]))
    assert arms["rich"].content == RICH
    assert [arms[n].seed for n in ("base", "base-2")] == [0, 1]
    assert not arms["start"].trained


def test_settings_of_training_can_be_given():
    config = study.parse_settings(["steps=7", "lr=0.01", "bfloat16=1"])
    assert (config.steps, config.lr, config.bfloat16) == (7, 0.01, True)
    assert config.prompts == study.DEFAULTS.prompts
    for wrong in ("dragons=1", "steps=often", "seed=3", "steps"):
        with pytest.raises(SamLiteError, match="--set 不对"):
            study.parse_settings([wrong])
    with pytest.raises(SamLiteError, match="--arms 不对：收到 -dragons"):
        study.choose(["-dragons"])
    assert [arm.name for arm in study.choose(["rich", "base"])] == ["base", "rich"]


def test_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """做完的不重做；次序照名单；设置不同的结果不混在一起。"""
    done: list[str] = []

    def fake(arm, args):
        done.append(arm.name)
        return scores(0.6) | {"minutes": 1.0}

    monkeypatch.setattr(study, "run", fake)
    words = ["--out", str(tmp_path), "--scenes", "3"]
    assert study.main([*words, "--arms=rich,base"]) == 0
    assert study.main([*words, "--arms=rich,base-2"]) == 0
    assert done == ["base", "rich", "base-2"]
    found = json.loads((tmp_path / "content.json").read_text("utf-8"))
    assert list(found["arms"]) == ["base", "base-2", "rich"]
    assert (tmp_path / "CONTENT.md").read_text("utf-8") == page.format_page(found)
    assert study.main([*words, "--set", "steps=9"]) == 1
    assert study.main(["--out", str(tmp_path), "--scenes", "4"]) == 1
    assert len(done) == 3


def test_one_arm_for_real(tmp_path, monkeypatch):
    """画四张，走两步，打分：素材库和检查点用完就删，结果是四位小数。"""
    monkeypatch.setattr(study, "score", lambda sam, args: scores(0.123456))
    arm = next(arm for arm in study.all_arms() if arm.name == "base-2")
    words = ["--scenes", "4", "--set", "steps=2", "--set", "batch=1"]
    args = study.make_parser().parse_args([*words, "--work", str(tmp_path)])
    args.config = study.parse_settings(args.set)
    banks = []
    real = study.Trainer

    def watched(sam, bank, config, *rest):
        banks.append((bank.first_seed, bank.content, config.seed, config.steps))
        return real(sam, bank, config, *rest)

    monkeypatch.setattr(study, "Trainer", watched)
    result = study.run(arm, args)
    assert banks == [(1_000_000, BASE, 1, 2)]
    assert result["miou"]["box"] == 0.1235 and result["seed"] == 1
    assert not list(tmp_path.iterdir())


def test_page_shows_differences_and_noise():
    """两个种子 0.60 与 0.62：+packed 0.66 高出 5，-thin 0.615 在误差之内。"""
    arms = {"base": scores(0.60), "base-2": scores(0.62)}
    arms |= {"-thin": scores(0.615), "+packed": scores(0.66)}
    settings = {"config": asdict(study.DEFAULTS), "scenes": 9, "clicks": 5}
    found = {"settings": settings | {"eval_scenes": 60}, "arms": arms}
    text = page.format_page(found)
    assert "| 添上铺满画面的砖石（`+packed`） " in text
    assert "0.660 +5.0" in text and "0.615 +0.5" in text and "0.600 -1.0" in text
    assert "框：只差种子的两组差 2.0；比平均高出这么多的：`+packed`；低" in text
    del arms["base-2"]
    assert "还没有做完" in page.format_page(found)


def test_page_is_current():
    """做过的话，页上写的就是 content.json 里的数。"""
    path = FOLDER / "content.json"
    if not path.is_file():
        assert not (FOLDER / "CONTENT.md").exists()
        return
    found = json.loads(path.read_text("utf-8"))
    assert (FOLDER / "CONTENT.md").read_text("utf-8") == page.format_page(found)
