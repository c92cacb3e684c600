"""``check_official_weights.py`` 自己管不管用：换上 tiny 的替身，对的通过，错的不过。"""

import check_official_weights as script
import numpy as np
import pytest
import torch
from files.common import Answer, Server, table_row
from PIL import Image

import sam_lite
from sam_lite import viz
from sam_lite.cli.demo import PHOTOS
from sam_lite.cli.segment import predict
from sam_lite.files.official import OFFICIAL_FILES

PHOTO = PHOTOS / "coins.jpg"
POINT = script.Prompt([(335, 44, 1)], None, (0.0, 0.0, 0.0))
BOTH = script.Prompt([(320, 20, 0)], (305, 12, 368, 75), (None, None, 0.0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """tiny 的权重，存成官方那样的 .pth。"""
    path = tmp_path_factory.mktemp("official") / "sam_vit_b_01ec64.pth"
    torch.save(sam_lite.load("tiny").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def recorded(weights):
    """替身自己的预测 IoU。"""
    predictor = sam_lite.SamPredictor(sam_lite.load(weights))
    photo = viz.read_photo(PHOTO)
    predictor.set_image(photo)
    rows = []
    for prompt in (POINT, BOTH):
        _, scores, _ = predict(predictor, prompt.points, prompt.box, multimask=True)
        known = (s if w is not None else None for s, w in zip(scores, prompt.ious))
        rows.append(prompt._replace(ious=tuple(known)))
    return rows


@pytest.fixture(autouse=True)
def stand_in(weights, recorded, monkeypatch, tmp_path):
    """表里的 vit_b、要核对的数、图片的尺寸，都换成替身的。"""
    row = table_row(weights.read_bytes(), weights.name)
    monkeypatch.setitem(OFFICIAL_FILES, "vit_b", row)
    monkeypatch.setattr(script, "RECORDED", list(recorded))
    with Image.open(PHOTO) as image:
        monkeypatch.setattr(script, "PICTURE_SIZE", image.size)
    monkeypatch.setenv("SAM_LITE_HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def run(*options) -> int:
    return script.main([str(option) for option in options])


def fails(capsys, words, *options):
    assert run(*options) == 1
    out, err = capsys.readouterr()
    assert "做不成" in err and words in err
    assert "通过" not in out


def test_downloads_both_and_passes(weights, tmp_path, monkeypatch, capsys):
    """从头到尾：权重和图片都从服务器来，给出记录的数。"""
    with Server() as server:
        server.play(Answer(PHOTO.read_bytes()), Answer(weights.read_bytes()))
        monkeypatch.setenv("SAM_LITE_MIRROR", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        code = run()
    out = capsys.readouterr().out
    assert code == 0, out
    assert server.paths == [f"/{script.PICTURE_PATH}", f"/{weights.name}"]
    assert (tmp_path / weights.name).read_bytes() == weights.read_bytes()
    assert "SHA-256 相符" in out and "2 行，容许相差 0.002：全部通过" in out


def test_changed_iou_is_seen(weights, recorded, monkeypatch, capsys):
    first, second, third = recorded[0].ious
    changed = recorded[0]._replace(ious=(first, second + 0.004, third))
    monkeypatch.setattr(script, "RECORDED", [changed])
    assert run("--file", weights, "--picture", PHOTO) == 1
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("--point")]
    assert row.endswith("不符") and "0.0040" in row and f"{second:.4f}" in row
    assert "1 行不符" in out


def test_wrong_hash(weights, tmp_path, capsys):
    other = tmp_path / "other.pth"
    other.write_bytes(weights.read_bytes()[:-1] + b"x")
    fails(capsys, "不是官方的 vit_b", "--file", other, "--picture", PHOTO)


def test_missing_and_wrong_picture(weights, tmp_path, capsys):
    fails(capsys, "找不到照片", "--file", weights, "--picture", tmp_path / "no.png")
    cat = PHOTOS / "cat.jpg"
    fails(capsys, "不是 car.png", "--file", weights, "--picture", cat)


def test_no_line(weights, monkeypatch, capsys):
    with Server() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    fails(capsys, "HF_ENDPOINT", "--file", weights)


def test_only_what_was_recorded_is_compared():
    one = POINT._replace(ious=(None, None, 0.5))
    assert script.compare(one, np.array([0.7, 0.3, 0.5]))[-1] == "通过"
    assert script.compare(one, np.array([0.5, 0.5, 0.51]))[-1] == "不符"
    assert script.compare(one, np.array([0.5, 0.5, np.nan]))[-1] == "不符"
