import type { Op } from "./define.ts";
import { broadcastCases, defineBinary } from "./elementwise.ts";
import { mul } from "./mul.ts";
import { neg } from "./neg.ts";
import { sumTo } from "./sum-to.ts";

/** a / b, broadcasting. */
export const div: Op<["a", "b"]> = defineBinary("div", {
  f: (x, y) => x / y,
  gradient: ({ a, b, node, dy }) => ({
    a: () => sumTo(div(dy, b), { shape: a.shape }),
    b: () => sumTo(neg(div(mul(dy, node), b)), { shape: b.shape }),
  }),
  onnx: "Div",
  cases: [
    ...broadcastCases.map((test) => ({ ...test, range: { b: [0.5, 2] as const } })),
    {
      shapes: { a: [2], b: [2] },
      known: { inputs: { a: [3, -2], b: [4, 0.5] }, output: [0.75, -4] },
    },
  ],
});
