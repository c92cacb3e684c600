"""读照片、画叠加图、存文件。"""

import numpy as np
import pytest
from PIL import Image

from sam_lite import viz
from sam_lite.errors import SamLiteError

RED = (200, 10, 20)


def photo(height: int = 40, width: int = 60, grey: int = 128) -> np.ndarray:
    return np.full((height, width, 3), grey, dtype=np.uint8)


def disc(height: int, width: int, cx: float, cy: float, radius: float) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


# ---- 读 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("RGB", RED, RED),
        ("RGBA", (*RED, 0), (255, 255, 255)),  # 全透明处是白底
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("I;16", 257 * 77, (77, 77, 77)),
        ("I", 257 * 77, (77, 77, 77)),
        ("F", 0.5, (128, 128, 128)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_read_photo_every_mode(tmp_path, mode, colour, expected):
    file = tmp_path / "photo.tif"
    Image.new(mode, (7, 5), colour).save(file)
    image = viz.read_photo(file)
    assert image.shape == (5, 7, 3)
    assert image.dtype == np.uint8
    assert image[2, 3].tolist() == list(expected)


def test_read_photo_lab_tiff(tmp_path):
    Image.new("LAB", (4, 3), (255, 128, 128)).save(tmp_path / "lab.tif")
    assert (viz.read_photo(tmp_path / "lab.tif") >= 250).all()  # L 最大就是白


def test_contour_closes_at_the_border_of_the_picture():
    full = np.ones((6, 8), dtype=bool)
    ring = viz.contour(full)
    assert ring.sum() == 2 * 8 + 2 * 4
    assert not ring[1:-1, 1:-1].any()
    corner = np.zeros((6, 8), dtype=bool)
    corner[:3, :3] = True
    assert not viz.contour(corner)[3:].any()  # 不会绕到对面去
    assert not viz.contour(corner)[:, 3:].any()


def test_read_photo_16_bit_png_keeps_the_gradient(tmp_path):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(3, axis=0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    row = viz.read_photo(tmp_path / "deep.png")[1, :, 0]
    assert np.array_equal(row, np.arange(256))


def test_read_photo_palette_with_transparent_colour(tmp_path):
    image = Image.new("P", (4, 2), 0)
    image.putpalette([*RED, 0, 255, 0])
    image.putpixel((3, 1), 1)
    image.save(tmp_path / "solid.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert viz.read_photo(tmp_path / "solid.png")[1, 3].tolist() == [0, 255, 0]
    assert viz.read_photo(tmp_path / "clear.png")[1, 3].tolist() == [255, 255, 255]
    assert viz.read_photo(tmp_path / "clear.png")[0, 0].tolist() == list(RED)


def test_read_photo_turns_by_exif(tmp_path):
    image = Image.new("RGB", (6, 4), "white")
    image.paste((0, 0, 0), (0, 0, 2, 2))  # 左上角一块黑
    exif = Image.Exif()
    exif[0x0112] = 6  # 存的时候横着，要顺时针转 90 度
    image.save(tmp_path / "turned.png", exif=exif)
    turned = viz.read_photo(tmp_path / "turned.png")
    assert turned.shape == (6, 4, 3)
    assert turned[0, 3].tolist() == [0, 0, 0]  # 黑块转到右上角
    assert turned[0, 0].tolist() == [255, 255, 255]


def test_read_photo_errors_are_chinese(tmp_path):
    (tmp_path / "note.txt").write_text("不是图片", encoding="utf-8")
    viz.save_image(
        tmp_path / "whole.png",
        np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8),
    )
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "nan.tif")
    for name, words in [
        ("none.png", "找不到照片"),
        (".", "文件夹"),
        ("note.txt", "不是图片"),
        ("half.png", "已损坏"),
        ("nan.tif", "NaN"),
    ]:
        with pytest.raises(SamLiteError, match=words):
            viz.read_photo(tmp_path / name)


# ---- 存 ----------------------------------------------------------------------


def test_save_image_round_trip(tmp_path):
    mask = disc(20, 30, 10, 12, 6)
    viz.save_image(tmp_path / "mask.png", mask)
    with Image.open(tmp_path / "mask.png") as saved:
        assert saved.mode == "L"
        assert np.array_equal(np.array(saved), mask.astype(np.uint8) * 255)
    assert [p.name for p in tmp_path.iterdir()] == ["mask.png"]  # 没有临时文件


def test_save_image_refuses(tmp_path):
    with pytest.raises(SamLiteError, match="没有文件夹"):
        viz.save_image(tmp_path / "no" / "a.png", photo())
    with pytest.raises(SamLiteError, match="扩展名"):
        viz.save_image(tmp_path / "a.xyz", photo())
    with pytest.raises(SamLiteError, match="掩码不能写成 .jpg"):
        viz.check_output(tmp_path / "a.jpg", lossless=True)
    (tmp_path / "d.png").mkdir()
    with pytest.raises(SamLiteError, match="这是一个文件夹"):
        viz.save_image(tmp_path / "d.png", photo())
    with pytest.raises(SamLiteError, match="float64"):
        viz.save_image(tmp_path / "a.png", np.zeros((4, 4)))


# ---- 画 ----------------------------------------------------------------------


def test_contour_matches_a_loop():
    mask = np.random.default_rng(1).random((9, 13)) < 0.7
    expected = np.zeros_like(mask)
    for y in range(9):
        for x in range(13):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = all(0 <= r < 9 and 0 <= c < 13 and mask[r, c] for r, c in around)
            expected[y, x] = mask[y, x] and not inside
    assert np.array_equal(viz.contour(mask), expected)


def test_overlay_fills_inside_and_keeps_outside():
    image, mask = photo(100, 120), disc(100, 120, 60, 50, 30)
    before = image.copy()
    out = viz.overlay(image, mask)
    expected = np.rint(0.55 * 128 + 0.45 * viz.PALETTE[0].astype(float))
    assert np.abs(out[50, 60].astype(float) - expected).max() <= 1
    assert (out[~mask] == 128).all()  # 掩码外面一个像素都不动
    assert np.array_equal(
        out[viz.contour(mask)], [viz.PALETTE[0]] * viz.contour(mask).sum()
    )
    assert np.array_equal(image, before)  # 原图没有被改


def test_overlay_small_mask_stays_visible_on_a_big_one():
    small, big = disc(100, 100, 50, 50, 10), disc(100, 100, 50, 50, 40)
    out = viz.overlay(photo(100, 100), np.stack([small, big]))
    alone = viz.overlay(photo(100, 100), np.stack([small, big])[::-1])
    assert np.array_equal(out[viz.contour(small)][0], viz.PALETTE[0])
    assert np.array_equal(alone[viz.contour(small)][0], viz.PALETTE[1])


def test_overlay_markers_show_label_and_clip_at_the_border():
    empty = np.zeros((120, 160), dtype=bool)
    out = viz.overlay(
        photo(120, 160), empty, points=[(40, 60), (100, 60), (0, 0)], labels=[1, 0, 1]
    )
    white = (255, 255, 255)
    for (y, x), colour in {
        (60, 40): white,  # 加号中心
        (59, 40): white,  # 加号的竖
        (58, 38): viz.POSITIVE,
        (58, 98): viz.NEGATIVE,
        (59, 100): viz.NEGATIVE,  # 减号没有竖
        (0, 0): white,  # 边角上的点裁掉大半，照样画
    }.items():
        choices = [white, viz.POSITIVE, viz.NEGATIVE, (128, 128, 128)]
        gaps = [np.abs(out[y, x] - np.array(c, int)).sum() for c in choices]
        assert choices[int(np.argmin(gaps))] == colour, (y, x)
    radius = 5  # min(120, 160) / 50 不到 5，取 5
    far = disc(120, 160, 40, 60, 1.5 * radius) | disc(120, 160, 100, 60, 1.5 * radius)
    far |= disc(120, 160, 0, 0, 1.5 * radius)
    assert (out[~far] == 128).all()


def test_overlay_box_is_where_it_should_be():
    empty = np.zeros((100, 100), dtype=bool)
    out = viz.overlay(photo(100, 100), empty, box=(20, 30, 70, 80))
    changed = np.argwhere((out != 128).any(axis=2))
    assert changed.min(axis=0).tolist() == [30, 20]
    assert changed.max(axis=0).tolist() == [80, 70]
    assert out[55, 45].tolist() == [128, 128, 128]
    both = viz.overlay(photo(100, 100), empty, box=[(5, 5, 20, 20), (50, 50, 90, 90)])
    assert both[6, 10].tolist() == viz.PALETTE[0].tolist()
    assert both[51, 60].tolist() == viz.PALETTE[1].tolist()


def test_overlay_refuses_what_does_not_fit():
    mask = np.zeros((40, 60), dtype=bool)
    with pytest.raises(SamLiteError, match="图片是 40×60"):
        viz.overlay(photo(), mask.T)
    with pytest.raises(SamLiteError, match="bool"):
        viz.overlay(photo(), mask.astype(float))
    with pytest.raises(SamLiteError, match="points 有 2 个，labels 却有 1 个"):
        viz.overlay(photo(), mask, points=[(1, 1), (2, 2)], labels=[1])
    with pytest.raises(SamLiteError, match="box"):
        viz.overlay(photo(), mask, box=(1, 2, 3))
    with pytest.raises(SamLiteError, match="float64"):
        viz.overlay(np.zeros((40, 60, 3)), mask)


def test_palette_differs_for_red_green_blindness():
    """红绿色盲（Viénot 1999 的简化矩阵）看过去，任意两种颜色仍分得开。"""
    deutan = np.array([[0.29, 0.71, 0], [0.29, 0.71, 0], [-0.02, 0.02, 1]])
    linear = (viz.PALETTE / 255.0) ** 2.2
    seen = 255 * np.clip(linear @ deutan.T, 0, 1) ** (1 / 2.2)
    gaps = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    assert gaps[~np.eye(len(seen), dtype=bool)].min() > 20


def test_side_by_side_and_stack_rows():
    left, right = photo(40, 60, 10), photo(80, 40, 90)
    pair = viz.side_by_side(left, right, gap=4)
    assert pair.shape == (40, 60 + 4 + 20, 3)
    assert (pair[:, :60] == 10).all()
    assert (pair[:, 60:64] == 255).all()
    assert (pair[:, 64:] == 90).all()
    sheet = viz.stack_rows([pair, left], gap=2)
    assert sheet.shape == (82, 84, 3)
    assert (sheet[42:, 60:] == 255).all()
    with pytest.raises(SamLiteError):
        viz.side_by_side()
