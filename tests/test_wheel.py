"""wheel：权重、照片、py.typed 都在里面；只装它一个，demo 就能跑。"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps"]
        + ["--no-build-isolation", "-q", "-w", str(folder)],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_assets(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assets = [p for p in (ROOT / "sam_lite" / "assets").rglob("*") if p.is_file()]
    wanted = {str(p.relative_to(ROOT).as_posix()) for p in assets}
    assert len(wanted) >= 8
    assert wanted | {"sam_lite/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [n for n in names if n.startswith(("tests/", "runs/", "chapters/"))]
    assert wheel.stat().st_size < 10 * 2**20


def test_demo_runs_from_the_wheel_alone(wheel, tmp_path):
    """解开 wheel，在别的目录里运行：用的是 wheel 里的代码和权重，不是源码树。"""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sam_lite, sys; from sam_lite.cli import main; "
        "print(sam_lite.__file__); sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    assert (tmp_path / "sam_lite_demo.png").stat().st_size > 10_000
