import { LorikeetError } from "../errors.ts";

/** What a family says about LoRA: PEFT's default targets, and the head that "all-linear" leaves out. */
export interface LoraTargets {
  /** Endings of module names; empty where PEFT has no default and asks for `target_modules`. */
  readonly defaults: readonly string[];
  /** Output head of a language model, or classifier of an encoder. */
  readonly head: string;
}

/** PEFT 0.21, `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`. https://github.com/huggingface/peft */
const families: Readonly<Record<string, LoraTargets>> = {
  llama: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  mistral: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  qwen2: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  qwen3: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  gemma: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  gemma2: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  gemma3_text: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  phi3: { defaults: [], head: "lm_head" },
  gpt2: { defaults: ["c_attn"], head: "lm_head" },
  gpt_neox: { defaults: ["query_key_value"], head: "embed_out" },
  opt: { defaults: ["q_proj", "v_proj"], head: "lm_head" },
  bert: { defaults: ["query", "value"], head: "classifier" },
  roberta: { defaults: ["query", "value"], head: "classifier" },
  modernbert: { defaults: [], head: "classifier" },
};

/**
 * LoRA targets of models of `modelType`.
 * @throws LorikeetError `unsupported-architecture` for a type that no family has
 */
export function loraTargets(modelType: string): LoraTargets {
  const targets = families[modelType];
  if (!targets)
    throw new LorikeetError(
      "unsupported-architecture",
      `Expected model_type in config.json to be one of ${Object.keys(families).join(", ")}, got ${modelType}`,
      { hint: "Take a model of one of these; docs/adding-a-model.md says how another is added." },
    );
  return targets;
}
