import type { CausalLM, Sequence } from "./causal-lm.ts";
import { type HfConfig, numberField } from "./config.ts";
import { llamaLike } from "./llama.ts";

/** Mistral 7B: Llama's layout with a sliding window on every layer (`sliding_window: null`: none). https://arxiv.org/abs/2310.06825 */
export function mistral(config: HfConfig, sequence: Sequence): CausalLM {
  const complete = { sliding_window: 4096, num_key_value_heads: 8, ...config };
  const window = numberField(complete, "sliding_window", 0);
  return llamaLike(complete, sequence, {
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    headNorm: false,
    windowOf: () => window,
  });
}
