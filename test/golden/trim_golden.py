#!/usr/bin/env python3
"""Trim the full PEFT golden files (about 7 MB a case) to what the tests compare.

  python3 trim_golden.py FULL_GOLDEN_FOLDER [OUT_FOLDER]

Logits keep every 48th token of the vocabulary at every position; the base's are stored once. Gradients are kept whole
for the cases named in WHOLE, for layer 0 alone in the others, with the L2 norm of every gradient in all cases.
"""
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

CASES = ["lora", "rslora", "dora", "patterns", "layers"]
WHOLE = {"lora", "patterns", "layers"}
STRIDE = 48
MERGED = "merged.model.layers.0.self_attn.q_proj.weight"


def trim(name: str, tokens: np.ndarray, source: Path, target: Path) -> np.ndarray:
    full = load_file(source / "golden.safetensors")
    kept = {"input_ids": full["input_ids"], "loss": full["loss"], "losses10": full["losses10"], "logit_tokens": tokens}
    for key in ["adapter_logits", "merged_logits_after10"]:
        kept[key] = np.ascontiguousarray(full[key][:, :, tokens])
    kept["merged_rows." + MERGED.removeprefix("merged.")] = np.ascontiguousarray(full[MERGED][::8])
    for key, value in full.items():
        if not key.startswith("grad."):
            continue
        kept["grad_norm." + key.removeprefix("grad.")] = np.array([np.linalg.norm(value.astype(np.float64))], np.float32)
        if name in WHOLE or ".layers.0." in key:
            kept[key] = value
    target.mkdir(parents=True, exist_ok=True)
    save_file(kept, target / "golden.safetensors")
    for folder in ["adapter", "adapter_after10"]:
        shutil.copytree(source / folder, target / folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return full["base_logits"]


def main() -> None:
    source = Path(sys.argv[1])
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    vocabulary = load_file(source / "lora" / "golden.safetensors")["base_logits"].shape[-1]
    tokens = np.arange(0, vocabulary, STRIDE, dtype=np.int64)
    bases = [trim(name, tokens, source / name, target / name) for name in CASES]
    ids = load_file(source / "lora" / "golden.safetensors")["input_ids"]
    assert all(np.array_equal(bases[0], other) for other in bases[1:])
    base = np.ascontiguousarray(bases[0][:, :, tokens])
    # The whole vocabulary at the last position of each row.
    save_file({"input_ids": ids, "logit_tokens": tokens, "base_logits": base, "base_logits_last": np.ascontiguousarray(bases[0][:, -1])}, target / "base.safetensors")


main()
