"""datasets：两种数据集读出来的掩码，和各种坏输入的中文错误。"""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.draw import polygon2mask

from sam_lite import SamLiteError
from sam_lite.learn.datasets import (
    CocoDataset,
    LabelMapFolder,
    check_sample,
    draw_polygons,
    split_dataset,
)
from sam_lite.masks.rle import coco_encode_rle, mask_to_rle_pytorch

LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:9, 3:12] = 1
LABELS[10:18, 15:28] = 7  # 编号不必连续


@pytest.fixture
def folder(tmp_path):
    """两张 20×30 的照片；a 有两个物体，b 一个也没有。"""
    for name in ("pictures", "labels"):
        (tmp_path / name).mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "pictures" / "a.png")
    Image.fromarray(noise[..., 0]).save(tmp_path / "pictures" / "b.jpg")
    Image.fromarray(LABELS).save(tmp_path / "labels" / "a.png")
    Image.fromarray(LABELS * 0).save(tmp_path / "labels" / "b.jpg.png")
    (tmp_path / "pictures" / "notes.txt").write_text("不是照片", "utf-8")
    return tmp_path


def opened(folder):
    return LabelMapFolder(folder / "pictures", folder / "labels")


# ---- 标号图 --------------------------------------------------------------------


def test_label_maps_become_masks(folder):
    dataset = opened(folder)
    assert len(dataset) == 2
    picture, masks = dataset[0]
    assert picture.shape == (20, 30, 3) and picture.dtype == np.uint8
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, np.stack([LABELS == 1, LABELS == 7]))
    assert dataset[1][1].shape == (0, 20, 30)  # 没有物体
    with pytest.raises(IndexError):
        dataset[2]


@pytest.mark.parametrize("kind", ["16", "32", "palette", "binary", "bits", "tif"])
def test_label_maps_of_every_kind(folder, kind):
    wide = LABELS.astype(np.uint16) * 4000
    pictures = {
        "16": Image.fromarray(wide),
        "32": Image.fromarray(wide.astype(np.int32)),
        "palette": Image.fromarray(LABELS),
        "binary": Image.fromarray((LABELS > 0).astype(np.uint8) * 255),
        "bits": Image.fromarray(LABELS > 0),
        "tif": Image.fromarray(wide),
    }
    pictures["palette"].putpalette([i for i in range(256) for _ in range(3)])
    (folder / "labels" / "a.png").unlink()
    ending = "tif" if kind in ("32", "tif") else "png"
    pictures[kind].save(folder / "labels" / f"a.{ending}")
    _, masks = opened(folder)[0]
    if kind in ("binary", "bits"):
        np.testing.assert_array_equal(masks, (LABELS > 0)[None])
    else:
        np.testing.assert_array_equal(masks, np.stack([LABELS == 1, LABELS == 7]))


def test_the_void_label_is_no_object(folder):
    """Pascal VOC 的 255 是物体的边：不写 ignore 是物体，写了不是。"""
    edged = LABELS.copy()
    edged[9, 3:12] = 255
    Image.fromarray(edged).save(folder / "labels" / "a.png")
    assert len(opened(folder)[0][1]) == 3
    places = folder / "pictures", folder / "labels"
    _, masks = LabelMapFolder(*places, ignore=255)[0]
    np.testing.assert_array_equal(masks, np.stack([LABELS == 1, LABELS == 7]))
    with pytest.raises(SamLiteError, match="ignore 不对"):
        LabelMapFolder(*places, ignore="255")


def test_pictures_and_label_maps_must_pair_up(folder):
    (folder / "labels" / "b.jpg.png").unlink()
    with pytest.raises(SamLiteError, match=r"b\.jpg 的标号图不对：收到一张也没有"):
        opened(folder)
    Image.fromarray(LABELS).save(folder / "labels" / "b.png")
    Image.fromarray(LABELS).save(folder / "labels" / "b.tif")
    with pytest.raises(SamLiteError, match=r"b\.png、b\.tif"):
        opened(folder)
    (folder / "labels" / "b.tif").unlink()
    assert len(opened(folder)) == 2
    # 两张照片只差扩展名：要写全名才分得清
    Image.fromarray(LABELS).save(folder / "pictures" / "b.png")
    with pytest.raises(SamLiteError, match=r"b\.jpg\.png"):
        opened(folder)
    for name in ("b.jpg.png", "b.png.png"):
        Image.fromarray(LABELS).save(folder / "labels" / name)
    assert len(opened(folder)) == 3


