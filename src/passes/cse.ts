import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";

/**
 * Common subexpression elimination: nodes of the same op, inputs and attributes become one. A recomputed node is
 * never merged with the value that it computes again.
 */
export function cse(roots: readonly Node[]): Node[] {
  const ids = new Map<Node, number>();
  const first = new Map<string, Node>();
  return rewrite(roots, (node) => {
    const key = keyOf(node, ids);
    const known = first.get(key);
    if (known) return known;
    first.set(key, node);
    ids.set(node, ids.size);
    return node;
  });
}

function keyOf(node: Node, ids: ReadonlyMap<Node, number>): string {
  const inputs = node.inputs.map((input) => ids.get(input)!);
  const value = node.value ? `${node.value.dtype}:${node.value.data.join()}` : "";
  return [node.op.name, node.phase ?? "", node.name ?? "", node.dtype, node.shape, JSON.stringify(node.attrs), inputs, value].join("|");
}
