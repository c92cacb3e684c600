import numpy as np
import pytest
from PIL import Image

from sam_lite import SamLiteError
from sam_lite.masks.label_map import masks_to_label_map, overview, save_labels


def test_label_map_keeps_small_masks_on_top():
    big, small, none = (np.zeros((4, 5), bool) for _ in range(3))
    big[:, :4] = True
    small[1, 1:3] = True
    labels = masks_to_label_map(
        [{"segmentation": small}, {"segmentation": big}, {"segmentation": none}]
    )
    assert labels.dtype == np.int32 and labels.shape == (4, 5)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 1).sum() == 2 and labels[1, 1] == 1 and labels[0, 0] == 2
    assert (labels[:, 4] == 0).all()


def test_label_map_of_nothing():
    assert masks_to_label_map([], shape=(3, 4)).tolist() == [[0] * 4] * 3
    with pytest.raises(SamLiteError, match="shape"):
        masks_to_label_map([])


def test_labels_beyond_eight_bits(tmp_path):
    labels = np.array([[0, 300], [65535, 1]])
    save_labels(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)
    with pytest.raises(SamLiteError, match="65536 张"):
        save_labels(tmp_path / "b.png", labels + 1)


def test_the_overview_shows_every_label():
    image = np.full((6, 9, 3), 100, np.uint8)
    labels = np.zeros((6, 9), int)
    labels[:, 3:6], labels[:, 6:] = 1, 2
    picture = overview(image, labels)
    assert (picture[3, 1] == 100).all()
    assert (picture[3, 3] == 255).all() and (picture[3, 6] == 255).all()  # 交界
    assert not (picture[3, 4] == picture[3, 7]).all()
