"""命令 ``sam-lite auto``：三种文件、续做、分给几个进程、坏输入。"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sam_lite import SamLiteError, SamPredictor, cli, viz
from sam_lite.cli import auto as cli_auto
from sam_lite.cli import model as cli_model
from sam_lite.masks.rle import coco_decode_rle, rle_to_mask

FEW = ("--points-per-side", "3", "--pred-iou-thresh", "0")
FEW += ("--stability-score-thresh", "0", "--box-nms-thresh", "1")
NAMES = ("a.png", "b.JPG", "c.png")


@pytest.fixture
def folder(tmp_path, monkeypatch, small_sam):
    """三张大小不同的照片，和两样不是照片的东西；模型换成小的。"""
    monkeypatch.setattr(
        cli_model, "load_predictor", lambda args: SamPredictor(small_sam)
    )
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(NAMES):
        noise = np.random.default_rng(i).integers(0, 256, (30 + 9 * i, 48, 3))
        Image.fromarray(noise.astype(np.uint8)).save(photos / name)
    (photos / "notes.txt").write_text("不是照片")
    (photos / "inner").mkdir()
    return photos


def run(folder, *more) -> int:
    out = folder.parent / "out"
    return cli.main(["auto", str(folder), "--out", str(out), *FEW, *more])


def read(folder, name) -> dict:
    return json.loads((folder.parent / "out" / name).read_text(encoding="utf-8"))


def test_files_agree_with_each_other(folder):
    assert run(folder) == 0
    out = folder.parent / "out"
    wanted = {f"{n}.{end}" for n in NAMES for end in ("png", "jpg", "json")}
    assert {p.name for p in out.iterdir()} == wanted | {"annotations.json"}
    for name in NAMES:
        size = viz.read_photo(folder / name).shape[:2]
        labels = np.asarray(Image.open(out / f"{name}.png"))
        assert labels.shape == size and labels.dtype == np.uint16
        assert viz.read_photo(out / f"{name}.jpg").shape[:2] == size
        data = read(folder, f"{name}.json")
        assert data["images"][0]["file_name"] == name
        assert (data["images"][0]["height"], data["images"][0]["width"]) == size
        assert data["annotations"]
        for i, record in enumerate(data["annotations"], start=1):
            mask = rle_to_mask(coco_decode_rle(record["segmentation"]))
            assert mask.shape == size and mask.sum() == record["area"]
            assert record["id"] == i
            assert mask[labels == i].all()  # 标号图里是 i 的，都在第 i 张里


def test_merged_annotations_are_renumbered(folder):
    run(folder)
    whole = read(folder, "annotations.json")
    assert [image["file_name"] for image in whole["images"]] == list(NAMES)
    assert [image["id"] for image in whole["images"]] == [1, 2, 3]
    ids = [annotation["id"] for annotation in whole["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for image in whole["images"]:
        mine = [a for a in whole["annotations"] if a["image_id"] == image["id"]]
        part = read(folder, image["file_name"] + ".json")["annotations"]
        assert [a["segmentation"] for a in mine] == [a["segmentation"] for a in part]


def test_finished_photos_are_skipped(folder, monkeypatch, capsys):
    run(folder)
    out = folder.parent / "out"
    (out / "b.JPG.json").unlink()  # 写到一半：JSON 还没有
    before = (out / "a.png.json").stat().st_mtime_ns
    done = []
    real = cli_auto.one_photo
    monkeypatch.setattr(
        cli_auto,
        "one_photo",
        lambda generator, photo, *rest: (
            done.append(photo.name) or real(generator, photo, *rest)
        ),
    )
    capsys.readouterr()
    assert run(folder) == 0
    assert done == ["b.JPG"]
    assert (out / "a.png.json").stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("已经做过") == 2


def test_other_settings_are_refused_until_overwritten(folder, capsys):
    run(folder)
    assert run(folder, "--min-mask-area", "7") == 1
    assert "别的设置" in capsys.readouterr().err
    assert run(folder, "--min-mask-area", "7", "--overwrite") == 0
    assert read(folder, "a.png.json")["info"]["options"]["min_mask_area"] == 7


def test_a_default_written_out_is_the_same_setting(folder, capsys):
    run(folder)
    capsys.readouterr()
    defaults = ("--crop-n-layers", "0", "--crop-overlap-ratio", str(512 / 1500))
    assert run(folder, *defaults, "--min-mask-area", "0") == 0
    assert capsys.readouterr().out.count("已经做过") == 3


def test_a_retrained_decoder_is_another_setting(folder, small_sam, capsys):
    """指纹要算上解码器：只微调它，文件名和图像编码器都不变。"""
    run(folder)
    with torch.no_grad():
        small_sam.mask_decoder.iou_token.weight.add_(1)
    assert run(folder) == 1
    assert "weights 不同" in capsys.readouterr().err


def test_two_processes_share_the_photos(folder, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = folder.parent / "out"
    monkeypatch.setenv("RANK", "1")
    assert run(folder) == 0
    assert (out / "b.JPG.json").exists() and not (out / "a.png.json").exists()
    assert not (out / "annotations.json").exists()
    monkeypatch.setenv("RANK", "0")
    assert run(folder) == 0
    assert len(read(folder, "annotations.json")["images"]) == 3


def test_a_broken_photo_of_another_process_does_not_hold_up_the_end(
    folder, monkeypatch, capsys
):
    """读不了的那张归先做完的进程：后做完的照样合并，并且说出它。"""
    (folder / "b.JPG").write_bytes(b"not a picture")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(folder) == 0  # 出错退出的话，torchrun 会把另一个也停掉
    assert "b.JPG 不是图片" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "0")
    assert run(folder) == 1
    assert "1 张照片读不了：b.JPG" in capsys.readouterr().err
    assert len(read(folder, "annotations.json")["images"]) == 2


def test_a_result_spoiled_by_another_process_is_named(folder, monkeypatch, capsys):
    """合并时读不懂别的进程写的文件，不是“还没轮到”。"""
    run(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    (folder.parent / "out" / "b.JPG.json").write_text("{")
    assert run(folder) == 1
    assert "b.JPG.json 读不懂" in capsys.readouterr().err


DEVICES = [  # --device、有没有显卡、LOCAL_RANK、结果
    ("auto", True, "1", "cuda:1"),
    ("cuda", True, "0", "cuda:0"),
    ("cuda", True, "5", "cuda:1"),  # 进程比显卡多
    ("cuda:0", True, "1", "cuda:0"),
    ("cpu", True, "1", "cpu"),
    ("auto", False, "1", "cpu"),
    ("cuda", True, "", "cuda"),
]


@pytest.mark.parametrize(("asked", "card", "place", "wanted"), DEVICES)
def test_each_process_takes_its_own_card(
    folder, monkeypatch, small_sam, asked, card, place, wanted
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("sam_lite.cli.model.check_device", lambda name: name)
    if place:
        monkeypatch.setenv("LOCAL_RANK", place)
    seen = []

    def load(args):
        seen.append(args.device)
        return SamPredictor(small_sam)

    monkeypatch.setattr(cli_model, "load_predictor", load)
    assert run(folder, "--device", asked) == 0
    assert seen == [wanted]


def test_one_photo_and_no_masks(folder):
    out = folder.parent / "out"
    photo = str(folder / "a.png")
    nothing = ("--pred-iou-thresh", "99")
    assert cli.main(["auto", photo, "--out", str(out), *FEW, *nothing]) == 0
    assert read(folder, "annotations.json")["annotations"] == []
    assert not np.asarray(Image.open(out / "a.png.png")).any()


def test_a_broken_photo_is_named_and_the_others_are_done(folder, capsys):
    (folder / "b.JPG").write_bytes(b"not a picture")
    assert run(folder) == 1
    said = capsys.readouterr()
    assert "b.JPG 不是图片" in said.out and "1 张照片读不了：b.JPG" in said.err
    names = [image["file_name"] for image in read(folder, "annotations.json")["images"]]
    assert names == ["a.png", "c.png"]


def test_only_photos_are_taken(folder):
    """PDF（Pillow 只会写）、同名的文件夹、隐藏的文件都不是照片。"""
    (folder / "z.pdf").write_bytes(b"%PDF")
    (folder / "trip.jpg").mkdir()
    (folder / "._a.png").write_bytes(b"x")
    assert run(folder) == 0
    assert len(read(folder, "annotations.json")["images"]) == 3


def test_names_that_are_not_utf8(folder):
    """从别的系统解压来的名字，Python 用代理字符表示。"""
    odd = os.fsdecode(b"\xd5\xd5.png")
    (folder / "a.png").rename(folder / odd)
    assert run(folder) == 0
    names = [image["file_name"] for image in read(folder, "annotations.json")["images"]]
    assert odd in names


def test_a_replaced_photo_or_a_lost_file_is_done_again(folder, capsys):
    run(folder)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "a.png")
    (folder.parent / "out" / "c.png.png").unlink()
    capsys.readouterr()
    assert run(folder) == 0
    said = capsys.readouterr().out
    assert said.count("已经做过") == 1 and "b.JPG：已经做过" in said
    assert read(folder, "a.png.json")["images"][0]["width"] == 20


def test_an_interrupted_overwrite_leaves_nothing_that_looks_done(folder, monkeypatch):
    run(folder)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_auto, "one_photo", stop)
    assert run(folder, "--min-mask-area", "7", "--overwrite") == 130
    assert not list((folder.parent / "out").glob("?.*.json"))


def test_overwriting_by_two_processes_tolerates_old_results(folder, monkeypatch):
    """先做完的那个进程，碰到另一个还没重做的旧结果，等它就是。"""
    run(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert run(folder, "--min-mask-area", "7", "--overwrite") == 0
    assert read(folder, "annotations.json")["info"]["options"]["min_mask_area"] == 7


def test_leftovers_are_swept_only_when_alone(folder, monkeypatch):
    from sam_lite.files.atomic import _prefix

    out = folder.parent / "out"
    out.mkdir()
    stale = out / f"{_prefix(out / 'a.png.json')}0123.tmp"
    stale.write_bytes(b"x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    run(folder)
    assert stale.exists()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    run(folder)
    assert not stale.exists()


NONSENSE = [("0", ""), ("", "2"), ("x", "2"), ("2", "2"), ("0", "2", "x")]


@pytest.mark.parametrize("words", NONSENSE)
def test_nonsense_from_the_launcher_is_refused(folder, monkeypatch, capsys, words):
    for name, word in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), words):
        if word:
            monkeypatch.setenv(name, word)
    assert run(folder, "--device", "cuda") == 1
    assert "说不通" in capsys.readouterr().err


def test_an_unwritable_folder_is_known_before_the_model_is_read(
    folder, monkeypatch, capsys
):
    def refuse(path):
        raise SamLiteError("写不了")

    monkeypatch.setattr(cli_auto, "check_writable", refuse)
    monkeypatch.setattr(cli_model, "load_predictor", lambda args: pytest.fail("太晚"))
    assert run(folder) == 1
    assert "写不了" in capsys.readouterr().err


def test_the_memory_limit_reaches_the_generator(folder, monkeypatch):
    seen = []
    real = cli_auto.SamAutomaticMaskGenerator

    def spy(*args, **options):
        seen.append(options)
        return real(*args, **options)

    monkeypatch.setattr(cli_auto, "SamAutomaticMaskGenerator", spy)
    run(folder, "--memory-limit-mb", "77")
    assert seen[0]["memory_limit_mb"] == 77 and seen[0]["points_per_batch"] == "auto"


def test_interrupt_finishes_the_photo_at_hand(folder, monkeypatch, capsys):
    class Stopped(SimpleNamespace):
        exit_code = 130
        asked = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __bool__(self):
            self.asked += 1
            return self.asked > 1

    monkeypatch.setattr(cli_auto, "Interrupts", Stopped)
    assert run(folder) == 130
    assert "做完 1/3 张" in capsys.readouterr().err
    assert (folder.parent / "out" / "a.png.json").exists()


BAD = [
    (("nowhere", "--out", "x"), "找不到 nowhere"),
    (("photos/inner", "--out", "x"), "没有照片"),
    (("photos", "--out", "photos"), "就是照片的文件夹"),
    (("photos", "--out", "photos/a.png"), "已经是一个文件"),
    (("photos", "--out", "x", "--points-per-side", "0"), "points_per_side"),
    (("photos", "--out", "x", "--crop-overlap-ratio", "2"), "crop_overlap_ratio"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=lambda x: str(x)[:40])
def test_bad_calls(folder, monkeypatch, capsys, words, said):
    monkeypatch.chdir(folder.parent)
    assert cli.main(["auto", *words]) == 1
    assert said in capsys.readouterr().err


def test_unreadable_results_are_named(folder, capsys):
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png.json").write_text("{")
    assert run(folder) == 1
    assert "a.png.json 读不懂" in capsys.readouterr().err


def test_from_the_shell_with_the_shipped_weights(folder):
    """真的进程、真的小权重，默认阈值。"""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK",)}
    command = [sys.executable, "-m", "sam_lite.cli", "auto", str(folder / "a.png")]
    command += ["--out", str(folder.parent / "out"), "--points-per-side", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    info = read(folder, "annotations.json")["info"]
    assert info["model"] == "tiny" and info["options"].keys() == cli_auto.NUMBERS.keys()
    assert info["options"]["points_per_side"] == 4
    assert info["options"].items() >= cli_auto.GENTLE.items()
