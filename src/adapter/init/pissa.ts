import { LorikeetError } from "../../errors.ts";
import type { LoraSite } from "../../passes/lora.ts";
import { Random } from "../../tensor/random.ts";
import {
  type Dense,
  orthonormal,
  product,
  scaleColumns,
  scaleRows,
  type Singular,
  topSingular,
  transposed,
} from "../linear-algebra.ts";

/**
 * PiSSA: A = √(S/scale)·Vᵀ and B = U·√(S/scale) of the largest r singular values of W (out, in); `pissa_niter_N` finds
 * them with N rounds of subspace iteration from a random start that the layer's `name` selects.
 * https://arxiv.org/abs/2404.02948
 */
export function pissaInit(
  matrix: Dense,
  { rank, scale }: LoraSite,
  { init, name }: { init: string; name: string },
): { a: Dense; b: Dense } {
  const rounds = /^pissa_niter_(\d+)$/.exec(init)?.[1];
  if (rank > Math.min(matrix.rows, matrix.columns))
    throw new LorikeetError(
      "unsupported-init",
      `Expected a rank of at most ${Math.min(matrix.rows, matrix.columns)} for PiSSA on ${name}, got ${rank}`,
      { hint: "Choose a smaller r, or set rank_pattern for this layer." },
    );
  const { u, s, v } =
    rounds === undefined
      ? topSingular(matrix, rank)
      : approximateSingular(matrix, rank, { rounds: Number(rounds), name });
  const root = s.map((value) => Math.sqrt(value / scale));
  return { a: scaleRows(transposed(v), root), b: scaleColumns(u, root) };
}

/** Randomised subspace iteration. https://arxiv.org/abs/0909.4061, algorithm 4.4 and 5.1 */
function approximateSingular(
  matrix: Dense,
  rank: number,
  { rounds, name }: { rounds: number; name: string },
): Singular {
  const random = new Random(0).fork(name);
  const start = Float64Array.from({ length: matrix.columns * rank }, () => random.normal());
  let range = orthonormal(product(matrix, { rows: matrix.columns, columns: rank, data: start }));
  for (let round = 0; round < rounds; round++) {
    const back = orthonormal(product(matrix, range, { transA: true }));
    range = orthonormal(product(matrix, back));
  }
  const { u, s, v } = topSingular(product(range, matrix, { transA: true }), rank);
  return { u: product(range, u), s, v };
}
