"""Pipelines and adapters of the comparison with diffusers; shared by make_image_loras.py and check_image_loras.py."""
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file

FIXTURES = Path(__file__).parent.parent / "fixtures" / "diffusion"
MODELS = Path(__file__).parent.parent.parent / "models"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]

# base, targets of the UNet and of the text encoders, LoraConfig arguments, what diffusers saves
CASES = {
    "sd1-attention": ("sd1", ATTENTION, [], dict(r=4, lora_alpha=4), "plain"),
    "sd1-alpha": ("sd1", ATTENTION, [], dict(r=4, lora_alpha=10), "metadata"),
    "sd1-text": ("sd1", ATTENTION, TEXT, dict(r=4, lora_alpha=2), "metadata"),
    "sd1-text-mlp": ("sd1", ATTENTION + FEED_FORWARD, TEXT + ["fc1", "fc2"], dict(r=2, lora_alpha=3), "peft names"),
    "sd1-convolutions": ("sd1", ATTENTION + FEED_FORWARD + CONVOLUTIONS, [], dict(r=3, lora_alpha=6), "peft names"),
    "sd1-ranks": ("sd1", ATTENTION, [], dict(r=4, lora_alpha=4, rank_pattern={"mid_block.*to_q": 2, "down_blocks.0.attentions.0.*to_v": 6}, alpha_pattern={"mid_block.*to_k": 1}), "metadata"),
    "sd1-rslora": ("sd1", ATTENTION, [], dict(r=4, lora_alpha=3, use_rslora=True), "metadata"),
    "sd1-dora": ("sd1", ATTENTION, [], dict(r=4, lora_alpha=4, use_dora=True), "peft names"),
    "sd1-f16": ("sd1", ATTENTION, TEXT, dict(r=4, lora_alpha=4), "plain f16"),
    "sdxl-attention": ("sdxl", ATTENTION, [], dict(r=4, lora_alpha=8), "metadata"),
    "sdxl-text": ("sdxl", ATTENTION, TEXT, dict(r=4, lora_alpha=4), "plain"),
    "sdxl-everything": ("sdxl", ATTENTION + FEED_FORWARD + CONVOLUTIONS, TEXT, dict(r=3, lora_alpha=6), "peft names"),
    "picturebook": ("picturebook", ATTENTION, TEXT, dict(r=8, lora_alpha=8), "metadata"),
}
RUN = {"sd1": (16, 24, 2.0), "sdxl": (16, 24, 2.0), "picturebook": (64, 64, 3.0)}  # height, width, guidance
PROMPT = {"sd1": "a cat, and a dog!", "sdxl": "a cat, and a dog!", "picturebook": "a red fox with a hat on a blue background"}
STEPS = 3


def write_base(name: str, folder: Path) -> None:
    if name == "picturebook":
        shutil.copytree(MODELS / "picturebook-7m", folder, dirs_exist_ok=True)
        return
    shutil.copytree(FIXTURES / ("sd1" if name == "sd1" else "sdxl-pipeline"), folder, dirs_exist_ok=True)
    if name == "sdxl":
        shutil.copytree(FIXTURES / "sdxl" / "unet", folder / "unet", dirs_exist_ok=True)
        shutil.copytree(FIXTURES / "sd1" / "vae", folder / "vae", dirs_exist_ok=True)


def open_pipeline(folder: Path, name: str):
    kind = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
    extra = {} if name == "sdxl" else dict(safety_checker=None, requires_safety_checker=False)
    pipe = kind.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, **extra)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def feeds(name: str, pipe) -> dict[str, torch.Tensor]:
    """Two rows for the UNet alone, and the noise that the image starts from."""
    g = torch.Generator().manual_seed(5)
    height, width, _ = RUN[name]
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    size, text = (height // factor, width // factor), pipe.unet.config.cross_attention_dim
    values = {"sample": torch.randn(2, 4, *size, generator=g), "timestep": torch.tensor([7.0, 801.0]), "encoder_hidden_states": torch.randn(2, 9, text, generator=g)}
    if name == "sdxl":
        values["text_embeds"] = torch.randn(2, 24, generator=g)
        values["time_ids"] = torch.tensor([[16.0, 24, 0, 0, 16, 24], [32.0, 24, 1, 2, 16, 24]])
    return {**values, "latents": torch.randn(1, 4, *size, generator=g)}


@torch.no_grad()
def compute(name: str, pipe, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`output` of the UNet, `final_latents` and `image` of a prompt; DDIM, for SDXL Euler."""
    added = {key: given[key] for key in ["text_embeds", "time_ids"] if key in given}
    output = pipe.unet(given["sample"], given["timestep"], given["encoder_hidden_states"], added_cond_kwargs=added or None).sample
    height, width, guidance = RUN[name]
    pipe.scheduler = (EulerDiscreteScheduler if name == "sdxl" else DDIMScheduler).from_config(pipe.scheduler.config)
    run = dict(prompt=PROMPT[name], negative_prompt="blurry", num_inference_steps=STEPS, guidance_scale=guidance, latents=given["latents"], height=height, width=width)
    latents = pipe(**run, output_type="latent").images
    image = pipe(**run, output_type="np").images[0]
    return {"output": output, "final_latents": latents, "image": torch.from_numpy((image * 255).round().astype("uint8"))}


def farthest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item() / max(1.0, b.double().abs().max().item())


def read(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
