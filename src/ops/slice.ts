import { sizeOf } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { pad } from "./pad.ts";

/** Elements `start` ≤ i < `end` along `axis`. */
export const slice: Op<["x"], { axis: number; start: number; end: number }> = defineOp("slice", {
  inputs: ["x"],
  infer({ x, axis, start, end }) {
    const size = x.shape[axis];
    if (size === undefined || start < 0 || end > size || start > end)
      throw shapeError("slice", "a range inside its axis", {
        x,
        range: [axis, start, end],
      });
    return { shape: x.shape.with(axis, end - start), dtype: x.dtype };
  },
  evaluate({ x, axis, start, node }) {
    const inner = sizeOf(x.shape.slice(axis + 1));
    const size = x.shape[axis]! * inner;
    const length = node.shape[axis]! * inner;
    const out = new Float64Array(sizeOf(node.shape));
    for (let from = start * inner, to = 0; to < out.length; from += size, to += length)
      out.set(x.data.subarray(from, from + length), to);
    return out;
  },
  gradient: ({ x, axis, start, end, dy }) => ({
    x: () => pad(dy, { axis, before: start, after: x.shape[axis]! - end }),
  }),
  onnx: (emit, { x, axis, start, end }) =>
    emit.node("Slice", [x, emit.ints([start]), emit.ints([end]), emit.ints([axis])]),
  cases: [
    { shapes: { x: [2, 5, 3] }, attrs: { axis: 1, start: 1, end: 4 } },
    {
      shapes: { x: [4] },
      attrs: { axis: 0, start: 2, end: 4 },
      known: { inputs: { x: [1, 2, 3, 4] }, output: [3, 4] },
    },
  ],
});
