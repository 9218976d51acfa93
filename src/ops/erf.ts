import type { Op } from "./define.ts";
import { defineUnary } from "./elementwise.ts";
import { exp } from "./exp.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";

/** The error function 2/√π ∫₀ˣ e^(−t²) dt. */
export const erf: Op<["x"]> = defineUnary("erf", {
  f: errorFunction,
  gradient: ({ x, dy }) => mul(mul(dy, constant(2 / Math.sqrt(Math.PI))), exp(neg(mul(x, x)))),
  onnx: "Erf",
  cases: [
    { shapes: { x: [2, 3] } },
    {
      shapes: { x: [4] },
      known: {
        inputs: { x: [0, 0.5, -1, 3.5] },
        output: [0, 0.5204998778130465, -0.8427007929497149, 0.999999256901628],
      },
    },
  ],
});

/** Maclaurin series near zero, continued fraction of erfc beyond; both to double precision. DLMF 7.6.1, 7.9.1. */
function errorFunction(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z > 2.5) {
    let fraction = z;
    for (let k = 60; k > 0; k--) fraction = z + k / 2 / fraction;
    return Math.sign(x) * (1 - Math.exp(-z * z) / (fraction * Math.sqrt(Math.PI)));
  }
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
