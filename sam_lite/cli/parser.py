"""命令行的解析器：argparse 的话换成中文，出错只写一行；还有各命令共用的取值。"""

from __future__ import annotations

import argparse
import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NoReturn

ARGPARSE_CHINESE = {
    "usage: ": "用法：",
    "positional arguments": "位置参数",
    "options": "选项",
    "optional arguments": "选项",
    "show this help message and exit": "显示这段说明，然后退出",
    "argument %(argument_name)s: %(message)s": "%(argument_name)s：%(message)s",
    "the following arguments are required: %s": "缺少参数：%s",
    "one of the arguments %s is required": "这些参数要给一个：%s",
    "expected one argument": "后面要跟一个值（负数写成 --point=-5,10 的样子）",
    "expected at least one argument": "后面至少要跟一个值",
    "expected at most one argument": "后面最多跟一个值",
    "expected %s argument": "后面要跟 %s 个值",
    "expected %s arguments": "后面要跟 %s 个值",
    "unrecognized arguments: %s": "不认识的参数：%s",
    "not allowed with argument %s": "不能和 %s 一起用",
    "ignored explicit argument %r": "不带值，却给了 %r",
    "ambiguous option: %(option)s could match %(matches)s": (
        "%(option)s 不明确，可能是 %(matches)s"
    ),
    "invalid %(type)s value: %(value)r": "值 %(value)r 不是 %(type)s",
    "invalid choice: %(value)r (choose from %(choices)s)": (
        "没有 %(value)r 这一项，可以选：%(choices)s"
    ),
    "invalid choice: %(value)r, maybe you meant %(suggestion)r? "
    "(choose from %(choices)s)": (
        "没有 %(value)r 这一项，是不是 %(suggestion)r？可以选：%(choices)s"
    ),
    "unknown parser %(parser_name)r (choices: %(choices)s)": (
        "没有命令 %(parser_name)r，可以选：%(choices)s"
    ),
}


@contextmanager
def chinese_argparse() -> Iterator[None]:
    """在这段时间里，argparse 的提示用中文；表里没有的话照旧是英文。"""
    hooks = {
        "_": lambda text: ARGPARSE_CHINESE.get(text, text),
        "ngettext": lambda one, many, n: ARGPARSE_CHINESE.get(
            many, one if n == 1 else many
        ),
    }
    before = {name: getattr(argparse, name) for name in hooks}
    for name, hook in hooks.items():
        setattr(argparse, name, hook)
    try:
        yield
    finally:
        for name, old in before.items():
            setattr(argparse, name, old)


class Formatter(argparse.RawTextHelpFormatter):
    """帮助里的换行照写的来；小标题后面用全角冒号；有默认值的选项写上默认值。"""

    def format_help(self) -> str:
        """把排好的帮助交出去。"""
        return re.sub(r"(?m)^(位置参数|选项|命令):$", r"\1：", super().format_help())

    def _get_help_string(self, action: argparse.Action) -> str | None:
        flag = action.nargs == 0 or not action.option_strings  # 不带值的选项、位置参数
        if flag or action.default in (None, []):
            return action.help
        return f"{action.help}（默认 %(default)s）"


class Parser(argparse.ArgumentParser):
    """出错时只写一行中文的解析器。"""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """写一行中文，以退出码 2 结束。"""
        self.exit(2, f"{self.prog}：{message}（用法见 {self.prog} --help）\n")


# ---- 取值：读不懂时说清要什么 --------------------------------------------------


def numbers(text: str, counts: tuple[int, ...], form: str) -> list[float]:
    """把 ``1,2,3`` 读成几个数；中文逗号也收。"""
    try:
        values = [float(part) for part in text.replace("，", ",").split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(math.isfinite(v) for v in values):
        raise argparse.ArgumentTypeError(f"要写成 {form}，来的是 {text!r}")
    return values


def count(text: str) -> int:
    """读一个正整数。"""
    return _integer(text, 1, "正整数")


def seed(text: str) -> int:
    """读一个不小于 0 的整数。"""
    return _integer(text, 0, "不小于 0 的整数")


def positive(text: str) -> float:
    """读一个大于 0 的数。"""
    value = numbers(text, (1,), "一个正数")[0]
    if value <= 0:
        raise argparse.ArgumentTypeError(f"要一个正数，来的是 {text!r}")
    return value


def _integer(text: str, low: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= low):
        raise argparse.ArgumentTypeError(f"要一个{what}，来的是 {text!r}")
    return int(text)


def amount(text: str) -> float:
    """读一个不小于 0 的数。"""
    value = numbers(text, (1,), "一个不小于 0 的数")[0]
    if value < 0:
        raise argparse.ArgumentTypeError(f"要一个不小于 0 的数，来的是 {text!r}")
    return value


# ---- 一个设置的 dataclass 变成一串选项 -----------------------------------------


def add_fields(
    parser: argparse.ArgumentParser,
    config: type,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """每个字段一个选项：名字、默认值照字段的，说明是源代码里字段后面的注释。"""
    pattern = r"^    (\w+): [^#\n]*  # (.+)$"
    comments = dict(re.findall(pattern, inspect.getsource(config), re.M))
    for field in fields(config):
        option, text = "--" + field.name.replace("_", "-"), comments[field.name]
        if field.type is bool:
            parser.add_argument(option, action="store_true", help=text)
            continue
        form: dict[str, Any] = {"metavar": "X", "type": amount}
        if field.type is int:
            form = {"metavar": "N", "type": seed if field.name == "seed" else count}
        if field.type is str:
            form = {"choices": (choices or {})[field.name]}
        parser.add_argument(option, default=field.default, help=text, **form)


def from_fields(config: Any, args: argparse.Namespace) -> Any:
    """由 add_fields 的选项配成设置。"""
    return config(**{f.name: getattr(args, f.name) for f in fields(config)})
