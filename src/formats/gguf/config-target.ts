import { LorikeetError } from "../../errors.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { GgufScalarType } from "./metadata.ts";

/** Where the description of a model is written. */
export interface ConfigTarget {
  readonly config: ModelConfig;
  readonly extraTensors: Map<string, Tensor>;
  /** Sets `<architecture>.<key>`. */
  readonly set: (key: string, type: GgufScalarType, value: number | string) => void;
}

/** Features of one head. @throws LorikeetError `model-config` */
export function headDimOf(config: ModelConfig): number {
  const width = Number(config["hidden_size"]) / Number(config["num_attention_heads"]);
  return numberOf(config, "head_dim", width);
}

/** A number field. @throws LorikeetError `model-config` when it is none and `fallback` neither */
export function numberOf(config: ModelConfig, key: string, fallback?: unknown): number {
  const value = config[key] ?? fallback;
  if (typeof value === "number") return value;
  throw new LorikeetError("model-config", `Expected config.json to give ${key} as a number, got ${JSON.stringify(value)}`, { hint: "Compare config.json with the model's original." }); // prettier-ignore
}

/** The error for a model that llama.cpp would run otherwise than its config says. */
export function cannotHold(what: string): LorikeetError {
  return new LorikeetError(
    "unsupported-gguf",
    `Expected a model that llama.cpp runs as it is, but GGUF has no place for ${what}`,
    { hint: "Save it as a Hugging Face folder (safetensors) instead." },
  );
}
