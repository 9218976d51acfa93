import { describe, expect, it } from "vitest";
import { interpret } from "../backends/reference/interpret.ts";
import { Random } from "../tensor/random.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import { attention } from "./attention.ts";
import { input } from "./leaf.ts";

interface Options {
  readonly causal: boolean;
  readonly window: number;
  readonly softcap: number;
}

const [B, H, HK, D, SCALE] = [1, 2, 1, 2, 0.7];

/** Attention by its definition, one query at a time. */
function plain(
  [q, k, v]: readonly Float64Array[],
  [T, S]: readonly [number, number],
  segments: readonly [Float64Array, Float64Array] | undefined,
  { causal, window, softcap }: Options,
): Float64Array {
  const out = new Float64Array(B * T * H * D);
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let h = 0; h < H; h++) {
        const row = ((b * T + t) * H + h) * D;
        const scores: [number, number][] = [];
        for (let s = 0; s < S; s++) {
          const distance = t + S - T - s;
          if (causal && distance < 0) continue;
          if (window > 0 && Math.abs(distance) >= window) continue;
          if (segments && segments[0][b * T + t] !== segments[1][b * S + s]) continue;
          const key = ((b * S + s) * HK + Math.floor(h / (H / HK))) * D;
          let score = 0;
          for (let d = 0; d < D; d++) score += SCALE * q![row + d]! * k![key + d]!;
          scores.push([softcap > 0 ? softcap * Math.tanh(score / softcap) : score, key]);
        }
        const sum = scores.reduce((total, [score]) => total + Math.exp(score), 0);
        for (const [score, key] of scores)
          for (let d = 0; d < D; d++) out[row + d]! += (Math.exp(score) / sum) * v![key + d]!;
      }
  return out;
}

describe.each([
  { causal: true, window: 0, softcap: 0 },
  { causal: true, window: 70, softcap: 0 },
  { causal: false, window: 0, softcap: 0 },
  { causal: false, window: 70, softcap: 2 },
])("causal $causal, window $window, softcap $softcap", (options) => {
  // 300 queries are split into 2 blocks
  it.each([
    [7, 7],
    [5, 9],
    [300, 310],
  ] as const)("%i queries, %i keys: as the definition says, to 1e-12", (T, S) => {
    const random = new Random(T);
    const draw = (size: number): Float64Array =>
      Float64Array.from({ length: size }, () => 3 * random.uniform() - 1.5);
    const values = [draw(B * T * H * D), draw(B * S * HK * D), draw(B * S * HK * D)];
    // two samples a row; key S − T + t is query t's own
    const own = Float64Array.from({ length: B * T }, (_, i) => Number(i % T > T / 2));
    const keys = Float64Array.from({ length: B * S }, (_, i) => Number((i % S) - S + T > T / 2));
    const segments = [own, keys] as const;
    const feeds: Record<string, Tensor> = {
      q: tensor("f64", [B, T, H, D], values[0]),
      k: tensor("f64", [B, S, HK, D], values[1]),
      v: tensor("f64", [B, S, HK, D], values[2]),
      segmentsQ: tensor("f64", [B, T], segments[0]),
      segmentsK: tensor("f64", [B, S], segments[1]),
    };
    const [q, k, v, segmentsQ, segmentsK] = Object.entries(feeds).map(([name, { shape }]) =>
      input(name, shape, name.startsWith("segments") ? "i64" : "f32"),
    );
    const roots = [
      attention(q!, k!, v!, undefined, undefined, { scale: SCALE, ...options }),
      attention(q!, k!, v!, segmentsQ, segmentsK, { scale: SCALE, ...options }),
    ];
    const [without, within] = interpret(roots, (name) => feeds[name]!);
    expectClose(without!.data, plain(values, [T, S], undefined, options));
    expectClose(within!.data, plain(values, [T, S], segments, options));
  });
});

function expectClose(got: Float64Array, want: Float64Array): void {
  expect(got).toHaveLength(want.length);
  let largest = 0;
  want.forEach((value, i) => (largest = Math.max(largest, Math.abs(value - got[i]!))));
  expect(largest).toBeLessThan(1e-12);
}
