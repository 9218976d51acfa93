import { broadcastTo } from "./broadcast-to.ts";
import { defineOp, type Op } from "./define.ts";
import { reduce, reducedShape } from "./reduction.ts";
import { reshape } from "./reshape.ts";

/** Sum over `axes`. */
export const reduceSum: Op<["x"], { axes: readonly number[] }, { keepDims: boolean }> = defineOp(
  "reduceSum",
  {
    inputs: ["x"],
    defaults: { keepDims: false as boolean },
    infer: ({ x, axes, keepDims }) => ({
      shape: reducedShape(x.shape, axes, keepDims),
      dtype: x.dtype,
    }),
    evaluate: ({ x, axes }) => reduce(x, axes, 0, (a, b) => a + b),
    gradient: ({ x, axes, dy }) => ({
      x: () =>
        broadcastTo(reshape(dy, { shape: reducedShape(x.shape, axes, true) }), { shape: x.shape }),
    }),
    onnx: (emit, { x, axes, keepDims }) =>
      emit.node("ReduceSum", [x, emit.ints(axes)], { keepdims: keepDims ? 1 : 0 }),
    cases: [
      { shapes: { x: [2, 3, 4] }, attrs: { axes: [1] } },
      { shapes: { x: [2, 3, 4] }, attrs: { axes: [0, 2], keepDims: true } },
      {
        shapes: { x: [2, 2] },
        attrs: { axes: [1] },
        known: { inputs: { x: [1, 2, 3, 4] }, output: [3, 7] },
      },
    ],
  },
);
