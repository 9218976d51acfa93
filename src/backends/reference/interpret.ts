import { LorikeetError } from "../../errors.ts";
import { topological } from "../../ir/graph.ts";
import type { Node } from "../../ir/node.ts";
import type { Value } from "../../ir/rules.ts";
import { leaves } from "../../ops/leaf.ts";
import { expand } from "../../passes/expand.ts";
import { toFloat64 } from "../../tensor/convert.ts";
import { formatShape, sameShape, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/**
 * Values of `roots` in float64, by running each primitive's plain loop. The judge of every other engine.
 * @param bind value of a parameter or input leaf by name
 * @throws LorikeetError `unsupported-op` for an op that is neither primitive nor decomposable
 */
export function interpret(roots: readonly Node[], bind: (name: string) => Tensor): Value[] {
  const primitive = expand(roots, (node) => node.op.evaluate !== undefined);
  const order = topological(primitive);
  const lastUse = new Map<Node, number>();
  for (const [i, node] of order.entries()) for (const input of node.inputs) lastUse.set(input, i);
  for (const root of primitive) lastUse.set(root, Infinity);
  const values = new Map<Node, Value>();
  for (const [i, node] of order.entries()) {
    values.set(node, { shape: node.shape, data: evaluate(node, values, bind) });
    for (const input of node.inputs) if (lastUse.get(input) === i) values.delete(input);
  }
  return primitive.map((root) => values.get(root)!);
}

function evaluate(
  node: Node,
  values: ReadonlyMap<Node, Value>,
  bind: (name: string) => Tensor,
): Float64Array {
  if (node.op === leaves.constant)
    return new Float64Array(sizeOf(node.shape)).fill(node.attrs["value"] as number);
  if (node.value) return toFloat64(node.value);
  if (node.name !== undefined) return leafValue(node, bind(node.name));
  if (!node.op.evaluate)
    throw new LorikeetError(
      "unsupported-op",
      `Expected op ${node.op.name} to be primitive or to decompose; it does neither`,
    );
  return node.op.evaluate(
    node,
    node.inputs.map((input) => values.get(input)!),
  );
}

function leafValue(node: Node, value: Tensor): Float64Array {
  if (!sameShape(value.shape, node.shape))
    throw new LorikeetError(
      "shape",
      `Expected ${node.name!} of shape ${formatShape(node.shape)}, got ${formatShape(value.shape)}`,
    );
  return toFloat64(value);
}
