/** Where a family's base model sits in its full model, and what the base holds. */
interface Base {
  readonly prefix: string;
  readonly children: readonly string[];
}

const decoder: Base = { prefix: "model.", children: ["embed_tokens", "layers", "norm"] };
const bertBase = ["embeddings", "encoder", "pooler"];

const bases: Readonly<Record<string, Base>> = {
  llama: decoder,
  mistral: decoder,
  qwen2: decoder,
  qwen3: decoder,
  gemma: decoder,
  gemma2: decoder,
  gemma3_text: decoder,
  phi3: decoder,
  gpt2: { prefix: "transformer.", children: ["wte", "wpe", "h", "ln_f"] },
  gpt_neox: { prefix: "gpt_neox.", children: ["embed_in", "layers", "final_layer_norm"] },
  opt: { prefix: "model.", children: ["decoder"] },
  bert: { prefix: "bert.", children: bertBase },
  roberta: { prefix: "roberta.", children: bertBase },
  modernbert: { prefix: "model.", children: ["embeddings", "layers", "final_norm"] },
};

/**
 * The name that models of `modelType` have for the weight that a checkpoint calls `stored`: base models are saved
 * without their prefix (`gpt2`, sentence encoders), and layer norms once were `gamma` and `beta`.
 */
export function currentWeightName(modelType: string, stored: string): string {
  const name = stored
    .replace(/\.LayerNorm\.gamma$/, ".LayerNorm.weight")
    .replace(/\.LayerNorm\.beta$/, ".LayerNorm.bias");
  const base = bases[modelType];
  return base?.children.includes(name.split(".")[0]!) ? base.prefix + name : name;
}
