"""画布在真的浏览器里：起一个 JupyterLab，用 Chromium 打开笔记本，点、拖、撤销。

没有 Chromium 就跳过，末尾说明（见 conftest.py）。服务器只听 127.0.0.1，浏览器发出的每个
请求都记下来，离开本机的一个也不许有。
"""

import json
import re
import runpy
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import numpy as np
import pytest
from jupyter_client.blocking import BlockingKernelClient
from PIL import Image

import sam_lite
from sam_lite.learn.evaluation import corrective_click, deepest_point, iou, tight_box
from sam_lite.predictor import SamPredictor
from sam_lite.scenes import make_scene

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
READY = CHROMIUM is not None and find_spec("playwright") is not None
pytestmark = pytest.mark.skipif(not READY, reason="浏览器测试：没有 Chromium")
ROOT = Path(__file__).resolve().parent.parent.parent
START = runpy.run_path(str(ROOT / "chapters" / "start.py"))
# 裁成不是正方形的：x 和 y 弄反、宽高用错比例，一定看得出
PHOTO = "np.ascontiguousarray(make_scene(2).image[30:210])"
H, W, OBJECT = 180, 256, 3
CELL = f"""
import numpy as np
from sam_lite.widgets import session as widgets_session
from sam_lite.scenes import make_scene
from sam_lite.widgets import SegmentationCanvas

decoded = []
real = widgets_session.decode
widgets_session.decode = lambda *args: (decoded.append(1), real(*args))[1]
canvas = SegmentationCanvas({PHOTO})
canvas
"""


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return make_scene(2).masks()[OBJECT, 30:210]


@pytest.fixture(scope="module")
def predictor() -> SamPredictor:
    found = SamPredictor(sam_lite.load())
    found.set_image(np.ascontiguousarray(make_scene(2).image[30:210]))
    return found


