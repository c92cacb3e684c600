"""画布在真的浏览器里：起一个 JupyterLab，用 Chromium 打开笔记本，点、拖、撤销。

没有 Chromium 就跳过，末尾说明（见 conftest.py）。服务器只听 127.0.0.1，浏览器发出的每个
请求都记下来，离开本机的一个也不许有。
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient

from sam_lite.evaluation import deepest_point, iou
from sam_lite.scenes import make_scene

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="浏览器测试：没有 Chromium")
ROOT = Path(__file__).resolve().parent.parent
START = runpy.run_path(str(ROOT / "chapters" / "start.py"))
SHOTS = os.environ.get("SAM_LITE_SHOTS")  # 给了文件夹就存截图
SCENE = 7
CELLS = [
    f"""
import numpy as np
from sam_lite.scenes import make_scene
from sam_lite.widgets import SegmentationCanvas
canvas = SegmentationCanvas(make_scene({SCENE}).image)
canvas
""",
    "print('不动它')",
]


def truth():
    masks = make_scene(SCENE).masks()
    return masks[masks.sum(axis=(1, 2)).argmax()]


class Lab:
    """一个开着笔记本的浏览器页面，和它背后的内核。"""

    def __init__(self, page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.canvas = page.locator(".sam-canvas canvas")
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.hear)

    def hear(self, message) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def open(self, address: str) -> None:
        self.page.goto(address)
        idle = self.page.get_by_text(re.compile(r"\(ipykernel\) \| Idle"))
        idle.wait_for(timeout=60_000)
        self.run_all()

    def run_all(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.canvas.wait_for(timeout=60_000)

    def python(self, code: str):
        """在同一个内核里运行一段，返回它写下的 result。"""
        (connection,) = (self.folder / "runtime").glob("kernel-*.json")
        client = BlockingKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels()
        target = self.folder / "result.json"
        target.unlink(missing_ok=True)
        code += f"\nimport json; open({str(target)!r}, 'w').write(json.dumps(result))"
        try:
            reply = client.execute(code, reply=True, timeout=60)
            assert reply["content"]["status"] == "ok", reply["content"]
        finally:
            client.stop_channels()
        return json.loads(target.read_text("utf-8"))

    def state(self) -> dict:
        found = self.python(
            "mask = canvas.mask\n"
            "result = dict(points=canvas.points.tolist(), labels=canvas.labels.tolist(),"
            " box=None if canvas.box is None else canvas.box.tolist(),"
            " area=0 if mask is None else int(mask.sum()))\n"
            "if mask is not None: np.save('mask.npy', mask)"
        )
        return found

    def place(self, x: float, y: float) -> tuple[float, float]:
        """照片的像素 (x, y) 的正中，在页面上的位置；每次都重新量。"""
        self.canvas.scroll_into_view_if_needed()
        frame = self.canvas.bounding_box()
        picture = make_scene(SCENE).image.shape
        scale = frame["width"] / picture[1]
        return frame["x"] + (x + 0.5) * scale, frame["y"] + (y + 0.5) * scale

    def act(self, action) -> float:
        """做一个动作，等掩码画好，返回毫秒数。"""
        host = self.page.locator(".sam-canvas").locator("..")
        before = host.get_attribute("data-done") or "0"
        action()
        self.page.wait_for_function(
            "([before]) => Number(document.querySelector('.sam-canvas')"
            ".parentElement.dataset.done) > Number(before)",
            arg=[before],
            timeout=30_000,
        )
        return float(host.get_attribute("data-round-trip"))

    def click(self, x: float, y: float, button: str = "left", **options) -> float:
        return self.act(
            lambda: self.page.mouse.click(*self.place(x, y), button=button, **options)
        )

    def drag(self, start, end) -> float:
        def fast() -> None:
            self.page.mouse.move(*self.place(*start))
            end_at = self.place(*end)
            self.page.mouse.down()
            self.page.mouse.move(*end_at, steps=1)
            self.page.mouse.up()

        return self.act(fast)

    def clear(self) -> None:
        self.python("canvas.clear(); result = None")

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{name}.png")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source.strip()) for source in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, folder / "canvas.ipynb")
    homes = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    homes += ("JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR")
    own = {name: str(folder / name.split("_")[1].lower()) for name in homes[:3]}
    own |= {name: str(folder / name.lower()) for name in homes[3:]}
    (folder / "runtime").mkdir()
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    options += ["--ServerApp.port=0", "--IdentityProvider.token=secret"]
    options += [f"--ServerApp.root_dir={folder}"]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env=START["quiet_environment"]() | own | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        try:
            yield folder, wait_for_server(folder, process)
        finally:
            process.terminate()
            process.wait(20)


def wait_for_server(folder: Path, process: subprocess.Popen) -> str:
    """服务器把地址写进 runtime 里的文件。"""
    for _ in range(300):
        assert process.poll() is None, (folder / "server.log").read_text("utf-8")
        for file in (folder / "runtime").glob("jpserver-*.json"):
            text = file.read_text("utf-8")
            if text.endswith("}"):
                return json.loads(text)["url"]
        time.sleep(0.1)
    raise AssertionError((folder / "server.log").read_text("utf-8"))


@pytest.fixture(scope="module")
def lab(server):
    from playwright.sync_api import sync_playwright

    folder, url = server
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        found = Lab(page, folder)
        found.open(f"{url}lab/tree/canvas.ipynb?token=secret")
        yield found
        browser.close()


def test_clicks_correction_box_and_undo(lab):
    """点一下、纠正一下、拖一个框、撤销：坐标一个像素不差，掩码比没有提示时近得多。"""
    wanted = truth()
    x, y, _ = deepest_point(wanted)
    spent = [lab.click(x, y)]
    lab.shot("1-click")
    seen = lab.state()
    assert seen["points"] == [[x, y]] and seen["labels"] == [1]
    print(spent, seen, wanted.sum())
    time.sleep(1)
    lab.shot("x")
    print(
        sorted({u.split("?")[0] for u in lab.requests if "/api/" in u}),
        {urlparse(u).netloc for u in lab.requests},
        lab.complaints,
    )
