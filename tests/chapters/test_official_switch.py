"""一个开关换成官方权重：同样的格子，在 vit_b 布局的替身文件上从头跑到尾。

真的官方文件在这些机器上没有。替身的文件名、314 个键和每个形状都与官方 vit_b 相同，数值
是随机的，所以只能证明每一格跑得通、练习照样能检查，证明不了掩码的好坏。
"""

import os
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from chapters.common import CHAPTERS
from sam_lite import build_sam_vit_b
from sam_lite.files.official import OFFICIAL_FILES

SWITCHED = ("00_quickstart", "10_weights", "11_predictor")


@pytest.fixture(scope="module")
def official_home(tmp_path_factory) -> Path:
    """放着 vit_b 替身的权重文件夹。"""
    home = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = build_sam_vit_b().state_dict()
    # 像素的均值和标准差不在官方文件里
    state = {name: value for name, value in state.items() if "pixel" not in name}
    assert len(state) == 314
    torch.save(state, home / OFFICIAL_FILES["vit_b"].name)
    return home


@pytest.mark.parametrize("stem", SWITCHED)
def test_every_cell_runs_with_the_official_layout(stem, official_home):
    notebook = nbformat.read(CHAPTERS / f"{stem}.ipynb", as_version=4)
    switches = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and 'MODEL = "tiny"' in cell.source:
            cell.source = cell.source.replace('MODEL = "tiny"', 'MODEL = "vit_b"')
            cell.source += "\nassert sam_lite.load(MODEL).name == 'vit_b'"
            switches += 1
    assert switches == 1, "一章只有一个开关"
    with patch.dict(os.environ, SAM_LITE_HOME=str(official_home)):
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(CHAPTERS)}},
        ).execute()
