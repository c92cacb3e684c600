"""可点击的画布，不用浏览器：提示的清单、后台的计算、收到的动作、静态的图。"""

import base64
import io
import threading

import numpy as np
import pytest
from parity.small import SMALL, randomize
from PIL import Image

from sam_lite.errors import SamLiteError
from sam_lite.model import sam_from_config
from sam_lite.predictor import SamPredictor
from sam_lite.widgets import SegmentationCanvas, available
from sam_lite.widgets import session as widgets_session
from sam_lite.widgets.picture import mask_png, open_photo
from sam_lite.widgets.session import Marks, Session

H, W = 40, 56


def noise(height: int = H, width: int = W) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def send(canvas, kind: str, seq: int = 1, buffers=(), **content) -> None:
    """浏览器发来一条消息。"""
    message = {"type": kind, "view": "v", "seq": seq, **content}
    canvas._handle_custom_msg(message, list(buffers))


@pytest.fixture
def canvas(small_sam):
    found = SegmentationCanvas(noise(), small_sam)
    yield found
    found.close()


# ---- 提示的清单 ----------------------------------------------------------------


def test_every_step_can_be_undone(small_sam):
    session = Session(noise(), small_sam)
    session.add_point(3, 4, 1)
    session.add_point(5.5, 6, 0)
    session.set_box(30, 20, 2, 1)  # 从右下拖到左上
    full = Marks(((3, 4), (5.5, 6)), (1, 0), (2, 1, 30, 20))
    assert session.now == full and session.now.total == 3
    session.clear()
    session.clear()  # 已经空了，不另算一步
    assert session.now == Marks()
    session.undo()
    assert session.now == full
    session.undo()
    assert session.now.box is None and session.now.total == 2
    for _ in range(5):
        session.undo()
    assert session.now == Marks()


@pytest.mark.parametrize(
    ("action", "values", "word"),
    [
        ("add_point", (W + 1, 3, 1), "point_coords"),
        ("add_point", (3, H + 1, 1), "point_coords"),
        ("add_point", (3, 3, 2), "label"),
        ("set_box", (W + 5, 0, W + 9, 9), "box"),
    ],
)
def test_bad_prompts_change_nothing(small_sam, action, values, word):
    session = Session(noise(), small_sam)
    session.add_point(1, 1, 1)
    with pytest.raises(SamLiteError, match=word):
        getattr(session, action)(*values)
    assert len(session.steps) == 2


# ---- 后台 --------------------------------------------------------------------


def test_masks_are_those_of_the_predictor(small_sam):
    """一个点：三张；几个提示：单张在前，再加三张。照片大小和别的大小都对。"""
    session = Session(noise(), small_sam)
    predictor = SamPredictor(small_sam)
    predictor.set_image(noise())
    session.add_point(9, 30, 1)
    session.wait()
    points, labels = np.array([[9, 30]]), np.array([1])
    masks, scores, _ = predictor.predict(points, labels)
    assert np.array_equal(session.masks((H, W)), masks)
    np.testing.assert_allclose(session.answer.scores, scores, rtol=1e-5)
    assert session.answer.best == scores.argmax()
    session.undo()
    session.set_box(3, 4, 50, 38)  # 只有框，也是单张在前
    session.wait()
    assert session.answer.best == 0 and len(session.answer.scores) == 4
    session.undo()
    session.add_point(9, 30, 1)

    session.add_point(50, 2, 0)
    session.set_box(3, 4, 50, 38)
    session.wait()
    given = (np.array([[9, 30], [50, 2]]), np.array([1, 0]), np.array([3, 4, 50, 38]))
    single = predictor.predict(*given, multimask_output=False)
    three = predictor.predict(*given)
    expected = np.concatenate([single[0], three[0]])
    assert np.array_equal(session.masks((H, W)), expected)
    assert np.array_equal(session.masks((H, W), only=2), expected[2:3])
    assert session.answer.best == 0
    assert session.masks((20, 28)).shape == (4, 20, 28)


