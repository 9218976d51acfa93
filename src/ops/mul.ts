import type { Op } from "./define.ts";
import { broadcastCases, defineBinary } from "./elementwise.ts";
import { sumTo } from "./sum-to.ts";

/** a · b, broadcasting. */
export const mul: Op<["a", "b"]> = defineBinary("mul", {
  f: (x, y) => x * y,
  gradient: ({ a, b, dy }) => ({
    a: () => sumTo(mul(dy, b), { shape: a.shape }),
    b: () => sumTo(mul(dy, a), { shape: b.shape }),
  }),
  onnx: "Mul",
  cases: [
    ...broadcastCases,
    {
      shapes: { a: [2], b: [2] },
      known: { inputs: { a: [3, -2], b: [4, 0.5] }, output: [12, -1] },
    },
  ],
});
