import { LorikeetError, nearest } from "../errors.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import type { HfConfig } from "./config.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3Text } from "./gemma3-text.ts";
import { gptNeox } from "./gpt-neox.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { opt } from "./opt.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

type Builder = (config: HfConfig, sequence: Sequence) => CausalLM;

const causalModels: Readonly<Record<string, Builder>> = {
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

/** Model types that can be built as causal language models. */
export const causalModelTypes: readonly string[] = Object.keys(causalModels);

/**
 * The graph of the causal language model that `config` describes.
 * @throws LorikeetError `unsupported-architecture` listing what is supported
 */
export function causalLM(config: HfConfig, sequence: Sequence): CausalLM {
  const type = String(config["model_type"]);
  const build = causalModels[type];
  if (!build)
    throw new LorikeetError(
      "unsupported-architecture",
      `Expected model_type in config.json to be one of ${causalModelTypes.join(", ")}, got ${type}`,
      {
        hint: `Nearest: ${nearest(type, causalModelTypes).join(", ") || "none"}. docs/adding-a-model.md shows how to add a family.`,
      },
    );
  return build(config, sequence);
}
