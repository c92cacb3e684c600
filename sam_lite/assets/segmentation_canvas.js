// 画布在浏览器里的一半：画照片、掩码和提示，把每个动作报告给 Python。
// 提示以 Python 那边的为准；这里只另记还没有得到回音的动作，好让点马上看得见。

const PIECE = 1 << 20; // 上传时一段的字节数：Jupyter 的一条消息有上限
const DRAG = 5; // 按下之后移动超过几个 CSS 像素，算拖框
const LATE = 10_000; // 多少毫秒没有回音，就说一声
const GREEN = "#009e73", RED = "#d55e00"; // 与 viz.py 的正点、负点相同

const HTML = `
<div class="sam-canvas" data-lm-suppress-shortcuts="true">
  <div class="sam-bar" role="toolbar" aria-label="画布的工具">
    <span role="radiogroup" aria-label="点一下是">
      <label><input type="radio" data-is="plus" checked>＋ 要这里</label>
      <label><input type="radio" data-is="minus">－ 不要这里</label>
    </span>
    <button type="button" data-is="undo">撤销</button>
    <button type="button" data-is="clear">清除</button>
    <label>掩码深浅 <input type="range" data-is="opacity" min="0" max="100" value="80"></label>
    <label>模型 <select data-is="model"></select></label>
    <label class="sam-file">换照片<input type="file" data-is="file" accept="image/*"></label>
    <button type="button" data-is="export">存掩码</button>
  </div>
  <canvas data-is="canvas" tabindex="0" role="application" data-jp-suppress-context-menu="true"
    aria-label="照片。左键或回车点正点，右键或 Shift 加回车点负点，拖动画框，方向键移动准星"></canvas>
  <div class="sam-bar" role="radiogroup" aria-label="候选掩码" data-is="masks"></div>
  <progress data-is="progress" max="1" hidden></progress>
  <p class="sam-status" role="status" aria-live="polite" data-is="status"></p>
  <p class="sam-help">左键＋，右键或 Shift－，拖动画框。键盘：方向键移准星（加 Shift 一次一个像素），
    回车＋，Shift+回车－，B 定框的两个角，退格撤销，Esc 清除。</p>
</div>`;

