"""sam-lite train 的选项：配成什么设置，怎么写回命令行，说不通的怎么说。"""

import dataclasses

import pytest

from sam_lite import SamLiteError, cli
from sam_lite.cli import train as cli_train
from sam_lite.cli import train_options as cli_train_options
from sam_lite.config import TINY, TrainConfig
from sam_lite.weights import load

OPTIONS = (
    "train --out 带空格 的 --size 96 --patch 8 --window 4 --minutes 5 --schedule flat"
    " --decay 2 --optimizer muon --set box_share=0.55 --set min_area=64 --bfloat16"
)


def parse(text):
    words = text.replace("带空格 的", "带空格_的").split()
    return cli.build_parser().parse_args([w.replace("_的", " 的") for w in words])


def test_options_become_a_config():
    config = cli_train_options.train_config(parse(OPTIONS))
    expected = {"minutes": 5.0, "schedule": "flat", "decay": 2.0, "optimizer": "muon"}
    expected |= {"box_share": 0.55, "min_area": 64, "bfloat16": True}
    assert config == dataclasses.replace(TrainConfig(), **expected)
    assert type(config.min_area) is int
    assert cli_train_options.train_config(parse("train")) == TrainConfig()


def test_options_can_be_written_back():
    """写回去再读，一样；--processes 只在给人看的那条里。"""
    args = parse(OPTIONS + " --processes 2 --resume")
    words = cli_train_options.words(args)
    again = cli.build_parser().parse_args(words)
    assert vars(again) | {"parser": 0} == vars(args) | {
        "parser": 0,
        "processes": 1,
        "resume": False,
    }
    text = cli_train_options.resume_command(args)
    assert "--processes 2" in text and text.endswith("--resume")


@pytest.mark.parametrize(
    "text", ["colour=3", "box_share", "min_area=2.5", "schedule=flat", "bfloat16=1"]
)
def test_unknown_settings_name_the_known_ones(text):
    with pytest.raises(SamLiteError, match="--set.*名字=数.*box_share"):
        cli_train_options.train_config(parse(f"train --set {text}"))


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


def test_the_bank_is_never_smaller_than_the_model(tmp_path):
    for size, wanted in ((64, 256), (TINY.patch_size * 20, TINY.patch_size * 20)):
        text = f"train --out {tmp_path / str(size)} --scenes 1 --size {size} --window 2"
        args = parse(text)
        sam = cli_train.starting_model(args)
        bank = cli_train.open_bank(args, sam)
        assert bank.images.shape[1] == max(256, wanted)
