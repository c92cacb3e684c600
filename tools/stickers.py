"""贴纸从哪里来：挑出随包的一套，拼成一张图；另取训练用的全部。

用法：

    python tools/stickers.py fetch runs/stickers     取原图，整理好（约 400 MB）
    python tools/stickers.py atlas runs/stickers     重做随包的图集

``fetch`` 用 npm 和 Debian 的 apt-get 按包名取，不用 root；断了再运行一次，取过的不取。
中文名来自 ``emoji``（``pip install emoji``）。整理好的里面：``things/`` 是抠好的东西
（RGBA，最长 192 像素），``grounds/`` 是当背景的照片（最长 768 像素），``things.csv`` 是
名字和“留作考试”的记号。

随包的是哪几样、叫什么、能戴什么拿什么、留不留作考试，都写在 ``assets/stickers.csv``
里；要添一样，添一行再重做。其余的里面，留作考试的五分之一由名字的散列决定：同一样东西的男女、
肤色、表情变体归成一家，一家要么都训练，要么都不训练。
"""

import csv
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "sam_lite" / "assets"
TABLE = ASSETS / "stickers.csv"  # 随包的一套：哪几样、叫什么、能当什么
EMOJI = "@lobehub/fluent-emoji-3d@1.1.0"
STAMPS = "tuxpaint-stamps-default"
GROUNDS = (
    "gnome-backgrounds",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "ukui-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
)
SIDE, COLUMNS, QUALITY = 160, 16, 80  # 图集里一格的边长、一行几格、WebP 的质量
THING, GROUND = 192, 768  # 训练用的：东西、背景最长多少像素

SMILEY = "face 0.38 0.12 0.75"  # 没有写进表的黄脸：眼睛、帽檐多高，头多宽
# 不是东西的：旗、字母、符号、按钮、钟面、箭头、肤色变体
NOT_THINGS = re.compile(
    r"\b(button|keycap|arrow|flag|sign|symbol|square|circle|diamond|mark|input|"
    r"\w+ o’clock|\w+ thirty|multiply|plus|minus|divide|infinity|wavy|loop|cross|"
    r"asterisk|star of|pointed|speaker|ZZZ|hundred|dashing|sweat|anger|bubble|"
    r"Aries|Taurus|Gemini|Cancer|Leo|Virgo|Libra|Scorpio|Sagittarius|Capricorn|"
    r"Aquarius|Pisces|Ophiuchus|no|not|prohibited|copyright|registered|information|"
    r"antenna bars|recycling|radioactive|biohazard|currency|dollar sign|chart|om|"
    r"khanda|"
    r"medical|yin yang|peace|wheel of|male|female|curly loop|exclamation|question|"
    r"fleur|alternation|children crossing|room|restroom|closet|customs|claim|control|"
    r"wireless|identification|suit|trade|infinity|sparkles?|hole|dizzy|collision|fog|"
    r"check|white heart suit|heavy|equals|footprints|paw prints|bust|busts|silhouette|"
    r"levitating|speaking|musical notes?|score|potable|water|baggage|luggage claim)\b"
)
VARIANT = re.compile(
    r"\b(man|woman|men|women|person|people|boy|girl|male|female|old|older|adult|face|cat|"
    r"with|in|the|and|light|dark|white|black|red|blue|green|yellow|purple|orange|brown|"
    r"pink|grey)\b"
)


def family(name: str) -> str:
    """同一样东西的变体归成一家：黄脸算一家四份，人按职业，颜色不分。"""
    words = name.lower().replace("_", " ").replace("-", " ")
    rest = " ".join(VARIANT.sub(" ", words).split())
    return rest or words


def lot(name: str) -> int:
    """名字的散列，抽签用。"""
    return int(hashlib.sha256(family(name).encode()).hexdigest()[:8], 16)


