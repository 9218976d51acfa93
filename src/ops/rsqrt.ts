import { defineOp, type Op } from "./define.ts";
import { div } from "./div.ts";
import { constant } from "./leaf.ts";
import { sqrt } from "./sqrt.ts";

/** 1 / √x. */
export const rsqrt: Op<["x"]> = defineOp("rsqrt", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => div(constant(1), sqrt(x)),
  onnx: (emit, { x }) => emit.node("Reciprocal", [emit.node("Sqrt", [x])]),
  cases: [
    { shapes: { x: [2, 3] }, range: { x: [0.2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [4, 0.25] }, output: [0.5, 2] } },
  ],
});
