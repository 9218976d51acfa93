import { LorikeetError } from "../errors.ts";
import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { add } from "../ops/add.ts";
import { constant } from "../ops/leaf.ts";
import { formatShape } from "../tensor/shape.ts";
import { expand } from "./expand.ts";

/**
 * Reverse-mode autodiff: d(loss)/d(param) for each of `params`. Nothing is built for a value that no param
 * reaches, so a frozen weight never gets a gradient. The returned `loss` is the graph that the gradients share
 * (ops without a gradient rule of their own are decomposed first).
 * @throws LorikeetError `gradient` when the loss is not a scalar, an op on the way has no gradient, or two of the
 *   params have one name: each would get a part of its gradient alone
 */
export function gradient(loss: Node, params: readonly Node[]): { loss: Node; gradients: Node[] } {
  if (loss.shape.length > 0)
    throw new LorikeetError(
      "gradient",
      `Expected a scalar loss, got shape ${formatShape(loss.shape)}`,
    );
  const names = params.map(({ name }) => name ?? "");
  const twice = names.find((name, i) => name !== "" && names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new LorikeetError(
      "gradient",
      `Expected one node for each parameter, got two of ${twice}`,
    );
  const root = expand([loss], (node) => node.op.gradient !== undefined)[0]!;
  const order = topological([root]);
  const active = new Set(params);
  for (const node of order) if (node.inputs.some((input) => active.has(input))) active.add(node);
  const gradients = new Map<Node, Node>([[root, constant(1)]]);
  for (const node of order.reverse()) {
    const dy = gradients.get(node);
    if (!dy || !active.has(node) || node.inputs.length === 0) continue;
    if (!node.op.gradient)
      throw new LorikeetError(
        "gradient",
        `Op ${node.op.name} has neither a gradient nor a decomposition`,
      );
    const rules = node.op.gradient(node, dy);
    for (const [i, input] of node.inputs.entries()) {
      const rule = rules[i];
      if (!rule || !active.has(input)) continue;
      const before = gradients.get(input);
      const dx = rule();
      gradients.set(input, before ? add(before, dx) : dx);
    }
  }
  return {
    loss: root,
    gradients: params.map((param) => gradients.get(param) ?? constant(0, param.shape)),
  };
}
