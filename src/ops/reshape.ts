import { type Shape, sizeOf } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";

/** The same elements in row-major order under another shape. */
export const reshape: Op<["x"], { shape: Shape }> = defineOp("reshape", {
  inputs: ["x"],
  infer({ x, shape }) {
    if (sizeOf(x.shape) !== sizeOf(shape))
      throw shapeError("reshape", "as many elements as its new shape has", { x, shape });
    return { shape, dtype: x.dtype };
  },
  evaluate: ({ x }) => x.data,
  gradient: ({ x, dy }) => ({ x: () => reshape(dy, { shape: x.shape }) }),
  onnx: (emit, { x, shape }) => emit.node("Reshape", [x, emit.ints(shape)]),
  cases: [
    { shapes: { x: [2, 6] }, attrs: { shape: [3, 4] } },
    { shapes: { x: [1] }, attrs: { shape: [] } },
    {
      shapes: { x: [4] },
      attrs: { shape: [2, 2] },
      known: { inputs: { x: [1, 2, 3, 4] }, output: [1, 2, 3, 4] },
    },
  ],
});
