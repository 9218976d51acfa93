#!/usr/bin/env python3
"""Image adapters as diffusers saves them, and what it computes with them.

  python3 make_image_loras.py GRID      needs torch 2.11, transformers 5.17, diffusers 0.42, peft 0.21.0
"""
import json
import sys
from pathlib import Path

import torch
from image_cases import CASES, RUN, compute, feeds, open_pipeline, write_base
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file

GRID = Path(sys.argv[1])


def attach(model: torch.nn.Module, targets: list[str], arguments: dict, seed: int) -> LoraConfig | None:
    if not targets:
        return None
    config = LoraConfig(**arguments, target_modules=targets, init_lora_weights="gaussian")
    torch.manual_seed(seed)
    model.add_adapter(config)
    g = torch.Generator().manual_seed(seed)
    for key, p in model.named_parameters():
        if "lora_B" in key:
            p.data = torch.randn(p.shape, generator=g) * 0.2
        if "lora_magnitude" in key:
            p.data = p.data * (1 + 0.2 * torch.rand(p.shape, generator=g))
    return config


def state(model: torch.nn.Module, style: str) -> dict[str, torch.Tensor]:
    values = {key: value.contiguous() for key, value in get_peft_model_state_dict(model).items()}
    if "f16" in style:
        values = {key: value.half() for key, value in values.items()}
    return values if style == "peft names" else convert_state_dict_to_diffusers(values)


def make(name: str) -> None:
    base, unet_targets, text_targets, arguments, style = CASES[name]
    folder = GRID / name
    folder.mkdir(parents=True, exist_ok=True)
    pipe = open_pipeline(GRID / "base" / base, base)
    texts = {"text_encoder": pipe.text_encoder, **({"text_encoder_2": pipe.text_encoder_2} if base == "sdxl" else {})}
    configs = {"unet": attach(pipe.unet, unet_targets, arguments, 10), **{key: attach(model, text_targets, arguments, 20 + i) for i, (key, model) in enumerate(texts.items())}}
    models = {"unet": pipe.unet, **texts}
    layers = {f"{key}_lora_layers": state(models[key], style) for key, config in configs.items() if config}
    metadata = {} if style.startswith("plain") else {f"{key}_lora_adapter_metadata": config.to_dict() for key, config in configs.items() if config}
    type(pipe).save_lora_weights(folder, **layers, **metadata)
    if "f16" in style:  # what the file holds, not what was rounded to write it
        for model in models.values():
            for key, p in model.named_parameters():
                if "lora_" in key:
                    p.data = p.data.half().float()
    given = feeds(base, pipe)
    values = {**given, **compute(base, pipe, given)}
    save_file({key: value.contiguous().clone() for key, value in values.items()}, folder / "expected.safetensors")


def main() -> None:
    for base in RUN:
        write_base(base, GRID / "base" / base)
    for name in CASES:
        make(name)
        print(name)
    (GRID / "cases.json").write_text(json.dumps({name: case[0] for name, case in CASES.items()}))


main()
