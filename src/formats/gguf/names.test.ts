import { expect, test } from "vitest";
import { LorikeetError } from "../../errors.ts";
import { asGgufArchitecture, ggufArchitectureOf, toGgufName, toHfName } from "./names.ts";

test.each([
  ["llama", "token_embd.weight", "model.embed_tokens.weight", "none"],
  ["llama", "output.weight", "lm_head.weight", "none"],
  ["llama", "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", "permute-q"],
  ["llama", "blk.12.attn_k.bias", "model.layers.12.self_attn.k_proj.bias", "permute-k"],
  ["llama", "blk.12.attn_v.weight", "model.layers.12.self_attn.v_proj.weight", "none"],
  ["llama", "blk.3.ffn_norm.weight", "model.layers.3.post_attention_layernorm.weight", "none"],
  ["qwen2", "blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias", "none"],
  ["qwen3", "blk.0.attn_k_norm.weight", "model.layers.0.self_attn.k_norm.weight", "none"],
  ["gemma", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight", "add-one"],
  ["gemma", "output_norm.weight", "model.norm.weight", "add-one"],
  ["gemma", "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", "none"],
  ["gemma2", "blk.1.ffn_norm.weight", "model.layers.1.pre_feedforward_layernorm.weight", "add-one"],
  ["gemma2", "blk.1.post_attention_norm.weight", "model.layers.1.post_attention_layernorm.weight", "add-one"],
  ["gemma3", "blk.1.attn_q_norm.weight", "model.layers.1.self_attn.q_norm.weight", "add-one"],
  ["phi3", "blk.1.ffn_up.weight", "model.layers.1.mlp.gate_up_proj.weight", "none"],
  ["phi3", "blk.1.attn_qkv.weight", "model.layers.1.self_attn.qkv_proj.weight", "none"],
  ["gpt2", "blk.1.attn_qkv.weight", "transformer.h.1.attn.c_attn.weight", "transpose"],
  ["gpt2", "blk.1.attn_qkv.bias", "transformer.h.1.attn.c_attn.bias", "none"],
  ["gpt2", "blk.1.attn_norm.bias", "transformer.h.1.ln_1.bias", "none"],
  ["gpt2", "position_embd.weight", "transformer.wpe.weight", "none"],
] as const)("%s: %s is %s", (architecture, gguf, hf, transform) => {
  expect(toHfName(architecture, gguf)).toEqual({ name: hf, transform });
  expect(toGgufName(architecture, hf)).toEqual({ name: gguf, transform });
}); // prettier-ignore

test("what has no counterpart is undefined", () => {
  for (const name of [
    "rope_freqs.weight",
    "blk.0.attn_q",
    "blk.x.attn_q.weight",
    "blk.0.ffn_gate_inp.weight",
    "constructor.weight",
  ])
    // prettier-ignore
    expect(toHfName("llama", name)).toBeUndefined();
  expect(toGgufName("gemma2", "lm_head.weight")).toBeUndefined();
  expect(toHfName("phi3", "blk.0.ffn_gate.weight")).toBeUndefined();
  for (const name of ["h.0.attn.bias", "model.layers.0.self_attn.rotary_emb.inv_freq"])
    expect(toGgufName("gpt2", name)).toBeUndefined();
});

test("GPT-2 names without their prefix are known", () => {
  expect(toGgufName("gpt2", "h.3.ln_2.weight")?.name).toBe("blk.3.ffn_norm.weight");
  expect(toGgufName("gpt2", "wte.weight")?.name).toBe("token_embd.weight");
});

test("model types and architectures that are not supported are refused with the list", () => {
  expect(ggufArchitectureOf("mistral")).toBe("llama");
  expect(() => ggufArchitectureOf("bert")).toThrow(LorikeetError);
  expect(asGgufArchitecture("gemma3")).toBe("gemma3");
  for (const value of ["mamba", "toString", undefined])
    expect(() => asGgufArchitecture(value)).toThrow(/one of llama, qwen2.*, got/);
});
