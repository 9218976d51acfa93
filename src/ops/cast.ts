import { ONNX_TYPES } from "../ir/onnx-types.ts";
import { type DType, isFloat } from "../tensor/dtype.ts";
import { defineOp, type Op } from "./define.ts";

/** x as another dtype; to an integer by truncation. */
export const cast: Op<["x"], { dtype: DType }> = defineOp("cast", {
  inputs: ["x"],
  infer: ({ x, dtype }) => ({ shape: x.shape, dtype }),
  evaluate: ({ x, dtype }) => (isFloat(dtype) ? x.data : x.data.map(Math.trunc)),
  gradient: ({ x, dtype, dy }) =>
    isFloat(dtype) && isFloat(x.dtype) ? { x: () => cast(dy, { dtype: x.dtype }) } : {},
  onnx: (emit, { x, dtype }) =>
    emit.node("Cast", [x], {
      to: ONNX_TYPES[dtype],
    }),
  cases: [
    { shapes: { x: [2, 3] }, attrs: { dtype: "f32" } },
    {
      shapes: { x: [2] },
      attrs: { dtype: "i64" },
      known: { inputs: { x: [1.7, -1.2] }, output: [1, -1] },
      noGradient: "an integer result",
    },
  ],
});
