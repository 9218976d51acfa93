import type { CausalLM, Sequence } from "./causal-lm.ts";
import { type HfConfig, numberField } from "./config.ts";
import { capField, gemmaLike } from "./gemma.ts";
import { slidingLayers, withRopeByType } from "./layer-types.ts";

/** Gemma 3 for text: five windowed layers for each full one, each kind with its own rotary base. https://arxiv.org/abs/2503.19786 */
export function gemma3Text(config: HfConfig, sequence: Sequence): CausalLM {
  const every = numberField(config, "sliding_window_pattern", 6);
  const isSliding = slidingLayers(config, (layer) => (layer + 1) % every === 0);
  const window = numberField(config, "sliding_window", 4096);
  const bases = { full: "rope_theta", sliding: "rope_local_base_freq" };
  const spelled = withRopeByType(config, { ...bases, defaults: [1e6, 1e4] });
  return gemmaLike(spelled, sequence, {
    activation: "hidden_activation",
    postNorms: true,
    headNorm: true,
    scale: 1 / Math.sqrt(numberField(config, "query_pre_attn_scalar", 256)),
    scoreCap: capField(config, "attn_logit_softcapping", 0),
    logitCap: capField(config, "final_logit_softcapping", 0),
    windowOf: (layer) => (isSliding(layer) ? window : 0),
    ropeTypeOf: (layer) => (isSliding(layer) ? "sliding_attention" : "full_attention"),
  });
}
