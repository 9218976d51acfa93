import { sizeOf } from "../tensor/shape.ts";
import { checkIds, defineOp, type Op, shapeError } from "./define.ts";
import { scatterRows } from "./scatter-rows.ts";

/** Rows of `table` (V, C) at `ids` (…): (…, C). */
export const gatherRows: Op<["table", "ids"]> = defineOp("gatherRows", {
  inputs: ["table", "ids"],
  infer({ table, ids }) {
    if (table.shape.length !== 2) throw shapeError("gatherRows", "a matrix as table", { table });
    checkIds("gatherRows", ids);
    return { shape: [...ids.shape, table.shape[1]!], dtype: table.dtype };
  },
  evaluate({ table, ids, node }) {
    const C = table.shape[1]!;
    const out = new Float64Array(sizeOf(node.shape));
    ids.data.forEach((id, i) => {
      out.set(table.data.subarray(id * C, (id + 1) * C), i * C);
    });
    return out;
  },
  gradient: ({ table, ids, dy }) => ({
    table: () => scatterRows(dy, ids, { rows: table.shape[0]! }),
  }),
  onnx: (emit, { table, ids }) => emit.node("Gather", [table, ids], { axis: 0 }),
  cases: [
    { shapes: { table: [5, 3], ids: [2, 4] }, ids: { ids: 5 } },
    {
      shapes: { table: [3, 2], ids: [2] },
      ids: { ids: 3 },
      known: { inputs: { table: [1, 2, 3, 4, 5, 6], ids: [2, 0] }, output: [5, 6, 1, 2] },
    },
  ],
});
