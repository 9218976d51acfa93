import { defineOp, type Op } from "./define.ts";

/** x unchanged: marks a value that gradient checkpointing keeps, the border between two blocks of a model. */
export const boundary: Op<["x"]> = defineOp("boundary", {
  inputs: ["x"],
  infer: ({ x }) => x,
  evaluate: ({ x }) => x.data,
  gradient: ({ dy }) => ({ x: () => dy }),
  onnx: (emit, { x }) => emit.node("Identity", [x]),
  cases: [{ shapes: { x: [2] }, known: { inputs: { x: [1, 2] }, output: [1, 2] } }],
});
