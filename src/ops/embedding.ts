import { defineOp, type Op } from "./define.ts";
import { gatherRows } from "./gather-rows.ts";

/** Rows of an embedding `weight` (V, C) for token `ids` (…). What LoRA attaches to on embeddings. */
export const embedding: Op<["ids", "weight"]> = defineOp("embedding", {
  inputs: ["ids", "weight"],
  infer: ({ ids, weight }) => gatherRows(weight, ids),
  decompose: ({ ids, weight }) => gatherRows(weight, ids),
  cases: [{ shapes: { ids: [2, 3], weight: [7, 4] }, ids: { ids: 7 } }],
});
