#!/usr/bin/env python3
"""How far PEFT's own gradients in bf16 (base in bf16, adapters in f32, autocast) are from its f32 ones, on the golden cases:
what a GPU's bf16 gradients are to be measured by. Run in the root of the repository; needs torch, transformers, peft.

Printed with torch 2.11 on a CPU: largest lora 4.1e-2, rslora 4.4e-2, patterns 4.3e-2, layers 2.5e-2, dora 4.0e-2; medians 2.1e-2 to 2.6e-2.
"""
import contextlib

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def gradients(case: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    ids = load_file(f"test/golden/{case}/golden.safetensors")["input_ids"].long()
    base = AutoModelForCausalLM.from_pretrained("models/storyteller-6m", dtype=dtype, attn_implementation="sdpa")
    model = PeftModel.from_pretrained(base, f"test/golden/{case}/adapter", is_trainable=True)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for p in trained.values():
        p.data = p.data.float()
    half = torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else contextlib.nullcontext()
    with half:
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return {name: p.grad for name, p in trained.items() if p.grad is not None}


for case in ["lora", "rslora", "patterns", "layers", "dora"]:
    exact, rounded = gradients(case, torch.float32), gradients(case, torch.bfloat16)
    errors = sorted((((rounded[name] - g).norm() / g.norm()).item(), name) for name, g in exact.items())
    print(f"{case}: largest {errors[-1][0]:.3g} ({errors[-1][1]}), median {errors[len(errors) // 2][0]:.3g}")
