import { formatShape } from "../tensor/shape.ts";
import { topological } from "./graph.ts";
import type { AttrValue, Node } from "./node.ts";

/**
 * `roots` as text, one node a line in execution order: `%3 = linear(%0, %w) {fanInFanOut: false} f32 [2, 4]`.
 * Leaves without users' interest are written in place; results are marked with `→`.
 */
export function print(roots: Readonly<Record<string, Node>>): string {
  const names = new Map<Node, string>();
  const lines: string[] = [];
  for (const node of topological(Object.values(roots))) {
    names.set(node, nameOf(node, names.size));
    const inputs = node.inputs.map((input) => names.get(input)!).join(", ");
    const phase = node.phase ? ` @${node.phase}` : "";
    lines.push(
      `${names.get(node)!} = ${node.op.name}(${inputs})${formatAttrs(node)}${phase} ${node.dtype} ${formatShape(node.shape)}`,
    );
  }
  for (const [name, node] of Object.entries(roots)) lines.push(`→ ${name} = ${names.get(node)!}`);
  return lines.join("\n");
}

function nameOf(node: Node, index: number): string {
  return node.name === undefined ? `%${index}` : `%${node.name}`;
}

function formatAttrs({ attrs }: Node): string {
  const entries = Object.entries(attrs).map(([key, value]) => `${key}: ${formatValue(value)}`);
  return entries.length > 0 ? ` {${entries.join(", ")}}` : "";
}

function formatValue(value: AttrValue): string {
  return Array.isArray(value) ? `[${value.join(", ")}]` : String(value);
}
