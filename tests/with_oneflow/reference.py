"""在 PyTorch 的环境里造标准：python tests/with_oneflow/reference.py 文件夹 [线程数]

写下权重文件（随机的 vit_b，和几种格式的 tiny），每个 case 的结果和耗时。
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from cases import CASES, timings
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))  # 为了 parity
from parity.small import randomize  # noqa: E402

import sam_lite  # noqa: E402
from sam_lite.config import VIT_B  # noqa: E402
from sam_lite.files.huggingface import to_huggingface  # noqa: E402
from sam_lite.model import sam_from_config  # noqa: E402


def write_weights(folder: Path) -> None:
    torch.save(randomize(sam_from_config(VIT_B)).state_dict(), folder / "vit_b.pth")
    state = sam_lite.load("tiny").state_dict()
    half = {name: tensor.half() for name, tensor in state.items()}
    brain = {name: tensor.bfloat16() for name, tensor in state.items()}
    torch.save(state, folder / "tiny.pth")
    torch.save(half, folder / "tiny_half.pth")
    torch.save(brain, folder / "tiny_bfloat16.pth")
    save_file(state, folder / "tiny.safetensors")
    save_file(brain, folder / "tiny_bfloat16.safetensors")
    (folder / "huggingface").mkdir(exist_ok=True)
    theirs = {name: tensor.clone() for name, tensor in to_huggingface(state).items()}
    save_file(theirs, folder / "huggingface" / "model.safetensors")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.npz"):
        old.unlink()
    (folder / "embedding.safetensors").unlink(missing_ok=True)
    write_weights(folder)
    for name, case in CASES.items():
        np.savez(folder / f"{name}.npz", **case(folder))
        print("PyTorch：", name)
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    facts |= {"seconds": timings(folder)}
    text = json.dumps(facts, ensure_ascii=False)
    (folder / "torch.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