def test_only_the_latest_prompts_are_decoded(small_sam, monkeypatch):
    """算得慢、点得快：中间的跳过，最后的一定算。"""
    gate, decoded = threading.Event(), []
    real = widgets_session.decode

    def slow(predictor, marks):
        decoded.append(marks.total)
        gate.wait(10)
        return real(predictor, marks)

    monkeypatch.setattr(widgets_session, "decode", slow)
    session = Session(noise(), small_sam)
    session.wait()
    for i in range(50):
        session.add_point(i, i % H, i % 2)
    assert not session.wait(timeout=0)
    gate.set()
    session.wait()
    assert decoded[-1] == 50 and len(decoded) <= 3
    assert session.answer.marks == session.now


def test_a_result_for_another_photo_is_dropped(small_sam, monkeypatch):
    gate, real = threading.Event(), SamPredictor.set_image

    def slow(self, image):
        if image.shape[:2] == (H, W):
            gate.wait(10)
        real(self, image)

    monkeypatch.setattr(SamPredictor, "set_image", slow)
    session = Session(noise(), small_sam)
    session.start(noise(33, 21), small_sam)
    gate.set()
    session.wait()
    assert session.predictor.original_size == (33, 21)


def test_progress_grows_and_hooks_are_removed(small_sam):
    seen = []
    session = Session(noise(), small_sam)
    session.wait()
    session.changed = lambda: seen.append(session.progress)
    session.start(noise(), small_sam)
    session.wait()
    assert seen == sorted(seen) and seen[-1] == 1 and len(set(seen)) >= 3
    blocks = small_sam.image_encoder.blocks
    assert not any(block._forward_hooks for block in blocks)


def test_error_in_the_background_is_raised_where_one_waits(small_sam, monkeypatch):
    def broken(*_):
        raise RuntimeError("内存不够")

    real = widgets_session.decode
    monkeypatch.setattr(widgets_session, "decode", broken)
    session = Session(noise(), small_sam)
    session.add_point(1, 1, 1)
    with pytest.raises(RuntimeError, match="内存不够"):
        session.wait()
    monkeypatch.setattr(widgets_session, "decode", real)
    session.add_point(2, 2, 1)  # 改了就再试
    assert session.wait() and session.answer.marks.total == 2


def test_a_listener_that_fails_does_not_hang_the_session(small_sam):
    def broken():
        raise OSError("管子断了")

    session = Session(noise(), small_sam, broken)
    with pytest.raises(OSError, match="管子断了"):
        session.wait(10)


# ---- 画布 --------------------------------------------------------------------


def test_messages_from_the_browser_change_the_prompts(canvas):
    send(canvas, "point", 1, at=[9, 30], label=1)
    send(canvas, "point", 2, at=[50, 2], label=0)
    send(canvas, "box", 3, box=[40, 30, 2, 5])
    assert canvas.points.tolist() == [[9, 30], [50, 2]]
    assert canvas.labels.tolist() == [1, 0] and canvas.box.tolist() == [2, 5, 40, 30]
    assert canvas.mask.shape == (H, W) and canvas.mask.dtype == bool
    assert len(canvas.scores) == len(canvas._masks) == 4
    assert canvas._answer["seen"] == {"v": 3} and canvas._answer["fresh"]
    send(canvas, "undo", 4)
    assert canvas.box is None
    send(canvas, "clear", 5)
    assert canvas.points.shape == (0, 2) and canvas.mask is None
    assert len(canvas.scores) == 0


def test_selected_mask_is_the_one_python_gets(canvas):
    canvas.add_point(9, 30)
    assert canvas._selected == canvas.scores.argmax()
    every = canvas._session.masks((H, W))
    for index in (2, 0, 1):
        canvas.select(index)
        assert np.array_equal(canvas.mask, every[index])
    with pytest.raises(SamLiteError, match="0 到 2"):
        canvas.select(3)


