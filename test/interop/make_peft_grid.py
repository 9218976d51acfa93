#!/usr/bin/env python3
"""Write what PEFT saves and computes for every configuration of grid.py; layout in README.md.

  python3 make_peft_grid.py OUT_FOLDER [--no-weights] [CASE ...]      needs torch 2.11, transformers 5.17, peft 0.21.0

--no-weights leaves merged.safetensors out (test/fixtures/adapters is made that way).
"""
import json
import shutil
import sys
import traceback
import zlib
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from safetensors.torch import save_file

from bases import feeds_of, load_base, logits_of, model_type_of, write_conv_base
from grid import GRID

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def perturb(model: torch.nn.Module, seed: int) -> None:
    """As if trained: every trainable tensor moves, and no lora_B is zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        if p.requires_grad:
            noise = torch.randn(p.shape, generator=generator)
            p.data += (noise * (0.15 if "lora_B" in name or "embedding_A" in name else 0.05)).to(p.dtype)


def initialize_eva(model: torch.nn.Module, feeds: dict) -> None:
    batch = {"input_ids": feeds["input_ids"], "attention_mask": torch.ones_like(feeds["input_ids"])}
    initialize_lora_eva_weights(model, [batch] * 4)


def merged(model: PeftModel, feeds: dict) -> tuple[dict, torch.Tensor]:
    plain = model.merge_and_unload(safe_merge=True)
    return {key: value.contiguous().clone() for key, value in plain.state_dict().items()}, logits_of(plain, feeds)


def reload(folder: Path, grid: Path, base: str, adapter: str) -> PeftModel:
    return PeftModel.from_pretrained(load_base(base, grid), folder, adapter_name=adapter).float().eval()


def make(name: str, grid: Path, keep_weights: bool) -> str:
    base, config, options = GRID[name]
    dtype, adapter = options.get("dtype", "f32"), options.get("adapter", "default")
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    folder = grid / name
    shutil.rmtree(folder, ignore_errors=True)
    feeds = feeds_of(base)
    model = get_peft_model(load_base(base, grid, DTYPES[dtype]), LoraConfig(**config), adapter_name=adapter, autocast_adapter_dtype=options.get("autocast", True))
    model.eval()
    if config.get("init_lora_weights") == "eva":
        initialize_eva(model, feeds)
    if options.get("convert"):
        model.peft_config[adapter].init_lora_weights = True  # the initial adapter must not start another SVD when it is read
        model.save_pretrained(folder / "initial")
        model.peft_config[adapter].init_lora_weights = config["init_lora_weights"]
    perturb(model, seed)
    native = logits_of(model, feeds)
    safe = options.get("format") != "bin"
    model.save_pretrained(folder / "adapter", safe_serialization=safe, save_embedding_layers=options.get("save_embeddings", False))
    if options.get("convert"):
        model.save_pretrained(folder / "converted", path_initial_model_for_weight_conversion=str(folder / "initial"))
        shutil.rmtree(folder / "initial")
    saved = folder / "adapter" if adapter == "default" else folder / "adapter" / adapter
    for card in folder.rglob("README.md"):
        card.unlink()
    # Judge by what is on disk, in float32 arithmetic on the stored values.
    again = reload(saved, grid, base, adapter)
    expected = dict(feeds)
    expected["base_logits"] = logits_of(load_base(base, grid), feeds)
    expected["adapter_logits"] = logits_of(again, feeds)
    expected["native_logits"] = native
    notes = []
    try:
        weights, expected["merged_logits"] = merged(again, feeds)
        if keep_weights:
            save_file(weights, folder / "merged.safetensors", metadata={"format": "pt"})
    except (NotImplementedError, ValueError) as error:
        notes.append(f"PEFT cannot merge: {error}")
    if options.get("convert"):
        expected["converted_logits"] = logits_of(reload(folder / "converted", grid, base, adapter), feeds)
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    facts = dict(name=name, base=base, model_type=model_type_of(base), config=config, dtype=dtype, adapter_name=adapter, adapter_folder=str(saved.relative_to(folder)),
        notes=notes, peft_reload_difference=difference(expected["adapter_logits"], native))
    for key, other in [("merged_logits", "adapter_logits"), ("converted_logits", "native_logits")]:
        facts[f"peft_{key}_difference"] = difference(expected[key], expected[other]) if key in expected else None
    (folder / "case.json").write_text(json.dumps(facts, indent=2) + "\n")
    change = difference(expected["adapter_logits"], expected["base_logits"])
    extra = "  ".join(f"{key.removeprefix('peft_')} {facts[key]:.1e}" for key in facts if key.startswith("peft_") and facts[key] is not None)
    return f"change {change:.2f}  {extra}  {'; '.join(notes)[:80]}"


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def main() -> None:
    grid = Path(sys.argv[1])
    keep_weights = "--no-weights" not in sys.argv
    names = [name for name in sys.argv[2:] if not name.startswith("--")]
    write_conv_base(grid / "base" / "conv")
    failed = []
    for name in names or GRID:
        try:
            print(f"{name:28} {make(name, grid, keep_weights)}", flush=True)
        except Exception as error:  # the table must show every case
            traceback.print_exc()
            failed.append(name)
            print(f"{name:28} FAILED {type(error).__name__}: {error}", flush=True)
    made = sorted(path.parent.name for path in grid.glob("*/case.json"))
    (grid / "grid.json").write_text(json.dumps(made, indent=2) + "\n")
    print(f"{len(made)} cases in {grid}, {len(failed)} failed in this run: {failed}")


main()
