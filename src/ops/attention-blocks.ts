/** @file Attention in static causal blocks: what the forward and the backward decomposition share. */
import type { Node } from "../ir/node.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { add } from "./add.ts";
import { concat } from "./concat.ts";
import { constant, literal } from "./leaf.ts";
import { equal } from "./equal.ts";
import { matmul } from "./matmul.ts";
import { mul } from "./mul.ts";
import { reshape } from "./reshape.ts";
import { select } from "./select.ts";
import { slice } from "./slice.ts";
import { softmax } from "./softmax.ts";
import { tanh } from "./tanh.ts";
import { transpose } from "./transpose.ts";

/** Options of attention: `scale` on the scores, `window` 0 = unlimited, `softcap` 0 = none. */
export interface AttentionAttrs {
  readonly scale: number;
  readonly causal: boolean;
  readonly window: number;
  readonly softcap: number;
}

/** Inputs of attention; see `attention`. */
export interface AttentionInputs {
  readonly q: Node;
  readonly k: Node;
  readonly v: Node;
  readonly segmentsQ: Node | undefined;
  readonly segmentsK: Node | undefined;
}

/** Rows of queries that share one range of visible keys. */
export interface Block {
  readonly start: number;
  readonly end: number;
  readonly keyStart: number;
  readonly keyEnd: number;
}

/** Score of a key that must not be seen: its weight underflows to 0, and a row of only such keys stays finite. */
const HIDDEN = -1e30;

/** Splits T queries so that no block looks at keys that all its rows must not see. */
export function blocksOf(T: number, S: number, { causal, window }: AttentionAttrs): Block[] {
  const isPartial = causal || window > 0;
  const count = isPartial && T >= 256 ? Math.min(8, Math.floor(T / 128)) : 1;
  const size = Math.ceil(T / count);
  const reach = causal ? 1 : window > 0 ? window : Infinity;
  return Array.from({ length: Math.ceil(T / size) }, (_, i) => {
    const start = i * size;
    const end = Math.min(T, start + size);
    const keyEnd = Math.min(S, end - 1 + S - T + reach);
    const keyStart = window > 0 ? Math.max(0, start + S - T - window + 1) : 0;
    return { start, end, keyStart, keyEnd };
  });
}

/** (B, T, H, D) → (B·Hk, rep·T…) order: (B·Hk, rep, T, D). Query heads of one key head become one batch entry. */
export function groupHeads(x: Node, keyHeads: number): Node {
  const [B, T, H, D] = x.shape as [number, number, number, number];
  const rep = H / keyHeads;
  const split = reshape(x, { shape: [B, T, keyHeads, rep, D] });
  return reshape(transpose(split, { perm: [0, 2, 3, 1, 4] }), { shape: [B * keyHeads, rep, T, D] });
}

/** The inverse of `groupHeads`: (B·Hk, rep, T, D) → (B, T, H, D). */
export function ungroupHeads(x: Node, B: number): Node {
  const [BH, rep, T, D] = x.shape as [number, number, number, number];
  const split = reshape(x, { shape: [B, BH / B, rep, T, D] });
  return reshape(transpose(split, { perm: [0, 3, 1, 2, 4] }), { shape: [B, T, (BH / B) * rep, D] });
}

/** Rows `block` of a grouped tensor as one matrix a batch entry: (B·Hk, rep·rows, D). */
export function rowsOf(grouped: Node, { start, end }: Block): Node {
  const [BH, rep, , D] = grouped.shape as [number, number, number, number];
  return reshape(slice(grouped, { axis: 2, start, end }), { shape: [BH, rep * (end - start), D] });
}

/** The keys (or values) that `block` sees: (B·Hk, keys, D). */
export function keysOf(grouped: Node, { keyStart, keyEnd }: Block): Node {
  const [BH, , , D] = grouped.shape as [number, number, number, number];
  const keys = slice(grouped, { axis: 2, start: keyStart, end: keyEnd });
  return reshape(keys, { shape: [BH, keyEnd - keyStart, D] });
}

/** What a block of queries makes of the keys that it sees. */
export interface BlockWeights {
  readonly block: Block;
  /** Attention weights (B·Hk, rep·rows, keys). */
  readonly weights: Node;
  /** The tanh of the scores when they are capped. */
  readonly capped: Node | undefined;
}

