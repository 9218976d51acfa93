#!/usr/bin/env python3
"""Write what PEFT's LoftQ makes of a tiny model: test/fixtures/loftq.safetensors and loftq.json.

  python3 make_loftq.py OUT_FOLDER        needs torch 2.11, transformers 5.17, peft 0.21.0, bitsandbytes 0.50.2

PEFT asks for a GPU; bitsandbytes quantizes on the CPU as well, so "cuda" is read as "cpu" here and nothing else changes.
Of each case and module: the weight that the base is left with, B·A (A and B alone are free in sign), and the logits.
"""
import json
import sys
from pathlib import Path

import bitsandbytes as bnb
import torch
from peft import LoftQConfig, LoraConfig, get_peft_model
from safetensors.torch import save_file

from bases import load_base

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "one": (dict(r=4, lora_alpha=4, target_modules=ALL, layers_to_transform=[1]), 1),
    "five": (dict(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"], rank_pattern={"q_proj": 5}, layers_to_transform=[0]), 5),
}


def on_cpu(method):
    def to(self, *args, **options):
        args = ["cpu" if arg == "cuda" else arg for arg in args]
        return method(self, *args, **{key: "cpu" if arg == "cuda" else arg for key, arg in options.items()})
    return to


torch.Tensor.to = on_cpu(torch.Tensor.to)
bnb.nn.Params4bit.to = on_cpu(bnb.nn.Params4bit.to)


def main() -> None:
    out = Path(sys.argv[1])
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 128, (2, 17), generator=generator)
    tensors, facts = {"input_ids": ids}, {}
    for name, (config, rounds) in CASES.items():
        loftq = LoftQConfig(loftq_bits=4, loftq_iter=rounds)
        lora = LoraConfig(task_type="CAUSAL_LM", init_lora_weights="loftq", loftq_config=loftq, **config)
        model = get_peft_model(load_base("llama", Path(".")), lora).eval()
        facts[name] = {"config": config, "loftq_iter": rounds}
        for module, layer in model.get_base_model().named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            tensors[f"{name}.base.{module}"] = layer.base_layer.weight.detach().float().clone()
            tensors[f"{name}.delta.{module}"] = (b.double() @ a.double()).detach().float().contiguous()
        with torch.no_grad():
            tensors[f"{name}.logits"] = model(input_ids=ids).logits.float().contiguous()
    save_file(tensors, out / "loftq.safetensors")
    (out / "loftq.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
