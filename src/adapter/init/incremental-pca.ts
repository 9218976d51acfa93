import { type Dense, scaleRows, transposed } from "../linear-algebra.ts";
import { randomisedSvd } from "./randomised-svd.ts";

/** The directions in which samples vary most, found batch by batch. */
export interface Principal {
  /** One direction a row, (n, C), orthonormal, from the most variance to the least. */
  readonly components: Dense;
  readonly singular: Float64Array;
  /** Share of the whole variance that each direction has. */
  readonly ratios: Float64Array;
  /** Of all samples so far: number, mean and variance of each feature. */
  readonly count: number;
  readonly mean: Float64Array;
  readonly variance: Float64Array;
}

/**
 * `known` with the samples `x` (N, C) added, N ≥ `n` ≤ C: the former directions times their singular values, the new
 * samples without their mean, and what the mean moved by are decomposed together.
 * https://www.cs.toronto.edu/~dross/ivt/RossLimLinYang_ijcv.pdf
 * @param n how many directions
 * @param name selects the random start of the decomposition
 */
export function partialFit(
  known: Principal | undefined,
  x: Dense,
  { n, name }: { n: number; name: string },
): Principal {
  const batch = momentsOf(x);
  const { count, mean, variance } = known ? joined(known, batch) : batch;
  const centred = { ...x, data: x.data.map((value, i) => value - batch.mean[i % x.columns]!) };
  const rows = known ? stacked(known, centred, batch) : centred;
  // wider than PEFT's 2n, which leaves errors of several percent where singular values lie close
  const { s, v } = randomisedSvd(rows, { count: n, width: 2 * n + 32, rounds: 4, name });
  const total = variance.reduce((sum, value) => sum + value, 0) * count;
  return {
    components: withSigns(transposed(v)),
    singular: s,
    ratios: s.map((value) => value ** 2 / total),
    ...{ count, mean, variance },
  };
}

type Moments = Pick<Principal, "count" | "mean" | "variance">;

function momentsOf({ rows, columns, data }: Dense): Moments {
  const mean = new Float64Array(columns);
  for (let i = 0; i < data.length; i++) mean[i % columns]! += data[i]! / rows;
  const variance = new Float64Array(columns);
  for (let i = 0; i < data.length; i++)
    variance[i % columns]! += (data[i]! - mean[i % columns]!) ** 2 / rows;
  return { count: rows, mean, variance };
}

function joined(a: Moments, b: Moments): Moments {
  const count = a.count + b.count;
  const [p, q] = [a.count / count, b.count / count];
  return {
    count,
    mean: a.mean.map((value, i) => p * value + q * b.mean[i]!),
    variance: a.variance.map(
      (value, i) => p * value + q * b.variance[i]! + p * q * (a.mean[i]! - b.mean[i]!) ** 2,
    ),
  };
}

function stacked(known: Principal, centred: Dense, batch: Moments): Dense {
  const { columns } = centred;
  const weight = Math.sqrt((known.count / (known.count + batch.count)) * batch.count);
  const shift = known.mean.map((value, i) => weight * (value - batch.mean[i]!));
  const former = scaleRows(known.components, known.singular);
  const data = new Float64Array(former.data.length + centred.data.length + columns);
  data.set(former.data);
  data.set(centred.data, former.data.length);
  data.set(shift, data.length - columns);
  return { rows: data.length / columns, columns, data };
}

/** Each row with the sign that makes its largest element positive. */
function withSigns(matrix: Dense): Dense {
  const { rows, columns, data } = matrix;
  const signs = Float64Array.from({ length: rows }, (_, row) => {
    const values = data.subarray(row * columns, (row + 1) * columns);
    const largest = values.reduce((max, x) => (Math.abs(x) > Math.abs(max) ? x : max), 0);
    return largest < 0 ? -1 : 1;
  });
  return scaleRows(matrix, signs);
}
