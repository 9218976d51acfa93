"""The base models of the interop grid: tiny checkpoints of test/fixtures/models, and one small convolutional network."""
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
ENCODERS = {"bert", "roberta", "modernbert"}


class ConvNet(torch.nn.Module):
    """conv (3×3, stride 1, padding 1) → SiLU → down (3×3, stride 2, padding 1) → SiLU → point (1×1) → SiLU →
    grouped (3×3, padding 1, groups 2) → mean over height → line (Conv1d, 3, padding 1) → mean over width → head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.down = torch.nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.point = torch.nn.Conv2d(12, 8, 1, bias=False)
        self.grouped = torch.nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.line = torch.nn.Conv1d(8, 6, 3, padding=1)
        self.head = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        silu = torch.nn.functional.silu
        x = silu(self.point(silu(self.down(silu(self.conv(x))))))
        x = silu(self.grouped(x)).mean(2)
        return self.head(silu(self.line(x)).mean(2))


def write_conv_base(folder: Path) -> None:
    torch.manual_seed(11)
    model = ConvNet()
    for p in model.parameters():
        p.data = torch.randn(p.shape) * (1.5 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.2)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "conv-net"}) + "\n")


def load_base(base: str, grid: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A fresh base model in `dtype`, evaluation mode, eager attention."""
    if base == "conv":
        model = ConvNet()
        model.load_state_dict(load_file(grid / "base" / "conv" / "model.safetensors"))
        return model.to(dtype).eval()
    kind = AutoModelForSequenceClassification if base in ENCODERS else AutoModelForCausalLM
    return kind.from_pretrained(MODELS / base, dtype=dtype, attn_implementation="eager").eval()


def feeds_of(base: str) -> dict[str, torch.Tensor]:
    """The fixed batch of a base: ids of its expected.safetensors, or an image [2, 3, 8, 8]."""
    if base == "conv":
        return {"x": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))}
    expected = load_file(MODELS / base / "expected.safetensors")
    return {key: expected[key] for key in ["input_ids", "attention_mask", "token_type_ids"] if key in expected}


@torch.no_grad()
def logits_of(model: torch.nn.Module, feeds: dict[str, torch.Tensor]) -> torch.Tensor:
    if "x" in feeds:
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        return model(feeds["x"].to(dtype)).float()
    return model(**feeds).logits.float()


def model_type_of(base: str) -> str:
    return "conv-net" if base == "conv" else AutoConfig.from_pretrained(MODELS / base).model_type
