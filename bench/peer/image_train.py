#!/usr/bin/env python3
"""Peer baseline: one LoRA training step of a UNet with diffusers + PEFT + PyTorch, on random latents, as diffusers' own
text-to-image LoRA script does it: bf16 weights, f32 adapters under autocast, AdamW, clipping at 1.

  python3 image_train.py --device cuda --unet sd15 --batch 4 --size 64 --text 77 --rank 16
  python3 image_train.py --device cpu --unet picturebook --batch 8 --size 16 --text 24 --threads 2

Prints one JSON line: ms a step (median), images/s, peak memory. Random weights; picturebook reads models/picturebook-7m.
"""
import argparse
import json
import resource
import statistics
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
parser.add_argument("--unet", default="sd15", choices=["sd15", "sdxl", "picturebook"])
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--text", type=int, default=77)
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--warmup", type=int, default=3)
parser.add_argument("--threads", type=int)
parser.add_argument("--checkpointing", action="store_true")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--channels-last", action="store_true")
parser.add_argument("--adapter-bf16", action="store_true", help="adapters in bf16 too; diffusers' script keeps them in f32")
args = parser.parse_args()

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig

SHAPES = {
    "sd15": dict(cross_attention_dim=768, attention_head_dim=8),
    "sdxl": dict(block_out_channels=(320, 640, 1280), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
}
if args.threads:
    torch.set_num_threads(args.threads)
on_gpu = args.device == "cuda"
dtype = torch.bfloat16 if on_gpu else torch.float32
torch.manual_seed(0)
if args.unet == "picturebook":
    unet = UNet2DConditionModel.from_pretrained(Path(__file__).parents[2] / "models" / "picturebook-7m" / "unet")
else:
    with torch.device(args.device):
        unet = UNet2DConditionModel(**SHAPES[args.unet])
unet = unet.to(args.device, dtype).requires_grad_(False)
unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
params = [p for p in unet.parameters() if p.requires_grad]
for p in params:
    p.data = p.data.to(dtype if args.adapter_bf16 else torch.float32)
if args.channels_last:
    unet = unet.to(memory_format=torch.channels_last)
if args.checkpointing:
    unet.enable_gradient_checkpointing()
unet.train()
optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=0.01, fused=on_gpu)
model = torch.compile(unet) if args.compile else unet

config = unet.config
like = dict(device=args.device, dtype=dtype)
sample = torch.randn(args.batch, config.in_channels, args.size, args.size, **like)
target = torch.randn(sample.shape, device=args.device)
times = torch.randint(0, 1000, (args.batch,), device=args.device)
text = torch.randn(args.batch, args.text, config.cross_attention_dim, **like)
added = None
if args.unet == "sdxl":
    added = {"text_embeds": torch.randn(args.batch, 1280, **like), "time_ids": torch.full((args.batch, 6), 1024.0, device=args.device)}


def step() -> torch.Tensor:
    with torch.autocast(args.device, torch.bfloat16, enabled=on_gpu):
        output = model(sample, times, text, added_cond_kwargs=added, return_dict=False)[0]
    loss = F.mse_loss(output.float(), target, reduction="mean")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def wait() -> None:
    if on_gpu:
        torch.cuda.synchronize()


if on_gpu:
    torch.cuda.reset_peak_memory_stats()
for _ in range(args.warmup):
    step()
wait()
durations = []
for _ in range(args.steps):
    start = time.perf_counter()
    step()
    wait()
    durations.append(time.perf_counter() - start)
median = statistics.median(durations)
peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
reserved = torch.cuda.max_memory_reserved() / 2**30 if on_gpu else peak
print(json.dumps(dict(peer="diffusers+peft", unet=args.unet, device=args.device, batch=args.batch, size=args.size, text=args.text, rank=args.rank, dtype=str(dtype).split(".")[1],
    adapter="bf16" if args.adapter_bf16 and on_gpu else "fp32", compile=args.compile, channels_last=args.channels_last, checkpointing=args.checkpointing, ms=round(median * 1e3, 2), min_ms=round(min(durations) * 1e3, 2),
    images_s=round(args.batch / median, 2), peak_gib=round(peak, 2), reserved_gib=round(reserved, 2), torch=torch.__version__)))
