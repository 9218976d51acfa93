import type { OnnxNode } from "./proto.ts";

/**
 * `nodes` in an order that makes ONNX Runtime finish what frees memory first. It runs a depth-first walk from the
 * nodes that nothing reads, last in the list first; so these stand at the end, the deepest (the first layer's
 * gradients) before the shallowest. Otherwise every gradient product waits for the whole backward chain, and the
 * activations with it. Those that give `late` values run after all others: the loss of each chunk of rows is ready by
 * then, while the loss first would want every chunk's logits at once.
 */
export function leavesLast(nodes: readonly OnnxNode[], late: ReadonlySet<string>): OnnxNode[] {
  const depths = new Map<string, number>();
  const read = new Set<string>();
  const depthOf = new Map<OnnxNode, number>();
  for (const node of nodes) {
    let depth = 0;
    for (const input of node.inputs) {
      read.add(input);
      depth = Math.max(depth, (depths.get(input) ?? 0) + 1);
    }
    depthOf.set(node, depth);
    for (const output of node.outputs) depths.set(output, depth);
  }
  const isLeaf = (node: OnnxNode): boolean => !node.outputs.some((output) => read.has(output));
  const isLate = (node: OnnxNode): boolean => node.outputs.some((output) => late.has(output));
  const rank = (node: OnnxNode): number => (isLate(node) ? Infinity : depthOf.get(node)!);
  const leaves = nodes.filter(isLeaf).reverse();
  leaves.sort((a, b) => (rank(a) === rank(b) ? 0 : rank(b) - rank(a)));
  return [...nodes.filter((node) => !isLeaf(node)), ...leaves];
}
