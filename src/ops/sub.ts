import { add } from "./add.ts";
import { defineOp, type Op } from "./define.ts";
import { neg } from "./neg.ts";

/** a − b, broadcasting. */
export const sub: Op<["a", "b"]> = defineOp("sub", {
  inputs: ["a", "b"],
  infer: ({ a, b }) => add(a, b),
  decompose: ({ a, b }) => add(a, neg(b)),
  onnx: (emit, { a, b }) => emit.node("Sub", [a, b]),
  cases: [
    { shapes: { a: [2, 3], b: [3] } },
    {
      shapes: { a: [2], b: [2] },
      known: { inputs: { a: [3, -2], b: [4, 0.5] }, output: [-1, -2.5] },
    },
  ],
});
