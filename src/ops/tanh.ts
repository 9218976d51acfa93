import type { Op } from "./define.ts";
import { defineUnary } from "./elementwise.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { sub } from "./sub.ts";

/** Hyperbolic tangent. */
export const tanh: Op<["x"]> = defineUnary("tanh", {
  f: Math.tanh,
  gradient: ({ y, dy }) => mul(dy, sub(constant(1), mul(y, y))),
  onnx: "Tanh",
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, 0.5] }, output: [0, 0.46211715726000973] } },
  ],
});
