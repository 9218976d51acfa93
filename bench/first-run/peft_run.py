#!/usr/bin/env python3
"""The run of run.ts with Hugging Face PEFT: same base, same step-0 adapter, same batches, same hyper-parameters.

  python3 bench/first-run/peft_run.py MODEL_FOLDER OUT      (OUT as written by run.ts)

Writes OUT/peft_losses.json: the loss before each step, and the seconds it took.
"""
import json, sys, time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, out = sys.argv[1:3]
torch.set_num_threads(2)
record = json.load(open(f"{out}/events.json"))
settings = record["settings"]
rates = [e["learningRate"] for e in record["events"] if e["type"] == "step"]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa")
model = PeftModel.from_pretrained(model, f"{out}/step0", is_trainable=True)
model.train()
params = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(
    params, lr=1.0, betas=(settings["adam_beta1"], settings["adam_beta2"]), eps=settings["adam_epsilon"],
    weight_decay=settings["weight_decay"])


def tensor(entry):
    return torch.tensor(entry["values"]).reshape(entry["shape"])


losses, began = [], time.time()
for step, line in enumerate(open(f"{out}/batches.jsonl")):
    if step >= len(rates):
        break
    total = 0.0
    for batch in json.loads(line):
        ids, rows, targets, weights = (tensor(batch[k]) for k in ("input_ids", "loss_rows", "targets", "loss_weights"))
        logits = model(input_ids=ids).logits.reshape(-1, model.config.vocab_size)[rows]
        loss = (torch.nn.functional.cross_entropy(logits, targets, reduction="none") * weights).sum()
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(params, settings["max_grad_norm"])
    for group in optimizer.param_groups:
        group["lr"] = rates[step]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(total)
    if step % 10 == 0:
        print(step + 1, total, round(time.time() - began, 1), flush=True)
    json.dump({"losses": losses, "seconds": time.time() - began, "torch": torch.__version__}, open(f"{out}/peft_losses.json", "w"))
