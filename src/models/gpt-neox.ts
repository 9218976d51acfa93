import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { reshape } from "../ops/reshape.ts";
import { slice } from "../ops/slice.ts";
import { activationOf } from "./activation.ts";
import { cachedAttention, decoderContext } from "./cached-attention.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField } from "./config.ts";
import { dense, embed, meanNorm, rotate } from "./layers.ts";
import { anglesOf, rotaryOf } from "./rotary.ts";

/** GPT-NeoX and Pythia as a graph: attention and MLP side by side on one residual. https://arxiv.org/abs/2204.06745 */
export function gptNeox(config: HfConfig, sequence: Sequence): CausalLM {
  const hidden = numberField(config, "hidden_size");
  const vocabulary = numberField(config, "vocab_size");
  const inner = numberField(config, "intermediate_size");
  const eps = numberField(config, "layer_norm_eps", 1e-5);
  const heads = numberField(config, "num_attention_heads");
  const headDim = hidden / heads;
  const layer = { heads, keyHeads: heads, headDim, scale: 1 / Math.sqrt(headDim) };
  const activation = activationOf(config, "hidden_act", "gelu");
  const isParallel = flagField(config, "use_parallel_residual", true);
  const bias = flagField(config, "attention_bias", true);
  const context = decoderContext(sequence);
  const angles = anglesOf(rotaryOf(spelled(config), headDim, sequence), context.inputs.positions);
  const table = parameter("gpt_neox.embed_in.weight", [vocabulary, hidden]);
  let x = boundary(embed(context.inputs.ids, table));
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++) {
    const name = `gpt_neox.layers.${index}`;
    const normed = meanNorm(x, `${name}.input_layernorm`, eps);
    const fused = dense(normed, `${name}.attention.query_key_value`, 3 * hidden, { bias });
    const [q, k, v] = splitHeads(fused, heads) as [Node, Node, Node];
    const projections = { q: rotate(q, heads, angles), k: rotate(k, heads, angles), v };
    const attended = cachedAttention(context, index, projections, layer);
    const between = add(x, dense(attended, `${name}.attention.dense`, hidden, { bias }));
    const source = isParallel ? x : between;
    const mlpInput = meanNorm(source, `${name}.post_attention_layernorm`, eps);
    const up = dense(mlpInput, `${name}.mlp.dense_h_to_4h`, inner, { bias: true });
    const down = dense(activation(up), `${name}.mlp.dense_4h_to_h`, hidden, { bias: true });
    x = boundary(add(between, down));
  }
  const isTied = flagField(config, "tie_word_embeddings", false);
  const headWeight = isTied ? table : parameter("embed_out.weight", [vocabulary, hidden]);
  return {
    hidden: meanNorm(x, "gpt_neox.final_layer_norm", eps),
    head: (rows) => linear(rows, headWeight, { module: "embed_out" }),
    present: context.present,
  };
}

/** Takes a projection apart that holds q, k and v of each head side by side: three times (N, heads·headDim). */
function splitHeads(fused: Node, heads: number): Node[] {
  const [N, width] = fused.shape as [number, number];
  const size = width / 3 / heads;
  const byHead = reshape(fused, { shape: [N, heads, 3 * size] });
  return [0, 1, 2].map((part) => {
    const one = slice(byHead, { axis: 2, start: part * size, end: (part + 1) * size });
    return reshape(one, { shape: [N, heads * size] });
  });
}

/** `config` with the rotary fields of transformers 4, `rotary_pct` and `rotary_emb_base`, under common names. */
function spelled(config: HfConfig): HfConfig {
  return {
    ...config,
    partial_rotary_factor: numberField(config, "rotary_pct", 0.25),
    rope_theta: numberField(config, "rotary_emb_base", 10000),
  };
}
