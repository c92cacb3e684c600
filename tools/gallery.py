"""挑图库：在许多贴纸场景和随包的照片上试，分得准的写进 chapters/gallery.json。

用法：python tools/gallery.py [权重] [--scenes 600]

每样东西试一个框、一次点击（离边最远的一点）；一组东西另试“一次点击，三张掩码各是一层”：
部件、整组各有一张对得上。换了权重就重挑一次，挑好用 ``--sheet 文件.png`` 看一遍。
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "chapters")]

import gallery  # noqa: E402

import sam_lite  # noqa: E402
from benchmarks.photos.truth import read_truth  # noqa: E402
from sam_lite import viz  # noqa: E402
from sam_lite.learn.evaluation import deepest_point, iou, tight_box  # noqa: E402
from sam_lite.masks.rle import coco_encode_rle, mask_to_rle_pytorch  # noqa: E402

FIRST_SEED, SIZE = 1_700_000_000, 320  # 评测的种子之外
BUNDLED = ("coins", "coffee", "cat", "astronaut", "rocket")
WANTED = 0.88  # 比 gallery.LEAST 高一些，换一台机器也不掉下来
MOST = {"thing": 16, "group": 12, "member": 8, "nested": 12, "photo": 14}


def outcomes(predictor: Any, image: np.ndarray, truths: np.ndarray) -> list[dict]:
    """每样东西一个框、一次点击的结果：提示、选中的 IoU、三张各自的掩码。"""
    predictor.set_image(image)
    found = []
    for truth in truths:
        x, y, _ = deepest_point(truth)
        box = [int(v) for v in tight_box(truth)]
        masks, scores, _ = predictor.predict(np.array([[x, y]]), np.array([1]))
        boxed, _, _ = predictor.predict(box=np.array(box), multimask_output=False)
        found.append(
            {
                "point": [int(x), int(y)],
                "box": box,
                "masks": masks,
                "click_iou": float(iou(masks[int(scores.argmax())], truth)),
                "box_iou": float(iou(boxed[0], truth)),
            }
        )
    return found


def entry(name: str, kind: str, source: dict, score: float, **prompt: Any) -> dict:
    """名单里的一条。"""
    return {"name": name, "kind": kind, **source, **prompt, "iou": round(score, 3)}


def click(point: list[int]) -> dict[str, Any]:
    """一个正点。"""
    return {"points": [point], "labels": [1]}


def from_scene(predictor: Any, seed: int, exam: bool) -> list[dict]:
    """一张贴纸场景里分得准的。"""
    scene = gallery.draw_scene(seed, SIZE, exam)
    truths, least = scene.masks(), 2500 * SIZE**2 / 256**2
    results = outcomes(predictor, scene.image, truths)
    found = []
    for k, (truth, result) in enumerate(zip(truths, results, strict=True), 1):
        if truth.sum() < least or len(truth) == 0:
            continue
        zh = scene.names[k - 1][0]
        members = [c for c in range(1, len(scene.parents)) if scene.parents[c] == k]
        inside = bool(scene.parents[k])
        kind = "group" if members else "member" if inside else "thing"
        source = {"seed": seed, "size": SIZE, "exam": exam, "object": k}
        if result["click_iou"] >= WANTED:
            made = entry(
                f"点{zh}", kind, source, result["click_iou"], **click(result["point"])
            )
            found.append(made)
        elif result["box_iou"] >= WANTED:
            made = entry(f"框{zh}", kind, source, result["box_iou"], box=result["box"])
            found.append(made)
    for k in range(1, len(truths) + 1):  # 一次点击，几层
        chain = [k]
        while scene.parents[chain[-1]]:
            chain.append(int(scene.parents[chain[-1]]))
        if len(chain) < 2 or truths[k - 1].sum() < 600:
            continue
        masks = results[k - 1]["masks"]
        table = np.array([iou(masks, truths[j - 1]) for j in chain])  # (层, 3)
        picks = table.argmax(1).tolist()
        if table.max(1).min() >= WANTED and len(set(picks)) == len(chain):
            for j, pick, row in zip(chain, picks, table, strict=True):
                part, whole = scene.names[k - 1][0], scene.names[j - 1][0]
                source = {"seed": seed, "size": SIZE, "exam": exam, "object": j}
                point = click(results[k - 1]["point"])
                name = f"点{part}得到{whole}"
                found.append(
                    entry(name, "nested", source, row[pick], **point, pick=pick)
                )
    return found


def from_photo(predictor: Any, name: str) -> list[dict]:
    """一张随包照片上分得准的；真值随名单存成 RLE。"""
    photo = read_truth(name)
    found = []
    for what, truth, result in zip(
        photo.objects,
        photo.masks,
        outcomes(predictor, photo.image, photo.masks),
        strict=True,
    ):
        rle = mask_to_rle_pytorch(torch.from_numpy(truth)[None])[0]
        source = {"photo": name, "truth": coco_encode_rle(rle)}
        label = f"{name} {what}"
        if result["click_iou"] >= gallery.LEAST + 0.01:
            score, prompt = result["click_iou"], click(result["point"])
            found.append(entry(f"点 {label}", "photo", source, score, **prompt))
        elif result["box_iou"] >= gallery.LEAST + 0.01:
            score = result["box_iou"]
            found.append(
                entry(f"框 {label}", "photo", source, score, box=result["box"])
            )
    return found


def choose(found: list[dict]) -> list[dict]:
    """每一类留最准的几条，同一样东西、同一张场景不重复太多。"""
    chosen: list[dict] = []
    for kind, most in MOST.items():
        own = sorted((e for e in found if e["kind"] == kind), key=lambda e: -e["iou"])
        names = {e["name"] for e in chosen}
        count, used = 0, {}
        for e in own:
            place = e.get("photo") or e["seed"]
            full = used.get(place, 0) >= (4 if kind in ("photo", "nested") else 1)
            if e["name"] in names or full or count >= most:
                continue
            names.add(e["name"])
            used[place] = used.get(place, 0) + 1
            chosen.append(e)
            count += 1
    return chosen


def sheet(predictor: Any, path: Path) -> None:
    """把名单画成一大张：提示和选中的掩码。"""
    rows, row = [], []
    for name in gallery.entries():
        picture = gallery.take(name)
        predictor.set_image(picture.image)
        masks, scores, _ = predictor.predict(**picture.prompt)
        mask = masks[int(scores.argmax()) if picture.pick is None else picture.pick]
        shown = viz.overlay(picture.image, mask[None])
        row.append(np.asarray(viz.Image.fromarray(shown).resize((240, 240))))
        if len(row) == 8:
            rows.append(np.concatenate(row, axis=1))
            row = []
    if row:
        row += [np.zeros_like(row[0])] * (8 - len(row))
        rows.append(np.concatenate(row, axis=1))
    viz.save_image(path, np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="挑图库")
    parser.add_argument("weights", nargs="?", default="tiny")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    predictor = sam_lite.SamPredictor(sam_lite.load(args.weights))
    if args.sheet:
        sheet(predictor, args.sheet)
        return
    found = []
    for i in tqdm(range(args.scenes)):
        found += from_scene(predictor, FIRST_SEED + i, exam=i % 2 == 0)
    for name in BUNDLED:
        found += from_photo(predictor, name)
    chosen = choose(found)
    lines = ",\n".join(json.dumps(e, ensure_ascii=False) for e in chosen)
    path = ROOT / "chapters" / "gallery.json"
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    kinds = {k: sum(e["kind"] == k for e in chosen) for k in MOST}
    print(f"{len(found)} 条里挑了 {len(chosen)} 条：{kinds}")


if __name__ == "__main__":
    main()