def read_rows(path: Path) -> list[dict[str, str]]:
    """一张 CSV 表的各行。"""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def spaced(name: str) -> str:
    """表里的英文名，不用下划线。"""
    return name.replace("_", " ")


def kept_out(names: list[str], table: dict[str, dict[str, str]]) -> set[str]:
    """留作考试的：表里记着的，和它们同家的；别的家抽签，抽五分之一。"""
    out = {family(name) for name, row in table.items() if row["exam"]}
    spoken = set(map(family, table))
    return {
        n
        for n in names
        if family(n) in out or (family(n) not in spoken and lot(n) % 5 == 0)
    }


def crop(picture: Image.Image, longest: int) -> Image.Image | None:
    """裁到不透明的部分，缩到最长 longest 像素；太小、太淡的返回 None。"""
    picture = picture.convert("RGBA")
    solid = picture.getchannel("A").point(lambda v: 255 * (v > 128))
    box = solid.getbbox()
    if box is None or np.count_nonzero(np.asarray(solid)) < 1500:
        return None
    picture = picture.crop(box)
    if max(picture.size) < 90:
        return None
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture


def emoji_names(
    folder: Path, table: dict[str, dict[str, str]]
) -> dict[str, tuple[Path, str, str]]:
    """英文名 -> 文件、码位、中文名；不是东西的、没有中文名的不要。"""
    import emoji

    emoji.config.load_language("zh")
    known, found = emoji.EMOJI_DATA, {}
    for path in sorted(folder.glob("*.webp")):
        try:
            points = [int(part, 16) for part in path.stem.split("-")]
            text = "".join(map(chr, points))
        except (ValueError, OverflowError):
            continue
        toned = any(0x1F3FB <= p <= 0x1F3FF for p in points)
        if toned or 0x1F1E6 <= points[0] <= 0x1F1FF:  # 肤色变体、国旗
            continue
        spellings = (text, text + "\ufe0f", text.replace("\ufe0f", ""))
        row = next((known[t] for t in spellings if t in known), {})
        if "zh" not in row:
            continue
        name = row["en"].strip(":")
        mine = table.get(spaced(name))
        if mine or not NOT_THINGS.search(re.sub("[_-]", " ", name)):
            zh = mine["zh"] if mine else row["zh"].strip(":")
            found.setdefault(name, (path, path.stem, zh))
    return found


