"""命令行：退出码、中文消息、写出的文件。模型多半用一个按提示画圆的假预测器。"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sam_lite import cli, viz, weights
from sam_lite.cli import demo as cli_demo
from sam_lite.cli import model as cli_model
from sam_lite.cli.segment import check_inside
from sam_lite.errors import SamLiteError


class DiscPredictor:
    """点在哪里，就在哪里画圆；框是多大，就填多大。三张候选半径 4、8、12。"""

    device = "cpu"
    model = None

    def __init__(self):
        self.calls = []

    def set_image(self, image):
        assert image.dtype == np.uint8
        self.shape = image.shape[:2]

    def predict(self, point_coords=None, point_labels=None, box=None, **options):
        multimask = options["multimask_output"]
        self.calls.append((point_coords, point_labels, box, multimask))
        y, x = np.ogrid[: self.shape[0], : self.shape[1]]
        if box is not None:
            x0, y0, x1, y1 = box
            masks = [(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)]
        else:
            cx, cy = point_coords[0]
            distance = (x - cx) ** 2 + (y - cy) ** 2
            masks = [distance <= r**2 for r in (4, 8, 12)]
        masks = (masks * 3)[:3] if multimask else masks[:1]
        scores = np.array([0.5, 0.9, 0.7] if multimask else [0.8])
        return np.stack(masks), scores, np.zeros((len(masks), 8, 8))


@pytest.fixture
def fake(monkeypatch):
    predictor = DiscPredictor()
    monkeypatch.setattr(cli_model, "load_predictor", lambda args: predictor)
    monkeypatch.delenv("SAM_LITE_DEBUG", raising=False)
    return predictor


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """当前文件夹里的一张 60×40 照片。"""
    monkeypatch.chdir(tmp_path)
    viz.save_image("photo.png", np.full((40, 60, 3), 90, dtype=np.uint8))
    return "photo.png"


def fails(capsys, code, *argv):
    """跑一条会失败的命令：退出码对，标准输出空，标准错误只有一行；返回这一行。"""
    assert cli.main([str(a) for a in argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def read(path):
    with Image.open(path) as image:
        return np.array(image)


# ---- segment -----------------------------------------------------------------


def test_one_point_takes_the_best_of_three(fake, photo, tmp_path, capsys):
    assert cli.main(["segment", photo, "--point", "30,20", "--overlay", "o.png"]) == 0
    coords, labels, box, multimask = fake.calls[0]
    assert coords.tolist() == [[30, 20]]
    assert labels.tolist() == [1]
    assert box is None
    assert multimask
    mask = read("mask.png")
    assert mask.shape == (40, 60)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[20, 38] == 255  # 半径 8 的那张，预测 IoU 最高
    assert mask[20, 39] == 0
    assert read("o.png").shape == (40, 60, 3)
    out = capsys.readouterr().out
    assert "预测 IoU 0.900" in out
    assert f"占画面 {(mask > 0).mean():.1%}" in out
    for word in ("读权重", "编码", "解码"):
        assert word in out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "mask.png",
        "o.png",
        "photo.png",
    ]


def test_several_points_are_one_prompt(fake, photo):
    argv = [
        "segment",
        photo,
        "--point",
        "30，20",
        "--point",
        "5.5,6,0",
        "--point=9,9,1",
    ]
    assert cli.main(argv) == 0
    ((coords, labels, _, multimask),) = fake.calls
    assert coords.tolist() == [[30, 20], [5.5, 6], [9, 9]]
    assert labels.tolist() == [1, 0, 1]
    assert not multimask


def test_box_with_point(fake, photo):
    assert cli.main(["segment", photo, "--box", "5,6,30,20", "--point", "9,9,0"]) == 0
    ((coords, labels, box, multimask),) = fake.calls
    assert box.tolist() == [5, 6, 30, 20]
    assert labels.tolist() == [0]
    assert not multimask
    assert (read("mask.png") > 0).sum() == 26 * 15


def test_several_boxes_write_several_masks(fake, photo, tmp_path, capsys):
    boxes = ["--box", "1,1,10,10", "--box", "20,5,59,39"]
    argv = ["segment", photo, *boxes, "--out", "cut.png", "--overlay", "o.png"]
    assert cli.main(argv) == 0
    assert read("cut_1.png")[5, 5] == 255
    assert read("cut_1.png")[30, 40] == 0
    assert read("cut_2.png")[30, 40] == 255
    assert not (tmp_path / "cut.png").exists()
    both = read("o.png")
    assert (both[5, 5] != both[20, 40]).any()  # 两种颜色
    assert capsys.readouterr().out.count("预测 IoU") == 2


def test_multimask_writes_three_sorted_by_score(fake, photo, capsys):
    assert cli.main(["segment", photo, "--point", "30,20", "--multimask"]) == 0
    areas = [(read(f"mask_{i}.png") > 0).sum() for i in (1, 2, 3)]
    assert areas[0] < areas[1]  # 0.9 是半径 8，0.7 是半径 12，0.5 是半径 4
    assert areas[2] < areas[0]
    out = capsys.readouterr().out
    assert out.index("0.900") < out.index("0.700") < out.index("0.500")


def test_exif_rotation_counts_for_coordinates(fake, photo, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save("turned.jpg", exif=exif)  # 转正后宽 40、高 60
    assert cli.main(["segment", "turned.jpg", "--point", "20,55"]) == 0
    assert read("mask.png").shape == (60, 40)
    capsys.readouterr()
    err = fails(capsys, 1, "segment", "turned.jpg", "--point", "55,20")
    assert "照片宽 40、高 60" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["photo.png"], "至少给一个"),
        (["photo.png", "--point", "3"], "x,y"),
        (["photo.png", "--point", "3,四"], "3,四"),
        (["photo.png", "--point", "nan,4"], "nan,4"),
        (["photo.png", "--point", "3,4,2"], "0 和 1"),
        (["photo.png", "--point", "3,4,0"], "只有负点"),
        (["photo.png", "--box", "1,2,3"], "x0,y0,x1,y1"),
        (["photo.png", "--box", "9,2,3,8"], "左上角"),
        (["photo.png", "--box"], "后面要跟一个值"),
        (["photo.png", "--point", "3,4", "--colour"], "不认识的参数：--colour"),
        (["--point", "3,4"], "缺少参数：PHOTO"),
        (
            ["photo.png", "--box", "1,1,2,2", "--box", "3,3,4,4", "--multimask"],
            "几个框",
        ),
        (["photo.png", "--box", "1,1,2,2", "--box", "3,3,4,4", "--point", "1,1"], "点"),
    ],
)
def test_bad_usage_exits_with_2(fake, photo, capsys, argv, words):
    err = fails(capsys, 2, "segment", *argv)
    assert words in err
    assert "--help" in err
    assert not fake.calls


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["none.png", "--point", "3,4"], "找不到照片"),
        ([".", "--point", "3,4"], "文件夹"),
        (["note.txt", "--point", "3,4"], "不是图片"),
        (["photo.png", "--point", "60,4"], "点 60,4 在照片外面：照片宽 60、高 40"),
        (["photo.png", "--point=-1,4"], "点 -1,4 在照片外面"),
        (["photo.png", "--box", "1,2,30,41"], "框 1,2,30,41 伸到照片外面"),
        (["photo.png", "--point", "3,4", "--out", "no/mask.png"], "没有文件夹"),
        (["photo.png", "--point", "3,4", "--out", "mask.jpg"], "掩码不能写成 .jpg"),
        (["photo.png", "--point", "3,4", "--out", "mask"], "扩展名"),
        (["photo.png", "--point", "3,4", "--overlay", "no/o.png"], "没有文件夹"),
        (["photo.png", "--point", "3,4", "--out", "photo.png"], "就是原照片"),
        (["photo.png", "--point", "3,4", "--overlay", "mask.png"], "换一个名字"),
    ],
)
def test_failure_exits_with_1_before_any_model_runs(
    fake, photo, tmp_path, capsys, argv, words
):
    (tmp_path / "note.txt").write_text("字", encoding="utf-8")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert words in fails(capsys, 1, "segment", *argv)
    assert not fake.calls
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_unexpected_error_is_one_line_unless_debug(fake, photo, capsys, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(fake, "predict", broken)
    argv = ["segment", photo, "--point", "3,4"]
    err = fails(capsys, 1, *argv)
    assert "RuntimeError：out of memory" in err
    assert "--debug" in err
    with pytest.raises(RuntimeError):
        cli.main([*argv, "--debug"])
    monkeypatch.setenv("SAM_LITE_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli.main(argv)


def test_interrupt(fake, photo, capsys, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "predict", stop)
    assert "已中断" in fails(capsys, 130, "segment", photo, "--point", "3,4")


def test_unknown_device(capsys):
    with pytest.raises(SamLiteError, match="device 不对：收到 'toaster'"):
        cli_model.pick_device("toaster")
    assert cli_model.pick_device("cpu") == "cpu"
    assert cli_model.pick_device("auto") in ("cpu", "cuda", "mps")


# ---- demo --------------------------------------------------------------------


def test_demo_writes_photo_and_overlay(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--photo", "cat"]) == 0
    sheet = read("sam_lite_demo.png")
    original = viz.read_photo(cli_demo.PHOTOS / "cat.jpg")
    height, width = original.shape[:2]
    assert sheet.shape == (height, 2 * width + 8, 3)
    assert np.array_equal(sheet[:, :width], original)
    assert not np.array_equal(sheet[:, width + 8 :], original)
    out = capsys.readouterr().out
    assert "预测 IoU 0.800" in out
    assert " s" in out
    assert "make course" in out.splitlines()[-1]


def test_demo_all(fake, tmp_path, capsys):
    target = tmp_path / "all.png"
    assert cli.main(["demo", "--all", "--out", str(target)]) == 0
    assert read(target).shape[0] == 5 * 400 + 4 * 8
    assert len(fake.calls) == 5
    assert capsys.readouterr().out.count("预测 IoU") == 5


@pytest.mark.parametrize("name", list(cli_demo.DEMO_PROMPTS))
def test_demo_prompts_lie_inside_their_photos(name):
    prompt = cli_demo.DEMO_PROMPTS[name]
    assert (prompt.box is None) != (prompt.point is None)
    points = [(*prompt.point, 1)] if prompt.point else []
    boxes = [prompt.box] if prompt.box else []
    check_inside(points, boxes, viz.read_photo(cli_demo.PHOTOS / f"{name}.jpg"))


def test_demo_bad_choices(fake, capsys):
    assert "可以选" in fails(capsys, 2, "demo", "--photo", "dog")
    assert "不能和" in fails(capsys, 2, "demo", "--all", "--photo", "cat")


# ---- evaluate、train ---------------------------------------------------------


def test_evaluate_prints_a_table_and_writes_json(fake, tmp_path, monkeypatch, capsys):
    from sam_lite.learn import evaluation

    def scores(sam, number, seed, *, click, stickers, progress):
        for _ in range(number):
            progress()
        found = {key: np.array([0.25, 0.75]) for key, *_ in evaluation.METHODS}
        found |= {"area": np.array([500.0, 900.0])}
        found |= {"click_guess": np.array([0.1, 0.2]), "box_guess": np.zeros(2)}
        return {"seed": seed, "click": click} | evaluation.summarise(found, 256)

    monkeypatch.setattr(evaluation, "evaluate", scores)
    file = tmp_path / "scores.json"
    argv = ["evaluate", "--scenes", "20", "--seed", "3", "--json", str(file)]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert "种子 3，20 个场景" in out
    assert "框里画椭圆" in out
    assert "评测" in err and "20/20" in err
    saved = json.loads(file.read_text("utf-8"))
    assert saved["model"] == "tiny"
    assert saved["miou"]["box"]["all"] == 0.5
    assert saved["correlation"]["box"] is None


@pytest.mark.parametrize(
    "argv", [["--scenes", "0"], ["--seed", "-1"], ["--click", "x"]]
)
def test_evaluate_bad_usage(fake, capsys, argv):
    fails(capsys, 2, "evaluate", *argv)


def test_evaluate_checks_output_first(fake, tmp_path, capsys):
    target = tmp_path / "no" / "a.json"
    assert "没有文件夹" in fails(capsys, 1, "evaluate", "--json", target)


def test_evaluate_scores_my_photos(fake, tmp_path, monkeypatch, capsys):
    from sam_lite.learn import photos as evaluation_photos

    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    viz.save_image(tmp_path / "pictures" / "a.jpg", np.zeros((20, 30, 3), np.uint8))
    viz.save_image(tmp_path / "masks" / "a.png", np.eye(20, 30, dtype=np.uint8))

    def scores(sam, dataset, *, seed, progress):
        progress()
        one = {"objects": 1, "miou": {"box": 0.25}, "scores": {"box": [0.25]}}
        return {"seed": seed, "photos": [one]} | evaluation_photos.overall([one])

    monkeypatch.setattr(evaluation_photos, "evaluate_photos", scores)
    places = [str(tmp_path / "pictures"), str(tmp_path / "masks")]
    file = tmp_path / "scores.json"
    argv = ["evaluate", "--photos", *places, "--seed", "3", "--json", str(file)]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert "种子 3，1 张照片" in out and "0.250" in out
    assert "1/1" in err
    assert json.loads(file.read_text("utf-8"))["miou"] == {"box": 0.25}
    missing = ["--photos", str(tmp_path / "none"), places[1]]
    assert "找不到文件夹" in fails(capsys, 1, "evaluate", *missing)
    both = ["--photos", *places, "--scenes", "20"]
    assert "不和" in fails(capsys, 2, "evaluate", *both)


# ---- 帮助 --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_is_all_chinese(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("用法：sam-lite")
    assert "选项：" in out
    for english in ("usage", "options:", "optional", "positional", "show ", "default"):
        assert english not in out
    for polite in "您请":
        assert polite not in out


def test_help_shows_defaults_of_options_only(capsys):
    cli.main(["evaluate", "--help"])
    out = capsys.readouterr().out
    assert "第几套场景（默认 0）" in out
    assert out.count("（默认") == 3  # 种子、点击、设备


def test_no_command_and_unknown_command(capsys):
    assert "缺少参数：COMMAND" in fails(capsys, 2)
    assert "segment" in fails(capsys, 2, "segmnt")


def test_as_a_program(tmp_path):
    """真的起一个进程：退出码和标准错误都到得了外面。"""
    argv = [
        sys.executable,
        "-m",
        "sam_lite.cli",
        "segment",
        "none.png",
        "--box",
        "1,1,2,2",
    ]
    done = subprocess.run(
        argv,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("sam-lite：找不到照片")
    assert done.stderr.count("\n") == 1


def test_end_to_end_with_random_weights(photo, tmp_path, capsys):
    """真的预测器、真的读权重：随机权重的 tiny 存成 .pth，掩码尺寸对、数字有限。"""
    pytest.importorskip("sam_lite.predictor")
    pytest.importorskip("sam_lite.weights")
    import torch

    from sam_lite.config import TINY
    from sam_lite.model import sam_from_config

    torch.save(sam_from_config(TINY).state_dict(), tmp_path / "random.pth")
    argv = ["segment", photo, "--checkpoint", "random.pth", "--device", "cpu"]
    argv += ["--box", "1,1,30,20", "--box", "20,5,59,39", "--overlay", "o.png"]
    assert cli.main(argv) == 0
    assert read("mask_1.png").shape == read("mask_2.png").shape == (40, 60)
    out = capsys.readouterr().out
    assert out.count("预测 IoU") == 2
    assert "nan" not in out
    fails(capsys, 1, "segment", photo, "--point", "3,4", "--checkpoint", "none.pth")


def test_model_and_checkpoint_must_agree(photo, capsys):
    """--checkpoint 的型号由文件认出；另写了 --model 就要相同。"""
    shipped = str(weights.find_weights("tiny"))
    argv = ["segment", photo, "--point", "30,20", "--checkpoint", shipped]
    assert cli.main([*argv, "--model", "tiny"]) == 0
    capsys.readouterr()
    assert "是 tiny 的权重" in fails(capsys, 1, *argv, "--model", "vit_b")


def test_image_size_reaches_the_model(photo, capsys):
    argv = ["segment", photo, "--point", "30,20", "--image-size"]
    assert cli.main([*argv, "192"]) == 0
    capsys.readouterr()
    assert "image_size" in fails(capsys, 1, *argv, "100")
    assert "正整数" in fails(capsys, 2, *argv, "0")
