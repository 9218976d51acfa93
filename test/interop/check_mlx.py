#!/usr/bin/env python3
"""What mlx-lm computes with adapters in FOLDER, and adapters that mlx_lm.lora trains there; called by check-mlx.ts.

  python check_mlx.py MODEL FOLDER CONVERTED,… TRAINED,…      needs mlx[cpu] 0.32.4 and mlx-lm 0.32.2

Reads FOLDER/rows.safetensors and FOLDER/data, writes FOLDER/NAME.safetensors with `logits`, in float32.
"""
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import load

# Options of mlx_lm.lora beside two steps at a rate that shows.
TRAINING = {
    "trained-lora": ["--num-layers", "-1"],
    "trained-dora": ["--num-layers", "-1", "--fine-tune-type", "dora"],
    "trained-two-layers": ["--num-layers", "2"],
    "trained-small": ["--num-layers", "1", "--config", str(Path(__file__).parent / "mlx-small.yaml")],
}


def train(model: str, folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "mlx_lm", "lora", "--train", "--model", model, "--data", str(folder / "data")]
    options = ["--iters", "2", "--batch-size", "1", "--val-batches", "1", "--learning-rate", "1e-3", "--seed", "1"]
    subprocess.run([*command, *options, "--adapter-path", str(folder / name), *TRAINING[name]], check=True)


def main() -> None:
    model, folder, converted, trained = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4].split(",")
    rows = mx.load(str(folder / "rows.safetensors"))["input_ids"]
    for name in trained:
        train(model, folder, name)
    for name in converted + trained:
        loaded, _ = load(model, adapter_path=str(folder / name))
        loaded.set_dtype(mx.float32)
        loaded.eval()
        mx.save_safetensors(str(folder / f"{name}.safetensors"), {"logits": loaded(rows)})


main()
