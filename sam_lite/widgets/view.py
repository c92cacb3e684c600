"""画布给人看的一半：传给浏览器的照片、掩码、提示和状态，静态网页上的图片。

给 Python 用的方法、浏览器报告来的动作在 ``widgets.py``。
"""

import base64
import threading
from typing import Any

import numpy as np

from .. import viz
from ..errors import require
from ..model import Sam
from ..widgets.picture import (
    SHOWN,
    STATIC,
    asset,
    fit,
    jpeg,
    mask_png,
    shrink,
    static_png,
)
from ..widgets.session import Answer, Session, describe

require("anywidget", "可点击的画布", extra="widgets")
import anywidget  # noqa: E402
import traitlets  # noqa: E402

LARGEST_UPLOAD = 64 * 2**20  # 字节；浏览器先查一遍，太大就不传


class CanvasView(anywidget.AnyWidget):
    """一张照片和它的 Session，画在浏览器里；后台每有变化就再报告一次。

    参数：
        photo: uint8，``(H, W, 3)``。
        sam: 一个 Sam。
        models: 菜单里的型号，sam 的在内。
    """

    _esm = asset("segmentation_canvas.js")
    _css = asset("segmentation_canvas.css")
    _picture = traitlets.Dict().tag(sync=True)  # 照片：宽、高、JPEG
    _answer = traitlets.Dict().tag(sync=True)  # 提示、分数
    _masks: Any = traitlets.List().tag(sync=True)  # 候选掩码，PNG
    _selected = traitlets.Int(0).tag(sync=True)  # 看的是第几张候选
    _status = traitlets.Dict().tag(sync=True)  # 在忙什么、忙了多少、出了什么错
    _models = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _model = traitlets.Unicode().tag(sync=True)
    _largest = traitlets.Int(LARGEST_UPLOAD).tag(sync=True)

    def __init__(self, photo: viz.Picture, sam: Sam, models: list[str]) -> None:
        super().__init__()
        self._publishing = threading.RLock()  # 后台线程和主线程都会报告
        self._seen: dict[str, int] = {}  # 每个视图做到第几个动作
        self._drawn: Answer | None = None
        self._complaint = ""
        self._models, self._model = models, sam.name
        self._show_photo(photo)
        with self._publishing:  # 后台线程一起来就会报告，等 _session 有了再说
            self._session = Session(photo, sam, self._publish)
        self._publish()

    def _publish(self) -> None:
        """把现在的样子告诉浏览器；后台线程和主线程都会来。"""
        with self._publishing:
            session = self._session
            with session.turn:
                now, answer = session.history.now, session.answer
                fresh = session.finished()
                status = describe(session, self._complaint)
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
        self._picture = {"width": width, "height": height, "jpeg": jpeg(pixels)}

    def _chosen(self, size: tuple[int, int]) -> np.ndarray:
        """等后台算完，选中的那张掩码缩放到 size：``(1, 高, 宽)``，没有就 0 张。"""
        session = self._session
        session.wait()
        if not session.history.now.total:
            return np.zeros((0, *size), bool)
        return session.masks(size, self._selected)

    # ---- 静态的网页 ----------------------------------------------------------

    def __repr__(self) -> str:
        height, width = self._session.size
        count = self._session.history.now.total
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
        if not self._session.history.now.total:
            return static_png(photo)
        scale = size[1] / self._session.size[1]
        box = None if self.box is None else self.box * scale
        points = (self.points + 0.5) * scale - 0.5
        try:
            masks = self._chosen(size)
        except Exception:  # 错误已经写在画布上，图上只画提示
            masks = np.zeros((0, *size), bool)
        return static_png(viz.overlay(photo, masks, points, self.labels, box))