def test_sizes_must_agree_and_turned_photos_are_explained(folder):
    Image.fromarray(LABELS[:, :-1]).save(folder / "labels" / "a.png")
    with pytest.raises(SamLiteError, match="大小不对：收到高 20、宽 29.*宽 30"):
        opened(folder)[0]
    Image.fromarray(LABELS.T.copy()).save(folder / "labels" / "a.png")
    with pytest.raises(SamLiteError, match="EXIF"):
        opened(folder)[0]


def test_colour_broken_and_negative_label_maps_are_named(folder):
    path = folder / "labels" / "a.png"
    Image.fromarray(np.dstack([LABELS] * 3)).save(path)
    with pytest.raises(SamLiteError, match="模式 RGB.*一个通道"):
        opened(folder)[0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SamLiteError, match=r"a\.png 读不了"):
        opened(folder)[0]
    path.unlink()
    Image.fromarray(LABELS.astype(np.int32) - 1).save(folder / "labels" / "a.tif")
    with pytest.raises(SamLiteError, match="最小 -1"):
        opened(folder)[0]


def test_missing_and_empty_folders(folder):
    with pytest.raises(SamLiteError, match="找不到文件夹"):
        LabelMapFolder(folder / "nothing", folder / "labels")
    with pytest.raises(SamLiteError, match="没有照片"):
        LabelMapFolder(folder, folder / "labels")


# ---- COCO ----------------------------------------------------------------------


def coco(folder, *marks, **changes):
    """把 a.png、b.jpg 和几条标注写成 JSON，读进来。"""
    content = {
        "images": [
            {"id": 5, "file_name": "a.png"},
            {"id": 9, "file_name": "b.jpg"},
        ],
        "annotations": [{"id": i, "image_id": 5, **m} for i, m in enumerate(marks)],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content | changes), "utf-8")
    return CocoDataset(path, folder / "pictures")


def test_coco_reads_every_form_and_skips_crowds(folder):
    mask = LABELS == 7
    rle = mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
    square = [3, 2, 12, 2, 12, 9, 3, 9]
    dataset = coco(
        folder,
        {"segmentation": [square]},
        {"segmentation": rle},
        {"segmentation": coco_encode_rle(rle)},
        {"segmentation": rle, "iscrowd": 1},
        {"segmentation": rle, "image_id": 9},
    )
    picture, masks = dataset[0]
    assert len(dataset) == 2 and picture.shape == (20, 30, 3)
    assert masks.shape == (3, 20, 30) and masks.dtype == bool
    np.testing.assert_array_equal(masks[1], mask)
    np.testing.assert_array_equal(masks[2], mask)
    # 多边形在像素的角上：第 3 到 11 列、第 2 到 8 行；边上可能多一圈
    assert masks[0][LABELS == 1].all()
    assert masks[0].sum() <= (LABELS == 1).sum() + 9 + 7 + 1
    assert dataset[1][1].shape == (1, 20, 30)


def test_polygons_agree_with_another_library():
    """与 scikit-image 的多边形只在边上不同；几个多边形取并。"""
    rng = np.random.default_rng(0)
    for _ in range(5):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = rng.uniform(15, 40, 12)
        x, y = 50 + radius * np.cos(angles), 45 + radius * np.sin(angles)
        ours = draw_polygons([np.stack([x, y], 1).ravel().tolist()], (90, 100))
        theirs = polygon2mask((90, 100), np.stack([y, x], 1) - 0.5)
        length = np.hypot(np.diff(x, append=x[0]), np.diff(y, append=y[0])).sum()
        assert (ours != theirs).sum() < length
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9
    two = draw_polygons([[0, 0, 5, 0, 5, 5, 0, 5], [10, 10, 15, 10, 15, 15]], (20, 20))
    assert two[2, 2] and two[11, 14] and not two[7, 7]


def test_broken_coco_is_explained(folder):
    good = {"segmentation": [[3, 2, 12, 2, 12, 9]]}
    with pytest.raises(SamLiteError, match="标注 0 的 image_id 不对：收到 77"):
        coco(folder, good | {"image_id": 77})
    with pytest.raises(SamLiteError, match="编号不重复"):
        coco(folder, images=[{"id": 5, "file_name": "a.png"}] * 2)
    with pytest.raises(SamLiteError, match=r"1 张照片不在.*c\.png"):
        coco(folder, images=[{"id": 5, "file_name": "c.png"}])
    with pytest.raises(SamLiteError, match="KeyError"):
        coco(folder, images=[{"id": 5}])
    with pytest.raises(SamLiteError, match="收到 '5'"):  # 字符串不是整数
        coco(folder, good | {"image_id": "5"})
    with pytest.raises(SamLiteError, match="打不开"):
        CocoDataset(folder / "nothing.json", folder)
    for text in ("{", "[" * 100_000, "[]"):
        (folder / "bad.json").write_text(text, "utf-8")
        with pytest.raises(SamLiteError, match="images"):
            CocoDataset(folder / "bad.json", folder)


