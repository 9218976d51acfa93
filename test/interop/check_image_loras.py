#!/usr/bin/env python3
"""diffusers and PEFT with the files that check-diffusers.ts wrote; prints a Markdown table, exit code 1 if something differs.

  python3 check_image_loras.py GRID OURS
"""
import json
import sys
import warnings
from pathlib import Path

import torch
from image_cases import CASES, compute, farthest, feeds, open_pipeline, read
from peft import PeftModel

GRID, OURS = Path(sys.argv[1]), Path(sys.argv[2])
TOLERANCE, PIXELS = 1e-4, 1
PARTS = ["unet", "text_encoder", "text_encoder_2"]
# what diffusers 0.42 does not take from kohya's files
KNOWN = {"use_dora": "diffusers drops `dora_scale`", "alpha_pattern": "diffusers reads one alpha for all"}
warnings.filterwarnings("ignore")


def cell(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], failures: list) -> str:
    """Largest differences of UNet and latents, relative to the largest value above 1, and of pixels."""
    values = [farthest(got[key], want[key]) for key in ["output", "final_latents"]]
    pixels = (got["image"].int() - want["image"].int()).abs().max().item()
    if max(values) > TOLERANCE or pixels > PIXELS:
        failures.append(1)
    return f"{values[0]:.1e}, {values[1]:.1e}, {pixels}"


def with_peft(pipe, folder: Path):
    for part in PARTS:
        if (folder / part).exists():
            setattr(pipe, part, PeftModel.from_pretrained(getattr(pipe, part), folder / part))
    return pipe


def row(name: str, failures: list) -> list[str]:
    base = CASES[name][0]
    original = GRID / "base" / base
    want = read(GRID / name / "expected.safetensors")
    given = feeds(base, open_pipeline(original, base))
    cells = [cell(read(OURS / name / "ours.safetensors"), want, failures)]
    for file in [OURS / name / folder / "pytorch_lora_weights.safetensors" for folder in ["diffusers", "anew"]] + [OURS / name / "kohya.safetensors"]:
        known = [words for field, words in KNOWN.items() if CASES[name][3].get(field)]
        if file.name == "kohya.safetensors" and known:
            cells.append(known[0])
            continue
        pipe = open_pipeline(original, base)
        try:
            pipe.load_lora_weights(file.parent, weight_name=file.name)
            cells.append(cell(compute(base, pipe, given), want, failures))
        except Exception as error:  # a refusal is a result
            failures.append(1)
            cells.append(f"{type(error).__name__}: {str(error)[:160]}")
    pipe = with_peft(open_pipeline(original, base), OURS / name / "peft")
    cells.append(cell(compute(base, pipe, given), want, failures))
    merged = open_pipeline(OURS / name / "merged", base)
    cells.append(cell(compute(base, merged, given), want, failures))
    return cells


def main() -> None:
    failures: list = []
    head = ["case", "we read diffusers'", "diffusers reads ours", "metadata anew", "diffusers reads our kohya file", "PEFT reads ours", "merged by us"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in json.loads((GRID / "cases.json").read_text()):
        print(f"| {' | '.join([name, *row(name, failures)])} |", flush=True)
    print(f"\n{len(failures)} results beyond {TOLERANCE:g} or {PIXELS} of 255")
    sys.exit(1 if failures else 0)


main()
