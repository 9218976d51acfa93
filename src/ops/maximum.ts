import type { Op } from "./define.ts";
import { broadcastCases, defineBinary } from "./elementwise.ts";
import { less } from "./less.ts";
import { constant } from "./leaf.ts";
import { select } from "./select.ts";
import { sumTo } from "./sum-to.ts";

/** The larger of a and b, broadcasting; a where they are equal. */
export const maximum: Op<["a", "b"]> = defineBinary("maximum", {
  f: (x, y) => Math.max(x, y),
  gradient: ({ a, b, dy }) => ({
    a: () => sumTo(select(less(a, b), constant(0), dy), { shape: a.shape }),
    b: () => sumTo(select(less(a, b), dy, constant(0)), { shape: b.shape }),
  }),
  onnx: "Max",
  cases: [
    ...broadcastCases,
    {
      shapes: { a: [3], b: [] },
      known: { inputs: { a: [1, -2, 3], b: [0.5] }, output: [1, 0.5, 3] },
    },
  ],
});
