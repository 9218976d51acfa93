import { defineOp, type Op } from "./define.ts";
import { gatherRows } from "./gather-rows.ts";

/** Rows of an embedding `weight` (V, C) for token `ids` (…). What LoRA attaches to on embeddings. */
export const embedding: Op<["ids", "weight"]> = defineOp("embedding", {
  inputs: ["ids", "weight"],
  infer: ({ ids, weight }) => gatherRows(weight, ids),
  decompose: ({ ids, weight }) => gatherRows(weight, ids),
  cases: [
    { shapes: { ids: [2, 3], weight: [7, 4] }, ids: { ids: 7 } },
    {
      shapes: { ids: [2], weight: [3, 2] },
      ids: { ids: 3 },
      known: { inputs: { ids: [2, 0], weight: [1, 2, 3, 4, 5, 6] }, output: [5, 6, 1, 2] },
    },
  ],
});
