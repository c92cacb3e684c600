"""sam-lite train 的选项：配成什么设置，怎么写回命令行，说不通的怎么说。"""

import dataclasses
import re

import pytest

from sam_lite import SamLiteError, cli
from sam_lite.cli import train as cli_train
from sam_lite.cli.parser import from_fields
from sam_lite.config import TINY, FitConfig, TrainConfig
from sam_lite.learn.data import draw_shards
from sam_lite.scenes import make_scene
from sam_lite.weights import load

OPTIONS = (
    "train --out 带空格 的 --size 96 --patch 8 --window 4 --minutes 5 --schedule flat"
    " --decay 2 --optimizer muon --box-share 0.55 --min-area 64 --bfloat16"
)


def parse(text):
    words = text.replace("带空格 的", "带空格_的").split()
    return cli.build_parser().parse_args([w.replace("_的", " 的") for w in words])


def test_options_become_a_config():
    """TrainConfig 的每一项都是选项，默认值照它；说明就是源代码里的注释。"""
    config = from_fields(TrainConfig, parse(OPTIONS))
    expected = {"minutes": 5.0, "schedule": "flat", "decay": 2.0, "optimizer": "muon"}
    expected |= {"box_share": 0.55, "min_area": 64, "bfloat16": True}
    assert config == dataclasses.replace(TrainConfig(), **expected)
    assert type(config.min_area) is int
    assert from_fields(TrainConfig, parse("train")) == TrainConfig()
    text = parse("train").parser.format_help()
    assert "--ema" in text and "指数滑动平均" in text and "默认 0.998" in text
    fit = parse("fit photos masks --out a.safetensors")
    assert from_fields(FitConfig, fit) == FitConfig()


def test_options_can_be_written_back():
    """写回去再读，一样。"""
    args = parse(OPTIONS + " --mix 1,0,2 --workers 2 --resume")
    again = cli.build_parser().parse_args(cli_train.words(args))
    assert vars(again) | {"parser": 0, "resume": True} == vars(args) | {"parser": 0}
    text = cli_train.resume_command(args)
    assert "--mix 1,0,2" in text and text.endswith("--resume")


@pytest.mark.parametrize(
    ("text", "said"),
    [("--mix 1,2", "A,B,C"), ("--lr -1", "不小于 0"), ("--schedule x", "cosine")],
)
def test_nonsense_options_are_usage_errors(text, said, capsys):
    assert cli.main(["train", *text.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_model_has_the_asked_shape():
    sam = cli_train.starting_model(parse(OPTIONS + " --device cpu"))
    encoder = sam.image_encoder
    assert (encoder.img_size, encoder.pos_embed.shape[1]) == (96, 12)
    assert len(encoder.blocks[0].attn.rel_pos_h) == 7
    assert sam.prompt_encoder.mask_input_size == (48, 48)


def test_init_from_another_shape():
    """从自带的权重开始，换了尺寸：解码器的数原样。"""
    sam = cli_train.starting_model(parse(OPTIONS + " --init tiny --device cpu"))
    assert sam.image_encoder.img_size == 96
    for name, value in load("tiny").mask_decoder.state_dict().items():
        assert value.equal(sam.mask_decoder.state_dict()[name]), name


@pytest.mark.parametrize("options", ["--size 100 --patch 16", "--size 32 --window 6"])
def test_a_shape_that_does_not_fit_is_refused(options):
    with pytest.raises(SamLiteError, match="--size.*整数倍"):
        cli_train.starting_model(parse(f"train {options} --patch 16"))


def source(text):
    args = parse(f"train {text} --device cpu")
    return cli_train.open_source(args, cli_train.starting_model(args))


def test_it_says_what_it_draws_from(tmp_path):
    """几样贴纸、几样留着、几张照片；没有贴纸、用画好的，也说一声。"""
    mixture, text = source("--mix 2,1,1 --seed 7")
    count, kept = map(int, re.findall(r"(\d+) 样", text))
    assert len(mixture.collection.stickers) == count and kept > 0
    assert "背景照片 0 张" in text and (mixture.plain, mixture.seed) == (2, 7)
    assert "没有贴纸" in source("--mix 1,1,0")[1]
    next(draw_shards({0: make_scene(0, 64)}, tmp_path, 0, 1))
    shards, text = source(f"--shards {tmp_path}")
    assert len(shards) == 1 and "画好的 1 张" in text
    with pytest.raises(SamLiteError, match="tools/stickers.py"):
        source(f"--stickers {tmp_path}")


def test_scenes_are_never_smaller_than_the_input():
    for side, wanted in ((64, 256), (TINY.patch_size * 40, TINY.patch_size * 40)):
        assert source(f"--size {side} --window 2")[0].size == wanted
