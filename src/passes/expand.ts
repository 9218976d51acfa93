import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";

/**
 * Replaces every op that `keep` refuses by its decomposition, again and again until all are kept or primitive.
 * What a recomputed node decomposes into is recomputed too.
 */
export function expand(roots: readonly Node[], keep: (node: Node) => boolean): Node[] {
  const done = new Map<Node, Node>();
  for (const original of topological(roots)) {
    const inputs = original.inputs.map((input) => done.get(input)!);
    const isSame = inputs.every((input, i) => input === original.inputs[i]);
    const node = isSame ? original : { ...original, inputs };
    done.set(original, expandNode(node, keep));
  }
  return roots.map((root) => done.get(root)!);
}

/** `node`, whose inputs are expanded already, in kept ops. Depth is that of decompositions, which nest a few times. */
function expandNode(node: Node, keep: (node: Node) => boolean): Node {
  if (!node.op.decompose || keep(node)) return node;
  const simpler = node.op.decompose(node);
  const done = new Map<Node, Node>(node.inputs.map((input) => [input, input]));
  for (const original of topologicalUntil(simpler, done)) {
    const inputs = original.inputs.map((input) => done.get(input)!);
    const phase = node.phase && original.inputs.length > 0 ? { phase: node.phase } : {};
    done.set(original, expandNode({ ...original, inputs, ...phase }, keep));
  }
  return done.get(simpler)!;
}

/** Nodes that `root` depends on down to `known` ones, inputs before users. */
function topologicalUntil(root: Node, known: ReadonlyMap<Node, Node>): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>(known.keys());
  const stack: Node[] = [root];
  while (stack.length > 0) {
    const node = stack.at(-1)!;
    const missing = seen.has(node) ? [] : node.inputs.filter((input) => !seen.has(input));
    if (missing.length > 0) {
      stack.push(...missing.reverse());
      continue;
    }
    stack.pop();
    if (seen.has(node)) continue;
    seen.add(node);
    order.push(node);
  }
  return order;
}
