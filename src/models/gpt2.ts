import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { activationOf } from "./activation.ts";
import { type AttentionLayer, cachedAttention, decoderContext } from "./cached-attention.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField } from "./config.ts";
import { dense, embed, embedPositions, meanNorm, splitColumns } from "./layers.ts";

/** GPT-2 as a graph: learned positions, weights stored (in, out). https://openai.com/index/better-language-models/ */
export function gpt2(config: HfConfig, sequence: Sequence): CausalLM {
  const hidden = numberField(config, "n_embd");
  const vocabulary = numberField(config, "vocab_size");
  const inner = numberField(config, "n_inner", 4 * hidden);
  const eps = numberField(config, "layer_norm_epsilon", 1e-5);
  const activation = activationOf(config, "activation_function", "gelu_new");
  const conv1d = (x: Node, name: string, size: number): Node =>
    dense(x, name, size, { bias: true, fanInFanOut: true });
  const context = decoderContext(sequence);
  const { ids, positions } = context.inputs;
  const places = { rows: numberField(config, "n_positions", 1024), features: hidden };
  const table = parameter("transformer.wte.weight", [vocabulary, hidden]);
  let x = boundary(add(embed(ids, table), embedPositions(positions, "transformer.wpe", places)));
  for (let index = 0; index < numberField(config, "n_layer"); index++) {
    const name = `transformer.h.${index}`;
    const fused = conv1d(meanNorm(x, `${name}.ln_1`, eps), `${name}.attn.c_attn`, 3 * hidden);
    const [q, k, v] = splitColumns(fused, [hidden, hidden, hidden]) as [Node, Node, Node];
    const attended = cachedAttention(context, index, { q, k, v }, layerOf(config, index));
    x = add(x, conv1d(attended, `${name}.attn.c_proj`, hidden));
    const up = conv1d(meanNorm(x, `${name}.ln_2`, eps), `${name}.mlp.c_fc`, inner);
    x = boundary(add(x, conv1d(activation(up), `${name}.mlp.c_proj`, hidden)));
  }
  const isTied = flagField(config, "tie_word_embeddings", true);
  const headWeight = isTied ? table : parameter("lm_head.weight", [vocabulary, hidden]);
  return {
    hidden: meanNorm(x, "transformer.ln_f", eps),
    head: (rows) => linear(rows, headWeight, { module: "lm_head" }),
    present: context.present,
  };
}

function layerOf(config: HfConfig, index: number): AttentionLayer {
  const heads = numberField(config, "n_head");
  const headDim = numberField(config, "n_embd") / heads;
  const isScaled = flagField(config, "scale_attn_weights", true);
  const byLayer = flagField(config, "scale_attn_by_inverse_layer_idx", false);
  const scale = (isScaled ? 1 / Math.sqrt(headDim) : 1) / (byLayer ? index + 1 : 1);
  return { heads, keyHeads: heads, headDim, scale };
}
