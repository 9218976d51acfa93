import { LorikeetError } from "../../errors.ts";

/** A GGUF architecture that models are read from and written to. */
export type GgufArchitecture =
  "llama" | "qwen2" | "qwen3" | "gemma" | "gemma2" | "gemma3" | "phi3" | "gpt2";

/**
 * How a GGUF tensor differs from the Hugging Face one: rows of query or key heads interleaved, transposed, or
 * increased by one (Gemma's norms).
 */
export type GgufTransform = "none" | "permute-q" | "permute-k" | "transpose" | "add-one";

/** A name in the other convention, and the difference of the values. */
export interface MappedName {
  readonly name: string;
  readonly transform: GgufTransform;
}

/** Pairs of GGUF and Hugging Face module names; `#` is the layer's number. */
type Modules = Readonly<Record<string, string>>;

const ATTENTION: Modules = {
  "blk.#.attn_q": "model.layers.#.self_attn.q_proj",
  "blk.#.attn_k": "model.layers.#.self_attn.k_proj",
  "blk.#.attn_v": "model.layers.#.self_attn.v_proj",
};
const HEAD_NORMS: Modules = {
  "blk.#.attn_q_norm": "model.layers.#.self_attn.q_norm",
  "blk.#.attn_k_norm": "model.layers.#.self_attn.k_norm",
};
const FRAME: Modules = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  "blk.#.attn_norm": "model.layers.#.input_layernorm",
  "blk.#.attn_output": "model.layers.#.self_attn.o_proj",
  "blk.#.ffn_norm": "model.layers.#.post_attention_layernorm",
  "blk.#.ffn_down": "model.layers.#.mlp.down_proj",
};
/** Gemma 1 and 2 always share the embedding. */
const HEAD: Modules = { output: "lm_head" };
const GEMMA: Modules = {
  ...FRAME,
  ...ATTENTION,
  "blk.#.ffn_gate": "model.layers.#.mlp.gate_proj",
  "blk.#.ffn_up": "model.layers.#.mlp.up_proj",
};
const LLAMA: Modules = { ...GEMMA, ...HEAD };
const GEMMA2: Modules = {
  ...GEMMA,
  "blk.#.post_attention_norm": "model.layers.#.post_attention_layernorm",
  "blk.#.ffn_norm": "model.layers.#.pre_feedforward_layernorm",
  "blk.#.post_ffw_norm": "model.layers.#.post_feedforward_layernorm",
};

const MODULES: Readonly<Record<GgufArchitecture, Modules>> = {
  llama: LLAMA,
  qwen2: LLAMA,
  qwen3: { ...LLAMA, ...HEAD_NORMS },
  gemma: GEMMA,
  gemma2: GEMMA2,
  gemma3: { ...GEMMA2, ...HEAD_NORMS, ...HEAD },
  phi3: {
    ...FRAME,
    ...HEAD,
    "blk.#.attn_qkv": "model.layers.#.self_attn.qkv_proj",
    "blk.#.ffn_up": "model.layers.#.mlp.gate_up_proj",
  },
  gpt2: {
    token_embd: "transformer.wte",
    position_embd: "transformer.wpe",
    output_norm: "transformer.ln_f",
    output: "lm_head",
    "blk.#.attn_norm": "transformer.h.#.ln_1",
    "blk.#.attn_qkv": "transformer.h.#.attn.c_attn",
    "blk.#.attn_output": "transformer.h.#.attn.c_proj",
    "blk.#.ffn_norm": "transformer.h.#.ln_2",
    "blk.#.ffn_up": "transformer.h.#.mlp.c_fc",
    "blk.#.ffn_down": "transformer.h.#.mlp.c_proj",
  },
};

