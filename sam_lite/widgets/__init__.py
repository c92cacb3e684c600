"""笔记本里可点击的画布：点一下、拖一个框，掩码跟着来，再交给 Python。

要装 anywidget：``pip install "sam-lite[widgets]"``。浏览器里的一半在
``assets/segmentation_canvas.js``，提示和后台的计算在 ``widgets_session.py``。
"""

from pathlib import Path
from typing import Any

import numpy as np

from .. import viz
from ..errors import SamLiteError, problem
from ..files.official import OFFICIAL_FILES
from ..model import Sam
from ..weights import find_weights, load
from ..widgets.picture import mask_file, open_photo
from ..widgets.session import explain
from ..widgets.view import LARGEST_UPLOAD, CanvasView

MODELS = ("tiny", *OFFICIAL_FILES)


class SegmentationCanvas(CanvasView):
    """一张照片，点一下、拖一个框就给出掩码；写在格子的最后一行就显示出来。

    左键点正点，右键或按住 Shift 点负点，拖动画框；也能只用键盘或触屏。照片马上显示，
    编码在后台做。没有 Python 的地方（GitHub、导出的网页）留下一张图片。

    参数：
        photo: 照片的路径、Pillow 图片或 uint8 数组 ``(H, W, 3)``；灰度、透明、16 位的
            也行。
        model: 一个 Sam，或型号的名字。

    错误：照片或模型不能用时抛 SamLiteError。
    """

    def __init__(self, photo: Any, model: Sam | str = "tiny") -> None:
        pixels = open_photo(photo)
        sam = model if isinstance(model, Sam) else load(model)
        self._loaded = {sam.name: sam}
        self._pieces: list[bytes] = []  # 正在上传的照片
        super().__init__(pixels, sam, available(sam.name))
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
        return np.array(self._session.history.now.points).reshape(-1, 2)

    @property
    def labels(self) -> np.ndarray:
        """点的标签，``(N,)``，1 是正点，0 是负点。"""
        return np.array(self._session.history.now.labels, int)

    @property
    def box(self) -> np.ndarray | None:
        """框，``(4,)``，x0, y0, x1, y1；没有画就是 None。"""
        box = self._session.history.now.box
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
        has = answer is not None and self._session.history.now.total
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
            raise SamLiteError("还没有掩码：先在照片上点一下，或画一个框。")
        viz.check_output(path, lossless=True)
        viz.save_image(path, mask)

    # ---- 与浏览器来往 --------------------------------------------------------

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

    def _edit(self, action: str, *values: Any) -> None:
        self._complaint = ""
        self._session.edit(action, *values)
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
            raise SamLiteError("还没有掩码可以存：先点一下，或画一个框。")
        self.send({"type": "file", "name": "mask.png"}, buffers=[mask_file(mask)])

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
