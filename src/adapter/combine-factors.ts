import {
  type Dense,
  orthonormal,
  product,
  scaleColumns,
  type Singular,
  topSingular,
  transposed,
} from "./linear-algebra.ts";
import { mixTensors, type MixOptions } from "./combine-tensors.ts";

/** One adapter's part of a layer: ΔW = scale · B·A, (out, r)·(r, in), and its weight in the sum. */
export interface WeightedFactors {
  readonly a: Dense;
  readonly b: Dense;
  readonly scale: number;
  readonly weight: number;
}

/** A and B one after the other: exact, of the sum of the ranks. */
export function concatenate(parts: readonly WeightedFactors[]): { a: Dense; b: Dense } {
  const rows = parts.reduce((sum, { a }) => sum + a.rows, 0);
  const a = new Float64Array(rows * parts[0]!.a.columns);
  const up = new Float64Array(rows * parts[0]!.b.rows);
  let start = 0;
  for (const part of parts) {
    a.set(
      part.a.data.map((value) => value * part.weight * part.scale),
      start * part.a.columns,
    );
    up.set(transposed(part.b).data, start * part.b.rows);
    start += part.a.rows;
  }
  return {
    a: { rows, columns: parts[0]!.a.columns, data: a },
    b: transposed({ rows, columns: parts[0]!.b.rows, data: up }),
  };
}

/** A and B mixed apart from each other, each with √|weight · scale| and the sign on A: not the weighted sum of B·A. */
export function mixFactors(
  parts: readonly WeightedFactors[],
  optionsOf: (side: "A" | "B") => MixOptions,
): { a: Dense; b: Dense } {
  const root = parts.map(({ weight, scale }) => Math.sqrt(Math.abs(weight * scale)));
  const signed = root.map((value, i) => (parts[i]!.weight * parts[i]!.scale < 0 ? -value : value));
  const a = mixTensors(
    parts.map((part) => part.a.data),
    signed,
    optionsOf("A"),
  );
  const b = mixTensors(
    parts.map((part) => part.b.data),
    root,
    optionsOf("B"),
  );
  return { a: { ...parts[0]!.a, data: a }, b: { ...parts[0]!.b, data: b } };
}

/** The mixed weight changes, as the nearest B·A of rank `rank`: B = U·S, A = Vᵀ. */
export function mixDeltas(
  parts: readonly WeightedFactors[],
  rank: number,
  options: MixOptions,
): { a: Dense; b: Dense } {
  const isPlain = options.prune === "none" && !options.electsSign;
  const { u, s, v } = isPlain ? sumSingular(parts, rank) : mixedSingular(parts, rank, options);
  return { a: transposed(v), b: scaleColumns(u, s) };
}

/** Singular values of the weighted sum, from the factors: it has no more than the sum of their ranks. */
function sumSingular(parts: readonly WeightedFactors[], rank: number): Singular {
  const { a, b } = concatenate(parts);
  if (a.rows > Math.min(a.columns, b.rows)) return topSingular(product(b, a), rank);
  const [left, right] = [orthonormal(b), orthonormal(transposed(a))];
  const core = product(product(left, b, { transA: true }), product(a, right));
  const { u, s, v } = topSingular(core, Math.min(rank, a.rows));
  return { u: product(left, u), s, v: product(right, v) };
}

function mixedSingular(
  parts: readonly WeightedFactors[],
  rank: number,
  options: MixOptions,
): Singular {
  // signs are elected among scaled changes, before weights
  const deltas = parts.map(({ a, b, scale }) =>
    product({ ...b, data: b.data.map((value) => value * scale) }, a),
  );
  const mixed = mixTensors(
    deltas.map(({ data }) => data),
    parts.map(({ weight }) => weight),
    options,
  );
  return topSingular(
    { ...deltas[0]!, data: mixed },
    Math.min(rank, deltas[0]!.rows, deltas[0]!.columns),
  );
}

/** Rows of A and columns of B filled up with zeros to `rank`. */
export function padRank({ a, b }: { a: Dense; b: Dense }, rank: number): { a: Dense; b: Dense } {
  const down = new Float64Array(rank * a.columns);
  down.set(a.data);
  const up = new Float64Array(b.rows * rank);
  for (let row = 0; row < b.rows; row++)
    up.set(b.data.subarray(row * b.columns, (row + 1) * b.columns), row * rank);
  return {
    a: { rows: rank, columns: a.columns, data: down },
    b: { rows: b.rows, columns: rank, data: up },
  };
}
