import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { boundary } from "../ops/boundary.ts";

/**
 * Gradient checkpointing: the backward pass reads forward values that `keep` names (and everything before the
 * first or after the last of them) and computes the others again. https://arxiv.org/abs/1604.06174
 * @returns the gradients over recomputed nodes (`phase: "recompute"`); `loss` itself is unchanged
 */
export function checkpoint(
  loss: Node,
  gradients: readonly Node[],
  keep: (node: Node) => boolean = (node) => node.op === boundary.rules,
): Node[] {
  const order = topological([loss]);
  const kept = new Set(order.filter(keep));
  const beyond = reachedFrom(order, kept);
  const behind = new Set(topological([...kept]));
  const again = new Map<Node, Node>();
  for (const node of order) {
    const isBetween = beyond.has(node) && behind.has(node) && !kept.has(node);
    const inputs = node.inputs.map((input) => again.get(input) ?? input);
    again.set(node, isBetween ? { ...node, inputs, phase: "recompute" } : node);
  }
  return rewrite(gradients, (_, original) => again.get(original));
}

/** Nodes that depend on one of `sources`. */
function reachedFrom(order: readonly Node[], sources: ReadonlySet<Node>): Set<Node> {
  const reached = new Set<Node>();
  for (const node of order)
    if (node.inputs.some((input) => sources.has(input) || reached.has(input))) reached.add(node);
  return reached;
}
