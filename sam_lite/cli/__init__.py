"""命令行 ``sam-lite``：命令都在 ``COMMANDS`` 表里，各在一个同名的文件里。

退出码：0 成功；1 做不成（照片读不了、权重没有……）；2 命令写错。出错时只在标准错误
上写一行中文；加 ``--debug`` 或设环境变量 ``SAM_LITE_DEBUG=1`` 才显示完整的调用记录。
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import SamLiteError
from . import (
    auto,
    backends,
    demo,
    download,
    evaluate,
    export_onnx,
    fit,
    segment,
    train,
    verify,
)
from .parser import Parser

# 每个文件里有 add_arguments 和一个与命令同名的函数，名字里的 - 是 _
COMMANDS = {
    "segment": (segment, "给照片加点或框，写出掩码"),
    "auto": (auto, "整张照片或整个文件夹，分割出全部掩码"),
    "demo": (demo, "在自带的照片上看看效果"),
    "evaluate": (evaluate, "在没训练过的场景上打分，和老办法比"),
    "fit": (fit, "在自己的照片和掩码上微调"),
    "train": (train, "在程序画的场景上训练"),
    "download": (download, "下载官方权重"),
    "export-onnx": (export_onnx, "导出成 ONNX 文件，不要 PyTorch 也能用"),
    "backends": (backends, "换后端编码同一张照片，比时间和误差"),
    "verify": (verify, "查一个权重文件是什么、完不完好"),
}


def build_parser() -> Parser:
    """拼出整个命令行的解析器。"""
    parser = Parser(prog="sam-lite", description="小而完整的 Segment Anything。")
    text = "显示版本号"
    parser.add_argument("--version", action="version", version=__version__, help=text)
    commands = parser.add_subparsers(title="命令", metavar="COMMAND", required=True)
    for name, (module, what) in COMMANDS.items():
        sub = commands.add_parser(name, help=what, description=what + "。")
        module.add_arguments(sub)
        text = "出错时显示完整的调用记录"
        sub.add_argument("--debug", action="store_true", help=text)
        sub.set_defaults(run=getattr(module, name.replace("-", "_")), parser=sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """跑一条命令，返回退出码。"""
    debug = bool(os.environ.get("SAM_LITE_DEBUG"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # 终端的编码没有汉字时，别因此中断
            stream.reconfigure(errors="replace")
    try:
        args = build_parser().parse_args(argv)
        debug = debug or args.debug
        args.run(args)
    except SystemExit as stop:  # --help、--version 和用法错误
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print("sam-lite：已中断", file=sys.stderr)
        return 130
    except BrokenPipeError:  # 例如接了 | head：对方不读了，不是错误
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"sam-lite：{explain(error)}", file=sys.stderr)
        return 1
    return 0


def explain(error: Exception) -> str:
    """用一行中文说清出了什么事；预料之外的错误附上类型和看全文的办法。"""
    text = " ".join(str(error).split())
    if isinstance(error, SamLiteError):
        return text
    return f"意外的错误 {type(error).__name__}：{text}（加 --debug 看完整的调用记录）"


if __name__ == "__main__":
    sys.exit(main())
