import { sizeOf, stridesOf } from "../tensor/shape.ts";
import { defineOp, type Op, shapeError } from "./define.ts";

/** Axis i of the result is axis `perm[i]` of x. */
export const transpose: Op<["x"], { perm: readonly number[] }> = defineOp("transpose", {
  inputs: ["x"],
  infer({ x, perm }) {
    if ([...perm].sort((a, b) => a - b).join() !== x.shape.map((_, axis) => axis).join())
      throw shapeError("transpose", "a permutation of its axes", { x, perm });
    return { shape: perm.map((axis) => x.shape[axis]!), dtype: x.dtype };
  },
  evaluate({ x, perm, node }) {
    const own = stridesOf(x.shape);
    const strides = perm.map((axis) => own[axis]!);
    const out = new Float64Array(sizeOf(node.shape));
    const index = new Array<number>(perm.length).fill(0);
    let offset = 0;
    for (let i = 0; i < out.length; i++) {
      out[i] = x.data[offset]!;
      for (let axis = perm.length - 1; axis >= 0; axis--) {
        offset += strides[axis]!;
        if (++index[axis]! < node.shape[axis]!) break;
        offset -= strides[axis]! * node.shape[axis]!;
        index[axis] = 0;
      }
    }
    return out;
  },
  gradient: ({ perm, dy }) => ({
    x: () => transpose(dy, { perm: perm.map((_, axis) => perm.indexOf(axis)) }),
  }),
  onnx: (emit, { x, perm }) => emit.node("Transpose", [x], { perm }),
  cases: [
    { shapes: { x: [2, 3, 4] }, attrs: { perm: [2, 0, 1] } },
    {
      shapes: { x: [2, 3] },
      attrs: { perm: [1, 0] },
      known: { inputs: { x: [1, 2, 3, 4, 5, 6] }, output: [1, 4, 2, 5, 3, 6] },
    },
  ],
});