def test_masks_in_the_browser_are_those_of_python(canvas):
    """传给浏览器的 PNG，不透明的地方就是掩码。"""
    canvas.add_point(9, 30)
    assert canvas.mask is not None  # 等后台算完
    every = canvas._session.masks((H, W))
    for png, mask in zip(canvas._masks, every, strict=True):
        with Image.open(io.BytesIO(png)) as picture:
            alpha = np.array(picture.convert("RGBA"))[..., 3]
        assert np.array_equal(alpha > 0, mask)


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ({"kind": "point", "at": [999, 1], "label": 1}, "point_coords"),
        ({"kind": "point", "at": [1, 1], "label": 7}, "label"),
        ({"kind": "nonsense"}, "KeyError"),
        ({"kind": "export"}, "还没有掩码"),
    ],
)
def test_errors_become_a_line_on_the_canvas(canvas, message, word):
    send(canvas, message.pop("kind"), **message)
    canvas._session.wait()
    assert canvas._status["kind"] == "error" and word in canvas._status["text"]
    send(canvas, "point", 2, at=[3, 3], label=1)
    assert canvas.mask is not None and canvas._status["kind"] == "ready"


def test_saved_and_exported_mask(canvas, tmp_path, monkeypatch):
    with pytest.raises(SamLiteError, match="还没有掩码"):
        canvas.save(tmp_path / "mask.png")
    canvas.add_point(9, 30)
    canvas.save(tmp_path / "mask.png")
    sent = []
    monkeypatch.setattr(
        canvas, "send", lambda content, buffers: sent.append((content, buffers))
    )
    send(canvas, "export", 2)
    ((content, (data,)),) = sent
    assert content["name"] == "mask.png"
    for file in (tmp_path / "mask.png", io.BytesIO(data)):
        with Image.open(file) as picture:
            assert np.array_equal(np.array(picture) > 0, canvas.mask)
    with pytest.raises(SamLiteError, match="jpg"):
        canvas.save(tmp_path / "mask.jpg")


def upload(canvas, data: bytes, size: int = 1000) -> None:
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    for index, piece in enumerate(pieces):
        numbers = {"index": index, "count": len(pieces)}
        send(canvas, "upload", index + 1, [memoryview(piece)], **numbers)


def test_uploaded_photo_replaces_the_old_one(canvas):
    canvas.add_point(9, 30)
    buffer = io.BytesIO()
    Image.fromarray(noise(33, 21)).save(buffer, "PNG")
    upload(canvas, buffer.getvalue())
    assert np.array_equal(canvas.photo, noise(33, 21))
    assert len(canvas.points) == 0 and canvas.mask is None
    assert (canvas._picture["width"], canvas._picture["height"]) == (21, 33)
    canvas.add_point(20, 32)
    assert canvas.mask.shape == (33, 21)


def test_bad_or_huge_upload_keeps_the_old_photo(canvas, monkeypatch):
    upload(canvas, b"not a photo" * 300)
    assert "不是图片" in canvas._status["text"]
    monkeypatch.setattr("sam_lite.widgets.LARGEST_UPLOAD", 3000)
    upload(canvas, b"x" * 5000)
    assert "太" in canvas._status["text"] or "超过" in canvas._status["text"]
    assert canvas.photo.shape == (H, W, 3)


def test_switching_the_model_keeps_the_prompts(canvas, small_sam, monkeypatch):
    other = randomize(sam_from_config(SMALL), seed=5).eval()
    other.name = "other"
    monkeypatch.setattr("sam_lite.widgets.load", lambda name: other)
    canvas.add_point(9, 30)
    before = canvas.scores
    canvas._model = "other"
    assert canvas.points.tolist() == [[9, 30]]
    assert not np.allclose(canvas.scores, before)
    canvas._model = small_sam.name
    np.testing.assert_allclose(canvas.scores, before)


