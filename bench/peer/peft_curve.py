#!/usr/bin/env python3
"""Trains a LoRA with PEFT on fixed batches and keeps everything that another program needs to do the same.

  python3 peft_curve.py OUT --model smollm2-135m --steps 200          random weights of seed 0, of SmolLM2-135M's shape
  python3 peft_curve.py OUT --path models/storyteller-6m --steps 200  real weights

Writes to OUT: base/ (config.json, model.safetensors), adapter/ (as PEFT starts), batches.safetensors (ids: batches x
batch x length), losses.json (by dtype). bf16: the base is bf16, adapters are fp32 (PEFT's default), products run in bf16
autocast; fp32: everything in float32. AdamW, clipping at 1, constant rate; every token but the first counts.
"""
import argparse, copy, json, os

ap = argparse.ArgumentParser()
ap.add_argument('out')
ap.add_argument('--model', default='smollm2-135m')
ap.add_argument('--path')
ap.add_argument('--device', default='cuda')
ap.add_argument('--dtypes', default='bf16,fp32', help='bf16, fp32 or both')
ap.add_argument('--batches', type=int, default=10)
ap.add_argument('--batch', type=int, default=4)
ap.add_argument('--seq', type=int, default=128)
ap.add_argument('--steps', type=int, default=200)
ap.add_argument('--rank', type=int, default=16)
ap.add_argument('--lr', type=float, default=5e-4)
ap.add_argument('--vocabulary', type=int, default=512, help='tokens are drawn from this many, unevenly')
a = ap.parse_args()

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

SHAPES = {
    'smollm2-135m': dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True),
}
torch.backends.cuda.matmul.allow_tf32 = False
torch.manual_seed(0)
if a.path:
    base = AutoModelForCausalLM.from_pretrained(a.path, dtype=torch.bfloat16, attn_implementation='sdpa')
else:
    base = LlamaForCausalLM(LlamaConfig(**SHAPES[a.model], max_position_embeddings=8192, rope_theta=100000.0, attn_implementation='sdpa')).to(torch.bfloat16)
os.makedirs(a.out, exist_ok=True)
base.save_pretrained(os.path.join(a.out, 'base'))
# Markov chains: each token has a few likely followers, so that there is something to learn
gen = torch.Generator().manual_seed(1)
followers = torch.randint(0, a.vocabulary, (a.vocabulary, 4), generator=gen)
ids = torch.zeros(a.batches, a.batch, a.seq, dtype=torch.int64)
ids[..., 0] = torch.randint(0, a.vocabulary, (a.batches, a.batch), generator=gen)
for t in range(1, a.seq):
    pick = torch.randint(0, 4, (a.batches, a.batch), generator=gen)
    ids[..., t] = followers[ids[..., t - 1], pick]
save_file({'ids': ids}, os.path.join(a.out, 'batches.safetensors'))


def train(dtype):
    torch.manual_seed(2)
    model = copy.deepcopy(base)
    if dtype == 'fp32':
        model = model.float()
    model = get_peft_model(model.to(a.device), LoraConfig(r=a.rank, lora_alpha=2 * a.rank, lora_dropout=0.0, task_type='CAUSAL_LM',
        target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']))
    folder = os.path.join(a.out, 'adapter')
    if os.path.exists(folder):
        set_peft_model_state_dict(model, load_file(os.path.join(folder, 'adapter_model.safetensors')))
    else:
        model.save_pretrained(folder)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=a.lr, weight_decay=0.01)
    model.train()
    losses = []
    for step in range(a.steps):
        batch = ids[step % a.batches].to(a.device)
        with torch.autocast(a.device, torch.bfloat16, enabled=dtype == 'bf16'):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).float().cpu().tolist()


losses = {dtype: train(dtype) for dtype in a.dtypes.split(',')}
json.dump(dict(losses=losses, lr=a.lr, torch=torch.__version__), open(os.path.join(a.out, 'losses.json'), 'w'))
