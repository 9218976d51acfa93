import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { maximum } from "./maximum.ts";

/** The larger of x and 0. */
export const relu: Op<["x"]> = defineOp("relu", {
  inputs: ["x"],
  infer: ({ x }) => x,
  decompose: ({ x }) => maximum(x, constant(0)),
  onnx: (emit, { x }) => emit.node("Relu", [x]),
  cases: [
    { shapes: { x: [2, 3] } },
    { shapes: { x: [2] }, known: { inputs: { x: [-1, 2] }, output: [0, 2] } },
  ],
});
