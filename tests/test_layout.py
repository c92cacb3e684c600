"""布局的规矩：一章一个模块一个测试；第 N 个模块只用前面的；篇幅有上限。"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sam_lite"
CHAPTERS = [
    "preprocess",
    "patch_embed",
    "attention",
    "windows",
    "image_encoder",
    "prompt_encoder",
    "two_way",
    "mask_decoder",
    "model",
    "weights",
    "predictor",
    "auto_mask",
    "onnx_export",
    "backends",
    "training",
]
GROUND_FLOOR = {"config", "ops", "errors", "checks", "official_files", "atomic"}
GROUND_FLOOR |= {"checks_tensors", "extras", "ops_oneflow", "viz"}
# 一章太长时分出去的房间：属于那一章，只能用更早的章
ROOMS = {
    "attention_fast": "attention",
    "weights_reading": "weights",
    "weights_huggingface": "weights",
    "weights_unpickle": "weights",
    "mask_decoder_fast": "predictor",
    "prompt_decoder": "predictor",
    "prompts": "predictor",
    "embedding_file": "predictor",
    "auto_mask_grid": "auto_mask",
    "auto_mask_options": "auto_mask",
    "auto_mask_records": "auto_mask",
    "auto_mask_output": "auto_mask",
    "mask_nms": "auto_mask",
    "mask_regions": "auto_mask",
    "mask_rle": "auto_mask",
    "onnx_files": "onnx_export",
    "onnx_models": "onnx_export",
    "onnx_session": "onnx_export",
    "onnx_predictor": "onnx_export",
    "training_data": "training",
    "training_files": "training",
    "scene_bank": "training",
    "scenes": "training",
    "scene_cells": "training",
    "scene_content": "training",
    "scene_looks": "training",
    "scene_objects": "training",
    "scene_packed": "training",
    "scene_random": "training",
    "scene_shapes": "training",
    "scene_strokes": "training",
    "baselines": "training",
    "evaluation": "training",
    "evaluation_photos": "training",
    "interrupts": "training",
    "datasets": "training",
    "fit_loop": "training",
    "fit_parts": "training",
    "fit_samples": "training",
    "fit_team": "training",
    "lora": "training",
    "muon": "training",
    "training_exam": "training",
    "training_setup": "training",
}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 220, 110, 35


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def code_lines(*nodes: ast.AST) -> int:
    """有代码的行数：不算空行、注释和文档字符串。"""
    docstrings, lines = set(), set()
    for child in (child for node in nodes for child in ast.walk(node)):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            docstrings.update(range(child.lineno, child.end_lineno + 1))
        elif hasattr(child, "lineno"):
            lines.update((child.lineno, child.end_lineno))
    return len(lines - docstrings)


def imported(module: str) -> set[str]:
    """从包里导入了哪些模块。"""
    found = set()
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [a.name for a in node.names]
            found |= {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("module", [*CHAPTERS, *ROOMS])
def test_module_imports_only_earlier_ones(module):
    number = CHAPTERS.index(ROOMS.get(module, module))
    earlier = set(CHAPTERS[:number])
    rooms = {room for room, owner in ROOMS.items() if CHAPTERS.index(owner) <= number}
    late = imported(module) - earlier - rooms - GROUND_FLOOR
    assert not late, f"{module} 用了后面的模块 {late}"


@pytest.mark.parametrize("module", sorted(GROUND_FLOOR))
def test_ground_floor_stands_alone(module):
    assert imported(module) <= GROUND_FLOOR


@pytest.mark.parametrize("module", CHAPTERS)
def test_every_chapter_module_has_its_test(module):
    assert (ROOT / "tests" / f"test_{module}.py").is_file()


@pytest.mark.parametrize("module", MODULES)
def test_modules_classes_and_functions_stay_short(module):
    tree = parse(module)
    assert code_lines(tree) <= MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):  # 方法的签名随官方，不算在内
            bodies = [
                n.body if isinstance(n, ast.FunctionDef) else [n] for n in node.body
            ]
            total = sum(code_lines(*body) for body in bodies)
            assert total <= CLASS_LINES, node.name
        elif isinstance(node, ast.FunctionDef):
            assert code_lines(*node.body) <= FUNCTION_LINES, node.name


@pytest.mark.parametrize("module", MODULES)
def test_public_docstrings_are_chinese_sentences(module):
    """公开的类和函数都有文档字符串，第一行是一句中文，以标点收尾。"""
    tree = parse(module)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    inner = {n for f in functions for n in ast.walk(f) if n is not f}
    nodes = [tree] + [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and node not in inner
    ]
    for node in nodes:
        first = (ast.get_docstring(node) or "").split("\n")[0]
        name = getattr(node, "name", module)
        assert any("一" <= c <= "鿿" for c in first), f"{module}.{name} 没有中文说明"
        assert first[-1] in "。：；，）…", f"{module}.{name}：{first}"


def test_import_needs_only_the_core():
    """import sam_lite 只带进 torch、numpy、pillow、safetensors。"""
    code = (
        "import sys, sam_lite; "
        "print([m for m in ('skimage', 'scipy', 'matplotlib', 'torchvision')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_texts_address_the_reader_plainly(module):
    """用“你”，不用那三个客套的字眼，错误信息也一样。"""
    text = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    assert not [word for word in ("您", "请", "我们") if word in text]
