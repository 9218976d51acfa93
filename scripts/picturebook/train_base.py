"""Trains picturebook, a small latent diffusion model in the layout of Stable Diffusion, on pages that draw.py draws.

  python3 train_base.py OUT_FOLDER [--minutes 8] [--pages 40000]     one GPU; needs torch, diffusers, transformers, pillow

It writes a diffusers folder in float16 (15 MB), samples.png, and train.json with what it measured.
"""
import argparse
import json
import math
import time
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from draw import page, sheet

SEED, LENGTH = 20260, 24
SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
PROMPTS = ["a red fish on a blue background", "a big green frog with a yellow hat on a pink background", "a small white rabbit on a black background", "a purple owl on an orange background",
    "a yellow bird with a red balloon on a gray background", "a blue penguin with an orange scarf on a white background", "a brown snail on a green background", "a pink butterfly on a purple background"]


def draw(seed):
    image, text = page(seed)
    return np.asarray(image), text


def byte_pairs(texts):
    """CLIP's byte alphabet, alone and at word ends, with merges until every word of the captions is one token."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in order] + [chr(256 + i) for i in range(68)]
    words = {tuple([*w[:-1], w[-1] + "</w>"]): n for w, n in Counter(w for t in texts for w in t.split()).items()}
    merges = []
    while True:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = n
        words = merged
    vocabulary = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(vocabulary)}, merges


def save_tokenizer(folder, vocabulary, merges):
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    return tokenizer


class Clock:
    """Progress from 0 to 1 through a share of the time; the learning rate falls with it."""

    def __init__(self, seconds):
        self.start, self.seconds = time.time(), seconds

    def progress(self):
        return min(1.0, (time.time() - self.start) / self.seconds)

    def rate(self, peak, step, warmup=200):
        return peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * self.progress()))


def batches(count, size, device, generator):
    while True:
        order = torch.randperm(count, device=device, generator=generator)
        yield from order[: count // size * size].split(size)


def pixels_of(images):
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(vae, images, args, device, generator):
    """Absolute differences of pixels and of their differences to neighbours, and a slight pull of latents to the normal distribution."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=device.type == "cuda")
    clock, step = Clock(60 * args.minutes * 0.22), 0
    for rows in batches(len(images), args.batch // 2, device, generator):
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(2e-3, step)
        x = pixels_of(images[rows])
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample(generator)).sample.float()
        edges = sum((a.diff(dim=d) - b.diff(dim=d)).abs().mean() for d in (2, 3) for a, b in [(y, x)])
        loss = (y - x).abs().mean() + edges + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"vae step {step} loss {loss.item():.4f} {clock.progress():.2f}", flush=True)
        if clock.progress() >= 1 or step == args.steps:
            return step


@torch.no_grad()
def latents_of(vae, images):
    return torch.cat([vae.encode(pixels_of(rows)).latent_dist.mean for rows in images.split(512)])


def min_snr(scheduler, t):
    bar = scheduler.alphas_cumprod.to(t.device)[t]
    snr = bar / (1 - bar)
    return snr.clamp(max=5.0) / (snr + 1)


def prediction_loss(models, scheduler, latents, ids, t, noise, weighted):
    text, unet = models
    noisy, target = scheduler.add_noise(latents, noise, t), scheduler.get_velocity(latents, noise, t)
    with torch.autocast(latents.device.type, torch.bfloat16):
        output = unet(noisy, t, text(ids).last_hidden_state).sample.float()
    each = (output - target).pow(2).mean(dim=(1, 2, 3))
    return (each * (min_snr(scheduler, t) + 0.1)).mean() if weighted else each.mean()


