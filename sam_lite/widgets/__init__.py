"""笔记本里可点击的画布：点一下、拖一个框，掩码跟着来，再交给 Python。

要装 anywidget：``pip install "sam-lite[widgets]"``。浏览器里的一半在
``assets/segmentation_canvas.js``，提示的清单和后台的计算在 ``session.py``。
"""

import base64
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import viz
from ..errors import SamLiteError, problem, require
from ..files import ASSETS
from ..files.official import OFFICIAL_FILES
from ..model import Sam
from ..weights import find_weights, load
from .picture import SHOWN, encode, fit, mask_png, open_photo, shrink, static_png
from .session import Answer, Session, explain

require("anywidget", "可点击的画布", extra="widgets")
import anywidget  # noqa: E402
import traitlets  # noqa: E402

MODELS = ("tiny", *OFFICIAL_FILES)
LARGEST_UPLOAD = 64 * 2**20  # 字节；浏览器先查一遍，太大就不传
STATIC = 560  # 静态图的最长边，像素
NO_MASK = "还没有掩码：先在照片上点一下，或画一个框。"


class SegmentationCanvas(anywidget.AnyWidget):
    """一张照片，点一下、拖一个框就给出掩码；写在格子的最后一行就显示出来。

    左键点正点，右键或按住 Shift 点负点，拖动画框；也能只用键盘或触屏。照片马上显示，
    编码在后台做。没有 Python 的地方（GitHub、导出的网页）留下一张图片。

    参数：
        photo: 照片的路径、Pillow 图片或 uint8 数组 ``(H, W, 3)``；灰度、透明、16 位的
            也行。
        model: 一个 Sam，或型号的名字。

    错误：照片或模型不能用时抛 SamLiteError。
    """

    _esm = ASSETS / "segmentation_canvas.js"
    _css = ASSETS / "segmentation_canvas.css"
    _picture = traitlets.Dict().tag(sync=True)  # 照片：宽、高、JPEG
    _answer = traitlets.Dict().tag(sync=True)  # 提示、分数
    _masks: Any = traitlets.List().tag(sync=True)  # 候选掩码，PNG
    _selected = traitlets.Int(0).tag(sync=True)  # 看的是第几张候选
    _status = traitlets.Dict().tag(sync=True)  # 在忙什么、忙了多少、出了什么错
    _models = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _model = traitlets.Unicode().tag(sync=True)
    _largest = traitlets.Int(LARGEST_UPLOAD).tag(sync=True)

    def __init__(self, photo: Any, model: Sam | str = "tiny") -> None:
        pixels = open_photo(photo)
        sam = model if isinstance(model, Sam) else load(model)
        super().__init__()
        self._loaded = {sam.name: sam}
        self._publishing = threading.RLock()  # 后台线程和主线程都会报告
        self._seen: dict[str, int] = {}  # 每个视图做到第几个动作
        self._drawn: Answer | None = None
        self._complaint = ""
        self._pieces: list[bytes] = []  # 正在上传的照片
        self._models, self._model = available(sam.name), sam.name
        self._show_photo(pixels)
        with self._publishing:  # 后台线程一起来就会报告，等 _session 有了再说
            self._session = Session(pixels, sam, self._publish)
        self._publish()
        self.on_msg(self._receive)
        self.observe(self._switch_model, "_model")

    # ---- 给 Python 用的 ------------------------------------------------------

    @property
    def photo(self) -> viz.Picture:
        """现在的照片，``(H, W, 3)`` uint8。"""
        return self._session.photo

    @property
    def points(self) -> np.ndarray:
        """点的坐标，``(N, 2)``，照片上的像素 ``(x, y)``。"""
        return np.array(self._session.now.points).reshape(-1, 2)

    @property
    def labels(self) -> np.ndarray:
        """点的标签，``(N,)``，1 是正点，0 是负点。"""
        return np.array(self._session.now.labels, int)

    @property
    def box(self) -> np.ndarray | None:
        """框，``(4,)``，x0, y0, x1, y1；没有画就是 None。"""
        box = self._session.now.box
        return None if box is None else np.array(box)

    @property
    def mask(self) -> viz.Mask | None:
        """选中的掩码，``(H, W)`` bool，照片原来的大小；没有提示就是 None。

        后台还在算就等它算完；后台出了错，在这里抛出来。
        """
        masks = self._chosen(self._session.size)
        return masks[0] if len(masks) else None

    @property
    def scores(self) -> np.ndarray:
        """每张候选预测的 IoU，``(C,)``；没有提示就是 0 个。"""
        self._session.wait()
        answer = self._session.answer
        has = answer is not None and self._session.now.total
        return answer.scores if answer is not None and has else np.zeros(0)

    def add_point(self, x: float, y: float, label: int = 1) -> None:
        """添一个点，同在 ``(x, y)`` 点一下；label 1 正点，0 负点。不对时抛错。"""
        self._edit("add_point", x, y, label)

    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """画一个框，同拖动鼠标；代替原来的框。不对时抛 SamLiteError。"""
        self._edit("set_box", x0, y0, x1, y1)

    def undo(self) -> None:
        """撤销一步。"""
        self._edit("undo")

    def clear(self) -> None:
        """去掉全部提示；还可以撤销。"""
        self._edit("clear")

    def select(self, index: int) -> None:
        """改看第几张候选（从 0 数）；没有这一张时抛 SamLiteError。"""
        count = len(self.scores)
        if not 0 <= index < count:
            raise problem("index", repr(index), f"0 到 {count - 1}（候选的编号）")
        self._selected = index

    def set_photo(self, photo: Any) -> None:
        """换一张照片，提示从头来；照片不能用时抛 SamLiteError，原来的还在。"""
        pixels = open_photo(photo)
        with self._publishing:
            self._complaint = ""
            self._session.start(pixels, self._session.sam)
            self._show_photo(pixels)
        self._publish()

    def save(self, path: str | Path) -> None:
        """把选中的掩码存成黑白图片，照片原来的大小；没有掩码时抛 SamLiteError。"""
        mask = self.mask
        if mask is None:
            raise SamLiteError(NO_MASK)
        viz.check_output(path, lossless=True)
        viz.save_image(path, mask)

    def _edit(self, action: str, *values: Any) -> None:
        self._complaint = ""
        getattr(self._session, action)(*values)
        self._publish()

    def _chosen(self, size: tuple[int, int]) -> np.ndarray:
        """等后台算完，选中的那张掩码缩放到 size：``(1, 高, 宽)``，没有就 0 张。"""
        session = self._session
        session.wait()
        if not session.now.total:
            return np.zeros((0, *size), bool)
        return session.masks(size, self._selected)

    # ---- 与浏览器来往 --------------------------------------------------------

    def _publish(self) -> None:
        """把现在的样子告诉浏览器；后台线程和主线程都会来。"""
        with self._publishing:
            session = self._session
            with session.turn:
                now, answer = session.now, session.answer
                fresh = session.finished()
                status = session.status(self._complaint)
            with self.hold_sync():
                if answer is not self._drawn:
                    self._drawn = answer
                    masks = session.masks(fit(session.size, SHOWN))
                    self._masks = [mask_png(m, i) for i, m in enumerate(masks)]
                    self._selected = 0 if answer is None else answer.best
                self._status = status
                self._answer = {
                    "seen": dict(self._seen),
                    "points": [list(point) for point in now.points],
                    "labels": list(now.labels),
                    "box": None if now.box is None else list(now.box),
                    "scores": [] if answer is None else answer.scores.tolist(),
                    "fresh": fresh,
                }

    def _show_photo(self, pixels: viz.Picture) -> None:
        height, width = pixels.shape[:2]
        small = Image.fromarray(shrink(pixels, SHOWN))
        jpeg = encode(small, "JPEG", quality=92)
        self._picture = {"width": width, "height": height, "jpeg": jpeg}

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        """浏览器报告的一个动作；出了错变成画布上的一行字。"""
        actions = {
            "point": lambda: self._edit("add_point", *content["at"], content["label"]),
            "box": lambda: self.set_box(*content["box"]),
            "undo": self.undo,
            "clear": self.clear,
            "upload": lambda: self._take_piece(content, buffers),
            "export": self._export,
        }
        try:
            self._seen[str(content.get("view"))] = int(content.get("seq", 0))
            actions[content["type"]]()
        except Exception as error:  # 没有格子可以报错，只能写在画布上
            self._complaint = explain(error)
            self._publish()

    def _take_piece(self, content: dict[str, Any], buffers: list[Any]) -> None:
        """上传的一段；齐了就换照片。"""
        if content["index"] == 0:
            self._pieces = []
        self._pieces.append(bytes(buffers[0]))
        if sum(map(len, self._pieces)) > LARGEST_UPLOAD:
            self._pieces = []
            limit = LARGEST_UPLOAD // 2**20
            raise SamLiteError(f"文件超过 {limit} MB：先缩小，或从 Python 里给路径。")
        if len(self._pieces) == content["count"]:
            data, self._pieces = b"".join(self._pieces), []
            self.set_photo(data)

    def _export(self) -> None:
        mask = self.mask
        if mask is None:
            raise SamLiteError(NO_MASK)
        png = encode(Image.fromarray(mask.astype(np.uint8) * 255), "PNG")
        self.send({"type": "file", "name": "mask.png"}, buffers=[png])

    def _switch_model(self, change: Any) -> None:
        """换模型，提示留着；权重读不了就换回来，写在画布上。"""
        name = change["new"]
        if name == self._session.sam.name:
            return  # 没换成，改回来的时候
        try:
            if name not in self._loaded:
                self._loaded[name] = load(name)
            self._complaint = ""
            self._session.start(self.photo, self._loaded[name], keep_marks=True)
        except Exception as error:
            self._complaint = explain(error)
            self.set_trait("_model", self._session.sam.name)
        self._publish()

    # ---- 静态的网页 ----------------------------------------------------------

    def __repr__(self) -> str:
        height, width = self._session.size
        count = self._session.now.total
        return f"SegmentationCanvas（照片 {width}×{height}，{count} 个提示）"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        """控件之外再给一张 PNG：GitHub 和导出的网页上显示它。"""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        text = base64.b64encode(self._static()).decode("ascii")
        return data | {"image/png": text}, metadata

    def _static(self) -> bytes:
        """照片、掩码、点和框画成一张 PNG；没有提示就不必等编码。"""
        photo = shrink(self.photo, STATIC)
        size = photo.shape[0], photo.shape[1]
        if not self._session.now.total:
            return static_png(photo)
        scale = size[1] / self._session.size[1]
        box = None if self.box is None else self.box * scale
        points = (self.points + 0.5) * scale - 0.5
        try:
            masks = self._chosen(size)
        except Exception:  # 错误已经写在画布上，图上只画提示
            masks = np.zeros((0, *size), bool)
        return static_png(viz.overlay(photo, masks, points, self.labels, box))


def available(first: str) -> list[str]:
    """画布的菜单里有哪些型号：现在的这个，和权重在手边的。"""
    names = [first]
    for name in MODELS:
        try:
            find_weights(name)
        except SamLiteError:
            continue
        names.append(name)
    return list(dict.fromkeys(names))
