import { defineOp, type Op } from "./define.ts";
import { constant } from "./leaf.ts";
import { mul } from "./mul.ts";
import { reduceSum } from "./reduce-sum.ts";

/** Arithmetic mean over `axes`. */
export const mean: Op<["x"], { axes: readonly number[] }, { keepDims: boolean }> = defineOp(
  "mean",
  {
    inputs: ["x"],
    defaults: { keepDims: false as boolean },
    infer: ({ x, axes, keepDims }) => reduceSum(x, { axes, keepDims }),
    decompose({ x, axes, keepDims }) {
      const count = axes.reduce((size, axis) => size * x.shape[axis]!, 1);
      return mul(reduceSum(x, { axes, keepDims }), constant(1 / count));
    },
    onnx: (emit, { x, axes, keepDims }) =>
      emit.node("ReduceMean", [x, emit.ints(axes)], { keepdims: keepDims ? 1 : 0 }),
    cases: [
      { shapes: { x: [2, 3, 4] }, attrs: { axes: [1, 2] } },
      {
        shapes: { x: [2, 2] },
        attrs: { axes: [1] },
        known: { inputs: { x: [1, 2, 3, 4] }, output: [1.5, 3.5] },
      },
    ],
  },
);
