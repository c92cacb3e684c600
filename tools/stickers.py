"""贴纸从哪里来：挑出随包的一套，拼成一张图；另取训练用的全部。

用法：

    python tools/stickers.py fetch runs/stickers     取原图，整理好（约 400 MB）
    python tools/stickers.py atlas runs/stickers     重做随包的图集

``fetch`` 用 npm 和 Debian 的 apt-get 按包名取，不用 root；断了再运行一次，取过的不取。
中文名来自 ``emoji``（``pip install emoji``）。整理好的里面：``things/`` 是抠好的东西
（RGBA，最长 192 像素），``grounds/`` 是当背景的照片（最长 768 像素），``things.csv`` 是
名字和“留作考试”的记号。

留作考试的五分之一由名字的散列决定：同一样东西的男女、肤色、表情变体归成一家，一家要么都
训练，要么都不训练。
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

# 随包的一套，一行一类
CHOSEN = {
    "动物": """rat ox cow tiger leopard rabbit cat crocodile whale snail horse goat
        rooster dog pig elephant octopus honeybee lady_beetle fish
        tropical_fish blowfish turtle hatching_chick front-facing_baby_chick
        bird penguin two-hump_camel dolphin hedgehog sauropod T-Rex kangaroo
        peacock hippopotamus parrot lobster swan flamingo seal crab eagle duck
        bat shark owl butterfly deer gorilla rhinoceros squid giraffe zebra
        goose""",
    "脸": """mouse_face cow_face tiger_face rabbit_face cat_face monkey_face
        dog_face pig_face frog hamster wolf bear polar_bear panda fox lion
        koala raccoon grinning_face_with_big_eyes slightly_smiling_face
        thinking_face sleeping_face robot alien ghost jack-o-lantern""",
    "食物": """hot_dog chestnut hot_pepper mushroom tomato eggplant grapes watermelon
        tangerine lemon banana pineapple red_apple green_apple pear peach
        cherries strawberry hamburger pizza poultry_leg rice_ball bread
        french_fries doughnut cookie candy lollipop shortcake birthday_cake
        croissant avocado cucumber potato carrot egg kiwi_fruit broccoli
        pretzel cheese_wedge cupcake garlic mango bell_pepper soft_ice_cream
        ear_of_corn""",
    "饮料": """bubble_tea teapot beer_mug hot_beverage wine_glass baby_bottle
        cup_with_straw honey_pot teacup_without_handle""",
    "容器": """bowl_with_spoon basket bucket handbag empty_nest green_salad
        potted_plant amphora takeout_box popcorn""",
    "车船": """motorcycle racing_car rocket helicopter locomotive bus ambulance
        fire_engine police_car taxi automobile sport_utility_vehicle
        delivery_truck tractor sailboat speedboat bicycle airplane
        small_airplane ship flying_saucer motor_scooter auto_rickshaw
        pickup_truck""",
    "穿戴": """crown top_hat graduation_cap billed_cap rescue_worker’s_helmet
        military_helmet woman’s_hat glasses sunglasses goggles t-shirt jeans
        dress kimono backpack running_shoe high-heeled_shoe hiking_boot coat
        scarf gloves socks purse headphone""",
    "植物": """evergreen_tree deciduous_tree palm_tree cactus tulip cherry_blossom
        rose hibiscus sunflower four_leaf_clover maple_leaf bouquet
        Christmas_tree""",
    "玩具": """soccer_ball basketball baseball tennis volleyball pool_8_ball bowling
        guitar trumpet violin saxophone drum artist_palette balloon
        wrapped_gift teddy_bear kite yo-yo nesting_dolls puzzle_piece game_die
        video_game skateboard trophy boxing_glove snowman_without_snow""",
    "用具": """hammer wrench axe scissors key magnet light_bulb candle bell umbrella
        camera television radio telephone laptop computer_mouse alarm_clock
        telescope magnifying_glass_tilted_left toothbrush broom luggage chair
        pencil books fire_extinguisher money_bag gem_stone shield toolbox
        package""",
    "房子": "house castle hut tent school",
}
# 放进“戴墨镜的……”里不通，或不像平常叫法的，换个名字
CLEARER = {
    "rat": "老鼠",
    "front-facing_baby_chick": "小鸡",
    "sauropod": "蜥脚类恐龙",
    "grinning_face_with_big_eyes": "大笑的脸",
    "slightly_smiling_face": "微笑的脸",
    "thinking_face": "思考的脸",
    "sleeping_face": "睡着的脸",
    "ghost": "鬼魂",
    "poultry_leg": "鸡腿",
    "candy": "糖果",
    "cup_with_straw": "饮料杯",
    "bowl_with_spoon": "碗",
    "basket": "篮子",
    "empty_nest": "鸟窝",
    "sport_utility_vehicle": "越野车",
    "pickup_truck": "皮卡",
    "rescue_worker’s_helmet": "救援头盔",
    "tennis": "网球拍",
    "magnifying_glass_tilted_left": "放大镜",
    "castle": "城堡",
}
# 能戴帽子、眼镜的：眼睛、帽檐在多高，头有多宽，都按抠下来的图的高、宽算
FACES = {
    "mouse_face": (0.65, 0.42, 0.60),
    "cow_face": (0.44, 0.22, 0.60),
    "tiger_face": (0.52, 0.22, 0.70),
    "rabbit_face": (0.68, 0.42, 0.55),
    "cat_face": (0.52, 0.28, 0.65),
    "monkey_face": (0.38, 0.20, 0.60),
    "dog_face": (0.36, 0.12, 0.60),
    "pig_face": (0.45, 0.20, 0.65),
    "hamster": (0.58, 0.35, 0.60),
    "wolf": (0.47, 0.28, 0.60),
    "bear": (0.43, 0.15, 0.65),
    "polar_bear": (0.43, 0.15, 0.65),
    "panda": (0.45, 0.15, 0.65),
    "fox": (0.57, 0.35, 0.55),
    "lion": (0.46, 0.22, 0.55),
    "koala": (0.53, 0.20, 0.55),
    "raccoon": (0.50, 0.25, 0.60),
    "grinning_face_with_big_eyes": (0.30, 0.12, 0.75),
    "slightly_smiling_face": (0.36, 0.12, 0.75),
    "thinking_face": (0.34, 0.12, 0.75),
    "sleeping_face": (0.55, 0.12, 0.70),
    "robot": (0.43, 0.12, 0.60),
    "alien": (0.50, 0.12, 0.88),
    "ghost": (0.25, 0.10, 0.50),
    "jack-o-lantern": (0.40, 0.15, 0.55),
    "owl": (0.26, 0.08, 0.90),
    "penguin": (0.18, 0.06, 0.40),
    "teddy_bear": (0.22, 0.06, 0.40),
}
SMILEY = (0.38, 0.12, 0.75)  # 其余的黄脸
# 帽子：自己的多高处落在帽檐上；有带子的头盔戴上去带子挡脸，不算
HATS = {
    "crown": 0.95,
    "top_hat": 0.93,
    "graduation_cap": 0.60,
    "billed_cap": 0.95,
    "woman’s_hat": 0.80,
}
GLASSES = {"glasses", "sunglasses"}
# 装得下东西的：前沿在多高，开口的左右；bowl 看得见里面，bag 看不见
VESSELS = {
    "bowl_with_spoon": ("bowl", 0.635, 0.12, 0.88),
    "empty_nest": ("bowl", 0.47, 0.25, 0.75),
    "basket": ("bag", 0.35, 0.02, 0.98),
    "bucket": ("bag", 0.0, 0.06, 0.94),
    "handbag": ("bag", 0.31, 0.1, 0.9),
}
FILLINGS = """tomato eggplant tangerine lemon red_apple green_apple pear peach
    strawberry doughnut cookie candy croissant avocado potato carrot egg broccoli
    mango bell_pepper mushroom chestnut baseball"""
# 能拿、能叼东西的：手或嘴在哪里
HOLDERS = {
    "elephant": ("hand", 0.08, 0.82),
    "octopus": ("hand", 0.06, 0.68),
    "T-Rex": ("hand", 0.10, 0.49),
    "kangaroo": ("hand", 0.29, 0.61),
    "snowman_without_snow": ("hand", 0.08, 0.52),
    "cat": ("mouth", 0.05, 0.43),
    "dog": ("mouth", 0.05, 0.34),
    "rabbit": ("mouth", 0.05, 0.56),
    "horse": ("mouth", 0.05, 0.25),
    "pig": ("mouth", 0.05, 0.52),
    "bird": ("mouth", 0.04, 0.29),
    "duck": ("mouth", 0.04, 0.25),
    "gorilla": ("mouth", 0.05, 0.32),
    "giraffe": ("mouth", 0.04, 0.20),
    "sauropod": ("mouth", 0.04, 0.12),
}
# 能拿的：拿在自己的哪一点
HELD = {
    "balloon": (0.05, 0.97),
    "lollipop": (0.92, 0.93),
    "bouquet": (0.83, 0.88),
    "tulip": (0.70, 0.90),
    "rose": (0.75, 0.85),
    "umbrella": (0.55, 0.92),
    "candle": (0.90, 0.80),
    "trumpet": (0.85, 0.55),
    "guitar": (0.72, 0.32),
    "broom": (0.85, 0.22),
    "soft_ice_cream": (0.72, 0.85),
    "cup_with_straw": (0.90, 0.65),
    "kite": (0.90, 0.33),
    "tennis": (0.22, 0.90),
    "sunflower": (0.75, 0.90),
    "bubble_tea": (0.92, 0.65),
}
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


def chosen() -> dict[str, str]:
    """随包的：英文名 -> 类。"""
    return {name: kind for kind, text in CHOSEN.items() for name in text.split()}


def kept_out(names: list[str]) -> set[str]:
    """留作考试的：随包的每一类里签最小的五分之一，和它们同家的；其余的抽签。"""
    kinds, out = chosen(), set()
    for kind in CHOSEN:
        own = sorted((n for n in names if kinds.get(n) == kind), key=lot)
        out |= {family(n) for n in own[: round(len(own) / 5)]}
    spoken = {family(n) for n in kinds}
    return {
        n
        for n in names
        if family(n) in out or (family(n) not in spoken and lot(n) % 5 == 0)
    }


def host(name: str) -> str:
    """它能戴、能装、能拿什么，写进表里。"""
    if name in FACES:
        return spell("face", *FACES[name])
    if name in VESSELS or name in HOLDERS:
        return spell(*(VESSELS | HOLDERS)[name])
    smiley = re.search(r"_face|face_", name) and "moon" not in name
    return spell("face", *SMILEY) if smiley else ""


def role(name: str) -> str:
    """它能当什么：帽子、眼镜、装在里面的、拿在手里的。"""
    if name in HATS:
        return spell("hat", HATS[name])
    if name in GLASSES:
        return "glasses"
    if name in FILLINGS.split():
        return "filling"
    return spell("held", *HELD[name]) if name in HELD else ""


def spell(kind: str, *numbers: float) -> str:
    """("hat", 0.6) -> “hat 0.6”；sam_lite.scenes.stickers.anchors 读回来。"""
    return " ".join((kind, *(f"{v:g}" for v in numbers)))


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


def emoji_names(folder: Path) -> dict[str, tuple[Path, str, str]]:
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
        if not NOT_THINGS.search(re.sub("[_-]", " ", name)) or name in chosen():
            zh = CLEARER.get(name, row["zh"].strip(":"))
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
    found, kinds, rows = emoji_names(raw / "package" / "assets"), chosen(), []
    missing = sorted(set(kinds) - set(found))
    if missing:
        raise SystemExit(f"图集要的没有找到：{missing}")
    out = kept_out(list(found))
    for name, (path, code, zh) in found.items():
        picture = crop(Image.open(path), THING)
        if picture is not None:
            picture.save(things / f"{code}.webp", quality=90)
            exam = "1" if name in out else ""
            row = (f"{code}.webp", zh, name.replace("_", " "), kinds.get(name, ""))
            rows.append((*row, exam, host(name), role(name)))
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
    with open(source / "things.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"]]
    order = list(CHOSEN)
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
    with open(ASSETS / "stickers.csv", "w", encoding="utf-8", newline="") as file:
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