/** Attention weights of all queries, block by block. */
export function weightsOf(inputs: AttentionInputs, attrs: AttentionAttrs): BlockWeights[] {
  const blocks = blocksOf(inputs.q.shape[1]!, inputs.k.shape[1]!, attrs);
  return blocks.map((block) => blockWeights(inputs, block, attrs));
}

/** Attention (B, T, H, Dv) from its weights. */
export function attend(v: Node, blocks: readonly BlockWeights[], B: number): Node {
  const [, , Hk, Dv] = v.shape as [number, number, number, number];
  const values = groupHeads(v, Hk);
  const parts = blocks.map(({ block, weights }) => {
    const rows = block.end - block.start;
    const shape = [B * Hk, weights.shape[1]! / rows, rows, Dv];
    return reshape(matmul(weights, keysOf(values, block)), { shape });
  });
  return ungroupHeads(parts.length === 1 ? parts[0]! : concat(parts, { axis: 2 }), B);
}

function blockWeights(inputs: AttentionInputs, block: Block, attrs: AttentionAttrs): BlockWeights {
  const { q, k } = inputs;
  const [B, , H] = q.shape as [number, number, number];
  const keyHeads = k.shape[2]!;
  const rows = rowsOf(groupHeads(q, keyHeads), block);
  const raw = matmul(rows, keysOf(groupHeads(k, keyHeads), block), { transB: true });
  let scores = mul(raw, constant(attrs.scale));
  const capped = attrs.softcap > 0 ? tanh(mul(scores, constant(1 / attrs.softcap))) : undefined;
  if (capped) scores = mul(capped, constant(attrs.softcap));
  const [R, K] = [block.end - block.start, block.keyEnd - block.keyStart];
  const mask = maskOf(inputs, block, attrs);
  const shape = mask?.shape.length === 4 ? [B, H, R, K] : [B * keyHeads, H / keyHeads, R, K];
  const apart = reshape(scores, { shape });
  const weights = softmax(mask ? add(apart, mask) : apart);
  return { block, weights: reshape(weights, { shape: raw.shape }), capped };
}

/** What is added to scores: (rows, keys) by place, (B, 1, rows, keys) with segments, or undefined for nothing. */
function maskOf(
  { q, k, segmentsQ, segmentsK }: AttentionInputs,
  block: Block,
  attrs: AttentionAttrs,
): Node | undefined {
  const [B, T] = q.shape as [number, number];
  const hidden = placeMask(block, k.shape[1]! - T, attrs);
  const place = hidden && literal({ ...hidden, dtype: q.dtype === "f64" ? "f64" : "f32" });
  if (!segmentsQ || !segmentsK) return place;
  const { start, end, keyStart, keyEnd } = block;
  const from = slice(segmentsQ, { axis: 1, start, end });
  const to = slice(segmentsK, { axis: 1, start: keyStart, end: keyEnd });
  const isSame = equal(
    reshape(from, { shape: [B, 1, end - start, 1] }),
    reshape(to, { shape: [B, 1, 1, keyEnd - keyStart] }),
  );
  return select(isSame, place ?? constant(0), constant(HIDDEN));
}

/** Masks by what they depend on: layers share them, and equal tensors need not be compared. */
const placeMasks = new Map<string, Tensor | undefined>();

/** `HIDDEN` where a key is not visible by its place, (rows, keys), or undefined when every row sees every key. */
function placeMask(
  { start, end, keyStart, keyEnd }: Block,
  offset: number,
  { causal, window }: AttentionAttrs,
): Tensor | undefined {
  if (!causal && window === 0) return undefined;
  const [R, K] = [end - start, keyEnd - keyStart];
  const key = [R, K, start + offset - keyStart, causal, window].join();
  if (placeMasks.has(key)) return placeMasks.get(key);
  const data = new Float32Array(R * K);
  for (let r = 0; r < R; r++)
    for (let s = 0; s < K; s++) {
      const distance = start + r + offset - (keyStart + s);
      const isFar = window > 0 && Math.abs(distance) >= window;
      if (isFar || (causal && distance < 0)) data[r * K + s] = HIDDEN;
    }
  const mask = data.every((value) => value === 0) ? undefined : tensor("f32", [R, K], data);
  if (placeMasks.size >= 64) placeMasks.clear();
  placeMasks.set(key, mask);
  return mask;
}
