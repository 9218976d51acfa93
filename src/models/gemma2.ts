import type { CausalLM, Sequence } from "./causal-lm.ts";
import { type HfConfig, numberField } from "./config.ts";
import { capField, gemmaLike } from "./gemma.ts";
import { slidingLayers } from "./layer-types.ts";

/** Gemma 2: soft caps on scores and logits, every other layer windowed, norms around both blocks. https://arxiv.org/abs/2408.00118 */
export function gemma2(config: HfConfig, sequence: Sequence): CausalLM {
  const isSliding = slidingLayers(config, (layer) => layer % 2 === 1);
  const window = numberField(config, "sliding_window", 4096);
  return gemmaLike(config, sequence, {
    activation: "hidden_activation",
    postNorms: true,
    headNorm: false,
    scale: 1 / Math.sqrt(numberField(config, "query_pre_attn_scalar", 256)),
    scoreCap: capField(config, "attn_logit_softcapping", 50),
    logitCap: capField(config, "final_logit_softcapping", 30),
    windowOf: (layer) => (isSliding(layer) ? window : 0),
    ropeTypeOf: () => undefined,
  });
}
