#!/usr/bin/env python3
"""Write what PEFT's LoRA+ and LoRA-FA optimizers do in five steps: test/fixtures/optimizers.

  python3 make_optimizers.py OUT_FOLDER        needs torch 2.11, transformers 5.17, peft 0.21.0

NAME/start and NAME/after are adapters, NAME/facts.json holds losses and settings. LoRA-FA's projection is done in float32:
PEFT rounds it to bfloat16 where a machine can (also on CPUs), which Lorikeet does not.
"""
import json
import shutil
import sys
from pathlib import Path

import peft.optimizers.lorafa as lorafa
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer

from bases import feeds_of, load_base

lorafa.is_bf16_available = lambda: False
STEPS = 5
CASES = {
    "loraplus": dict(target_modules=["q_proj", "v_proj", "embed_tokens"], bias="all", modules_to_save=["norm"], use_dora=True),
    "lorafa": dict(target_modules=["q_proj", "down_proj"], bias="lora_only", rank_pattern={"down_proj": 2}, use_rslora=True),
}


def optimizer_of(name: str, model: torch.nn.Module) -> tuple[torch.optim.Optimizer, dict]:
    if name == "loraplus":
        settings = dict(learning_rate=2e-3, ratio=16, embedding_rate=1e-4, weight_decay=0.1, eps=1e-8)
        return create_loraplus_optimizer(model, torch.optim.AdamW, lr=2e-3, loraplus_lr_ratio=16, loraplus_lr_embedding=1e-4, loraplus_weight_decay=0.1, eps=1e-8), settings
    settings = dict(learning_rate=2e-3, weight_decay=0.1, eps=1e-6)
    return create_lorafa_optimizer(model, r=4, lora_alpha=8, lr=2e-3, weight_decay=0.1), settings


def make(name: str, out: Path) -> None:
    torch.manual_seed(1)
    feeds = feeds_of("llama-rope3")
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **CASES[name])
    model = get_peft_model(load_base("llama-rope3", out), config).train()
    generator = torch.Generator().manual_seed(2)
    for key, p in sorted(model.named_parameters()):
        if p.requires_grad:
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
    shutil.rmtree(out / name, ignore_errors=True)
    optimizer, settings = optimizer_of(name, model)
    model.save_pretrained(out / name / "start", save_embedding_layers=False)
    losses = []
    for _ in range(STEPS):
        loss = model(input_ids=feeds["input_ids"], labels=feeds["input_ids"]).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(out / name / "after", save_embedding_layers=False)
    for card in (out / name).rglob("README.md"):
        card.unlink()
    for path in (out / name).rglob("adapter_config.json"):
        facts = json.loads(path.read_text()) | {"base_model_name_or_path": "llama-rope3"}
        path.write_text(json.dumps(facts, indent=2, sort_keys=True))
    facts = dict(losses=losses, input_ids=feeds["input_ids"].tolist(), **settings)
    (out / name / "facts.json").write_text(json.dumps(facts) + "\n")


def main() -> None:
    for name in CASES:
        make(name, Path(sys.argv[1]))


main()
