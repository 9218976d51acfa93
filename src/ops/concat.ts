import type { Node } from "../ir/node.ts";
import { sizeOf } from "../tensor/shape.ts";
import { checkDtypes, defineOp, type Op, shapeError } from "./define.ts";
import { slice } from "./slice.ts";

/** The parts one after another along `axis`; their other axes must be equal. */
export const concat: Op<["...parts"], { axis: number }> = defineOp("concat", {
  inputs: ["...parts"],
  infer({ parts, axis }) {
    const first = parts[0]!;
    const size = parts.reduce((sum, part) => sum + (part.shape[axis] ?? NaN), 0);
    const others = (part: Node): string => part.shape.toSpliced(axis, 1).join();
    const fits = parts.every((part) => others(part) === others(first));
    const named = Object.fromEntries(parts.map((part, i) => [String(i), part]));
    if (!fits || Number.isNaN(size))
      throw shapeError("concat", `parts that differ in axis ${axis} only`, named);
    checkDtypes("concat", named);
    return { shape: first.shape.with(axis, size), dtype: first.dtype };
  },
  evaluate({ parts, axis, node }) {
    const out = new Float64Array(sizeOf(node.shape));
    const inner = sizeOf(node.shape.slice(axis + 1));
    const stride = node.shape[axis]! * inner;
    let start = 0;
    for (const { shape, data } of parts) {
      const length = shape[axis]! * inner;
      for (let from = 0, to = start; from < data.length; from += length, to += stride)
        out.set(data.subarray(from, from + length), to);
      start += length;
    }
    return out;
  },
  gradient({ parts, axis, dy }) {
    let end = 0;
    return {
      parts: parts.map((part) => {
        const start = end;
        const stop = (end += part.shape[axis]!);
        return () => slice(dy, { axis, start, end: stop });
      }),
    };
  },
  onnx: (emit, { parts, axis }) => emit.node("Concat", parts, { axis }),
  cases: [
    {
      shapes: {
        parts: [
          [2, 3],
          [2, 1],
          [2, 2],
        ],
      },
      attrs: { axis: 1 },
    },
    {
      shapes: {
        parts: [
          [1, 3],
          [2, 3],
        ],
      },
      attrs: { axis: 0 },
    },
    {
      shapes: {
        parts: [
          [2, 1],
          [2, 2],
        ],
      },
      attrs: { axis: 1 },
      // both parts are filled from the start of the list
      known: { inputs: { parts: [1, 2, 3, 4] }, output: [1, 1, 2, 2, 3, 4] },
    },
  ],
});
