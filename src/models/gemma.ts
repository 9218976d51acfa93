import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { boundary } from "../ops/boundary.ts";
import { constant, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { tanh } from "../ops/tanh.ts";
import { activationOf } from "./activation.ts";
import {
  type AttentionLayer,
  cachedAttention,
  decoderContext,
  type DecoderContext,
} from "./cached-attention.ts";
import type { CausalLM, Sequence } from "./causal-lm.ts";
import { flagField, type HfConfig, numberField, oneOf } from "./config.ts";
import { dense, embed, gatedMlp, rotate } from "./layers.ts";
import { type Angles, anglesOf, rotaryOf } from "./rotary.ts";

/** What distinguishes the generations of Gemma. */
export interface GemmaOptions {
  /** Field that names the activation. */
  readonly activation: "hidden_act" | "hidden_activation";
  /** Whether the results of attention and MLP are normalised before they are added, from Gemma 2 on. */
  readonly postNorms: boolean;
  /** Norm of each query and key head before rotation, from Gemma 3 on. */
  readonly headNorm: boolean;
  /** Factor on attention scores. */
  readonly scale: number;
  /** Soft caps on attention scores and on logits; 0: none. */
  readonly scoreCap: number;
  readonly logitCap: number;
  /** Sliding window of a layer in tokens; 0: unlimited. */
  readonly windowOf: (layer: number) => number;
  /** Layer type by which a layer's rotary embedding is found in `config`. */
  readonly ropeTypeOf: (layer: number) => string | undefined;
}

/** Gemma 1 as a graph. https://arxiv.org/abs/2403.08295 */
export function gemma(config: HfConfig, sequence: Sequence): CausalLM {
  return gemmaLike(config, sequence, {
    activation: "hidden_act",
    postNorms: false,
    headNorm: false,
    scale: 1 / Math.sqrt(numberField(config, "head_dim", 256)),
    scoreCap: 0,
    logitCap: 0,
    windowOf: () => 0,
    ropeTypeOf: () => undefined,
  });
}

/** A decoder in Gemma's layout: scaled embeddings, zero-centred norms, gated MLP with GELU, usually a tied head. */
export function gemmaLike(config: HfConfig, sequence: Sequence, options: GemmaOptions): CausalLM {
  const hidden = numberField(config, "hidden_size");
  const vocabulary = numberField(config, "vocab_size");
  const eps = numberField(config, "rms_norm_eps", 1e-6);
  const context = decoderContext(sequence);
  const anglesFor = rotaryAngles(config, context, options);
  const activation = activationOf(config, options.activation, "gelu_pytorch_tanh");
  const normed = (x: Node, name: string): Node => zeroCentredNorm(x, name, eps);
  const table = parameter("model.embed_tokens.weight", [vocabulary, hidden]);
  let x = boundary(mul(embed(context.inputs.ids, table), constant(Math.sqrt(hidden))));
  for (let index = 0; index < numberField(config, "num_hidden_layers"); index++) {
    const name = `model.layers.${index}`;
    const layer = layerOf(config, index, options);
    const after = (y: Node, norm: string): Node =>
      options.postNorms ? normed(y, `${name}.${norm}`) : y;
    const source = normed(x, `${name}.input_layernorm`);
    const angles = anglesFor(options.ropeTypeOf(index));
    const attended = selfAttention(context, index, source, { config, layer, angles, options, eps });
    x = add(x, after(attended, "post_attention_layernorm"));
    const before = options.postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
    const mlp = gatedMlp(
      normed(x, `${name}.${before}`),
      `${name}.mlp`,
      numberField(config, "intermediate_size"),
      { activation },
    );
    x = boundary(add(x, after(mlp, "post_feedforward_layernorm")));
  }
  const isTied = flagField(config, "tie_word_embeddings", true);
  const headWeight = isTied ? table : parameter("lm_head.weight", [vocabulary, hidden]);
  return {
    hidden: normed(x, "model.norm"),
    head: (rows) => capped(linear(rows, headWeight, { module: "lm_head" }), options.logitCap),
    present: context.present,
  };
}

/** A field that holds a soft cap: 0 where it is null. */
export function capField(config: HfConfig, name: string, fallback: number): number {
  return config[name] === null ? 0 : numberField(config, name, fallback);
}

/** RMS norm whose weight is stored as its difference from 1. */
function zeroCentredNorm(x: Node, name: string, eps: number): Node {
  const weight = parameter(`${name}.weight`, [x.shape.at(-1)!]);
  return rmsNorm(x, add(weight, constant(1)), { eps });
}

function capped(x: Node, cap: number): Node {
  return cap === 0 ? x : mul(tanh(mul(x, constant(1 / cap))), constant(cap));
}

function layerOf(config: HfConfig, index: number, options: GemmaOptions): AttentionLayer {
  const heads = numberField(config, "num_attention_heads");
  return {
    heads,
    keyHeads: numberField(config, "num_key_value_heads", heads),
    headDim: numberField(config, "head_dim", 256),
    scale: options.scale,
    window: options.windowOf(index),
    softcap: options.scoreCap,
  };
}

/** Angles by layer type, each built once. */
function rotaryAngles(
  config: HfConfig,
  { inputs, sequence }: DecoderContext,
  options: GemmaOptions,
): (layerType: string | undefined) => Angles {
  oneOf(config, "use_bidirectional_attention", [false], false);
  const known = new Map<string | undefined, Angles>();
  const { headDim } = layerOf(config, 0, options);
  return (layerType) => {
    const angles =
      known.get(layerType) ??
      anglesOf(
        rotaryOf(config, headDim, { ...sequence, ...(layerType && { layerType }) }),
        inputs.positions,
      );
    known.set(layerType, angles);
    return angles;
  };
}

interface LayerContext {
  readonly config: HfConfig;
  readonly layer: AttentionLayer;
  readonly angles: Angles;
  readonly options: GemmaOptions;
  readonly eps: number;
}

function selfAttention(
  context: DecoderContext,
  index: number,
  x: Node,
  { config, layer, angles, options, eps }: LayerContext,
): Node {
  const { heads, keyHeads, headDim } = layer;
  const name = `model.layers.${index}.self_attn`;
  const bias = flagField(config, "attention_bias", false);
  const project = (part: string, count: number): Node =>
    dense(x, `${name}.${part}_proj`, count * headDim, { bias });
  const prepare = (part: "q" | "k", count: number): Node => {
    const projected = project(part, count);
    if (!options.headNorm) return rotate(projected, count, angles);
    const split = reshape(projected, { shape: [x.shape[0]!, count, headDim] });
    const normed = zeroCentredNorm(split, `${name}.${part}_norm`, eps);
    return rotate(reshape(normed, { shape: projected.shape }), count, angles);
  };
  const projections = {
    q: prepare("q", heads),
    k: prepare("k", keyHeads),
    v: project("v", keyHeads),
  };
  const attended = cachedAttention(context, index, projections, layer);
  return dense(attended, `${name}.o_proj`, x.shape[1]!, { bias });
}
