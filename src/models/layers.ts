/** @file Pieces that model families share. Activations are (B·T, features); weights keep the checkpoint's names. */
import { LorikeetError } from "../errors.ts";
import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { embedding } from "../ops/embedding.ts";
import { layerNorm } from "../ops/layer-norm.ts";
import { constant, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";
import { mul } from "../ops/mul.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { rope } from "../ops/rope.ts";
import { slice } from "../ops/slice.ts";
import { swiglu } from "../ops/swiglu.ts";
import { sizeOf } from "../tensor/shape.ts";
import type { Angles } from "./rotary.ts";

/** Options of `dense`. */
export interface DenseOptions {
  readonly bias?: boolean;
  /** The weight is stored (in, out), as transformers' Conv1D does. */
  readonly fanInFanOut?: boolean;
}

/** x·Wᵀ (+ b) with the weights `name.weight` (outFeatures, x's features) and `name.bias`. */
export function dense(
  x: Node,
  name: string,
  outFeatures: number,
  { bias = false, fanInFanOut = false }: DenseOptions = {},
): Node {
  const inFeatures = x.shape[1]!;
  const shape = fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures];
  const y = linear(x, parameter(`${name}.weight`, shape), { fanInFanOut });
  return bias ? add(y, parameter(`${name}.bias`, [outFeatures])) : y;
}

/** RMS norm over the last axis with the weight `name.weight`. */
export function norm(x: Node, name: string, eps: number): Node {
  return rmsNorm(x, parameter(`${name}.weight`, [x.shape.at(-1)!]), { eps });
}

/** Layer norm over the last axis with `name.weight` and `name.bias`, where the family has them. */
export function meanNorm(
  x: Node,
  name: string,
  eps: number,
  { weight = true, bias = true }: { weight?: boolean; bias?: boolean } = {},
): Node {
  const shape = [x.shape.at(-1)!];
  const scale = weight ? parameter(`${name}.weight`, shape) : constant(1, shape);
  const shift = bias ? parameter(`${name}.bias`, shape) : constant(0, shape);
  return layerNorm(x, scale, shift, { eps });
}

/** down(activation(gate(x)) · up(x)); the activation is SiLU by default. */
export function gatedMlp(
  x: Node,
  name: string,
  hidden: number,
  { bias = false, activation }: { bias?: boolean; activation?: (x: Node) => Node } = {},
): Node {
  const gate = dense(x, `${name}.gate_proj`, hidden, { bias });
  const up = dense(x, `${name}.up_proj`, hidden, { bias });
  const gated = activation ? mul(activation(gate), up) : swiglu(gate, up);
  return dense(gated, `${name}.down_proj`, x.shape[1]!, { bias });
}

/** Columns of x (N, Σ sizes) in parts of `sizes`: how a fused projection is taken apart. */
export function splitColumns(x: Node, sizes: readonly number[]): Node[] {
  let end = 0;
  return sizes.map((size) => {
    const start = end;
    end += size;
    return slice(x, { axis: 1, start, end });
  });
}

/** Rotates x (B·T, heads·headDim) by its positions' angles. */
export function rotate(x: Node, heads: number, { cos, sin }: Angles): Node {
  const [N, size] = x.shape as [number, number];
  const rotated = rope(reshape(x, { shape: [N, heads, size / heads] }), cos, sin);
  return reshape(rotated, { shape: [N, size] });
}

/** Rows of the embedding `table` (rows, features) for `ids` (B, T): (B·T, features). */
export function embed(ids: Node, table: Node): Node {
  return embedding(reshape(ids, { shape: [sizeOf(ids.shape)] }), table);
}

/**
 * Learned embeddings of `positions` (B, T): row `offset` + position of `name.weight` (rows, features).
 * @throws LorikeetError `model-config` when T is more than the table holds
 */
export function embedPositions(
  positions: Node,
  name: string,
  { rows, features, offset = 0 }: { rows: number; features: number; offset?: number },
): Node {
  const length = positions.shape[1]!;
  if (length + offset > rows)
    throw new LorikeetError(
      "model-config",
      `Expected at most ${rows - offset} tokens, as many as ${name} has positions, got ${length}`,
      { hint: "Shorten the samples (max_length)." },
    );
  const shifted = offset === 0 ? positions : add(positions, constant(offset, [], positions.dtype));
  return embed(shifted, parameter(`${name}.weight`, [rows, features]));
}
