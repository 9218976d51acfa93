import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { embedding } from "../ops/embedding.ts";
import { parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { reshape } from "../ops/reshape.ts";
import {
  type AttentionLayer,
  cachedAttention,
  decoderContext,
  type DecoderContext,
} from "./cached-attention.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField, oneOf } from "./config.ts";
import { dense, gatedMlp, norm, rotate } from "./layers.ts";
import { type Angles, anglesOf, rotaryOf } from "./rotary.ts";

/** What distinguishes the families that share Llama's layout. */
export interface LlamaOptions {
  /** Biases of q, k and v. */
  readonly qkvBias: boolean;
  /** Bias of o. */
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** RMS norm of each query and key head before rotation. */
  readonly headNorm: boolean;
  /** Sliding window of a layer in tokens; 0: unlimited. */
  readonly windowOf: (layer: number) => number;
}

/** Llama 1-3 (and SmolLM2, TinyLlama …) as a graph. https://arxiv.org/abs/2302.13971, https://arxiv.org/abs/2407.21783 */
export function llama(config: HfConfig, sequence: Sequence): CausalLM {
  const bias = flagField(config, "attention_bias", false);
  return llamaLike(config, sequence, {
    qkvBias: bias,
    outputBias: bias,
    mlpBias: flagField(config, "mlp_bias", false),
    headNorm: false,
    windowOf: () => 0,
  });
}

/** A decoder in Llama's layout: RMS norms, rotary grouped-query attention, gated MLP, residual around both. */
export function llamaLike(config: HfConfig, sequence: Sequence, options: LlamaOptions): CausalLM {
  oneOf(config, "hidden_act", ["silu"], "silu");
  const hidden = numberField(config, "hidden_size");
  const vocabulary = numberField(config, "vocab_size");
  const heads = numberField(config, "num_attention_heads");
  const headDim = numberField(config, "head_dim", hidden / heads);
  const eps = numberField(config, "rms_norm_eps", 1e-6);
  const context = decoderContext(sequence);
  const table = parameter("model.embed_tokens.weight", [vocabulary, hidden]);
  const tokens = sequence.batch * sequence.length;
  const rotary = rotaryOf(config, headDim, sequence);
  const angles = anglesOf(rotary, context.inputs.positions);
  const ids = reshape(context.inputs.ids, { shape: [tokens] });
  let x = boundary(embedding(ids, table));
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++) {
    const name = `model.layers.${index}`;
    const layer: AttentionLayer = {
      heads,
      keyHeads: numberField(config, "num_key_value_heads", heads),
      headDim,
      scale: 1 / Math.sqrt(headDim),
      window: options.windowOf(index),
    };
    const normed = norm(x, `${name}.input_layernorm`, eps);
    const attended = selfAttention(context, index, normed, { layer, angles, options, eps });
    x = add(x, dense(attended, `${name}.self_attn.o_proj`, hidden, { bias: options.outputBias }));
    const mlp = gatedMlp(
      norm(x, `${name}.post_attention_layernorm`, eps),
      `${name}.mlp`,
      numberField(config, "intermediate_size"),
      {
        bias: options.mlpBias,
      },
    );
    x = boundary(add(x, mlp));
  }
  const isTied = flagField(config, "tie_word_embeddings", false);
  const headWeight = isTied ? table : parameter("lm_head.weight", [vocabulary, hidden]);
  return {
    hidden: norm(x, "model.norm", eps),
    head: (rows) => linear(rows, headWeight, { module: "lm_head" }),
    present: context.present,
  };
}

interface LayerContext {
  readonly layer: AttentionLayer;
  readonly angles: Angles;
  readonly options: LlamaOptions;
  readonly eps: number;
}

function selfAttention(
  context: DecoderContext,
  index: number,
  x: Node,
  { layer, angles, options, eps }: LayerContext,
): Node {
  const { heads, keyHeads, headDim } = layer;
  const name = `model.layers.${index}.self_attn`;
  const project = (part: string, count: number): Node =>
    dense(x, `${name}.${part}_proj`, count * headDim, { bias: options.qkvBias });
  const prepare = (part: "q" | "k", count: number): Node => {
    const projected = project(part, count);
    if (!options.headNorm) return rotate(projected, count, angles);
    const split = reshape(projected, { shape: [x.shape[0]!, count, headDim] });
    const normed = norm(split, `${name}.${part}_norm`, eps);
    return rotate(reshape(normed, { shape: projected.shape }), count, angles);
  };
  const projections = {
    q: prepare("q", heads),
    k: prepare("k", keyHeads),
    v: project("v", keyHeads),
  };
  return cachedAttention(context, index, projections, layer);
}