def fetch(out: Path) -> None:
    """取原图，整理成训练用的文件夹。"""
    raw = out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    if not list(raw.glob("*.tgz")):
        subprocess.run(["npm", "pack", EMOJI], cwd=raw, check=True)
    for package in (STAMPS, *GROUNDS):
        if not list(raw.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=raw, check=True)
        target = raw / package
        if not target.exists():
            (deb,) = raw.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", deb, raw / "part"], check=True)
            (raw / "part").rename(target)
    if not (raw / "package").exists():
        with tarfile.open(next(raw.glob("*.tgz"))) as file:
            file.extractall(raw, filter="data")
    things, grounds = out / "things", out / "grounds"
    for folder in (things, grounds):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    rows = pack_emoji(raw, things) + pack_stamps(raw, things)
    with open(out / "things.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS_OF_TABLE)
        writer.writerows(rows)
    count = pack_grounds(raw, grounds)
    exam = sum(row[-3] == "1" for row in rows)
    print(f"{len(rows)} 样东西，{exam} 样留作考试；{count} 张背景，在 {out}")


COLUMNS_OF_TABLE = ("file", "zh", "en", "kind", "exam", "host", "role")


def pack_emoji(raw: Path, things: Path) -> list[tuple[str, ...]]:
    """整理 Fluent emoji，返回表里的行。"""
    table, rows = {row["en"]: row for row in read_rows(TABLE)}, []
    found = emoji_names(raw / "package" / "assets", table)
    missing = sorted(set(table) - set(map(spaced, found)))
    if missing:
        raise SystemExit(f"图集要的没有找到：{missing}")
    out = kept_out(list(found), table)
    for name, (path, code, zh) in found.items():
        picture = crop(Image.open(path), THING)
        if picture is not None:
            picture.save(things / f"{code}.webp", quality=90)
            exam, mine = "1" if name in out else "", table.get(spaced(name), {})
            smiley = re.search(r"_face|face_", name) and "moon" not in name
            host = mine.get("host", SMILEY if smiley else "")
            row = (f"{code}.webp", zh, spaced(name), mine.get("kind", ""))
            rows.append((*row, exam, host, mine.get("role", "")))
    return rows


def pack_stamps(raw: Path, things: Path) -> list[tuple[str, ...]]:
    """整理 Tux Paint 的抠图照片；符号和画的不要，五分之一留着不用。"""
    rows = []
    for path in sorted((raw / STAMPS).rglob("*.png")):
        if re.search(r"/symbols/|cartoon|_mirror|_flip", str(path)):
            continue
        try:
            picture = crop(Image.open(path), THING)
        except OSError:
            continue
        if picture is None:
            continue
        name = f"stamp-{path.parent.name}-{path.stem}"
        picture.save(things / f"{name}.webp", quality=90)
        zh, note = "", path.with_suffix(".txt")
        if note.exists():
            text = note.read_text(encoding="utf-8", errors="replace")
            zh = "".join(re.findall(r"^zh_CN\.utf8=(.*)$", text, re.M)[:1]).strip(
                "。. "
            )
        exam = "1" if lot(path.stem) % 5 == 0 else ""
        rows.append((f"{name}.webp", zh, path.stem, "", exam, "", ""))
    return rows


def pack_grounds(raw: Path, grounds: Path) -> int:
    """整理背景照片：太小的、几乎一色的、重复的不要；返回张数。"""
    Image.MAX_IMAGE_PIXELS = None
    seen: list[float] = []
    for package in GROUNDS:
        for path in sorted((raw / package).rglob("*")):
            if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
                continue
            try:
                picture = Image.open(path)
                if max(picture.size) < 900:
                    continue
                picture = picture.convert("RGB")
            except OSError:
                continue
            picture.thumbnail((GROUND, GROUND), Image.Resampling.LANCZOS)
            pixels = np.asarray(picture, np.float32)
            mean = float(pixels.mean())
            if pixels.std() < 12 or any(abs(mean - other) < 0.3 for other in seen):
                continue
            seen.append(mean)
            picture.save(grounds / f"{len(seen):03d}-{package}.jpg", quality=88)
    return len(seen)


def atlas(source: Path) -> None:
    """从整理好的文件夹重做图集 stickers.webp 和表 stickers.csv。"""
    rows = [row for row in read_rows(source / "things.csv") if row["kind"]]
    order = [row["kind"] for row in read_rows(TABLE)]
    rows.sort(key=lambda row: (order.index(row["kind"]), row["file"]))
    height = -(-len(rows) // COLUMNS) * SIDE
    sheet = Image.new("RGBA", (COLUMNS * SIDE, height))
    for i, row in enumerate(rows):
        picture = Image.open(source / "things" / row["file"]).convert("RGBA")
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (i % COLUMNS * SIDE, i // COLUMNS * SIDE))
        row["code"] = row["file"].removesuffix(".webp")
        row["width"], row["height"] = picture.size
    path = ASSETS / "stickers.webp"
    sheet.save(path, quality=QUALITY, alpha_quality=90, method=6)
    fields = ("code", "zh", "en", "kind", "exam", "host", "role", "width", "height")
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, fields, extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    exam = sum(bool(row["exam"]) for row in rows)
    print(f"{len(rows)} 样，{exam} 样留作考试；图集 {path.stat().st_size:,} 字节")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("fetch", "atlas"):
        raise SystemExit(__doc__)
    {"fetch": fetch, "atlas": atlas}[sys.argv[1]](Path(sys.argv[2]))
