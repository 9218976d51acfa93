import { broadcastCases, defineBinary } from "./elementwise.ts";
import type { Op } from "./define.ts";
import { sumTo } from "./sum-to.ts";

/** a + b, broadcasting. */
export const add: Op<["a", "b"]> = defineBinary("add", {
  f: (x, y) => x + y,
  gradient: ({ a, b, dy }) => ({
    a: () => sumTo(dy, { shape: a.shape }),
    b: () => sumTo(dy, { shape: b.shape }),
  }),
  onnx: "Add",
  cases: [
    ...broadcastCases,
    { shapes: { a: [2], b: [2] }, known: { inputs: { a: [1, 2], b: [10, -5] }, output: [11, -3] } },
  ],
});
