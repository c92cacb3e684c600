"""scene_bank：画好的场景存得对，断了能接着画。"""

import numpy as np
import pytest

from sam_lite import SamLiteError
from sam_lite.scene_bank import SceneBank
from sam_lite.scenes import make_scene


def test_bank_holds_the_scenes(tmp_path):
    bank = SceneBank(tmp_path, 3, 64, first_seed=5)
    assert len(bank) == 3 and len(bank.ready()) == 0
    list(bank.fill(workers=1))
    scene = make_scene(6, 64)
    np.testing.assert_array_equal(bank.images[1], scene.image)
    np.testing.assert_array_equal(bank.labels[1], scene.labels)
    np.testing.assert_array_equal(
        bank.parents[1, 1 : len(scene.parents)], scene.parents[1:]
    )


def test_bank_goes_on_after_a_break(tmp_path):
    """画了两张就断：再打开，只补第三张。"""
    bank = SceneBank(tmp_path, 3, 64)
    drawing = bank.fill(workers=1)
    assert [next(drawing), next(drawing)] == [0, 1]
    drawing.close()
    again = SceneBank(tmp_path, 3, 64)
    assert again.ready().tolist() == [0, 1]
    assert list(again.fill(workers=1)) == [2]


def test_bank_is_never_rewritten(tmp_path):
    """已有的素材库：要得少就全用上；要得多、换边长、换种子都是错误，内容不动。"""
    list(SceneBank(tmp_path, 3, 64).fill(workers=1))
    assert len(SceneBank(tmp_path, 2, 64)) == 3
    for count, size, seed in ((4, 64, 0), (3, 32, 0), (3, 64, 7)):
        with pytest.raises(SamLiteError, match="换一个目录"):
            SceneBank(tmp_path, count, size, seed)
    assert len(SceneBank(tmp_path, 3, 64).ready()) == 3


def test_broken_bank_is_a_clear_error(tmp_path):
    SceneBank(tmp_path, 2, 64)
    (tmp_path / "labels.npy").write_bytes(b"broken")
    with pytest.raises(SamLiteError, match="labels.npy"):
        SceneBank(tmp_path, 2, 64)
