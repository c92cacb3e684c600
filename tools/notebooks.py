"""维护笔记本：运行、清理，记下输出是由哪些格子算出来的。

用法：python tools/notebooks.py chapters/04_windows.ipynb …（不写文件就做全部）

每个笔记本在自己的文件夹里从头运行一遍，存回原处：不留时间、不留控件的状态，同样的
格子每次存下的文件一样。全部代码格的哈希记在 ``metadata.sources`` 里，测试靠它查输出
有没有过时。
"""

import base64
import hashlib
import io
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
SAME = 0.5  # 平均每个像素差不到这么多（满值 255），就算同一张图
WIDGET = "application/vnd.jupyter.widget-view+json"


def sources_hash(notebook: nbformat.NotebookNode) -> str:
    """全部代码格的 SHA-256，输出和说明文字不算。"""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n\x00".join(code).encode()).hexdigest()


def execute(path: Path) -> float:
    """运行一个笔记本并存回去，返回秒数；有格子出错就抛错，文件不动。"""
    notebook = nbformat.read(path, as_version=4)
    before = [list(cell.get("outputs", [])) for cell in notebook.cells]
    start = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    seconds = time.perf_counter() - start
    clean(notebook)
    for old, cell in zip(before, notebook.cells, strict=True):
        keep_same_pictures(old, cell.get("outputs", []))
    text = nbformat.writes(notebook)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n" if not text.endswith("\n") else text, encoding="utf-8")
    part.replace(path)
    return seconds


def clean(notebook: nbformat.NotebookNode) -> None:
    """只留课程用得着的元数据；连着的几段打印合成一段，免得每次断在不同的地方。"""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
            "sources": sources_hash(notebook),
        }
    )
    for number, cell in enumerate(notebook.cells):
        keep = {k: v for k, v in cell.metadata.items() if k in ("tags", "exercise")}
        cell.metadata = nbformat.from_dict(keep)
        cell.id = f"cell-{number:03d}"
        if cell.cell_type == "code":
            cell.outputs = merge_streams(without_widgets(cell.outputs))
            shrink_pictures(cell.outputs)


def shrink_pictures(outputs: list) -> None:
    """图压到 256 色，小一半多，眼睛看不出差别；克隆下来的东西才不会越来越大。"""
    for output in outputs:
        if "image/png" not in output.get("data", {}):
            continue
        raw = base64.b64decode(output["data"]["image/png"])
        with Image.open(io.BytesIO(raw)) as picture:
            if picture.mode == "P":
                continue  # 压过了
            small = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)
        buffer = io.BytesIO()
        small.save(buffer, format="PNG", optimize=True)
        text = base64.b64encode(buffer.getvalue()).decode("ascii")
        output["data"]["image/png"] = text


def keep_same_pictures(old: list, new: list) -> None:
    """看不出变化的图留旧的字节：别的机器上末位的舍入不同，整张图存一遍就白长了克隆。"""
    for before, after in zip(old, new, strict=False):
        both = before.get("data", {}), after.get("data", {})
        if not all("image/png" in data for data in both):
            continue
        a, b = (pixels(data["image/png"]) for data in both)
        if a.shape == b.shape and float(np.abs(a - b).mean()) < SAME:
            after["data"]["image/png"] = before["data"]["image/png"]


def pixels(text: str) -> np.ndarray:
    """输出里的 PNG，(H, W, 3)，float32。"""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture.convert("RGB"), np.float32)


def without_widgets(outputs: list) -> list:
    """控件在静态网页上显示不了，编号又每次不同，不存；带着图片的只留图片。"""
    kept = []
    for output in outputs:
        data = output.get("data", {})
        if data.pop(WIDGET, None) is None:
            kept.append(output)
        elif "image/png" in data:
            data.pop("text/plain", None)
            kept.append(output)
    return kept


def merge_streams(outputs: list) -> list:
    """把同一条流里相邻的输出接起来。"""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else None
        stream = output.output_type == "stream"
        if stream and last and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def main() -> None:
    """逐个运行，印出秒数。"""
    paths = [Path(name) for name in sys.argv[1:]] or [
        *sorted(CHAPTERS.glob("*.ipynb")),
        *sorted((CHAPTERS / "solutions").glob("*.ipynb")),
    ]
    for path in paths:
        print(f"{path} …", end=" ", flush=True)
        print(f"{execute(path):.1f} s")


if __name__ == "__main__":
    main()
