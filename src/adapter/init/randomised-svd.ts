import { Random } from "../../tensor/random.ts";
import { type Dense, orthonormal, product, type Singular, topSingular } from "../linear-algebra.ts";

/** How a randomised decomposition is made. */
export interface RandomisedSvd {
  /** Singular values that are returned. */
  readonly count: number;
  /** Columns of the random start; `count` or more. */
  readonly width: number;
  /** Rounds of subspace iteration. */
  readonly rounds: number;
  /** Selects the random start. */
  readonly name: string;
}

/** The largest singular values of W by subspace iteration. https://arxiv.org/abs/0909.4061, algorithms 4.4 and 5.1 */
export function randomisedSvd(
  matrix: Dense,
  { count, width, rounds, name }: RandomisedSvd,
): Singular {
  if (width >= Math.min(matrix.rows, matrix.columns)) return topSingular(matrix, count);
  const random = new Random(0).fork(name);
  const data = Float64Array.from({ length: matrix.columns * width }, () => random.normal());
  let range = orthonormal(product(matrix, { rows: matrix.columns, columns: width, data }));
  for (let round = 0; round < rounds; round++) {
    const back = orthonormal(product(matrix, range, { transA: true }));
    range = orthonormal(product(matrix, back));
  }
  const { u, s, v } = topSingular(product(range, matrix, { transA: true }), count);
  return { u: product(range, u), s, v };
}
