import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";

/** −x. */
export const neg: Op<["x"]> = defineOp("neg", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => mul(x, constant(-1, [], x.dtype)),
  onnx: (emit, { x }) => emit.node("Neg", [x]),
  cases: [
    {
      shapes: { x: [2, 3] },
      known: { inputs: { x: [1, -2, 0, 4, 5, -6] }, output: [-1, 2, 0, -4, -5, 6] },
    },
  ],
});
