import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField } from "./config.ts";
import { llamaLike } from "./llama.ts";

/** Qwen 2 and 2.5: Llama's layout with biases on q, k and v. https://arxiv.org/abs/2407.10671 */
export function qwen2(config: HfConfig, sequence: Sequence): CausalLM {
  return llamaLike(config, sequence, {
    qkvBias: true,
    outputBias: false,
    mlpBias: false,
    headNorm: false,
    windowOf: qwenWindows(config),
  });
}

/** Sliding window of each layer: from `layer_types`, or the layers from `max_window_layers` on when windows are in use. */
export function qwenWindows(config: HfConfig): (layer: number) => number {
  if (!flagField(config, "use_sliding_window", false)) return () => 0;
  const complete: HfConfig = { sliding_window: 4096, max_window_layers: 28, ...config };
  const window = numberField(complete, "sliding_window", 0);
  const types = config["layer_types"] as readonly string[] | null | undefined;
  const first = numberField(complete, "max_window_layers");
  return (layer) => ((types ? types[layer] === "sliding_attention" : layer >= first) ? window : 0);
}
