import type { LoraSite } from "../../passes/lora.ts";
import {
  type Dense,
  product,
  scaleColumns,
  scaleRows,
  topSingular,
  transposed,
} from "../linear-algebra.ts";
import type { InitialFactors } from "./initial-part.ts";

/** Levels of the 4-bit NormalFloat. https://arxiv.org/abs/2305.14314, appendix E */
const NF4: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1,
];
const BLOCK = 64;

/**
 * LoftQ at 4 bits: the base becomes NF4 values, and B·A the best approximation of what that loses; each further round
 * quantizes what B·A leaves. As in PEFT the scale is left out of account: use alpha = r. https://arxiv.org/abs/2310.08659
 */
export function loftqInit(matrix: Dense, { rank }: LoraSite, iterations = 1): InitialFactors {
  let rest = matrix.data;
  for (let round = 1; ; round++) {
    const base: Dense = { ...matrix, data: quantizeNf4(rest) };
    const lost: Dense = { ...matrix, data: difference(matrix.data, base.data) };
    const { u, s, v } = topSingular(lost, rank);
    const root = s.map(Math.sqrt);
    const factors = { a: scaleRows(transposed(v), root), b: scaleColumns(u, root) };
    if (round >= iterations) return { ...factors, base };
    rest = difference(matrix.data, product(factors.b, factors.a).data);
  }
}

function difference(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value - b[i]!);
}

/** Values as they come back from NF4 in blocks of 64 with an absolute maximum each. */
export function quantizeNf4(values: Float64Array): Float64Array {
  const out = new Float64Array(values.length);
  for (let start = 0; start < values.length; start += BLOCK) {
    const block = values.subarray(start, start + BLOCK);
    const largest = Math.fround(block.reduce((max, value) => Math.max(max, Math.abs(value)), 0));
    block.forEach((value, i) => {
      out[start + i] = largest === 0 ? 0 : nearestLevel(value / largest) * largest;
    });
  }
  return out;
}

/** Between which values the nearest level changes. */
const MIDDLES = NF4.slice(1).map((level, i) => (level + NF4[i]!) / 2);

function nearestLevel(value: number): number {
  let [low, high] = [0, MIDDLES.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (value > MIDDLES[middle]!) low = middle + 1;
    else high = middle;
  }
  return NF4[low]!;
}
