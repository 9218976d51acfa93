/** @file Encodings of frozen weights in 8 and 4 bits. */

/** The 16 levels of NormalFloat-4 as bitsandbytes has them. https://arxiv.org/abs/2305.14314 */
export const NF4_LEVELS: Float32Array = Float32Array.of(
  ...[-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
  ...[-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0],
  ...[0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
);

/** Elements that share one absolute maximum in NF4. */
export const NF4_BLOCK = 64;

/** Between two neighbouring levels there is a threshold; a bucket of this width holds one at most. */
const BUCKETS = 64;
const thresholds = Float32Array.from({ length: 16 }, (_, i) =>
  i < 15 ? (NF4_LEVELS[i]! + NF4_LEVELS[i + 1]!) / 2 : Infinity,
);
const levelsBelow = Uint8Array.from(
  { length: BUCKETS + 1 },
  (_, bucket) => thresholds.filter((threshold) => threshold < (2 * bucket) / BUCKETS - 1).length,
);

/**
 * `values` (a multiple of 64) in NF4: two codes a byte, the first in the high half, and each block's absolute
 * maximum; the layout of bitsandbytes.
 */
export function encodeNf4(values: Float32Array): { codes: Uint8Array; absmax: Float32Array } {
  const codes = new Uint8Array(values.length / 2);
  const absmax = new Float32Array(values.length / NF4_BLOCK);
  for (let block = 0; block < absmax.length; block++) {
    const start = block * NF4_BLOCK;
    let largest = 0;
    for (let i = start; i < start + NF4_BLOCK; i++)
      largest = Math.max(largest, Math.abs(values[i]!));
    absmax[block] = largest;
    const scale = largest > 0 ? 1 / largest : 0;
    for (let i = start; i < start + NF4_BLOCK; i += 2)
      codes[i / 2] = (nf4Code(values[i]! * scale) << 4) | nf4Code(values[i + 1]! * scale);
  }
  return { codes, absmax };
}

/** Index of the level nearest to `x` in [−1, 1]. */
function nf4Code(x: number): number {
  const below = levelsBelow[((x + 1) * (BUCKETS / 2)) | 0]!;
  return below + (x > thresholds[below]! ? 1 : 0);
}

/** The values of NF4 `codes`. */
export function decodeNf4(codes: Uint8Array, absmax: Float32Array): Float32Array {
  const values = new Float32Array(codes.length * 2);
  for (let i = 0; i < codes.length; i++) {
    const scale = absmax[Math.floor((2 * i) / NF4_BLOCK)]!;
    values[2 * i] = NF4_LEVELS[codes[i]! >> 4]! * scale;
    values[2 * i + 1] = NF4_LEVELS[codes[i]! & 15]! * scale;
  }
  return values;
}

/** A matrix of `rows` rows as signed bytes and a factor a row: the row's absolute maximum becomes ±127. */
export function encodeInt8Rows(
  values: Float32Array,
  rows: number,
): { codes: Int8Array; scales: Float32Array } {
  const columns = values.length / rows;
  const codes = new Int8Array(values.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    let largest = 0;
    for (let i = start; i < start + columns; i++) largest = Math.max(largest, Math.abs(values[i]!));
    scales[row] = largest / 127;
    const inverse = largest > 0 ? 127 / largest : 0;
    for (let i = start; i < start + columns; i++) codes[i] = Math.round(values[i]! * inverse);
  }
  return { codes, scales };
}
