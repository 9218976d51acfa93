/** @file Pieces that decoder families share. Activations are (B·T, features); weights keep the checkpoint's names. */
import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { attention } from "../ops/attention.ts";
import { concat } from "../ops/concat.ts";
import { input, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { rope } from "../ops/rope.ts";
import { swiglu } from "../ops/swiglu.ts";
import type { DecoderInputs, Sequence } from "./causal-lm.ts";
import type { Angles } from "./rotary.ts";

/** x·Wᵀ (+ b) with the weights `name.weight` (outFeatures, x's features) and `name.bias`. */
export function dense(x: Node, name: string, outFeatures: number, options: { bias?: boolean } = {}): Node {
  const y = linear(x, parameter(`${name}.weight`, [outFeatures, x.shape[1]!]));
  return options.bias ? add(y, parameter(`${name}.bias`, [outFeatures])) : y;
}

/** RMS norm over the last axis with the weight `name.weight`. */
export function norm(x: Node, name: string, eps: number): Node {
  return rmsNorm(x, parameter(`${name}.weight`, [x.shape.at(-1)!]), { eps });
}

/** down(silu(gate(x)) · up(x)). */
export function gatedMlp(x: Node, name: string, hidden: number, options: { bias?: boolean } = {}): Node {
  const gate = dense(x, `${name}.gate_proj`, hidden, options);
  const up = dense(x, `${name}.up_proj`, hidden, options);
  return dense(swiglu(gate, up), `${name}.down_proj`, x.shape[1]!, options);
}

/** Sizes and options of one attention layer. */
export interface AttentionLayer {
  readonly heads: number;
  readonly keyHeads: number;
  readonly headDim: number;
  readonly scale: number;
  /** Sliding window in tokens; 0: unlimited. */
  readonly window?: number;
  readonly softcap?: number;
}

/** Queries, keys and values of one layer, each (B·T, heads·headDim), already normalised where the family does. */
export interface Projections {
  readonly q: Node;
  readonly k: Node;
  readonly v: Node;
}

/** What attention layers of one graph share, and where they leave new keys and values. */
export interface DecoderContext {
  readonly sequence: Sequence;
  readonly inputs: DecoderInputs;
  readonly present: Record<string, Node>;
}

/** Rotates x (B·T, heads·headDim) by its positions' angles. */
export function rotate(x: Node, heads: number, { cos, sin }: Angles): Node {
  const [N, size] = x.shape as [number, number];
  return reshape(rope(reshape(x, { shape: [N, heads, size / heads] }), cos, sin), { shape: [N, size] });
}

/** Causal attention of layer `index` over its cache, if any, and its own tokens: (B·T, heads·headDim). */
export function cachedAttention(context: DecoderContext, index: number, { q, k, v }: Projections, layer: AttentionLayer): Node {
  const { batch, length, cacheLength = 0, keepsCache = false } = context.sequence;
  const { heads, keyHeads, headDim, scale, window = 0, softcap = 0 } = layer;
  const split = (x: Node, count: number): Node => reshape(x, { shape: [batch, length, count, headDim] });
  const extend = (part: "key" | "value", fresh: Node): Node => {
    if (keepsCache) context.present[`present.${index}.${part}`] = fresh;
    if (cacheLength === 0) return fresh;
    const past = input(`past_key_values.${index}.${part}`, [batch, cacheLength, keyHeads, headDim]);
    return concat([past, fresh], { axis: 1 });
  };
  const { segments } = context.inputs;
  const segmentsK = segments?.cached ? concat([segments.cached, segments.queries], { axis: 1 }) : segments?.queries;
  const y = attention(
    split(q, heads),
    extend("key", split(k, keyHeads)),
    extend("value", split(v, keyHeads)),
    segments?.queries,
    segmentsK,
    // cache slots are not in order of position, so a window over a cache is kept by its segments instead
    { scale, causal: true, window: cacheLength === 0 ? window : 0, softcap },
  );
  return reshape(y, { shape: [batch * length, heads * headDim] });
}
