"""十张照片的真值和那一页：轮廓画得对，真值齐全，页上的数是随包的权重的。"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from benchmarks.page import fill  # noqa: E402
from benchmarks.photos import __main__ as command  # noqa: E402
from benchmarks.photos import coins, page, truth  # noqa: E402
from sam_lite.errors import SamLiteError  # noqa: E402
from sam_lite.learn.evaluation import iou  # noqa: E402

FOLDER = ROOT / "benchmarks"
SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3]]


@pytest.fixture(scope="module")
def photos() -> truth.Photos:
    return truth.Photos()


# ---- 轮廓画成像素 ----------------------------------------------------------------


def test_square_covers_the_pixels_it_bounds():
    """角 (1, 1) 到 (4, 3)：第 1 到 3 列，第 1 到 2 行，不多一圈。"""
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:4] = True
    assert np.array_equal(truth.fill_polygons([SQUARE], (5, 6)), expected)


def test_polygons_add_up_and_what_stands_in_front_is_cut_out():
    behind = {"name": "碟子", "polygons": [SQUARE, [[3, 1], [6, 1], [6, 3], [3, 3]]]}
    front = {"name": "杯子", "polygons": [[[2, 0], [4, 0], [4, 2], [2, 2]]]}
    names, masks = truth.draw_objects([behind | {"minus": ["杯子"]}, front], (4, 6))
    assert names == ["碟子", "杯子"]
    assert masks.astype(int).tolist() == [
        [[0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1], [0] * 6],
        [[0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6, [0] * 6],
    ]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{"name": "a", "polygons": [SQUARE[:2]]}], "至少三个角"),
        ([{"name": "a", "polygons": [[[0, 0], [9, 0], [0, 2]]]}], "照片里面"),
        ([{"name": "a", "polygons": [SQUARE], "minus": ["b"]}], "a 减去 b"),
        ([{"name": "a", "polygons": [SQUARE]}] * 2, "重复"),
    ],
)
def test_bad_outlines_are_explained(objects, words):
    with pytest.raises(SamLiteError, match=words):
        truth.draw_objects(objects, (5, 6))


# ---- 真值 ------------------------------------------------------------------------


def test_ten_photos_with_enough_objects(photos):
    assert len(photos) == 10
    drawn = [p for p in photos.photos if p.name != "coins"]
    assert sum(len(p.objects) for p in drawn) >= 60
    for photo in photos.photos:
        assert photo.masks.shape == (len(photo.objects), *photo.image.shape[:2])
        assert max(photo.image.shape) <= 640
        assert len(set(photo.objects)) == len(photo.objects) >= 3
        smallest = 64 * photo.masks[0].size / 256**2  # 同 evaluation.MIN_AREA
        assert photo.masks.sum(axis=(1, 2)).min() >= smallest, photo.name
        same = iou(photo.masks[:, None], photo.masks[None])  # 没有画了两遍的
        assert (same - np.eye(len(same))).max() < 0.95, photo.name


def test_coins_come_from_the_script(photos):
    """重新推出的标号图和仓库里的几乎一样（库的版本不同，边上可能差几个像素）。"""
    grey = np.asarray(Image.open(truth.photo_path("coins")).convert("L"))
    labels = coins.label_coins(grey)
    assert labels.max() == 24
    again = labels[None] == np.arange(1, 25)[:, None, None]
    assert iou(again, photos.photos[0].masks).min() > 0.98


def test_every_picture_has_source_and_licence():
    folder = FOLDER / "photos" / "pictures"
    table = (folder / "SOURCES.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\S+)` \|(.+)\|$", table, re.MULTILINE))
    pictures = {p.name: p for p in folder.glob("*.jpg")}
    assert set(rows) == set(pictures)
    for name, row in rows.items():
        assert re.search("CC0|没有已知的版权限制", row.split("|")[-1]), name
        assert pictures[name].stat().st_size <= 60_000


# ---- 那一页 ----------------------------------------------------------------------


def test_page_belongs_to_the_shipped_weights_and_the_outlines(photos):
    """换了随包的权重、改了轮廓或这一页的话，就要 make photos。"""
    result = json.loads((FOLDER / "photos" / "results.json").read_text("utf-8"))
    assert result["sha256"] == command.hash_weights(), "运行 make photos"
    written = (FOLDER / "PHOTOS.md").read_text("utf-8")
    assert written == fill(written, page.parts_of(result)), "运行 make photos"
    for found, photo in zip(result["photos"], photos.photos, strict=True):
        assert (found["name"], found["names"]) == (photo.name, photo.objects)
        assert found["areas"] == photo.masks.sum(axis=(1, 2)).tolist(), "make photos"
    drawn = sum(len(p.objects) for p in photos.photos if p.name != "coins")
    assert f"{drawn} 个物体是手画的" in written.replace("\n", "")
    assert f"随机点 {result['clicks']} 次" in written


def test_write_takes_only_the_shipped_weights(tmp_path, monkeypatch, capsys):
    result = json.loads((FOLDER / "photos" / "results.json").read_text("utf-8"))
    monkeypatch.setattr(command, "score", lambda args: result)
    for extra in (["--checkpoint", "a.safetensors"], ["--clicks", "1"], ["--line"]):
        with pytest.raises(SystemExit) as stop:
            command.main(["--write", *extra], tmp_path)
        assert stop.value.code == 2
    (tmp_path / "photos").mkdir()
    assert command.main(["--write"], tmp_path) == 0
    for name in ("PHOTOS.md", "photos/results.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()
    assert "照片的平均" in capsys.readouterr().out
    assert command.main(["--line"], tmp_path) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"box {result['miou']['box']:.4f}" in line
