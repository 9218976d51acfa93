import { LorikeetError, nearest } from "../errors.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import type { HfConfig } from "./config.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

type Builder = (config: HfConfig, sequence: Sequence) => CausalLM;

const causalModels: Readonly<Record<string, Builder>> = { llama, mistral, qwen2, qwen3 };

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
      { hint: `Nearest: ${nearest(type, causalModelTypes).join(", ") || "none"}. docs/adding-a-model.md shows how to add a family.` },
    );
  return build(config, sequence);
}
