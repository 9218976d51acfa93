import { LorikeetError } from "../errors.ts";
import { formatShape, sizeOf } from "../tensor/shape.ts";
import { topological } from "./graph.ts";
import type { Node } from "./node.ts";

/**
 * Checks that a graph is well formed: valid shapes, as many inputs as each op takes, and one declaration
 * (shape and dtype) for each leaf name.
 * @throws LorikeetError `invalid-graph` listing every fault
 */
export function verify(roots: readonly Node[]): void {
  const faults: string[] = [];
  const leaves = new Map<string, Node>();
  for (const node of topological(roots)) {
    if (!node.shape.every((dim) => Number.isInteger(dim) && dim >= 0))
      faults.push(`${node.op.name} has shape ${formatShape(node.shape)}`);
    const least = node.op.inputs.filter((name) => !/^\.\.\.|\?$/.test(name)).length;
    const most = node.op.inputs.some((name) => name.startsWith("..."))
      ? Infinity
      : node.op.inputs.length;
    if (node.inputs.length < least || node.inputs.length > most)
      faults.push(
        `${node.op.name} takes ${node.op.inputs.join(", ")}, got ${node.inputs.length} inputs`,
      );
    if (node.value && node.value.data.length !== sizeOf(node.shape))
      faults.push(
        `${node.op.name} of shape ${formatShape(node.shape)} holds ${node.value.data.length} values`,
      );
    if (node.name === undefined) continue;
    const first = leaves.get(node.name) ?? node;
    leaves.set(node.name, first);
    if (
      first.op !== node.op ||
      first.dtype !== node.dtype ||
      first.shape.join() !== node.shape.join()
    )
      faults.push(
        `${node.name} is ${first.op.name} ${first.dtype} ${formatShape(first.shape)} and ${node.op.name} ${node.dtype} ${formatShape(node.shape)}`,
      );
  }
  if (faults.length > 0)
    throw new LorikeetError(
      "invalid-graph",
      `Expected a well-formed graph, got: ${faults.join("; ")}`,
    );
}
