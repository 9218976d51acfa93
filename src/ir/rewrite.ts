import { topological } from "./graph.ts";
import type { Node } from "./node.ts";

/**
 * Rebuilds `roots` bottom-up. `rule` sees each node with its inputs already rewritten, and the original node,
 * and returns what stands in its place, or undefined to keep it. Nodes whose inputs did not change stay the same.
 */
export function rewrite(
  roots: readonly Node[],
  rule: (node: Node, original: Node) => Node | undefined,
): Node[] {
  const done = new Map<Node, Node>();
  for (const original of topological(roots)) {
    const inputs = original.inputs.map((input) => done.get(input)!);
    const isSame = inputs.every((input, i) => input === original.inputs[i]);
    const node = isSame ? original : { ...original, inputs };
    done.set(original, rule(node, original) ?? node);
  }
  return roots.map((root) => done.get(root)!);
}
