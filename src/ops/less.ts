import type { Op } from "./define.ts";
import { defineBinary } from "./elementwise.ts";

/** a < b as true or false, broadcasting. */
export const less: Op<["a", "b"]> = defineBinary("less", {
  f: (x, y) => (x < y ? 1 : 0),
  onnx: "Less",
  isPredicate: true,
  cases: [
    {
      shapes: { a: [3], b: [] },
      known: { inputs: { a: [1, 2, 3], b: [2] }, output: [1, 0, 0] },
      noGradient: "a step function",
    },
  ],
});
