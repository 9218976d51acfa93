#!/usr/bin/env python3
"""Load adapters that Lorikeet saved into PEFT and print how far the logits are apart, as a Markdown table.

  python3 check_ours.py GRID_FOLDER OURS_FOLDER [--tolerance 1e-4]

OURS_FOLDER holds one folder a case (layout in README.md). Exit code 1 if any difference is above the tolerance.
"""
import argparse
import json
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file

from bases import feeds_of, load_base, logits_of

# Where PEFT's own answer is not the one to match; the reason goes into the table.
PEFT_FAULTS = {
    "targets-lm-head-tied": "PEFT merges into the shared matrix, which changes the embedding too",
    "embedding-tied": "PEFT merges into the shared matrix, which changes the head too",
    "embedding-tied-ensure": "PEFT adds the delta twice to the shared matrix",
    "init-pissa": "PEFT's SVD is float32: with a float64 one its own model is 1.1e-4 away from its logits and 1.3e-5 from ours",
    "init-pissa-niter": "PEFT's randomised SVD is not repeatable, so PEFT cannot reload its own adapter; use converted/",
}


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.float() - b.float()).abs().max().item() if a.shape == b.shape else float("inf")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "adapter_model.safetensors").exists():
        return load_file(folder / "adapter_model.safetensors")
    return torch.load(folder / "adapter_model.bin", weights_only=True)


def round_trip(theirs: Path, ours: Path) -> str:
    """"same" if keys, dtypes, bytes and configuration are equal, else the first difference."""
    a, b = tensors(theirs), tensors(ours)
    if a.keys() != b.keys():
        return f"keys differ: {sorted(a.keys() ^ b.keys())[0]}"
    for key, value in a.items():
        if value.dtype != b[key].dtype or not torch.equal(value, b[key]):
            return f"{key} differs"
    return config_difference(theirs, ours) or "same"


def config_difference(theirs: Path, ours: Path) -> str | None:
    a, b = (json.loads((folder / "adapter_config.json").read_text()) for folder in (theirs, ours))
    for key in sorted(a.keys() | b.keys()):
        x, y = a.get(key, "(absent)"), b.get(key, "(absent)")
        if isinstance(x, list) and isinstance(y, list):
            x, y = sorted(map(str, x)), sorted(map(str, y))  # PEFT writes sets in any order
        if x != y:
            return f"config {key}: {x} → {y}"
    return None


def check(grid: Path, folder: Path) -> dict:
    name = folder.name
    facts = json.loads(((folder if (folder / "case.json").exists() else grid / name) / "case.json").read_text())
    ours = load_file(folder / "ours.safetensors")
    row: dict = {"case": name, "base": facts["base"], "note": PEFT_FAULTS.get(name.removeprefix("fresh-"), "")}
    saved = folder / facts["adapter_folder"]
    if saved.exists():
        model = PeftModel.from_pretrained(load_base(facts["base"], grid), saved, adapter_name=facts["adapter_name"]).float().eval()
        row["PEFT reads ours"] = worst(logits_of(model, feeds_of(facts["base"])), ours["adapter_logits"])
    if (grid / name / "expected.safetensors").exists():
        expected = load_file(grid / name / "expected.safetensors")
        row["we read PEFT's"] = worst(ours["adapter_logits"], expected["adapter_logits"])
        if "merged_logits" in ours:
            row["merged"] = worst(ours["merged_logits"], expected.get("merged_logits", expected["adapter_logits"]))
        if "converted_logits" in ours and "converted_logits" in expected:
            row["converted"] = worst(ours["converted_logits"], expected["converted_logits"])
        if saved.exists():
            row["round trip"] = round_trip(grid / name / facts["adapter_folder"], saved)
    if (folder / "merged.safetensors").exists() and (grid / name / "merged.safetensors").exists():
        a, b = load_file(folder / "merged.safetensors"), load_file(grid / name / "merged.safetensors")
        row["merged weights"] = max((worst(a[key], b[key]) for key in a.keys() & b.keys()), default=float("inf"))
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("grid", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    columns = ["case", "base", "we read PEFT's", "PEFT reads ours", "merged", "merged weights", "converted", "round trip", "verdict", "note"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    rows = [check(args.grid, path.parent) for path in sorted(args.ours.glob("*/ours.safetensors"))]
    failed = 0
    for row in rows:
        above = [key for key, value in row.items() if isinstance(value, float) and not value <= args.tolerance]
        above += ["round trip"] if row.get("round trip", "same") != "same" else []
        row["verdict"] = "ok" if not above else "known" if row["note"] else "differs"
        failed += row["verdict"] == "differs"
        print("| " + " | ".join(f"{value:.1e}" if isinstance(value, float) else str(value) for value in (row.get(key, "") for key in columns)) + " |")
    absent = missing(args.grid, {row["case"] for row in rows})
    print(f"\n{len(rows)} cases, {failed} differ (tolerance {args.tolerance:g}); not tried: {len(absent)}{' ' + ', '.join(absent) if absent else ''}")
    raise SystemExit(1 if failed or absent else 0)


def missing(grid: Path, cases: set[str]) -> list[str]:
    """What the grid has and `cases` has not; check-fresh.ts trains no convolutions."""
    names = json.loads((grid / "grid.json").read_text())
    if any(name.startswith("fresh-") for name in cases):
        names = [f"fresh-{name}" for name in names if not name.startswith("conv")]
    return sorted(set(names) - cases)


main()
