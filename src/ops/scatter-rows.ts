import { sizeOf } from "../tensor/shape.ts";
import { checkIds, defineOp, type Op, shapeError } from "./define.ts";
import { gatherRows } from "./gather-rows.ts";

/** A (`rows`, C) matrix of zeros to which each row of `updates` (…, C) is added at its id. */
export const scatterRows: Op<["updates", "ids"], { rows: number }> = defineOp("scatterRows", {
  inputs: ["updates", "ids"],
  infer({ updates, ids, rows }) {
    if (updates.shape.slice(0, -1).join() !== ids.shape.join())
      throw shapeError("scatterRows", "one row of updates for each id", { updates, ids });
    checkIds("scatterRows", ids);
    return { shape: [rows, updates.shape.at(-1)!], dtype: updates.dtype };
  },
  evaluate({ updates, ids, node }) {
    const C = node.shape[1]!;
    const out = new Float64Array(sizeOf(node.shape));
    ids.data.forEach((id, i) => {
      for (let c = 0; c < C; c++) out[id * C + c]! += updates.data[i * C + c]!;
    });
    return out;
  },
  gradient: ({ ids, dy }) => ({ updates: () => gatherRows(dy, ids) }),
  onnx(emit, { updates, ids, node }) {
    const C = node.shape[1]!;
    const zeros = emit.node("Expand", [emit.scalar(0), emit.ints(node.shape)]);
    const rows = emit.node("Reshape", [ids, emit.ints([-1, 1])]);
    return emit.node(
      "ScatterND",
      [zeros, rows, emit.node("Reshape", [updates, emit.ints([-1, C])])],
      {
        reduction: "add",
      },
    );
  },
  cases: [
    { shapes: { updates: [2, 4, 3], ids: [2, 4] }, ids: { ids: 5 }, attrs: { rows: 5 } },
    {
      shapes: { updates: [3, 1], ids: [3] },
      ids: { ids: 2 },
      attrs: { rows: 2 },
      known: { inputs: { updates: [1, 2, 4], ids: [1, 0, 1] }, output: [2, 5] },
    },
  ],
});