def test_coco_sizes_must_be_those_of_the_photos(folder):
    """照片缩小过、或按 EXIF 转正了，多边形就错位；不写大小的照收。"""
    mark, image = {"segmentation": [[1, 1, 9, 1, 9, 9]]}, {"id": 5}
    noise = Image.open(folder / "pictures" / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # 要转 90°
    noise.save(folder / "pictures" / "turned.jpg", exif=exif)
    for name, size, message in (
        ("a.png", {"height": 20, "width": 30}, ""),
        ("a.png", {"height": None, "width": 0}, ""),
        ("a.png", {"height": 40, "width": 60}, r"a\.png 的大小不对：收到高 40、宽 60"),
        ("turned.jpg", {"height": 30, "width": 20}, ""),
        ("turned.jpg", {"height": 20, "width": 30}, "去掉照片的 EXIF"),
    ):
        dataset = coco(folder, mark, images=[image | {"file_name": name} | size])
        if message:
            with pytest.raises(SamLiteError, match=message):
                dataset[0]
        else:
            assert dataset[0][1].any()


def test_chinese_names_subfolders_and_a_bom(folder):
    """Windows 上另存的 JSON 开头有 BOM；照片在子文件夹里，名字是中文。"""
    place = folder / "pictures" / "第一批"
    place.mkdir()
    (folder / "pictures" / "a.png").rename(place / "细胞 一.png")
    images = [{"id": 5, "file_name": "第一批/细胞 一.png"}]
    coco(folder, {"segmentation": [[1, 1, 9, 1, 9, 9]]}, images=images)
    path = folder / "coco.json"
    path.write_text(path.read_text("utf-8"), "utf-8-sig")
    assert CocoDataset(path, folder / "pictures")[0][1].any()
    Image.fromarray(LABELS).save(folder / "labels" / "细胞 一.png")
    assert len(LabelMapFolder(place, folder / "labels")[0][1]) == 2


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "2 个角"),
        ([[1, 2, 3]], "读不懂"),
        ({"size": [20, 29], "counts": [580]}, "宽 29"),
        ({"size": [20, 30], "counts": [599]}, "600"),
        ({"size": [20, 30], "counts": [-5, 605]}, "读不懂"),
        ({"size": [20, 30], "counts": "o" * 2000 + "0"}, "读不懂"),  # 天文数字
        ({"size": [30, 20], "counts": [600]}, "RLE 的大小不对：收到高 30"),
        ({"counts": [600]}, "读不懂"),
        ("text", "读不懂"),
        (None, "读不懂"),
    ],
)
def test_broken_segmentations_name_the_annotation(folder, segmentation, message):
    dataset = coco(folder, {"segmentation": [[1, 1, 9, 1, 9, 9]]})
    assert dataset[0][1].any()
    dataset = coco(folder, {"segmentation": segmentation})
    with pytest.raises(SamLiteError, match=f"标注 0.*{message}"):
        dataset[0]


# ---- 共同的样子 ------------------------------------------------------------------


def test_samples_are_checked():
    picture, masks = np.zeros((4, 6, 3), np.uint8), np.zeros((2, 4, 6), bool)
    assert check_sample((picture, masks))[1] is masks
    for bad in (picture, (picture,), (picture, masks.astype(int)), (picture, masks[0])):
        with pytest.raises(SamLiteError):
            check_sample(bad)
    with pytest.raises(SamLiteError, match="大小"):
        check_sample((picture, masks[:, :3]))


def test_split_is_fixed_by_the_seed_and_covers_everything():
    teach, judge = split_dataset(list(range(10)), 0.3, seed=4)
    assert len(judge) == 3 and sorted([*teach, *judge]) == list(range(10))
    again = split_dataset(list(range(10)), 0.3, seed=4)
    assert list(judge) == list(again[1])
    assert list(judge) != list(split_dataset(list(range(10)), 0.3, seed=5)[1])
    assert [len(part) for part in split_dataset([0, 1], 0.01)] == [1, 1]
    assert [len(part) for part in split_dataset([0, 1], 0.99)] == [1, 1]
    with pytest.raises(SamLiteError, match="至少两张"):
        split_dataset([0], 0.5)
    for share in (0, 1, -1, 2):
        with pytest.raises(SamLiteError, match="validation"):
            split_dataset([0, 1], share)
