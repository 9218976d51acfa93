import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { swiglu } from "../ops/swiglu.ts";
import { type AttentionLayer, cachedAttention, decoderContext } from "./cached-attention.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField, oneOf } from "./config.ts";
import { dense, embed, norm, rotate, splitColumns } from "./layers.ts";
import { anglesOf, rotaryOf } from "./rotary.ts";

/** Phi-3 and Phi-4 (text): q, k, v from one product, gate and up from another. https://arxiv.org/abs/2404.14219 */
export function phi3(config: HfConfig, sequence: Sequence): CausalLM {
  oneOf(config, "hidden_act", ["silu"], "silu");
  const hidden = numberField(config, "hidden_size");
  const vocabulary = numberField(config, "vocab_size");
  const inner = numberField(config, "intermediate_size");
  const eps = numberField(config, "rms_norm_eps", 1e-5);
  const layer = layerOf(config);
  const context = decoderContext(sequence);
  const rotary = rotaryOf(withLongrope(config), layer.headDim, sequence);
  const angles = anglesOf(rotary, context.inputs.positions);
  const table = parameter("model.embed_tokens.weight", [vocabulary, hidden]);
  let x = boundary(embed(context.inputs.ids, table));
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++) {
    const name = `model.layers.${index}`;
    const normed = norm(x, `${name}.input_layernorm`, eps);
    const sizes = [layer.heads, layer.keyHeads, layer.keyHeads].map((n) => n * layer.headDim);
    const fused = dense(normed, `${name}.self_attn.qkv_proj`, sizes[0]! + 2 * sizes[1]!);
    const [q, k, v] = splitColumns(fused, sizes) as [Node, Node, Node];
    const projections = {
      q: rotate(q, layer.heads, angles),
      k: rotate(k, layer.keyHeads, angles),
      v,
    };
    const attended = cachedAttention(context, index, projections, layer);
    x = add(x, dense(attended, `${name}.self_attn.o_proj`, hidden));
    const between = norm(x, `${name}.post_attention_layernorm`, eps);
    const both = dense(between, `${name}.mlp.gate_up_proj`, 2 * inner);
    const [gate, up] = splitColumns(both, [inner, inner]) as [Node, Node];
    x = boundary(add(x, dense(swiglu(gate, up), `${name}.mlp.down_proj`, hidden)));
  }
  const isTied = flagField(config, "tie_word_embeddings", false);
  const headWeight = isTied ? table : parameter("lm_head.weight", [vocabulary, hidden]);
  return {
    hidden: norm(x, "model.norm", eps),
    head: (rows) => linear(rows, headWeight, { module: "lm_head" }),
    present: context.present,
  };
}

function layerOf(config: HfConfig): AttentionLayer {
  const heads = numberField(config, "num_attention_heads");
  const headDim = numberField(config, "head_dim", numberField(config, "hidden_size") / heads);
  return {
    heads,
    keyHeads: numberField(config, "num_key_value_heads", heads),
    headDim,
    scale: 1 / Math.sqrt(headDim),
    window: numberField(config, "sliding_window", 0),
  };
}

/** `config` with the first names of LongRoPE, "su" and "yarn", replaced. */
function withLongrope(config: HfConfig): HfConfig {
  const scaling = (config["rope_scaling"] ?? {}) as HfConfig;
  if (scaling["type"] !== "su" && scaling["type"] !== "yarn") return config;
  return { ...config, rope_scaling: { ...scaling, type: "longrope" } };
}
