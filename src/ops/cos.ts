import type { Op } from "./define.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { sin } from "./sin.ts";

/** Cosine of an angle in radians. */
export const cos: Op<["x"]> = defineUnary("cos", {
  f: Math.cos,
  gradient: ({ x, dy }) => neg(mul(dy, sin(x))),
  onnx: "Cos",
  isCoarseOnWebgpu: true, // within 2^-11 for angles of at most π, and anything beyond
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, Math.PI] }, output: [1, -1] } },
    {
      shapes: { x: [2] },
      known: { inputs: { x: [100, 1000] }, output: [Math.cos(100), Math.cos(1000)] },
    },
  ],
});