class Lab:
    """一个开着笔记本的浏览器页面，和它背后的内核。"""

    def __init__(self, page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.canvas = page.locator(".sam-canvas canvas")
        self.host = page.locator(".sam-canvas").locator("..")
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
        idle.wait_for(timeout=180_000)
        self.run_all()

    def run_all(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.canvas.wait_for(timeout=180_000)

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

    def until(self, condition: str, seconds: float = 30):
        """等到内核里这个条件成立：菜单的消息和 python() 不是同一条连接，先后不定。"""
        deadline = time.monotonic() + seconds
        while not self.python(f"result = bool({condition})"):
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)

    def state(self) -> tuple[list, list, list | None]:
        """Python 那边的点、标签、框。"""
        return self.python(
            "box = None if canvas.box is None else canvas.box.tolist()\n"
            "result = canvas.points.tolist(), canvas.labels.tolist(), box"
        )

    def mask(self) -> np.ndarray:
        """canvas.mask，在浏览器里选中的那一张。"""
        self.python(
            f"np.save({str(self.folder / 'mask.npy')!r}, canvas.mask); result=0"
        )
        return np.load(self.folder / "mask.npy")

    def place(self, x: float, y: float, size=(H, W)) -> tuple[float, float]:
        """照片的像素 (x, y) 的正中，在页面上的位置；每次都重新量。"""
        self.canvas.scroll_into_view_if_needed()
        frame = self.canvas.bounding_box()
        assert frame["height"] / frame["width"] == pytest.approx(
            size[0] / size[1], rel=0.02
        )
        return (
            frame["x"] + (x + 0.5) * frame["width"] / size[1],
            frame["y"] + (y + 0.5) * frame["height"] / size[0],
        )

    def done(self) -> int:
        """浏览器这边的动作，做完并画好掩码的是第几个。"""
        return int(self.host.get_attribute("data-done") or 0)

    def after(self, action, count: int = 1) -> float:
        """做 count 个动作，等最后的掩码画好；返回最后一个动作用的毫秒数。"""
        before = self.done()
        action()
        self.page.wait_for_function(
            "(least) => Number(document.querySelector('.sam-canvas')"
            ".parentElement.dataset.done ?? 0) >= least",
            arg=before + count,
            timeout=60_000,
        )
        return float(self.host.get_attribute("data-round-trip"))

    def click(self, x: float, y: float, size=(H, W), **options) -> float:
        return self.after(
            lambda: self.page.mouse.click(*self.place(x, y, size), **options)
        )

    def drag(self, start, end) -> float:
        """拖得飞快：按下之后，一步就到松手的地方。"""

        def fast() -> None:
            self.page.mouse.move(*self.place(*start))
            self.page.mouse.down()
            self.page.mouse.move(*self.place(*end), steps=1)
            self.page.mouse.up()

        return self.after(fast)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def fresh(self, photo: str = PHOTO, size=(H, W)) -> None:
        """换一张照片，从头来；等浏览器显示出来。"""
        self.python(f"canvas.set_photo({photo}); canvas._session.wait(); result=0")
        self.shows(size)

    def shows(self, size: tuple[int, int]) -> None:
        """等画布换成这么大的照片，提示也清空了。"""
        self.page.wait_for_function(
            "ratio => document.querySelector('.sam-canvas canvas').style.aspectRatio"
            " === ratio && !document.querySelector('.sam-canvas [type=radio][value]')",
            arg=f"{size[1]} / {size[0]}",
        )

    def says(self, words: str, timeout: float = 60_000) -> None:
        line = self.page.locator(".sam-status").get_by_text(words)
        line.wait_for(timeout=timeout)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """只听 127.0.0.1 的 JupyterLab，设置和运行时的文件都在自己的文件夹里。"""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CELL.strip())],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, folder / "canvas.ipynb")
    (folder / "runtime").mkdir()
    own = {f"JUPYTER_{n.upper()}_DIR": n for n in ("runtime", "config", "data")}
    own |= {f"JUPYTERLAB_{n.upper()}_DIR": n for n in ("workspaces", "settings")}
    own = {name: str(folder / value) for name, value in own.items()}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(ROOT)}
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    options += ["--ServerApp.port=0", "--IdentityProvider.token=secret"]
    options += [f"--ServerApp.root_dir={folder}"]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env=START["quiet_environment"]() | own,
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
    for _ in range(1800):
        assert process.poll() is None, (folder / "server.log").read_text("utf-8")
        for file in (folder / "runtime").glob("jpserver-*.json"):
            text = file.read_text("utf-8").strip()
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
        size = {"width": 1100, "height": 1000}
        page = browser.new_page(viewport=size, has_touch=True)
        page.set_default_timeout(60_000)
        found = Lab(page, folder)
        found.open(f"{url}lab/tree/canvas.ipynb?token=secret")
        yield found
        browser.close()


# ---- 点、框、撤销 --------------------------------------------------------------


