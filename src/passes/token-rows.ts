import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { embedding } from "../ops/embedding.ts";
import { gatherRows } from "../ops/gather-rows.ts";
import { isFrozen, literal, parameter } from "../ops/leaf.ts";
import { less } from "../ops/less.ts";
import { linear } from "../ops/linear.ts";
import { pad } from "../ops/pad.ts";
import { reshape } from "../ops/reshape.ts";
import { select } from "../ops/select.ts";
import { transpose } from "../ops/transpose.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";

/** Rows of an embedding matrix that are replaced. */
export interface TokenRows {
  /** Ids of the rows, in the order of the tensor's. */
  readonly indices: readonly number[];
  /** Graph name of the trainable rows (indices, C). */
  readonly name: string;
}

/**
 * Replaces single rows of embeddings, and of heads, by trainable ones, without touching the rest of the matrix.
 * @param rowsOf the rows of a module; embedding and head may share them
 */
export function insertTokenRows(
  roots: readonly Node[],
  rowsOf: (module: string) => TokenRows | undefined,
): Node[] {
  const made = new Map<string, Node>();
  return rewrite(roots, (node) => {
    const weight = node.inputs[1];
    const isEmbedding = node.op === embedding.rules;
    if ((!isEmbedding && node.op !== linear.rules) || !weight || !isFrozen(weight))
      return undefined;
    const module = String(node.attrs["module"] ?? "") || weight.name!.replace(/\.weight$/, "");
    const rows = rowsOf(module);
    if (!rows) return undefined;
    const shape = [rows.indices.length, weight.shape[1]!];
    const own = made.get(rows.name) ?? parameter(rows.name, shape, { trainable: true });
    made.set(rows.name, own);
    return isEmbedding ? replaceRows(node, own, rows) : replaceColumns(node, own, rows);
  });
}

/** Embedded ids (…, C) with the rows of the replaced ids. */
function replaceRows(node: Node, own: Node, { indices }: TokenRows): Node {
  const [ids, weight] = node.inputs as [Node, Node];
  const slots = literal(slotTable(weight.shape[0]!, indices, [weight.shape[0]!, 1]));
  const slot = reshape(gatherRows(slots, ids), { shape: ids.shape });
  const rows = gatherRows(pad(own, { axis: 0, before: 0, after: 1 }), slot);
  return select(reshape(isSlot(slot, indices), { shape: [...ids.shape, 1] }), rows, node);
}

/** Logits (N, V) with the columns of the replaced ids. */
function replaceColumns(node: Node, own: Node, { indices }: TokenRows): Node {
  const [x] = node.inputs as [Node];
  const V = node.shape[1]!;
  const slot = literal(slotTable(V, indices, [V]));
  const columns = pad(linear(x, own), { axis: 1, before: 0, after: 1 });
  const spread = gatherRows(transpose(columns, { perm: [1, 0] }), slot);
  return select(isSlot(slot, indices), transpose(spread, { perm: [1, 0] }), node);
}

/** For each id the index of its replaced row, or their number where it has none. */
function slotTable(V: number, indices: readonly number[], shape: readonly number[]): Tensor {
  const slots = new BigInt64Array(V).fill(BigInt(indices.length));
  for (const [slot, id] of indices.entries()) slots[id] = BigInt(slot);
  return tensor("i64", shape, slots);
}

function isSlot(slot: Node, indices: readonly number[]): Node {
  return less(slot, literal(tensor("i64", [], BigInt64Array.of(BigInt(indices.length)))));
}
