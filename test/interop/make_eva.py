#!/usr/bin/env python3
"""Write what PEFT's EVA makes of a tiny model: test/fixtures/eva.safetensors and eva.json.

  python3 make_eva.py OUT_FOLDER        needs torch 2.11, transformers 5.17, peft 0.21.0

PEFT's SVD is made exact: its random one is off by several percent where singular values lie close. `whiten` divides
what layers of one input share as often as there are layers, a fault of PEFT 0.21; the rest of it is right.

Batches are random ids with labels on a part of them. Cases: EvaConfig and LoraConfig options, and what came out: ranks,
alphas, and A by module.
"""
import json
import sys
from pathlib import Path

import torch
import peft.tuners.lora.eva as peft_eva
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from safetensors.torch import save_file

from bases import load_base

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "default": (dict(r=4, target_modules=ALL), dict()),
    "whiten": (dict(r=3, target_modules=ALL, rank_pattern={"q_proj": 5}), dict(rho=2.5, whiten=True)),
    "unadjusted": (dict(r=4, target_modules=["q_proj", "v_proj", "down_proj"]), dict(adjust_scaling_factors=False, use_label_mask=False)),
    "still": (dict(r=4, target_modules=ALL), dict(rho=1.0, tau=0.9)),
}


class ExactPCA(peft_eva.IncrementalPCA):
    def __init__(self, **options):
        super().__init__(**options | {"lowrank": False})


peft_eva.IncrementalPCA = ExactPCA


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(6):
        ids = torch.randint(0, 128, (4, 17), generator=generator)
        labels = ids.clone()
        labels[:, :3] = -100
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return made


def main() -> None:
    out = Path(sys.argv[1])
    tensors, facts = {}, {}
    data = batches()
    tensors["input_ids"] = torch.stack([batch["input_ids"] for batch in data])
    for name, (config, eva) in CASES.items():
        torch.manual_seed(0)
        lora = LoraConfig(lora_alpha=8, task_type="CAUSAL_LM", init_lora_weights="eva", eva_config=EvaConfig(**eva), **config)
        model = get_peft_model(load_base("llama", Path(".")), lora)
        initialize_lora_eva_weights(model, data, show_progress_bar=False)
        peft = model.peft_config["default"]
        facts[name] = dict(config=config, eva=eva, rank_pattern=peft.rank_pattern, alpha_pattern=peft.alpha_pattern, target_modules=sorted(peft.target_modules))
        for key, p in model.named_parameters():
            if "lora_A" in key:
                module = key.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
                tensors[f"{name}.{module}"] = p.detach().clone().contiguous()
    save_file(tensors, out / "eva.safetensors", metadata={"format": "pt"})
    (out / "eva.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


main()
