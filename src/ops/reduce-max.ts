import { broadcastTo } from "./broadcast-to.ts";
import { defineOp, type Op } from "./define.ts";
import { equal } from "./equal.ts";
import { constant } from "./leaf.ts";
import { reduce, reducedShape } from "./reduction.ts";
import { reshape } from "./reshape.ts";
import { select } from "./select.ts";

/** Largest element over `axes`. Its gradient goes to every element that equals the maximum. */
export const reduceMax: Op<["x"], { axes: readonly number[] }, { keepDims: boolean }> = defineOp(
  "reduceMax",
  {
    inputs: ["x"],
    defaults: { keepDims: false as boolean },
    infer: ({ x, axes, keepDims }) => ({
      shape: reducedShape(x.shape, axes, keepDims),
      dtype: x.dtype,
    }),
    evaluate: ({ x, axes }) => reduce(x, axes, -Infinity, Math.max),
    gradient: ({ x, axes, node, dy }) => ({
      x() {
        const shape = reducedShape(x.shape, axes, true);
        const isLargest = equal(x, reshape(node, { shape }));
        return select(
          isLargest,
          broadcastTo(reshape(dy, { shape }), { shape: x.shape }),
          constant(0),
        );
      },
    }),
    onnx: (emit, { x, axes, keepDims }) =>
      emit.node("ReduceMax", [x, emit.ints(axes)], { keepdims: keepDims ? 1 : 0 }),
    cases: [
      { shapes: { x: [2, 3, 4] }, attrs: { axes: [1] } },
      { shapes: { x: [2, 3] }, attrs: { axes: [1], keepDims: true } },
      {
        shapes: { x: [2, 2] },
        attrs: { axes: [1] },
        known: { inputs: { x: [1, 2, 4, 3] }, output: [2, 4] },
      },
    ],
  },
);
