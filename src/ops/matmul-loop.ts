/** Row-major matrices of a product a·b; `transA`, `transB`: stored transposed. */
export interface Factors {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly transA: boolean;
  readonly transB: boolean;
}

/** Rows of a and columns of b that are multiplied at a time: as many sums as fit in registers. */
const [ROWS, COLUMNS] = [2, 4] as const;

/** out (M, N) = a (M, K) · b (K, N) in float64, each element summed in the order of k. */
export function multiplyMatrices(
  { a, b, transA, transB }: Factors,
  { M, N, K }: { M: number; N: number; K: number },
  out: Float64Array,
): void {
  const rows = packLines(a, { lines: M, K, width: ROWS, isStrided: transA });
  const columns = packLines(b, { lines: N, K, width: COLUMNS, isStrided: !transB });
  const tile = new Float64Array(ROWS * COLUMNS);
  for (let m = 0; m < M; m += ROWS)
    for (let n = 0; n < N; n += COLUMNS) {
      multiplyTile(rows.subarray(m * K, (m + ROWS) * K), columns, n * K, tile);
      for (let i = 0; i < ROWS && m + i < M; i++)
        for (let j = 0; j < COLUMNS && n + j < N; j++)
          out[(m + i) * N + n + j] = tile[i * COLUMNS + j]!;
    }
}

/**
 * The `lines` vectors of K elements of a matrix (its rows, or its columns when `isStrided`), `width` of them side by
 * side: element k of line l is at (⌊l / width⌋ · K + k) · width + l mod width. The last group is filled with zeros.
 */
function packLines(
  matrix: Float64Array,
  { lines, K, width, isStrided }: { lines: number; K: number; width: number; isStrided: boolean },
): Float64Array {
  const packed = new Float64Array(Math.ceil(lines / width) * width * K);
  const [lineStep, step] = isStrided ? [1, lines] : [K, 1];
  for (let line = 0; line < lines; line++) {
    const start = Math.floor(line / width) * K * width + (line % width);
    for (let k = 0; k < K; k++) packed[start + k * width] = matrix[line * lineStep + k * step]!;
  }
  return packed;
}

/** The products of two packed rows and the four columns that are packed from `start` on. */
function multiplyTile(
  rows: Float64Array,
  columns: Float64Array,
  start: number,
  tile: Float64Array,
): void {
  let [a0, a1, a2, a3] = [0, 0, 0, 0];
  let [b0, b1, b2, b3] = [0, 0, 0, 0];
  for (let k = 0, i = start; k < rows.length; k += ROWS, i += COLUMNS) {
    const a = rows[k]!;
    const b = rows[k + 1]!;
    const x0 = columns[i]!;
    const x1 = columns[i + 1]!;
    const x2 = columns[i + 2]!;
    const x3 = columns[i + 3]!;
    a0 += a * x0;
    a1 += a * x1;
    a2 += a * x2;
    a3 += a * x3;
    b0 += b * x0;
    b1 += b * x1;
    b2 += b * x2;
    b3 += b * x3;
  }
  tile.set([a0, a1, a2, a3, b0, b1, b2, b3]);
}
