import { broadcastShapes } from "../tensor/shape.ts";
import { checkDtypes, defineOp, type Op, shapeError } from "./define.ts";
import { broadcastOffsets } from "./elementwise.ts";
import { constant } from "./leaf.ts";
import { sumTo } from "./sum-to.ts";

/** a where `condition` is true (not zero), else b; all three broadcast. */
export const select: Op<["condition", "a", "b"]> = defineOp("select", {
  inputs: ["condition", "a", "b"],
  infer({ condition, a, b }) {
    const values = broadcastShapes(a.shape, b.shape);
    const shape = values && broadcastShapes(values, condition.shape);
    if (!shape) throw shapeError("select", "shapes that broadcast", { condition, a, b });
    checkDtypes("select", { a, b });
    return { shape, dtype: a.dtype };
  },
  evaluate({ condition, a, b, node }) {
    const [at, left, right] = [condition, a, b].map((value) =>
      broadcastOffsets(value.shape, node.shape),
    );
    return Float64Array.from(at!, (offset, i) =>
      condition.data[offset] ? a.data[left![i]!]! : b.data[right![i]!]!,
    );
  },
  gradient: ({ condition, a, b, dy }) => ({
    a: () => sumTo(select(condition, dy, constant(0)), { shape: a.shape }),
    b: () => sumTo(select(condition, constant(0), dy), { shape: b.shape }),
  }),
  onnx: (emit, { condition, a, b }) =>
    emit.node("Where", [emit.node("Cast", [condition], { to: 9 }), a, b]),
  cases: [
    { shapes: { condition: [2, 3], a: [2, 3], b: [3] }, ids: { condition: 2 } },
    { shapes: { condition: [2, 1], a: [], b: [2, 3] }, ids: { condition: 2 } },
    {
      shapes: { condition: [2], a: [2], b: [] },
      ids: { condition: 2 },
      known: { inputs: { condition: [1, 0], a: [5, 6], b: [7] }, output: [5, 7] },
    },
  ],
});
