"""嵌入存成文件、读回来：结果相同；对不上的、坏了的一律是中文错误，状态不变。"""

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.small import SMALL, randomize
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from sam_lite.errors import NoImageError, SamLiteError
from sam_lite.model import Sam, sam_from_config
from sam_lite.predictor import SamPredictor

H, W = 50, 80
PICTURE = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
PROMPT = {"point_coords": [[10, 20], [70, 33]], "point_labels": [1, 0]}


@pytest.fixture
def predictor(small_sam: Sam) -> SamPredictor:
    predictor = SamPredictor(small_sam)
    predictor.set_image(PICTURE)
    return predictor


@pytest.fixture
def path(predictor: SamPredictor, tmp_path: Path) -> Path:
    predictor.save_embedding(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def rewrite(path: Path, features: torch.Tensor | None = None, **metadata) -> None:
    """改文件里的张量或元数据；值为 None 的键删掉。换了张量就不写摘要。"""
    with safe_open(path, "pt") as file:
        kept = file.metadata() | metadata
        tensor = file.get_tensor("features").clone()
    if features is not None:
        kept["sha256"] = None
    kept = {key: value for key, value in kept.items() if value is not None}
    save_file({"features": tensor if features is None else features}, path, kept)


def refuses(predictor: SamPredictor, path, words: str, image=None) -> None:
    """读 path 抛含 words 的错误；原来的图像照样回答，一位不差。"""
    before, state = predictor.predict(**PROMPT), dict(vars(predictor))
    with pytest.raises(SamLiteError) as caught:
        predictor.load_embedding(path, image)
    assert words in str(caught.value), str(caught.value)
    assert vars(predictor) == state
    for a, b in zip(predictor.predict(**PROMPT), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_after_loading_are_identical(predictor, path, small_sam) -> None:
    expected = predictor.predict(**PROMPT, return_logits=True)
    other = SamPredictor(small_sam)
    for image in (None, PICTURE, Image.fromarray(PICTURE), (H, W), [H, W]):
        other.reset_image()
        other.load_embedding(str(path), image)
        assert vars(other).keys() == vars(predictor).keys()
        assert other.is_image_set and other.original_size == (H, W)
        assert (other.orig_h, other.orig_w) == (H, W)
        assert other.input_size == predictor.input_size
        assert torch.equal(other.features, predictor.features)
        results = other.predict(**PROMPT, return_logits=True)
        for a, b in zip(results, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_file_is_plain_safetensors(path: Path) -> None:
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["features"]
        metadata = file.metadata()
    assert metadata["format"] == "sam_lite image embedding"
    assert metadata["model"] == "small" and metadata["image_size"] == "64"
    assert metadata["original_size"] == "50 80" and metadata["input_size"] == "40 64"


def test_loading_replaces_a_batch(predictor: SamPredictor, path: Path) -> None:
    predictor.set_images([PICTURE])
    with pytest.raises(NoImageError, match="predict_batch"):
        predictor.save_embedding(path)
    predictor.load_embedding(path)
    assert predictor.predict(**PROMPT)[0].shape == (3, H, W)


def test_needs_an_image(predictor: SamPredictor, path: Path) -> None:
    before = path.read_bytes()
    predictor.reset_image()
    with pytest.raises(NoImageError, match="set_image"):
        predictor.save_embedding(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_may_change(small_sam: Sam, path, tmp_path, dtype) -> None:
    """一种精度编码、另一种精度解码：同一份权重就认得，嵌入转成模型的类型。"""
    single = SamPredictor(small_sam)
    single.load_embedding(path)
    expected = single.predict(**PROMPT)
    changed = randomize(sam_from_config(SMALL)).eval().to(dtype)
    predictor = SamPredictor(changed)
    predictor.load_embedding(path)
    assert predictor.features.dtype == dtype
    predictor.set_image(PICTURE)
    predictor.save_embedding(tmp_path / "b.safetensors")
    single.load_embedding(tmp_path / "b.safetensors", PICTURE)
    assert single.features.dtype == torch.float32
    assert (single.predict(**PROMPT)[0] == expected[0]).mean() > 0.9


def make(seed: int = 0, **changes) -> Sam:
    """一个换了尺寸或权重的小模型。"""
    return randomize(sam_from_config(replace(SMALL, **changes)), seed).eval()


def changed_bias(name: str) -> Sam:
    sam = make()
    with torch.no_grad():
        sam.get_parameter(name).add_(0.25)
    return sam


def other_mean() -> Sam:
    sam = make()
    sam.pixel_mean.add_(1)
    return sam


def by_hand() -> Sam:
    sam = make()
    bare = Sam(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
    assert bare.name == "custom"
    return bare


OTHER_MODELS = {
    "别的型号名": (lambda: make(name="other"), "型号是 small，现在要 other"),
    "自己拼的": (by_hand, "型号是 small，现在要 custom"),
    "别的边长": (lambda: make(image_size=128), "输入边长是 64，现在要 128"),
    "别的权重": (lambda: make(seed=1), "另一份 small 权重"),
    "颈部改了": (lambda: changed_bias("image_encoder.neck.3.bias"), "另一份"),
    "只改了一层": (lambda: changed_bias("image_encoder.blocks.0.attn.qkv.bias"), "另"),
    "均值不同": (other_mean, "另一份"),
}


@pytest.mark.parametrize("kind", OTHER_MODELS)
def test_other_model_is_refused(path: Path, kind: str) -> None:
    """形状一样也不行：别的权重的嵌入给出的掩码是错的。"""
    build, words = OTHER_MODELS[kind]
    predictor = SamPredictor(build())
    predictor.set_image(PICTURE[:40])
    refuses(predictor, path, words)


def test_same_encoder_with_another_decoder_is_fine(path: Path) -> None:
    """只微调了解码器：嵌入与它无关。"""
    sam = changed_bias("mask_decoder.iou_token.weight")
    SamPredictor(sam).load_embedding(path)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ((W, H), "(50, 80)"),
        (PICTURE[:-1], "(49, 80)"),
        (Image.fromarray(PICTURE).rotate(90, expand=True), "(80, 50)"),
        ("photo.jpg", "read_photo"),
        ((H, W, 3), "正整数"),
        (PICTURE / 255, "乘 255"),
    ],
)
def test_another_picture_is_refused(predictor, path: Path, image, words: str) -> None:
    refuses(predictor, path, words, image)


@pytest.mark.parametrize("place", [0, 1, -1], ids=["头一位", "第二个字节", "末一位"])
def test_a_flipped_bit_in_the_embedding_is_found(predictor, path, place) -> None:
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")  # 头的长度，然后是张量
    data[start + place if place >= 0 else place] ^= 1
    path.write_bytes(data)
    refuses(predictor, path, "SHA-256 对不上")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_digest_is_of_what_is_stored(small_sam: Sam, tmp_path, dtype) -> None:
    predictor = SamPredictor(small_sam.to(dtype))
    predictor.set_image(PICTURE)
    predictor.save_embedding(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        stored = file.get_tensor("features")
        words = file.metadata()["sha256"]
    raw = stored.view(torch.int16).numpy().tobytes()
    assert stored.dtype == dtype and hashlib.sha256(raw).hexdigest() == words
    predictor.load_embedding(tmp_path / "a.safetensors")


def test_old_files_without_a_digest_still_load(predictor, path: Path) -> None:
    expected = predictor.features.clone()
    rewrite(path, sha256=None)
    with safe_open(path, "pt") as file:
        assert "sha256" not in file.metadata()
    predictor.load_embedding(path)
    assert torch.equal(predictor.features, expected)


BAD_FILES = {
    "不在": (lambda p: p.unlink(), "没有这个嵌入文件"),
    "是文件夹": (lambda p: (p.unlink(), p.mkdir()), "不了"),
    "空的": (lambda p: p.write_bytes(b""), "完好的 safetensors"),
    "头断了": (lambda p: p.write_bytes(p.read_bytes()[:100]), "完好的 safetensors"),
    "尾断了": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "完好的 safetensors"),
    "是文字": (lambda p: p.write_text("嵌入", "utf-8"), "完好的 safetensors"),
    "是权重": (lambda p: save_file({"w": torch.zeros(2)}, p), "不是 save_embedding"),
    "没有元数据": (
        lambda p: save_file({"features": torch.zeros(1, 32, 8, 8)}, p),
        "不是 save_embedding",
    ),
    "别的格式": (lambda p: rewrite(p, format="emb"), "不是 save_embedding"),
    "新版本": (lambda p: rewrite(p, version="2"), "版本是 2，现在要 1"),
    "没有版本": (lambda p: rewrite(p, version=None), "版本是 None"),
    "没有型号": (lambda p: rewrite(p, model=None), "型号是 None"),
    "没有指纹": (lambda p: rewrite(p, weights=None), "另一份"),
    "摘要被改": (lambda p: rewrite(p, sha256="0" * 64), "SHA-256 对不上"),
    "张量是标量": (lambda p: rewrite(p, torch.tensor(1.0)), "(1, 32, 8, 8)"),
    "没有原图大小": (lambda p: rewrite(p, original_size=None), "original_size"),
    "原图大小不是数": (lambda p: rewrite(p, original_size="50 x"), "original_size"),
    "原图大小是负数": (lambda p: rewrite(p, original_size="-5 80"), "original_size"),
    "原图大小极大": (lambda p: rewrite(p, original_size="9" * 99), "original_size"),
    "大小彼此矛盾": (lambda p: rewrite(p, original_size="80 50"), "高在前"),
    "没有缩放后的大小": (lambda p: rewrite(p, input_size=None), "input_size"),
    "张量形状不对": (lambda p: rewrite(p, torch.zeros(1, 32, 8, 9)), "(1, 32, 8, 8)"),
    "张量少一维": (lambda p: rewrite(p, torch.zeros(32, 8, 8)), "(1, 32, 8, 8)"),
    "张量是整数": (lambda p: rewrite(p, torch.zeros(1, 32, 8, 8).int()), "浮点"),
    "张量有 NaN": (lambda p: rewrite(p, torch.zeros(1, 32, 8, 8) / 0), "有限"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_is_refused(predictor: SamPredictor, path: Path, kind: str) -> None:
    spoil, words = BAD_FILES[kind]
    spoil(path)
    refuses(predictor, path, words)


@pytest.mark.parametrize("value", [None, 3, "", "a\0b", b"a", ["a"]], ids=repr)
def test_bad_path(predictor: SamPredictor, value) -> None:
    refuses(predictor, value, "path 不对")
    with pytest.raises(SamLiteError, match="path 不对"):
        predictor.save_embedding(value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows 的权限是另一套")
def test_no_permission(predictor: SamPredictor, path: Path, ordinary_user) -> None:
    path.chmod(0)
    with ordinary_user():
        refuses(predictor, path, "没有权限")
    path.chmod(0o600)
    path.parent.chmod(0o500)
    try:
        with ordinary_user(), pytest.raises(SamLiteError, match="写不了|没有权限"):
            predictor.save_embedding(path)
    finally:
        path.parent.chmod(0o700)
    predictor.load_embedding(path)


def test_unwritable_places(predictor: SamPredictor, path: Path) -> None:
    before = path.read_bytes()
    for place in (path.parent, path.parent / "no" / "b", path / "b"):
        with pytest.raises(SamLiteError, match="写不了"):
            predictor.save_embedding(place)
    assert os.listdir(path.parent) == [path.name] and path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="没有 resource")
def test_full_disk_keeps_the_old_file(predictor: SamPredictor, path: Path) -> None:
    """写到一半写不下去：没有半个文件，旧的还能用。"""
    import resource

    before = path.read_bytes()
    predictor.set_image(PICTURE[:30])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # 嵌入有 8 KiB
    try:
        with pytest.raises(SamLiteError, match="写不了"):
            predictor.save_embedding(path)
        with pytest.raises(SamLiteError, match="写不了"):
            predictor.save_embedding(path.with_name("new"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(path.parent) == [path.name] and path.read_bytes() == before
    predictor.load_embedding(path, (H, W))
