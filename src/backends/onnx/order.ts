import type { OnnxNode } from "./proto.ts";

/**
 * `nodes` in an order that makes ONNX Runtime finish what frees memory first. It runs a depth-first walk from the
 * nodes that nothing reads, last in the list first; so these stand at the end, the deepest (the first layer's
 * gradients) before the shallowest (the loss). Otherwise every gradient product waits for the whole backward chain,
 * and the activations with it.
 */
export function leavesLast(nodes: readonly OnnxNode[]): OnnxNode[] {
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
  const leaves = nodes.filter(isLeaf).reverse();
  leaves.sort((a, b) => depthOf.get(b)! - depthOf.get(a)!);
  return [...nodes.filter((node) => !isLeaf(node)), ...leaves];
}
