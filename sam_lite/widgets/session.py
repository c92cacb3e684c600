"""画布的里子：提示的清单、后台的编码与解码；不碰浏览器，也不碰 Jupyter。

点得比模型算得快时，只算最新的那份提示，中间的跳过。掩码只由照片、模型和提示决定，与点
得快慢无关，所以不把上一次的 logits 交回去。
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import SamLiteError, problem
from ..inputs.checks import check_image
from ..inputs.prompts import check_boxes, check_points, check_prompts
from ..model import Sam
from ..predictor import SamPredictor


class Marks(NamedTuple):
    """一刻的全部提示，坐标是照片上的像素 ``(x, y)``；点一下换一份新的。"""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None

    @property
    def total(self) -> int:
        """几个提示：点的个数，有框再加一。"""
        return len(self.points) + (self.box is not None)


class Answer(NamedTuple):
    """模型对一份提示的回答；C 张候选，几个提示时第 0 张是单张那一路。"""

    marks: Marks
    low_res: torch.Tensor  # (C, 4h, 4w)
    scores: np.ndarray  # (C,)，预测的 IoU

    @property
    def best(self) -> int:
        """先看哪一张：三张里取分数最高的；有单张那一路就取它，第 0 张。"""
        return int(self.scores.argmax()) if len(self.scores) == 3 else 0


class Session:
    """一张照片、一个模型、一份提示清单；编码和解码在后台线程里做。

    参数：
        photo: uint8，``(H, W, 3)``。
        sam: 一个 Sam。
        changed: 有了新的结果、进度或错误时，在后台线程里调用，不带参数。

    错误：照片不对时抛 SamLiteError。
    """

    def __init__(
        self, photo: np.ndarray, sam: Sam, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.changed = changed
        self.turn = threading.Condition()
        self.working = False
        self.start(photo, sam)

    def start(self, photo: np.ndarray, sam: Sam, keep_marks: bool = False) -> None:
        """换照片或换模型：在后台编码；keep_marks 是否留着提示（只换模型时）。"""
        pixels = check_image(photo)
        with self.turn:
            self.photo, self.sam = pixels, sam
            self.size = pixels.shape[0], pixels.shape[1]
            if not keep_marks:
                self.steps = [Marks()]  # 每一步都能撤销，连“清除”也能
            self.predictor: SamPredictor | None = None  # 编码完才有
            self.answer: Answer | None = None
            self.error: Exception | None = None
            self.progress = 0.0
        self.wake()

    @property
    def now(self) -> Marks:
        """现在的提示。"""
        return self.steps[-1]

    def add_point(self, x: float, y: float, label: int) -> None:
        """添一个点，1 是正点，0 是负点；在照片外、标签不对时抛 SamLiteError。"""
        if label not in (0, 1):
            raise problem("label", repr(label), "1（正点）或 0（负点）")
        points, _ = check_points([[x, y]], [label], self.size)
        point = (float(points[0, 0]), float(points[0, 1]))
        now = self.now
        self.step(Marks((*now.points, point), (*now.labels, int(label)), now.box))

    def set_box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """画框，代替原来的框；哪个角在前都行，四个数不对时抛 SamLiteError。"""
        corners = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
        a, b, c, d = check_boxes(corners, self.size).tolist()
        self.step(self.now._replace(box=(a, b, c, d)))

    def clear(self) -> None:
        """去掉全部提示；撤销能找回来。"""
        if self.now.total:
            self.step(Marks())

    def undo(self) -> None:
        """撤销一步；没有可撤销的就什么也不做。"""
        if len(self.steps) > 1:
            self.step(None)

    def step(self, marks: Marks | None) -> None:
        """走一步（None 是退一步），在后台重算。"""
        with self.turn:
            if marks is None:
                self.steps.pop()
            else:
                self.steps.append(marks)
            self.error = None
        self.wake()

    def wake(self) -> None:
        """有事没做完、又没有线程在做，就起一个。"""
        with self.turn:
            if self.working or self.finished():
                return
            self.working = True
        threading.Thread(target=self.work, daemon=True).start()

    def finished(self) -> bool:
        """照片编码了，最新的提示也答了；或者出了错，等人来改。"""
        if self.error is not None:
            return True
        now = self.now
        answered = self.answer.marks if self.answer else Marks()
        return self.predictor is not None and (now == answered or not now.total)

    def wait(self, timeout: float | None = None) -> bool:
        """等后台做完；返回 timeout 秒之内做完没有。出了错就在这里抛出来。"""
        with self.turn:
            done = self.turn.wait_for(lambda: not self.working, timeout)
            if self.error is not None:
                raise self.error
        return done

    def work(self) -> None:
        """后台线程：一件一件做，每次都看最新的提示，没有事就结束。"""
        while True:
            with self.turn:
                if self.finished():
                    self.working = False
                    self.turn.notify_all()
                    return
                source, marks = (self.photo, self.sam), self.now
                predictor = self.predictor
            try:
                if predictor is None:
                    self.encode(*source)
                else:
                    self.keep(source, answer=decode(predictor, marks))
                self.changed()
            except Exception as error:  # 后台线程里没有人接，记下来交给 wait 和界面
                self.keep(source, error=error)
                with suppress(Exception):
                    self.changed()

    def status(self, complaint: str) -> dict[str, Any]:
        """画布下面的一行字：出的错、在忙什么；没有事就是空的。"""
        error = explain(self.error) if self.error else complaint
        if error:
            return {"kind": "error", "text": error, "progress": None}
        if self.predictor is None:
            text = "正在编码照片，可以先点，编码完就有掩码"
            return {"kind": "busy", "text": text, "progress": self.progress}
        if not self.finished():
            return {"kind": "busy", "text": "正在算掩码", "progress": None}
        return {"kind": "ready", "text": "", "progress": None}

    def encode(self, photo: np.ndarray, sam: Sam) -> None:
        """编码照片，每算完一层报一次进度。"""

        def report(share: float) -> None:
            self.keep((photo, sam), progress=share)
            self.changed()

        predictor = SamPredictor(sam)
        with watching(sam, report):
            predictor.set_image(photo)
        self.keep((photo, sam), predictor=predictor, progress=1.0)

    def keep(self, source: tuple[np.ndarray, Sam], **results: Any) -> None:
        """记下结果；算的时候照片或模型换了，就作废。"""
        with self.turn:
            if source[0] is self.photo and source[1] is self.sam:
                for name, value in results.items():
                    setattr(self, name, value)

    def masks(self, size: tuple[int, int], only: int | None = None) -> np.ndarray:
        """现有回答的掩码，缩放到 size ``(高, 宽)``：``(C, 高, 宽)`` bool，没有就 0 张。

        only 是只要第几张，别的不算。
        """
        with self.turn:
            answer, predictor = self.answer, self.predictor
        if answer is None or predictor is None or not answer.marks.total:
            return np.zeros((0, *size), bool)
        chosen = slice(None) if only is None else slice(only, only + 1)
        low_res = answer.low_res[None, chosen]  # (1, C, 4h, 4w)
        sam = predictor.model
        logits = sam.postprocess_masks(low_res, predictor.input_size, size)
        return (logits[0] > sam.mask_threshold).cpu().numpy()


@torch.no_grad()
def decode(predictor: SamPredictor, marks: Marks) -> Answer:
    """问一次：一个点给三张；有框或几个点时，单张那一路在前，再加三张。"""
    sam, size = predictor.model, predictor.original_size
    given = (marks.points or None, marks.labels or None, marks.box, None)
    checked = check_prompts(given, size, sam.prompt_encoder.mask_input_size)
    moved = checked.move(predictor.transform, size)
    tensors = [
        None if x is None else torch.from_numpy(x).to(predictor.device) for x in moved
    ]
    single_point = marks.total == 1 and marks.box is None
    low_res, scores = [], []
    for three in (True,) if single_point else (False, True):
        ask = predictor.decoder(sam, predictor.features, tensors, three)
        for _, part, iou in ask:
            low_res.append(part[0].float())  # (1 或 3, 4h, 4w)
            scores.append(iou[0].float())
    return Answer(marks, torch.cat(low_res), torch.cat(scores).cpu().numpy())


@contextmanager
def watching(sam: Sam, report: Callable[[float], None]) -> Iterator[None]:
    """这个线程里，图像编码器每算完一个 Block，就 report(算完的份额)。"""
    blocks, me = sam.image_encoder.blocks, threading.get_ident()

    def hook(number: int) -> Callable[..., None]:
        def after(*_: Any) -> None:
            if threading.get_ident() == me:  # 别的线程也可能正用着同一个模型
                report(number / len(blocks))

        return after

    handles = [
        block.register_forward_hook(hook(n)) for n, block in enumerate(blocks, start=1)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def explain(error: Exception) -> str:
    """错误给人看的一句话：SamLiteError 本来就是中文，别的加上类型。"""
    if isinstance(error, SamLiteError):
        return str(error)
    return f"出错了：{type(error).__name__}：{error}"
