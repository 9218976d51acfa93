/** @file Causal attention over a cache of keys and values and the tokens of this run: what all decoders share. */
import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import { attention } from "../ops/attention.ts";
import { concat } from "../ops/concat.ts";
import { constant, input } from "../ops/leaf.ts";
import { less } from "../ops/less.ts";
import { reshape } from "../ops/reshape.ts";
import { select } from "../ops/select.ts";
import { sub } from "../ops/sub.ts";
import { type DecoderInputs, decoderInputs, type Sequence } from "./causal-lm.ts";

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

/** The context of a new graph. */
export function decoderContext(sequence: Sequence): DecoderContext {
  return { sequence, inputs: decoderInputs(sequence), present: {} };
}

/** Segment of cached tokens that a window hides; no sample has it. */
const HIDDEN = -1;

/**
 * Causal attention of layer `index` over its cache, if any, and its own tokens: (B·T, heads·headDim).
 * @throws LorikeetError `cache-window` for several tokens over a cache that is longer than the layer's window
 */
export function cachedAttention(
  context: DecoderContext,
  index: number,
  { q, k, v }: Projections,
  layer: AttentionLayer,
): Node {
  const { batch, length, cacheLength = 0, keepsCache = false } = context.sequence;
  const { heads, keyHeads, headDim, scale, window = 0, softcap = 0 } = layer;
  const split = (x: Node, count: number): Node =>
    reshape(x, { shape: [batch, length, count, headDim] });
  const extend = (part: "key" | "value", fresh: Node): Node => {
    if (keepsCache) context.present[`present.${index}.${part}`] = fresh;
    if (cacheLength === 0) return fresh;
    const past = input(`past_key_values.${index}.${part}`, [batch, cacheLength, keyHeads, headDim]);
    return concat([past, fresh], { axis: 1 });
  };
  const y = attention(
    split(q, heads),
    extend("key", split(k, keyHeads)),
    extend("value", split(v, keyHeads)),
    context.inputs.segments,
    keySegments(context, window),
    { scale, causal: true, window: cacheLength === 0 ? window : 0, softcap },
  );
  return reshape(y, { shape: [batch * length, heads * headDim] });
}

/**
 * Segments of all keys, (B, P + T). Cache slots are in any order, so that the op's own window does not apply to
 * them: the segment of a cached token outside of the window becomes `HIDDEN` instead.
 */
function keySegments({ sequence, inputs }: DecoderContext, window: number): Node | undefined {
  const { segments, cache, positions } = inputs;
  if (!cache || !segments) return segments;
  const { length, cacheLength = 0 } = sequence;
  if (window === 0 || cacheLength + length <= window)
    return concat([cache.segments, segments], { axis: 1 });
  if (length > 1)
    throw new LorikeetError(
      "cache-window",
      `Expected one token at a time over a cache of ${cacheLength} slots, as the model's window is ${window}, got ${length}`,
      { hint: "Run the whole sequence without a cache, or feed one token at a time." },
    );
  const isNear = less(sub(positions, cache.positions), constant(window, [], "i64"));
  const near = select(isNear, cache.segments, constant(HIDDEN, [], "i64"));
  return concat([near, segments], { axis: 1 });
}
