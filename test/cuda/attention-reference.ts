/** @file Attention and its gradients as plain float64 loops. */
import type { AttentionSpec } from "../../src/backends/cuda/attention.ts";

export interface AttentionValues {
  readonly o: Float64Array;
  readonly dq: Float64Array;
  readonly dk: Float64Array;
  readonly dv: Float64Array;
}

/** q, dout (B, T, H, D), k, v (B, S, Hk, D), segments (B, T) and (B, S) or undefined. */
export function referenceAttention(
  spec: AttentionSpec,
  [q, k, v, dout]: readonly [Float64Array, Float64Array, Float64Array, Float64Array],
  segments?: readonly [ArrayLike<number>, ArrayLike<number>],
): AttentionValues {
  const { B, T, S, H, Hk, D, causal, window, scale } = spec;
  const [o, dq] = [new Float64Array(q.length), new Float64Array(q.length)];
  const [dk, dv] = [new Float64Array(k.length), new Float64Array(k.length)];
  const dot = (a: Float64Array, i: number, b: Float64Array, j: number): number => {
    let sum = 0;
    for (let d = 0; d < D; d++) sum += a[i + d]! * b[j + d]!;
    return sum;
  };
  const addTo = (out: Float64Array, i: number, factor: number, from: Float64Array): void => {
    for (let d = 0; d < D; d++) out[i + d]! += factor * from[d]!;
  };
  const vector = (from: Float64Array, i: number): Float64Array => from.subarray(i, i + D);
  for (let b = 0; b < B; b++)
    for (let t = 0; t < T; t++)
      for (let h = 0; h < H; h++) {
        const at = ((b * T + t) * H + h) * D;
        const key = (s: number): number => ((b * S + s) * Hk + Math.floor(h / (H / Hk))) * D;
        const last = t + S - T;
        const seen = Array.from({ length: S }, (_, s) => s).filter(
          (s) =>
            (!causal || s <= last) &&
            (window <= 0 || s > last - window) &&
            (!segments || segments[0][b * T + t] === segments[1][b * S + s]),
        );
        const scores = seen.map((s) => scale * dot(q, at, k, key(s)));
        const top = Math.max(...scores);
        const weights = scores.map((x) => Math.exp(x - top));
        const sum = weights.reduce((x, y) => x + y, 0);
        const p = weights.map((w) => w / sum);
        seen.forEach((s, i) => addTo(o, at, p[i]!, vector(v, key(s))));
        const dp = seen.map((s) => dot(dout, at, v, key(s)));
        const delta = dp.reduce((x, y, i) => x + y * p[i]!, 0);
        seen.forEach((s, i) => {
          const ds = p[i]! * (dp[i]! - delta) * scale;
          addTo(dq, at, ds, vector(k, key(s)));
          addTo(dk, key(s), ds, vector(q, at));
          addTo(dv, key(s), p[i]!, vector(dout, at));
        });
      }
  return { o, dq, dk, dv };
}
