"""命令行的解析器：argparse 的每一种用法错误，都是一行中文。"""

import argparse
import re

import pytest

from sam_lite.cli.parser import Parser


@pytest.fixture
def parser():
    parser = Parser(prog="x")
    commands = parser.add_subparsers(title="命令", metavar="COMMAND", required=True)
    sub = commands.add_parser("cut", help="切")
    either = sub.add_mutually_exclusive_group(required=True)
    either.add_argument("--kind", choices=["round", "square"])
    either.add_argument("--all", action="store_true", help="全部")
    sub.add_argument("--count", type=int, default=3, metavar="N", help="几个")
    sub.add_argument("--size", nargs=2, metavar="N")
    sub.add_argument("--names", nargs="+")
    return parser


WRONG = {
    "": "x：缺少参数：COMMAND",
    "cute": "x：COMMAND：没有 'cute' 这一项",
    "cut": "x cut：这些参数要给一个：--kind --all",
    "cut --kind flat": "x cut：--kind：没有 'flat' 这一项",
    "cut --kind": "x cut：--kind：后面要跟一个值",
    "cut --kind round --all": "x cut：--all：不能和 --kind 一起用",
    "cut --all=3": "x cut：--all：不带值，却给了 '3'",
    "cut --all --count many": "x cut：--count：值 'many' 不是 int",
    "cut --all --size 1": "x cut：--size：后面要跟 2 个值",
    "cut --all --names": "x cut：--names：后面至少要跟一个值",
    "cut --all more": "x：不认识的参数：more",
    "cut --al": "x cut：这些参数要给一个：--kind --all",  # 不收缩写
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_usage_is_one_chinese_line(parser, capsys, words):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words.split())
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(WRONG[words]) and err.rstrip().endswith("--help）")
    # 剩下的拉丁字母只有命令、选项和来的值
    known = r"x|cut\w*|COMMAND|--\w+|'\w+'|int|more|-5"
    assert not re.search("[A-Za-z]", re.sub(known, "", err)), err


def test_help_is_chinese_and_shows_defaults(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["cut", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("用法：x cut ") and "\n选项：\n" in out
    assert "几个（默认 3）" in out and "全部（默认" not in out
    assert "这段说明" in out and "show this" not in out


def test_argparse_itself_is_untouched(parser):
    assert argparse.ArgumentParser(prog="y").format_usage().startswith("usage: y")
