import { broadcastShapes, sameShape, type Shape } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { broadcastOffsets } from "./elementwise.ts";
import { sumTo } from "./sum-to.ts";

/** x repeated to `shape` by NumPy's broadcasting rule. */
export const broadcastTo: Op<["x"], { shape: Shape }> = defineOp("broadcastTo", {
  inputs: ["x"],
  infer({ x, shape }) {
    const whole = broadcastShapes(x.shape, shape);
    if (!whole || !sameShape(whole, shape))
      throw shapeError("broadcastTo", "a shape that broadcasts to the new one", { x, shape });
    return { shape, dtype: x.dtype };
  },
  evaluate: ({ x, shape }) =>
    Float64Array.from(broadcastOffsets(x.shape, shape), (offset) => x.data[offset]!),
  gradient: ({ x, dy }) => ({ x: () => sumTo(dy, { shape: x.shape }) }),
  onnx: (emit, { x, shape }) => emit.node("Expand", [x, emit.ints(shape)]),
  cases: [
    { shapes: { x: [3] }, attrs: { shape: [2, 3] } },
    {
      shapes: { x: [2, 1] },
      attrs: { shape: [2, 3] },
      known: { inputs: { x: [1, 2] }, output: [1, 1, 1, 2, 2, 2] },
    },
  ],
});
