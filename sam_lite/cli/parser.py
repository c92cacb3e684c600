"""命令行的解析器：帮助和出错都用中文；还有各命令共用的取值。"""

from __future__ import annotations

import argparse
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn

HEADINGS = {
    "positional arguments": "位置参数",
    "options": "选项",
    "optional arguments": "选项",  # Python 3.9 的叫法
}

# argparse 的话 -> 中文，从上到下各换一次；没有的照旧是英文
CHINESE = [
    (r"^the following arguments are required: ", "缺少参数："),
    (r"^one of the arguments (.+) is required$", r"这些参数要给一个：\1"),
    (r"^unrecognized arguments: ", "不认识的参数："),
    (r"^ambiguous option: (\S+) could match ", r"\1 不明确，可能是 "),
    (r"^argument (.+?): ", r"\1："),
    (r"expected one argument$", "后面要跟一个值（负数写成 --point=-5,10 的样子）"),
    (r"expected at least one argument$", "后面至少要跟一个值"),
    (r"expected at most one argument$", "后面最多跟一个值"),
    (r"expected (\d+) arguments?$", r"后面要跟 \1 个值"),
    (r"not allowed with argument (.+)$", r"不能和 \1 一起用"),
    (r"ignored explicit argument (.+)$", r"不带值，却给了 \1"),
    (r"invalid choice: (.+), maybe you meant (.+)\?", r"没有 \1 这一项，是不是 \2？"),
    (r"invalid choice: (.+) \(choose", r"没有 \1 这一项 (choose"),
    (r" ?\(choose from (.*)\)$", r"，可以选：\1"),
    (r"invalid (\w+) value: (.+)$", r"值 \2 不是 \1"),
    (r"？，可以选", "？可以选"),
]


class Formatter(argparse.RawTextHelpFormatter):
    """帮助用中文，换行照写的来；有默认值的选项写上默认值。"""

    def add_usage(
        self, usage: Any, actions: Any, groups: Any, prefix: str | None = None
    ) -> None:
        """第一行，“用法：”开头。"""
        super().add_usage(
            usage, actions, groups, "用法：" if prefix is None else prefix
        )

    def start_section(self, heading: str | None) -> None:
        """小标题换成中文。"""
        super().start_section(HEADINGS.get(heading or "", heading))

    def format_help(self) -> str:
        """小标题后面用全角冒号。"""
        return re.sub(r"(?m)^(位置参数|选项|命令):$", r"\1：", super().format_help())

    def _get_help_string(self, action: argparse.Action) -> str | None:
        flag = action.nargs == 0 or not action.option_strings  # 不带值的选项、位置参数
        if flag or action.default in (None, []):
            return action.help
        return f"{action.help}（默认 %(default)s）"


class Parser(argparse.ArgumentParser):
    """帮助是中文、出错时只写一行中文的解析器。"""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", Formatter)
        super().__init__(add_help=False, allow_abbrev=False, **options)
        text = "显示这段说明，然后退出"
        self.add_argument("-h", "--help", action="help", help=text)

    def error(self, message: str) -> NoReturn:
        """写一行中文，以退出码 2 结束。"""
        for english, chinese in CHINESE:
            message = re.sub(english, chinese, message)
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
