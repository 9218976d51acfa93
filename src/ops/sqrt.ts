import { constant } from "./leaf.ts";
import type { Op } from "./define.ts";
import { div } from "./div.ts";
import { defineUnary } from "./elementwise.ts";
import { mul } from "./mul.ts";

/** √x. */
export const sqrt: Op<["x"]> = defineUnary("sqrt", {
  f: Math.sqrt,
  gradient: ({ y, dy }) => div(mul(dy, constant(0.5)), y),
  onnx: "Sqrt",
  cases: [
    { shapes: { x: [2, 3] }, range: { x: [0.2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [4, 2.25] }, output: [2, 1.5] } },
  ],
});
