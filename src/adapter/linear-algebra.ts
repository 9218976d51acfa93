/** @file Decompositions of matrices, by ml-matrix: all in float64, row-major. */
import { EigenvalueDecomposition, inverse as invert, Matrix, QrDecomposition } from "ml-matrix";
import { multiplyMatrices } from "../ops/matmul-loop.ts";

/** A matrix in float64, row-major. */
export interface Dense {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

/** W ≈ U · diag(s) · Vᵀ: U (rows, r), s (r) from large to small, V (columns, r). */
export interface Singular {
  readonly u: Dense;
  readonly s: Float64Array;
  readonly v: Dense;
}

/** a·b, either read transposed. */
export function product(
  a: Dense,
  b: Dense,
  { transA = false, transB = false }: { transA?: boolean; transB?: boolean } = {},
): Dense {
  const [M, K] = transA ? [a.columns, a.rows] : [a.rows, a.columns];
  const N = transB ? b.rows : b.columns;
  const data = new Float64Array(M * N);
  multiplyMatrices({ a: a.data, b: b.data, transA, transB }, { M, N, K }, data);
  return { rows: M, columns: N, data };
}

/** The first `count` columns of `matrix`. */
export function firstColumns({ rows, columns, data }: Dense, count: number): Dense {
  const first = new Float64Array(rows * count);
  for (let row = 0; row < rows; row++)
    first.set(data.subarray(row * columns, row * columns + count), row * count);
  return { rows, columns: count, data: first };
}

/** The matrix transposed. */
export function transposed({ rows, columns, data }: Dense): Dense {
  const out = new Float64Array(data.length);
  for (let i = 0; i < data.length; i++)
    out[(i % columns) * rows + Math.floor(i / columns)] = data[i]!;
  return { rows: columns, columns: rows, data: out };
}

/** Orthonormal columns that span those of `matrix`, which has at least as many rows as columns. */
export function orthonormal(matrix: Dense): Dense {
  return dense(new QrDecomposition(matrixOf(matrix)).orthogonalMatrix);
}

/**
 * The `count` largest singular values of W and their vectors, from the eigenvectors of the smaller of W·Wᵀ and
 * Wᵀ·W. A value below 1e-7 of the largest is noise: its vectors are zero.
 */
export function topSingular(matrix: Dense, count: number): Singular {
  if (matrix.rows < matrix.columns) {
    const { u, s, v } = topSingular(transposed(matrix), count);
    return { u: v, s, v: u };
  }
  const { values, vectors } = topEigen(product(matrix, matrix, { transA: true }), count);
  const s = values.map((value) => Math.sqrt(Math.max(0, value)));
  const u = product(matrix, vectors);
  const inverse = s.map((value) => (value > 1e-7 * s[0]! ? 1 / value : 0));
  return { u: scaleColumns(u, inverse), s, v: scaleColumns(vectors, inverse.map(Math.sign)) };
}

/** The `count` largest eigenvalues of a symmetric matrix, from large to small, and their vectors as columns. */
export function topEigen(matrix: Dense, count: number): { values: Float64Array; vectors: Dense } {
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(matrixOf(matrix), {
    assumeSymmetric: true,
  });
  const order = realEigenvalues
    .map((_, i) => i)
    .sort((a, b) => realEigenvalues[b]! - realEigenvalues[a]!);
  const kept = order.slice(0, count);
  const data = Float64Array.from({ length: matrix.rows * kept.length }, (_, i) =>
    eigenvectorMatrix.get(Math.floor(i / kept.length), kept[i % kept.length]!),
  );
  return {
    values: Float64Array.from(kept, (i) => realEigenvalues[i]!),
    vectors: { rows: matrix.rows, columns: kept.length, data },
  };
}

/** The inverse of a square matrix. */
export function inverse(matrix: Dense): Dense {
  return dense(invert(matrixOf(matrix)));
}

/** Each column times its factor. */
export function scaleColumns({ rows, columns, data }: Dense, factors: Float64Array): Dense {
  return { rows, columns, data: data.map((value, i) => value * factors[i % columns]!) };
}

/** Each row times its factor. */
export function scaleRows({ rows, columns, data }: Dense, factors: Float64Array): Dense {
  return { rows, columns, data: data.map((value, i) => value * factors[Math.floor(i / columns)]!) };
}

function matrixOf({ rows, columns, data }: Dense): Matrix {
  return Matrix.from1DArray(rows, columns, data);
}

function dense(matrix: Matrix): Dense {
  const data = new Float64Array(matrix.rows * matrix.columns);
  for (let row = 0; row < matrix.rows; row++)
    for (let column = 0; column < matrix.columns; column++)
      data[row * matrix.columns + column] = matrix.get(row, column);
  return { rows: matrix.rows, columns: matrix.columns, data };
}
