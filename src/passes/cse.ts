import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";

/**
 * Common subexpression elimination: nodes of the same op, inputs and attributes become one. A recomputed node is
 * never merged with the value that it computes again, only with what the backward pass does to the same values.
 */
export function cse(roots: readonly Node[]): Node[] {
  const ids = new Map<Node, number>();
  const first = new Map<string, Node[]>();
  const again = new Set<Node>();
  return rewrite(roots, (node) => {
    const readsAgain = node.inputs.some((input) => again.has(input));
    const key = keyOf(node, ids, readsAgain ? undefined : node.phase);
    const alike = first.get(key) ?? [];
    const known = alike.find((other) => sameValue(other, node));
    if (known) return known;
    first.set(key, [...alike, node]);
    ids.set(node, ids.size);
    if (readsAgain || node.phase) again.add(node);
    return node;
  });
}

function keyOf(node: Node, ids: ReadonlyMap<Node, number>, phase: Node["phase"]): string {
  const inputs = node.inputs.map((input) => ids.get(input)!);
  const { op, name, dtype, shape, attrs } = node;
  const values = isEmpty(attrs) ? "" : JSON.stringify(attrs, writable);
  return `${op.name}|${phase ?? ""}|${name ?? ""}|${dtype}|${shape.join()}|${values}|${inputs.join()}`;
}

function isEmpty(attrs: object): boolean {
  for (const _ in attrs) return false;
  return true;
}

/** JSON has one word, null, for all numbers that are not finite, and no negative zero. */
function writable(_: string, value: unknown): unknown {
  if (typeof value !== "number") return value;
  return Number.isFinite(value) && !Object.is(value, -0) ? value : `number ${value} ${1 / value}`;
}

function sameValue({ value: a }: Node, { value: b }: Node): boolean {
  if (!a || !b) return a === b;
  if (a.data === b.data) return true;
  return a.data.every((x: number | bigint, i: number) => x === b.data[i]);
}
