"""命令 ``sam-lite fit``：两种数据、写出的文件、停下、坏输入。"""

import json

import numpy as np
import pytest
from parity.small import SMALL
from PIL import Image

import sam_lite
from sam_lite import cli, weights
from sam_lite.cli import fit as cli_fit
from sam_lite.errors import SamLiteError
from sam_lite.learn.fine_tune import FitResult
from sam_lite.masks.rle import mask_to_rle_pytorch
from sam_lite.scenes.cells import CellScenes


@pytest.fixture
def folder(tmp_path, monkeypatch, small_sam):
    """五张细胞图：照片、标号图和 COCO 的 JSON；当前文件夹就在这里，模型是小的。"""
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_fit, "load", lambda name, **_: small_sam)
    monkeypatch.setitem(weights.PRESETS, "small", SMALL)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels").mkdir()
    images, marks = [], []
    for i, (picture, masks) in enumerate(CellScenes(5, size=64)):
        Image.fromarray(picture).save(f"photos/{i}.png")
        labels = (masks * np.arange(1, len(masks) + 1)[:, None, None]).sum(0)
        Image.fromarray(labels.astype(np.uint8)).save(f"labels/{i}.png")
        images.append({"id": i, "file_name": f"{i}.png"})
        for rle in mask_to_rle_pytorch(torch.from_numpy(masks)):
            marks.append({"id": len(marks), "image_id": i, "segmentation": rle})
    content = {"images": images, "annotations": marks}
    (tmp_path / "coco.json").write_text(json.dumps(content), "utf-8")
    return tmp_path


def run(*more, masks="labels"):
    argv = ["fit", "photos", masks, "--out", "my.safetensors", "--epochs", "1"]
    return cli.main([*argv, *more])


@pytest.mark.parametrize("masks", ["labels", "coco.json"])
def test_fit_writes_a_file_and_says_how_to_use_it(folder, capsys, masks):
    assert run("--lr", "0.001", masks=masks) == 0
    out = capsys.readouterr().out
    assert "一个框：" in out and "三次点击：" in out and "my.safetensors" in out
    assert sam_lite.load("my.safetensors").name == "small"


def test_both_forms_give_the_same_data(folder):
    one = cli_fit.open_dataset("photos", folder / "labels")
    two = cli_fit.open_dataset("photos", folder / "coco.json")
    for (a, b), (c, d) in zip(one, map(two.__getitem__, range(5)), strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)


def test_ignore_goes_with_label_maps_only(folder):
    whole = cli_fit.open_dataset("photos", folder / "labels")[0][1]
    less = cli_fit.open_dataset("photos", folder / "labels", 1)[0][1]
    assert len(less) == len(whole) - 1
    with pytest.raises(SamLiteError, match="--ignore"):
        cli_fit.open_dataset("photos", folder / "coco.json", 1)


def fake_result(monkeypatch, stopped, best_epoch):
    row = {"epoch": 0.0, "box": 0.5, "click": 0.25, "clicks3": 0.75}
    best = row | {"epoch": best_epoch, "box": 0.625}
    result = FitResult([row], best, stopped)
    seen = []
    monkeypatch.setattr(cli_fit, "fit_model", lambda *a, **k: seen.append(a) or result)
    return seen


def test_options_reach_the_config(folder, monkeypatch, capsys):
    seen = fake_result(monkeypatch, "finished", 3)
    assert run("--parts", "lora", "--minutes", "2", "--batch", "3", "--seed", "4") == 0
    config = seen[0][2]
    assert (config.parts, config.minutes, config.batch) == ("lora", 2.0, 3)
    assert (config.seed, config.epochs, config.lr) == (4, 1, 0.0)
    assert "一个框：0.500 -> 0.625" in capsys.readouterr().out


def test_interrupt_reports_and_exits_130(folder, monkeypatch, capsys):
    fake_result(monkeypatch, "interrupted", 0)
    assert run() == 130
    assert "原来的权重" in capsys.readouterr().out


def test_other_processes_stay_silent(folder, monkeypatch, capsys):
    fake_result(monkeypatch, "finished", 1)
    monkeypatch.setenv("RANK", "1")
    assert run() == 0
    assert capsys.readouterr().out == ""


def test_each_process_needs_a_card_of_its_own(folder, monkeypatch, capsys):
    """两块显卡、两个进程各用一块；第三个进程没有，说怎么办，不去和别人挤。"""
    fake_result(monkeypatch, "finished", 1)
    devices = []
    keep = lambda name, device, **_: devices.append(device)  # noqa: E731
    monkeypatch.setattr(cli_fit, "load", keep)
    monkeypatch.setattr(cli_fit.cli_model, "check_model_name", lambda *_: None)
    monkeypatch.setattr(cli_fit.cli_model, "check_device", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for place in "01":
        monkeypatch.setenv("LOCAL_RANK", place)
        assert run() == 0
    assert devices == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert run() == 1
    assert "只有 2 块显卡" in capsys.readouterr().err
    assert run("--device", "cpu") == 0 and devices[2:] == ["cpu"]


def test_without_any_card_the_message_is_about_that(folder, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run("--device", "cuda") == 1
    err = capsys.readouterr().err
    assert "cuda" in err and "块显卡" not in err


def test_errors_are_one_line(folder, capsys):
    (folder / "labels" / "3.png").unlink()
    assert run() == 1
    err = capsys.readouterr().err
    assert "3.png 的标号图" in err and err.count("\n") == 1
    assert run(masks="nothing.json") == 1
    assert not (folder / "my.safetensors").exists()