def test_model_that_cannot_be_read_is_refused(canvas, small_sam, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_LITE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    canvas.add_point(9, 30)
    canvas._model = "vit_h"
    assert canvas._model == small_sam.name
    assert "sam-lite download vit_h" in canvas._status["text"]
    assert canvas.mask is not None
    assert available("small") == ["small", "tiny"]


def test_static_picture_shows_the_mask(canvas):
    """没有 Python 的网页上是一张 256 色的 PNG；有提示时掩码画在上面。"""

    def static():
        data, _ = canvas._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in data
        assert "SegmentationCanvas" in data["text/plain"]
        raw = base64.b64decode(data["image/png"])
        with Image.open(io.BytesIO(raw)) as picture:
            assert picture.mode == "P" and picture.size == (W, H)
            return np.array(picture.convert("RGB")).astype(int)

    plain = static()
    assert np.abs(plain - noise()).mean() < 20
    canvas.add_point(9, 30)
    marked = static()
    inside = canvas.mask
    assert 0 < inside.mean() < 1
    changed = np.abs(marked - plain).mean(axis=2)
    assert changed[inside].mean() > 2 * changed[~inside].mean()


def test_large_photo_is_shrunk_for_the_browser_but_not_for_python(small_sam):
    photo = np.zeros((1500, 2400, 3), np.uint8)
    photo[200:900, 300:1500] = 200
    canvas = SegmentationCanvas(photo, small_sam)
    canvas.set_box(300, 200, 1500, 900)
    assert canvas.mask.shape == (1500, 2400)
    with Image.open(io.BytesIO(canvas._masks[0])) as picture:
        assert picture.size == (1024, 640)
    with Image.open(io.BytesIO(canvas._picture["jpeg"])) as picture:
        assert picture.size == (1024, 640)
    assert canvas._picture["width"] == 2400
    predictor = SamPredictor(small_sam)
    predictor.set_image(photo)
    expected = predictor.predict(
        box=np.array([300, 200, 1500, 900]), multimask_output=False
    )[0][0]
    assert np.array_equal(canvas.mask, expected)
    canvas.close()


# ---- 照片 --------------------------------------------------------------------


def test_every_kind_of_photo_is_read(tmp_path):
    grey = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 20
    eight = (grey // 257).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    for given in (eight, eight[..., None], str(tmp_path / "deep.png"), grey):
        found = open_photo(given)
        assert found.shape == (H, W, 3) and found.dtype == np.uint8
        assert np.abs(found[..., 1].astype(int) - eight).max() <= 1
    clear = np.dstack([noise(), np.zeros((H, W), np.uint8)])
    assert (open_photo(clear) == 255).all()  # 全透明垫白底
    turned = Image.fromarray(noise())
    exif = turned.getexif()
    exif[0x0112] = 6  # 顺时针转 90 度
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(noise(), -1)
    assert np.array_equal(open_photo(tmp_path / "turned.png"), expected)
    with Image.open(tmp_path / "turned.png") as picture:
        assert np.array_equal(open_photo(picture), expected)
    assert np.array_equal(open_photo((tmp_path / "turned.png").read_bytes()), expected)


@pytest.mark.parametrize("bad", [None, 3, np.zeros((4, 5, 3)), np.zeros((0, 5, 3))])
def test_what_is_not_a_photo_is_refused(bad):
    with pytest.raises(SamLiteError, match="image"):
        open_photo(bad)


def test_mask_png_is_small_and_transparent_outside():
    mask = np.zeros((683, 1024), bool)
    mask[100:500, 200:900] = True
    png = mask_png(mask, 3)
    assert len(png) < 4000
    with Image.open(io.BytesIO(png)) as picture:
        alpha = np.array(picture.convert("RGBA"))[..., 3]
    assert set(np.unique(alpha)) == {0, 150, 255}
    assert alpha[100, 300] == 255 and alpha[300, 300] == 150 and alpha[0, 0] == 0
