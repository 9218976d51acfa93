import { topological } from "./graph.ts";
import type { Node } from "./node.ts";

/** What stands in the place of `node`, or undefined to keep it. */
export type Rule = (node: Node, original: Node) => Node | undefined;

/**
 * Rebuilds `roots` bottom-up. A rule sees each node with its inputs already rewritten, and the original node,
 * and returns what stands in its place, or undefined to keep it. Of several rules each sees what the one before gave.
 * Nodes whose inputs did not change stay the same.
 */
export function rewrite(roots: readonly Node[], ...rules: readonly Rule[]): Node[] {
  const done = new Map<Node, Node>();
  for (const original of topological(roots)) {
    const inputs = original.inputs.map((input) => done.get(input)!);
    const isSame = inputs.every((input, i) => input === original.inputs[i]);
    const node = isSame ? original : { ...original, inputs };
    done.set(
      original,
      rules.reduce((now, rule) => rule(now, original) ?? now, node),
    );
  }
  return roots.map((root) => done.get(root)!);
}
