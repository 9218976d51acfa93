import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import type { Rules } from "../ir/rules.ts";
import { rewrite } from "../ir/rewrite.ts";
import { cast } from "../ops/cast.ts";
import { gelu } from "../ops/gelu.ts";
import { layerNorm } from "../ops/layer-norm.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { relu } from "../ops/relu.ts";
import { reshape } from "../ops/reshape.ts";
import { rmsNorm } from "../ops/rms-norm.ts";
import { select } from "../ops/select.ts";
import { sigmoid } from "../ops/sigmoid.ts";
import { silu } from "../ops/silu.ts";
import { slice } from "../ops/slice.ts";
import { swiglu } from "../ops/swiglu.ts";

/** Ops that cost one pass over memory, about as much as reading a kept result from it. */
const cheap: ReadonlySet<Rules> = new Set(
  [
    cast,
    gelu,
    layerNorm,
    mul,
    neg,
    relu,
    reshape,
    rmsNorm,
    select,
    sigmoid,
    silu,
    slice,
    swiglu,
  ].map((op) => op.rules),
);

/**
 * Computes forward values that are cheap again in the backward pass (`gradients`) instead of keeping them until then,
 * where everything that they depend on is kept anyway. For after `cse`.
 */
export function rematerialize(outputs: readonly Node[], gradients: readonly Node[]): Node[] {
  const forward = new Set(topological(outputs));
  const kept = new Set<Node>();
  for (const node of topological(gradients))
    if (!forward.has(node))
      for (const input of node.inputs) if (forward.has(input)) kept.add(input);
  const again = new Map<Node, Node>();
  for (const node of neededAgain(topological(outputs), kept)) {
    const inputs = node.inputs.map((input) => again.get(input) ?? input);
    again.set(node, { ...node, inputs, phase: "recompute" });
  }
  return rewrite(gradients, (node, original) =>
    forward.has(original) ? (again.get(original) ?? original) : node,
  );
}

/** Those of `order` to be computed again: what is kept and needs only kept values, and what lies between, if cheap. */
function neededAgain(order: readonly Node[], kept: ReadonlySet<Node>): Node[] {
  const free = new Set<Node>();
  for (const node of order) {
    const isAtHand = (input: Node): boolean =>
      input.inputs.length === 0 || kept.has(input) || free.has(input);
    if (cheap.has(node.op) && !node.phase && node.inputs.every(isAtHand)) free.add(node);
  }
  const needed = new Set<Node>();
  for (const node of order.toReversed())
    if (free.has(node) && (kept.has(node) || needed.has(node))) {
      needed.add(node);
      for (const input of node.inputs) if (free.has(input)) needed.add(input);
    }
  return order.filter((node) => needed.has(node));
}
