import { cos } from "./cos.ts";
import type { Op } from "./define.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";

/** Sine of an angle in radians. */
export const sin: Op<["x"]> = defineUnary("sin", {
  f: Math.sin,
  gradient: ({ x, dy }) => mul(dy, cos(x)),
  onnx: "Sin",
  isCoarseOnWebgpu: true, // within 2^-11 for angles of at most π, and anything beyond
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, Math.PI / 2] }, output: [0, 1] } },
    {
      shapes: { x: [2] },
      known: { inputs: { x: [100, 1000] }, output: [Math.sin(100), Math.sin(1000)] },
    },
  ],
});
