import { defineOp, type Op } from "./define.ts";

/** x as a constant of the backward pass: no gradient goes through it. */
export const stopGradient: Op<["x"]> = defineOp("stopGradient", {
  inputs: ["x"],
  infer: ({ x }) => x,
  evaluate: ({ x }) => x.data,
  gradient: () => ({}),
  onnx: (emit, { x }) => emit.node("Identity", [x]),
  cases: [
    {
      shapes: { x: [2] },
      known: { inputs: { x: [1, 2] }, output: [1, 2] },
      noGradient: "it has none by design",
    },
  ],
});