def test_click_correction_box_and_undo(lab, truth, predictor):
    """坐标一个像素不差，掩码与 SamPredictor 的相同，也确实是那个物体。"""

    def agree(least: float, three: bool, **prompt) -> np.ndarray:
        masks, scores, _ = predictor.predict(**prompt, multimask_output=three)
        mask = lab.mask()
        assert (mask != masks[scores.argmax()]).mean() < 1e-3
        assert iou(mask, truth) > least
        return mask

    x, y, _ = deepest_point(truth)
    spent = [lab.click(x, y)]
    assert lab.state() == [[[x, y]], [1], None]
    mask = agree(0.3, True, point_coords=[[x, y]], point_labels=[1])

    x2, y2, label = corrective_click(truth, mask)
    spent.append(lab.click(x2, y2, button="left" if label else "right"))
    assert lab.state() == [[[x, y], [x2, y2]], [1, label], None]
    points = {"point_coords": [[x, y], [x2, y2]], "point_labels": [1, label]}
    agree(0.5, False, **points)

    box = [int(n) for n in tight_box(truth)]
    spent.append(lab.drag(box[2:], box[:2]))  # 从右下往左上拖
    assert lab.state()[2] == box
    agree(0.6, False, **points, box=box)

    spent.append(lab.after(lambda: lab.page.get_by_text("撤销", exact=True).click()))
    assert lab.state() == [[[x, y], [x2, y2]], [1, label], None]
    agree(0.5, False, **points)
    spent.append(lab.after(lambda: lab.page.get_by_text("清除", exact=True).click()))
    assert lab.state() == [[], [], None]
    assert sorted(spent)[len(spent) // 2] < 1000  # 机器可能正忙；安静时约 100


@pytest.mark.parametrize("width, ratio", [(301, 2), (640, 1)])
def test_pixels_stay_exact_when_the_cell_is_resized(lab, width, ratio):
    """画布放大、缩小，高分屏：四角和中间的像素都对得上。"""
    lab.fresh()
    session = lab.page.context.new_cdp_session(lab.page)
    screen = {"width": 1100, "height": 1000, "mobile": False}
    screen["deviceScaleFactor"] = ratio
    session.send("Emulation.setDeviceMetricsOverride", screen)
    lab.canvas.evaluate(f"canvas => canvas.style.width = '{width}px'")
    wanted = [[0, 0], [W - 1, 0], [0, H - 1], [W - 1, H - 1], [100, 77]]
    for n, (x, y) in enumerate(wanted):
        if n % 2:
            lab.page.keyboard.down("Shift")
        lab.click(x, y)
        lab.page.keyboard.up("Shift")
    assert lab.state() == [wanted, [1, 0, 1, 0, 1], None]
    assert lab.canvas.evaluate("canvas => canvas.width") == pytest.approx(
        width * ratio, abs=1
    )
    session.send("Emulation.clearDeviceMetricsOverride")


def test_drag_that_leaves_the_canvas_ends_at_its_edge(lab):
    lab.fresh()
    lab.drag((100, 90), (W + 60, H + 40))
    assert lab.state() == [[], [], [100, 90, W - 1, H - 1]]
    lab.drag((100, 90), (-50, -30))
    assert lab.state() == [[], [], [0, 0, 100, 90]]


def test_fifty_fast_clicks_skip_the_stale_ones(lab, predictor):
    """点得比算得快：中间的不算，最后的掩码是五十个点一起的。"""
    lab.fresh()
    rng = np.random.default_rng(0)
    wanted = np.stack([rng.integers(5, W - 5, 50), rng.integers(5, H - 5, 50)], 1)
    places = [lab.place(x, y) for x, y in wanted.tolist()]
    lab.python("decoded.clear(); result=0")

    def burst() -> None:
        for place in places:
            lab.page.mouse.click(*place)

    lab.after(burst, 50)
    assert lab.state() == [wanted.tolist(), [1] * 50, None]
    expected = predictor.predict(wanted, np.ones(50), multimask_output=False)[0][0]
    assert (lab.mask() != expected).mean() < 1e-3
    assert lab.python("result = len(decoded)") < 50


def test_keyboard_alone_is_enough(lab):
    lab.fresh()
    lab.canvas.focus()
    lab.press("ArrowRight", "Shift+ArrowDown", "Shift+ArrowDown")
    step = round(W / 64)
    x, y = W // 2 + step, H // 2 + 2
    lab.after(lambda: lab.press("Enter"))
    lab.after(lambda: lab.press("ArrowLeft", "Shift+Enter"))
    assert lab.state() == [[[x, y], [x - step, y]], [1, 0], None]
    lab.after(lambda: lab.press("Backspace"))
    lab.press("b", "ArrowRight", "ArrowDown")
    lab.after(lambda: lab.press("b"))
    assert lab.state() == [[[x, y]], [1], [x - step, y, x, y + step]]
    lab.after(lambda: lab.press("Control+z"))
    lab.after(lambda: lab.press("Escape"))
    assert lab.state() == [[], [], None]
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == 1  # 没有惊动笔记本


def test_touch_draws_points_with_the_chosen_tool_and_boxes(lab):
    """手指点一下是点，按下、移动、抬起是框，页面不滚动。"""
    lab.fresh()
    lab.after(lambda: lab.page.touchscreen.tap(*lab.place(30, 40)))
    lab.page.get_by_label("－ 不要这里").check()
    lab.after(lambda: lab.page.touchscreen.tap(*lab.place(200, 140)))
    lab.page.get_by_label("＋ 要这里").check()
    assert lab.state() == [[[30, 40], [200, 140]], [1, 0], None]
    session = lab.page.context.new_cdp_session(lab.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [dict(zip("xy", lab.place(*point))) for point in points]
        found = {"type": kind, "touchPoints": places}
        session.send("Input.dispatchTouchEvent", found)

    def finger() -> None:
        touch("touchStart", (40, 30))
        touch("touchMove", (90, 60))
        touch("touchMove", (150, 120))
        touch("touchEnd")

    lab.after(finger)
    assert lab.state()[2] == [40, 30, 150, 120]
    session.detach()


def test_model_menu_switches_the_model(lab):
    """菜单里换一个型号，照片和点都在；再换回来。"""
    lab.fresh()
    lab.click(60, 90)
    lab.python(
        """
import copy
from sam_lite import widgets
tiny = canvas._session.sam
other = copy.deepcopy(tiny)
other.name = "other"
widgets.load = lambda name: {"tiny": tiny, "other": other}[name]
canvas._models = ["tiny", "other"]
result = 0
"""
    )
    menu = lab.page.get_by_label("模型")
    menu.get_by_text("other").wait_for(state="attached")
    for name in ("other", "tiny"):
        menu.select_option(name)
        lab.until(f"canvas._session.sam.name == {name!r}")
        assert lab.state() == [[[60, 90]], [1], None]
        assert menu.input_value() == name


def test_chosen_candidate_is_the_mask_and_the_exported_file(lab, predictor, tmp_path):
    lab.fresh()
    lab.click(100, 90)
    masks = predictor.predict(np.array([[100, 90]]), np.array([1]))[0]
    for i in (2, 0):
        lab.page.get_by_label(f"候选 {i + 1}：").check()
        assert (lab.mask() != masks[i]).mean() < 1e-3
    with lab.page.expect_download() as download:
        lab.page.get_by_text("存掩码").click()
    download.value.save_as(tmp_path / "mask.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "mask.png")) > 0, lab.mask())


# ---- 照片 --------------------------------------------------------------------


def test_upload_of_a_sixteen_bit_grey_photo_and_of_rubbish(lab, tmp_path):
    grey = np.linspace(0, 65535, 200 * 150).astype(np.uint16).reshape(150, 200)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    (tmp_path / "bad.png").write_bytes(b"rubbish")
    picker = lab.page.locator(".sam-file input")
    lab.after(lambda: picker.set_input_files(tmp_path / "grey.png"))
    lab.shows((150, 200))
    lab.click(150, 60, size=(150, 200))
    assert lab.state() == [[[150, 60]], [1], None]
    assert lab.mask().shape == (150, 200)
    picker.set_input_files(tmp_path / "bad.png")
    lab.says("不是图片")
    assert lab.python("result = canvas.photo.shape") == [150, 200, 3]


# ---- 静态的网页、离线、内核重启 -----------------------------------------------------


def test_saved_notebook_keeps_a_picture(lab):
    lab.canvas.focus()
    lab.page.keyboard.press("Control+s")  # 焦点在画布上，笔记本的快捷键也管用
    file = lab.folder / "canvas.ipynb"
    for _ in range(100):
        outputs = nbformat.read(file, 4).cells[0].outputs
        if outputs:
            break
        time.sleep(0.1)
    data = outputs[-1]["data"]
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)


def test_nothing_leaves_this_machine_and_nothing_complains(lab):
    hosts = {urlparse(url).hostname for url in lab.requests}
    kinds = {urlparse(url).scheme for url in lab.requests}
    assert hosts <= {"127.0.0.1", None} and kinds <= {"http", "ws", "data", "blob"}
    assert not [url for url in lab.requests if "news" in url or "api/update" in url]
    assert lab.page.get_by_text("Jupyter news").count() == 0
    assert lab.complaints == []


def test_after_a_restart_the_canvas_says_so(lab):
    """排在最后：内核没了，画布说出来；重新运行就又能用。"""
    lab.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    lab.page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    lab.page.get_by_role("button", name="Confirm Kernel Restart").click()
    lab.says("重新运行这一格")
    lab.page.locator(".sam-status").wait_for()
    lab.run_all()
    lab.page.wait_for_function(
        "() => !document.querySelector('.sam-status').textContent.includes('重启')"
    )
    lab.shows((H, W))
    lab.click(30, 40)
    assert lab.state() == [[[30, 40]], [1], None]