def train_diffusion(text, unet, latents, ids, empty, args, device, generator):
    scheduler = DDPMScheduler(**SCHEDULE)
    parameters = [*text.parameters(), *unet.parameters()]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=device.type == "cuda")
    clock, step, curve = Clock(60 * args.minutes * 0.7), 0, []
    held = slice(len(latents) - args.held_out, None)
    fixed = torch.Generator(device).manual_seed(1)
    held_noise = torch.randn(latents[held].shape, device=device, generator=fixed)
    held_t = torch.randint(0, 1000, (len(held_noise),), device=device, generator=fixed)
    for rows in batches(len(latents) - args.held_out, args.batch, device, generator):
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(args.rate, step)
        dropped = torch.rand(len(rows), 1, device=device, generator=generator) < 0.1
        words = torch.where(dropped, empty, ids[rows])
        noise = torch.randn(latents[rows].shape, device=device, generator=generator)
        t = torch.randint(0, 1000, (len(rows),), device=device, generator=generator)
        loss = prediction_loss((text, unet), scheduler, latents[rows], words, t, noise, True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(0.9995, (step + 1) / (step + 20))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        done = clock.progress() >= 1 or step == args.steps
        if step % 500 == 0 or done:
            with torch.no_grad():
                value = prediction_loss((text, unet), scheduler, latents[held], ids[held], held_t, held_noise, False).item()
            curve.append([step, round(value, 5)])
            print(f"unet step {step} train {loss.item():.4f} held out {value:.4f} {clock.progress():.2f}", flush=True)
        if done:
            break
    with torch.no_grad():
        for p, mean in zip(parameters, average):
            p.copy_(mean)
        value = prediction_loss((text, unet), scheduler, latents[held], ids[held], held_t, held_noise, False).item()
    return dict(steps=step, held_out=curve, held_out_average=round(value, 5))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8, help="for the training alone")
    parser.add_argument("--pages", type=int, default=40000)
    parser.add_argument("--held-out", type=int, default=512)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=0, help="stop each part after so many steps (0: by time)")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(SEED)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    generator = torch.Generator(device).manual_seed(SEED)
    began = time.time()
    with Pool() as pool:
        pages = pool.map(draw, range(10**6, 10**6 + args.pages), chunksize=64)
    images = torch.from_numpy(np.stack([image for image, _ in pages])).to(device)
    texts = [text for _, text in pages]
    print(f"{len(pages)} pages in {time.time() - began:.0f} s", flush=True)

    vocabulary, merges = byte_pairs(texts)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(args.out / "tokenizer", vocabulary, merges)
    ids_of = lambda rows: torch.tensor(tokenizer(rows, padding="max_length", max_length=LENGTH, truncation=True).input_ids, device=device)
    ids, empty = ids_of(texts), ids_of([""])
    end = vocabulary["<|endoftext|>"]
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(vocabulary), hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH,
        hidden_act="quick_gelu", bos_token_id=end - 1, eos_token_id=end, pad_token_id=end, projection_dim=128)).to(device)
    vae = AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64, 64), layers_per_block=1, norm_num_groups=16, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3).to(device)
    unet = UNet2DConditionModel(sample_size=16, block_out_channels=(64, 112, 144), layers_per_block=1, norm_num_groups=16, cross_attention_dim=128, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")).to(device)
    sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in [("text", text), ("vae", vae), ("unet", unet)]}
    print(sizes, flush=True)

    vae_steps = train_vae(vae, images, args, device, generator)
    vae.eval()
    latents = latents_of(vae, images)
    vae.register_to_config(scaling_factor=round(1 / latents[:-args.held_out].std().item(), 5))
    with torch.no_grad():
        error = (vae.decode(latents[-args.held_out:]).sample.clamp(-1, 1) - pixels_of(images[-args.held_out:])).abs().mean().item() * 127.5
    print(f"vae: held-out error {error:.2f} / 255, scaling factor {vae.config.scaling_factor}", flush=True)
    measured = train_diffusion(text, unet, latents * vae.config.scaling_factor, ids, empty, args, device, generator)

    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False)
    pipeline = StableDiffusionPipeline(vae.eval(), text.eval(), tokenizer, unet.eval(), scheduler, None, None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    grid = []
    for seed in range(2 if device.type == "cpu" else 4):
        noise = torch.Generator("cpu").manual_seed(seed)
        grid += [(image, "") for image in pipeline(PROMPTS, num_inference_steps=25, guidance_scale=3.0, height=64, width=64, generator=noise).images]
    sheet(grid, 8).save(args.out / "samples.png")
    pipeline.to(torch.float16).save_pretrained(args.out)
    save_tokenizer(args.out / "tokenizer", vocabulary, merges)
    measured |= dict(parameters=sizes, vae_steps=vae_steps, vae_error=round(error, 3), pages=args.pages, seconds=round(time.time() - began), device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu")
    (args.out / "train.json").write_text(json.dumps(measured, indent=2) + "\n")
    size = sum(file.stat().st_size for file in args.out.rglob("*.safetensors")) / 1e6
    print(f"{args.out}: {size:.1f} MB of weights in {time.time() - began:.0f} s; look at samples.png", flush=True)


if __name__ == "__main__":
    main()