function render({ model, el }) {
  el.innerHTML = HTML;
  const part = (name) => el.querySelector(`[data-is="${name}"]`);
  const canvas = part("canvas"), context = canvas.getContext("2d");
  const view = Math.random().toString(36).slice(2); // 同一个画布可以显示在几处
  let photo = null, masks = [], masksFrom = null, photoFrom = null;
  let seq = 0, pending = [], last = null, late = 0, queued = false, gone = false;
  let drag = null, cross = null, corner = null; // 正在拖的框；键盘的准星、框的第一个角

  // ---- 动作 ----

  // 鼠标的位置 -> 照片的像素。格子会缩放，所以每次都按此刻的外框换算
  function pixelAt(event) {
    const frame = canvas.getBoundingClientRect();
    const { width, height } = model.get("_picture");
    const inside = (share, n) => Math.min(n - 1, Math.max(0, Math.floor(share * n)));
    return [
      inside((event.clientX - frame.left) / frame.width, width),
      inside((event.clientY - frame.top) / frame.height, height),
    ];
  }

  function act(type, content = {}, buffers = []) {
    seq += 1;
    const action = { type, view, seq, ...content };
    last = { seq, time: performance.now() };
    pending.push(action);
    try {
      model.send(action, undefined, buffers);
    } catch {
      return lost();
    }
    clearTimeout(late);
    late = setTimeout(
      () => say("error", "内核 10 秒没有回音：可能正忙着运行别的格子；重启过就重新运行这一格。"),
      LATE,
    );
    draw();
  }

  function lost() {
    gone = true;
    pending = [];
    clearTimeout(late);
    say("error", "内核已经重启或断开，这块画布不会再有回应：重新运行这一格。");
    draw();
  }

  const addPoint = (at, label) => act("point", { at, label });
  const addBox = (a, b) => act("box", { box: [...a, ...b] });
  const tool = () => (part("plus").checked ? 1 : 0);

  canvas.addEventListener("pointerdown", (event) => {
    if (drag || gone || event.button === 1) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId); // 拖出画布再松手，也收得到
    const other = event.button === 2 || event.shiftKey || event.ctrlKey;
    const label = other ? 1 - tool() : tool();
    drag = { id: event.pointerId, from: pixelAt(event), event, label, to: null };
    cross = corner = null;
  });
  const far = (event) =>
    Math.hypot(event.clientX - drag.event.clientX, event.clientY - drag.event.clientY) > DRAG;
  canvas.addEventListener("pointermove", (event) => {
    if (drag?.id !== event.pointerId) return;
    if (drag.to || far(event)) drag.to = pixelAt(event);
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag?.id !== event.pointerId) return;
    const { from, label } = drag;
    const isBox = far(event); // 拖得快时一次 pointermove 也没有，所以看松手的地方
    drag = null;
    if (isBox) addBox(from, pixelAt(event));
    else addPoint(from, label);
  });
  canvas.addEventListener("pointercancel", () => ((drag = null), draw()));
  canvas.addEventListener("contextmenu", (event) => {
    event.preventDefault(); // 右键是负点
    event.stopPropagation();
  });

  canvas.addEventListener("keydown", (event) => {
    if (gone) return;
    const { width, height } = model.get("_picture");
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (moves[key]) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / 64));
      const [x, y] = cross ?? [width >> 1, height >> 1];
      const inside = (v, n) => Math.min(n - 1, Math.max(0, v));
      cross = [inside(x + step * moves[key][0], width), inside(y + step * moves[key][1], height)];
      say("ready", `准星在 (${cross[0]}, ${cross[1]})`);
    } else if (key === "Enter" && cross) addPoint(cross, event.shiftKey ? 0 : 1);
    else if (key === "b" && cross && !event.ctrlKey && !event.metaKey) {
      if (corner) addBox(corner, cross);
      corner = corner ? null : cross;
    } else if (key === "Backspace" || (key === "z" && (event.ctrlKey || event.metaKey))) act("undo");
    else if (key === "Escape") {
      if (drag || corner) drag = corner = null;
      else act("clear");
    } else return;
    event.preventDefault();
    event.stopPropagation();
    draw();
  });
  canvas.addEventListener("blur", () => ((cross = corner = null), draw()));

  // 画布上的按键不归 JupyterLab 管；按着 Ctrl 时放行，Ctrl+S 照样存笔记本
  const root = el.firstElementChild, ours = "data-lm-suppress-shortcuts";
  const isControl = (event) => event.key === "Control" || event.key === "Meta";
  root.addEventListener("keydown", (e) => isControl(e) && root.removeAttribute(ours));
  root.addEventListener("keyup", (e) => isControl(e) && root.setAttribute(ours, "true"));
  root.addEventListener("focusin", () => root.setAttribute(ours, "true"));

  for (const name of ["plus", "minus"]) {
    part(name).name = `sam-tool-${view}`; // 同名的单选钮才互斥
  }
  part("undo").addEventListener("click", () => act("undo"));
  part("clear").addEventListener("click", () => act("clear"));
  part("export").addEventListener("click", () => act("export"));
  part("opacity").addEventListener("input", draw);
  part("model").addEventListener("change", (event) => {
    model.set("_model", event.target.value);
    model.save_changes();
  });
  part("file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // 同一个文件可以再选一次
    if (!file) return;
    const limit = model.get("_largest");
    if (file.size > limit) {
      return say("error", `文件超过 ${limit >> 20} MB：先缩小，或在 Python 里用 set_photo 给路径。`);
    }
    const data = await file.arrayBuffer();
    const count = Math.max(1, Math.ceil(data.byteLength / PIECE));
    for (let index = 0; index < count; index += 1) {
      const piece = data.slice(index * PIECE, (index + 1) * PIECE);
      act("upload", { index, count }, [piece]);
    }
  });

  // ---- 显示 ----

  function say(kind, text, progress = null) {
    const line = part("status");
    if (line.textContent !== text) line.textContent = text;
    line.dataset.kind = kind;
    const bar = part("progress");
    bar.hidden = kind !== "busy";
    if (progress === null) bar.removeAttribute("value");
    else bar.value = progress;
  }

  // 现在的提示：Python 认下的，再加上还没有回音的
  function marks() {
    const { points = [], labels = [], box = null } = model.get("_answer");
    let now = { points: [...points], labels: [...labels], box };
    for (const action of pending) {
      if (action.type === "point") {
        now.points.push(action.at);
        now.labels.push(action.label);
      } else if (action.type === "box") now.box = action.box;
      else if (action.type === "clear") now = { points: [], labels: [], box: null };
    }
    return now;
  }

  function draw() {
    const { width } = model.get("_picture");
    const ratio = window.devicePixelRatio || 1; // 高分屏上一个 CSS 像素有几个真像素
    const W = Math.round(canvas.clientWidth * ratio), H = Math.round(canvas.clientHeight * ratio);
    if (!W || !H) return; // 格子折叠着
    if (canvas.width !== W) canvas.width = W;
    if (canvas.height !== H) canvas.height = H;
    const scale = W / width;
    const now = marks();
    context.clearRect(0, 0, W, H);
    if (photo) context.drawImage(photo, 0, 0, W, H);
    const mask = masks[model.get("_selected")];
    if (mask && (now.points.length || now.box)) {
      context.globalAlpha = part("opacity").value / 100;
      context.drawImage(mask, 0, 0, W, H);
      context.globalAlpha = 1;
    }
    const box = drag?.to ? [...drag.from, ...drag.to] : now.box;
    if (box) drawBox(box, scale, ratio);
    now.points.forEach((at, i) => drawPoint(at, now.labels[i], scale, ratio));
    if (corner) drawBox([...corner, ...cross], scale, ratio);
    if (cross) drawCross(cross, scale, ratio, W, H);
  }

  function drawPoint([x, y], label, scale, ratio) {
    const [cx, cy, r] = [(x + 0.5) * scale, (y + 0.5) * scale, 8 * ratio];
    context.beginPath();
    context.arc(cx, cy, r, 0, 2 * Math.PI);
    context.fillStyle = label ? GREEN : RED;
    context.fill();
    context.strokeStyle = "white";
    context.lineWidth = 2 * ratio;
    context.moveTo(cx - r / 2, cy); // 减号；正点再加一竖，不靠颜色也认得出
    context.lineTo(cx + r / 2, cy);
    if (label) {
      context.moveTo(cx, cy - r / 2);
      context.lineTo(cx, cy + r / 2);
    }
    context.stroke();
  }

  function drawBox([x0, y0, x1, y1], scale, ratio) {
    const left = Math.min(x0, x1) * scale, top = Math.min(y0, y1) * scale;
    const w = (Math.abs(x1 - x0) + 1) * scale, h = (Math.abs(y1 - y0) + 1) * scale; // 两头都含
    for (const [colour, line] of [["white", 4], ["#0072b2", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * ratio;
      context.strokeRect(left, top, w, h);
    }
  }

  function drawCross([x, y], scale, ratio, W, H) {
    const [cx, cy] = [(x + 0.5) * scale, (y + 0.5) * scale];
    for (const [colour, line] of [["white", 3], ["black", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * ratio;
      context.beginPath();
      context.moveTo(cx, 0);
      context.lineTo(cx, H);
      context.moveTo(0, cy);
      context.lineTo(W, cy);
      context.stroke();
    }
  }

  function listMasks(scores) {
    const list = part("masks"), chosen = model.get("_selected");
    const names = scores.map((score, i) => {
      const title = scores.length === 4 && i === 0 ? "单张" : `候选 ${scores.length === 4 ? i : i + 1}`;
      return `${title}：${score.toFixed(2)}`;
    });
    if (list.dataset.names !== names.join()) { // 没有变就不动，免得丢了焦点
      list.dataset.names = names.join();
      list.replaceChildren(...names.map((name, i) => {
        const label = document.createElement("label"), input = document.createElement("input");
        Object.assign(input, { type: "radio", name: `sam-mask-${view}`, value: i });
        input.addEventListener("change", () => {
          model.set("_selected", i);
          model.save_changes();
        });
        label.append(input, name);
        return label;
      }));
    }
    list.querySelectorAll("input").forEach((input, i) => (input.checked = i === chosen));
  }

  // 浏览器解码图片要等一等；等的时候又来了新的，旧的就不要了
  async function decodePictures() {
    const [picture, pngs] = [model.get("_picture"), model.get("_masks")];
    const bitmap = (bytes, type) => createImageBitmap(new Blob([bytes], { type }));
    if (photoFrom !== picture) {
      photoFrom = picture;
      const { width, height } = picture;
      const shown = Math.min(Math.max(480, Math.min(760, width)), (620 * width) / height);
      Object.assign(canvas.style, { width: `${shown}px`, aspectRatio: `${width} / ${height}` });
      const fresh = await bitmap(picture.jpeg, "image/jpeg");
      if (photoFrom === picture) photo = fresh;
    }
    if (masksFrom !== pngs) {
      masksFrom = pngs;
      const fresh = await Promise.all(pngs.map((png) => bitmap(png, "image/png")));
      if (masksFrom === pngs) masks = fresh;
    }
  }

  async function update() {
    queued = false;
    await decodePictures();
    const answer = model.get("_answer"), status = model.get("_status");
    const done = answer.seen?.[view] ?? 0;
    gone = false;
    pending = pending.filter((action) => action.seq > done);
    if (!pending.length) clearTimeout(late);
    const now = marks(), empty = !now.points.length && !now.box;
    listMasks(empty ? [] : answer.scores ?? []);
    draw();
    say(status.kind, status.text, status.progress);
    if (last && done >= last.seq && answer.fresh) {
      const spent = Math.round(performance.now() - last.time);
      el.dataset.roundTrip = spent; // 测试量的就是它：从动作到掩码画好
      el.dataset.done = done;
      last = null;
      if (status.kind === "ready" && !empty) say("ready", `掩码用时 ${spent} 毫秒`);
    }
    const menu = part("model"), names = model.get("_models");
    if (menu.length !== names.length) menu.replaceChildren(...names.map((name) => new Option(name)));
    menu.value = model.get("_model");
    menu.disabled = names.length < 2;
  }

  function queue() {
    if (!queued) setTimeout(update);
    queued = true;
  }

  for (const name of ["_picture", "_answer", "_masks", "_selected", "_status", "_models", "_model"]) {
    model.on(`change:${name}`, queue);
  }
  model.on("comm_live_update", lost); // 内核重启、断开时，Jupyter 会触发它
  model.on("msg:custom", (message, buffers) => {
    if (message.type !== "file") return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([buffers[0]], { type: "image/png" }));
    link.download = message.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  const resized = new ResizeObserver(draw);
  resized.observe(canvas);
  queue();
  return () => (resized.disconnect(), clearTimeout(late));
}

export default { render };