/** Hugging Face `model_type`s by the architecture that llama.cpp runs them as. */
const ARCHITECTURES: ReadonlyMap<string, GgufArchitecture> = new Map([
  ["llama", "llama"],
  ["mistral", "llama"],
  ["qwen2", "qwen2"],
  ["qwen3", "qwen3"],
  ["gemma", "gemma"],
  ["gemma2", "gemma2"],
  ["gemma3_text", "gemma3"],
  ["gemma3", "gemma3"],
  ["phi3", "phi3"],
  ["gpt2", "gpt2"],
]);

/**
 * The architecture that llama.cpp runs a Hugging Face `model_type` as.
 * @throws LorikeetError `unsupported-architecture`
 */
export function ggufArchitectureOf(modelType: string): GgufArchitecture {
  const architecture = ARCHITECTURES.get(modelType);
  if (architecture === undefined)
    throw new LorikeetError(
      "unsupported-architecture",
      `Expected a model_type that GGUF files are written for, got "${modelType}"`,
      { hint: `Supported: ${[...ARCHITECTURES.keys()].join(", ")}.` },
    );
  return architecture;
}

/** `value` when it is a GGUF architecture that is read. @throws LorikeetError `unsupported-architecture` */
export function asGgufArchitecture(value: string | undefined): GgufArchitecture {
  if (value !== undefined && Object.hasOwn(MODULES, value)) return value as GgufArchitecture;
  throw new LorikeetError(
    "unsupported-architecture",
    `Expected general.architecture to be one of ${Object.keys(MODULES).join(", ")}, got ${value === undefined ? "none" : `"${value}"`}`,
    { hint: "Use the model's Hugging Face folder, if its family is supported." },
  );
}

const toHf = new Map<GgufArchitecture, ReadonlyMap<string, string>>();
const toGguf = new Map<GgufArchitecture, ReadonlyMap<string, string>>();
for (const [architecture, modules] of Object.entries(MODULES)) {
  const pairs = Object.entries(modules);
  toHf.set(architecture as GgufArchitecture, new Map(pairs));
  toGguf.set(architecture as GgufArchitecture, new Map(pairs.map(([gguf, hf]) => [hf, gguf])));
}

/** Hugging Face name of a GGUF tensor; undefined for one that is no weight there (`rope_freqs.weight`). */
export function toHfName(architecture: GgufArchitecture, name: string): MappedName | undefined {
  const mapped = rename(toHf.get(architecture)!, name);
  return mapped === undefined
    ? undefined
    : { name: mapped, transform: transformOf(architecture, name) };
}

/** GGUF name of a Hugging Face weight; undefined when llama.cpp has no such tensor. */
export function toGgufName(architecture: GgufArchitecture, name: string): MappedName | undefined {
  // GPT-2's first checkpoints have no "transformer." before their names
  const full = architecture === "gpt2" && /^(h\.|w[tp]e\.|ln_f\.)/.test(name) ? `transformer.${name}` : name; // prettier-ignore
  const mapped = rename(toGguf.get(architecture)!, full);
  return mapped === undefined
    ? undefined
    : { name: mapped, transform: transformOf(architecture, mapped) };
}

function rename(modules: ReadonlyMap<string, string>, name: string): string | undefined {
  const [, module, suffix] = /^(.*)\.(weight|bias)$/.exec(name) ?? [];
  if (module === undefined) return undefined;
  const layer = /(?<=\.)\d+(?=\.)/.exec(module)?.[0];
  const key = layer === undefined ? module : module.replace(`.${layer}.`, ".#.");
  const mapped = modules.get(key);
  return mapped === undefined ? undefined : `${mapped.replace("#", layer ?? "#")}.${suffix}`;
}

function transformOf(architecture: GgufArchitecture, gguf: string): GgufTransform {
  if (architecture === "llama") {
    if (gguf.includes(".attn_q.")) return "permute-q";
    if (gguf.includes(".attn_k.")) return "permute-k";
  }
  if (architecture.startsWith("gemma") && gguf.endsWith("norm.weight")) return "add-one";
  const isConv1d = /^blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$/;
  return architecture === "gpt2" && isConv1d.test(gguf) ? "transpose" : "none";
}
