import { LorikeetError } from "../errors.ts";
import { formatShape, sameShape, sizeOf } from "../tensor/shape.ts";
import { topological } from "./graph.ts";
import type { Node, TypeOf } from "./node.ts";

/**
 * Checks that a graph is well formed: valid shapes, no cycle, each node of the shape and dtype that its op makes of its
 * inputs, and one declaration (shape and dtype) for each leaf name.
 * @throws LorikeetError `invalid-graph` listing every fault
 */
export function verify(roots: readonly Node[]): void {
  const faults: string[] = [];
  const leaves = new Map<string, Node>();
  const seen = new Set<Node>();
  for (const node of topological(roots)) {
    seen.add(node);
    if (!node.shape.every((dim) => Number.isInteger(dim) && dim >= 0))
      faults.push(`${node.op.name} has shape ${formatShape(node.shape)}`);
    const fault = node.inputs.every((input) => seen.has(input))
      ? typeFault(node)
      : `${node.op.name} ${formatShape(node.shape)} depends on itself`;
    if (fault !== undefined) faults.push(fault);
    if (node.value && node.value.data.length !== sizeOf(node.shape))
      faults.push(
        `${node.op.name} of shape ${formatShape(node.shape)} holds ${node.value.data.length} values`,
      );
    if (node.name === undefined) continue;
    const first = leaves.get(node.name) ?? node;
    leaves.set(node.name, first);
    if (first.op !== node.op || !sameType(first, node))
      faults.push(
        `${node.name} is ${first.op.name} ${formatType(first)} and ${node.op.name} ${formatType(node)}`,
      );
  }
  if (faults.length > 0)
    throw new LorikeetError(
      "invalid-graph",
      `Expected a well-formed graph, got: ${faults.join("; ")}`,
    );
}

/** What is wrong between `node` and its inputs. */
function typeFault(node: Node): string | undefined {
  try {
    const type = node.op.infer?.(node) ?? node;
    if (sameType(type, node)) return undefined;
    return `${node.op.name} is ${formatType(node)} where its inputs give ${formatType(type)}`;
  } catch (error) {
    if (!(error instanceof LorikeetError)) throw error;
    return error.message.replace(/^E/, "e");
  }
}

function sameType(a: TypeOf, b: TypeOf): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

function formatType({ dtype, shape }: TypeOf): string {
  return `${dtype} ${formatShape(shape)}`;
}
