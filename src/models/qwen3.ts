import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField } from "./config.ts";
import { llamaLike } from "./llama.ts";
import { qwenWindows } from "./qwen2.ts";

/** Qwen 3 (dense): Llama's layout with an RMS norm on each query and key head. https://arxiv.org/abs/2505.09388 */
export function qwen3(config: HfConfig, sequence: Sequence): CausalLM {
  const bias = flagField(config, "attention_bias", false);
  const sized = { ...config, head_dim: numberField(config, "head_dim", 128) };
  return llamaLike(sized, sequence, {
    qkvBias: bias,
    outputBias: bias,
    mlpBias: false,
    headNorm: true,
    windowOf: qwenWindows(config),
  });
}
