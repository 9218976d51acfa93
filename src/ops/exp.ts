import type { Op } from "./define.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";

/** eˣ. */
export const exp: Op<["x"]> = defineUnary("exp", {
  f: Math.exp,
  gradient: ({ y, dy }) => mul(dy, y),
  onnx: "Exp",
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [0, 1] }, output: [1, Math.E] } },
  ],
});
