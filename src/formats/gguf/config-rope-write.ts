import { tensor } from "../../tensor/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { llama3Factors, type Llama3Rope } from "./config-rope.ts";
import { cannotHold, type ConfigTarget, headDimOf, numberOf } from "./config-target.ts";
import type { GgufArchitecture } from "./names.ts";

/** Writes rotary keys, and tensors of factors where the scaling needs them. */
export function writeRope(target: ConfigTarget, architecture: GgufArchitecture): void {
  const { config, set } = target;
  const given = (config["rope_parameters"] ?? config["rope_scaling"] ?? {}) as ModelConfig;
  const rope = (given["full_attention"] ?? given) as ModelConfig;
  const base = config["rope_theta"] ?? (architecture === "gemma3" ? 1e6 : 10000);
  const partial = numberOf(rope, "partial_rotary_factor", config["partial_rotary_factor"] ?? 1);
  const rotated = headDimOf(config) * partial;
  const theta = numberOf(rope, "rope_theta", base);
  set("rope.dimension_count", "u32", rotated);
  set("rope.freq_base", "f32", theta);
  const type = (rope["rope_type"] ?? rope["type"] ?? "default") as string;
  const write = SCALINGS[type];
  if (!write) throw cannotHold(`rope_type "${type}"`);
  write(target, rope, { theta, rotated });
}

type ScalingWriter = (
  target: ConfigTarget,
  rope: ModelConfig,
  sizes: { readonly theta: number; readonly rotated: number },
) => void;

const SCALINGS: Readonly<Record<string, ScalingWriter>> = {
  default: () => undefined,
  linear: (target, rope) => writeFactor(target, rope, "linear"),
  yarn: (target, rope) => {
    for (const field of ["attention_factor", "mscale", "mscale_all_dim"])
      if (typeof rope[field] === "number") throw cannotHold(`yarn's ${field}`);
    if (rope["truncate"] === false) throw cannotHold("yarn's truncate: false");
    writeFactor(target, rope, "yarn");
    for (const field of ["beta_fast", "beta_slow"])
      if (typeof rope[field] === "number")
        target.set(`rope.scaling.yarn_${field}`, "f32", rope[field]);
    target.set("rope.scaling.original_context_length", "u32", originalContext(target.config, rope));
  },
  llama3: ({ extraTensors }, rope, { theta, rotated }) => {
    const values = llama3Factors(rope as unknown as Llama3Rope, theta, rotated / 2);
    extraTensors.set("rope_freqs.weight", tensor("f32", [values.length], values));
  },
  longrope: writeLongRope,
  su: writeLongRope,
};

function writeFactor({ set }: ConfigTarget, rope: ModelConfig, type: string): void {
  set("rope.scaling.type", "string", type);
  set("rope.scaling.factor", "f32", numberOf(rope, "factor"));
}

function writeLongRope({ config, set, extraTensors }: ConfigTarget, rope: ModelConfig): void {
  const context = originalContext(config, rope);
  const ratio = numberOf(config, "max_position_embeddings") / context;
  const attention = ratio <= 1 ? 1 : Math.sqrt(1 + Math.log(ratio) / Math.log(context));
  set("rope.scaling.original_context_length", "u32", context);
  set("rope.scaling.attn_factor", "f32", numberOf(rope, "attention_factor", attention));
  for (const length of ["long", "short"]) {
    const values = Float32Array.from(rope[`${length}_factor`] as number[]);
    extraTensors.set(`rope_factors_${length}.weight`, tensor("f32", [values.length], values));
  }
}

function originalContext(config: ModelConfig, rope: ModelConfig): number {
  const name = "original_max_position_embeddings";
  return numberOf(rope, name, config[name] ?? config["max_position_embeddings"]);
}
