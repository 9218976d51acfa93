import { sizeOf } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";
import { slice } from "./slice.ts";

/** x with `before` and `after` zeros added along `axis`. */
export const pad: Op<["x"], { axis: number; before: number; after: number }> = defineOp("pad", {
  inputs: ["x"],
  infer({ x, axis, before, after }) {
    const size = x.shape[axis];
    if (size === undefined || before < 0 || after < 0)
      throw shapeError("pad", "an axis of its input", {
        x,
        padding: [axis, before, after],
      });
    return { shape: x.shape.with(axis, before + size + after), dtype: x.dtype };
  },
  evaluate({ x, axis, before, node }) {
    const inner = sizeOf(x.shape.slice(axis + 1));
    const size = x.shape[axis]! * inner;
    const length = node.shape[axis]! * inner;
    const out = new Float64Array(sizeOf(node.shape));
    for (let from = 0, to = before * inner; from < x.data.length; from += size, to += length)
      out.set(x.data.subarray(from, from + size), to);
    return out;
  },
  gradient: ({ x, axis, before, dy }) => ({
    x: () => slice(dy, { axis, start: before, end: before + x.shape[axis]! }),
  }),
  onnx(emit, { x, axis, before, after, node }) {
    const at = (amount: number): number[] => node.shape.map((_, i) => (i === axis ? amount : 0));
    return emit.node("Pad", [x, emit.ints([...at(before), ...at(after)])]);
  },
  cases: [
    { shapes: { x: [2, 2, 3] }, attrs: { axis: 1, before: 1, after: 2 } },
    {
      shapes: { x: [2] },
      attrs: { axis: 0, before: 1, after: 2 },
      known: { inputs: { x: [7, 8] }, output: [0, 7, 8, 0, 0] },
    },
  ],
});
