#!/usr/bin/env python3
"""Load what `lorikeet merge` wrote into transformers and compare its logits with PEFT's merged ones, to 1e-4.

  for c in lora rslora dora patterns layers; do
    lorikeet merge --adapter test/golden/$c/adapter_after10 --dtype f32 --max-shard-size 8MB -o MERGED/$c
  done
  python3 test/interop/check_merged.py MERGED

Exit code 1 if a folder differs, or has missing or unexpected weights.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

failed = False
for case in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    golden = load_file(Path(__file__).parent.parent / "golden" / case.name / "golden.safetensors")
    options = dict(dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    model, info = AutoModelForCausalLM.from_pretrained(case, **options)
    AutoTokenizer.from_pretrained(case)
    with torch.no_grad():
        logits = model.eval()(golden["input_ids"]).logits[..., golden["logit_tokens"]]
    difference = (logits - golden["merged_logits_after10"]).abs().max().item()
    faults = {key: value for key, value in info.items() if value}
    failed = failed or bool(faults) or not difference <= 1e-4
    print(f"{case.name:10} {difference:.1e} {faults or ''}")
raise SystemExit(failed)
