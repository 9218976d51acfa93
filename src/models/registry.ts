import { LorikeetError, nearest } from "../errors.ts";
import { bert } from "./bert.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { checkCounts, type HfConfig } from "./config.ts";
import type { EncoderModel, EncoderSequence } from "./encoder.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3Text } from "./gemma3-text.ts";
import { gptNeox } from "./gpt-neox.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { modernbert } from "./modernbert.ts";
import { opt } from "./opt.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";
import { roberta } from "./roberta.ts";

type Builder<S, M> = (config: HfConfig, sequence: S) => M;

const causalModels: Readonly<Record<string, Builder<Sequence, CausalLM>>> = {
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma,
  gemma2,
  gemma3_text: gemma3Text,
  phi3,
  gpt2,
  gpt_neox: gptNeox,
  opt,
};

const encoderModels: Readonly<Record<string, Builder<EncoderSequence, EncoderModel>>> = {
  bert,
  roberta,
  modernbert,
};

/** Model types that can be built as causal language models. */
export const causalModelTypes: readonly string[] = Object.keys(causalModels);

/** Model types that can be built as encoders. */
export const encoderModelTypes: readonly string[] = Object.keys(encoderModels);

/**
 * The graph of the causal language model that `config` describes.
 * @throws LorikeetError `unsupported-architecture` listing what is supported, `model-config`
 */
export function causalLM(config: HfConfig, sequence: Sequence): CausalLM {
  return builderOf(causalModels, config)(config, sequence);
}

/**
 * The graph of the encoder that `config` describes.
 * @throws LorikeetError `unsupported-architecture` listing what is supported
 */
export function encoderModel(config: HfConfig, sequence: EncoderSequence): EncoderModel {
  return builderOf(encoderModels, config)(config, sequence);
}

function builderOf<T>(builders: Readonly<Record<string, T>>, config: HfConfig): T {
  const { model_type: named = "none" } = config;
  const type = String(named);
  const types = Object.keys(builders);
  const build = builders[type];
  if (build) {
    checkCounts(config);
    return build;
  }
  const near = nearest(type, types).join(", ") || "none";
  throw new LorikeetError(
    "unsupported-architecture",
    `Expected model_type in config.json to be one of ${types.join(", ")}, got ${type}`,
    { hint: `Nearest: ${near}. docs/adding-a-model.md shows how to add a family.` },
  );
}
