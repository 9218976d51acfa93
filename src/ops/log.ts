import type { Op } from "./define.ts";
import { div } from "./div.ts";
import { defineUnary } from "./elementwise.ts";

/** Natural logarithm. */
export const log: Op<["x"]> = defineUnary("log", {
  f: Math.log,
  gradient: ({ x, dy }) => div(dy, x),
  onnx: "Log",
  cases: [
    { shapes: { x: [2, 3] }, range: { x: [0.2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [1, Math.E] }, output: [0, 1] } },
  ],
});
