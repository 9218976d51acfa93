import { topological } from "../ir/graph.ts";
import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { isFrozen, parameter } from "../ops/leaf.ts";
import { linear } from "../ops/linear.ts";

/**
 * The frozen weights of `roots` by the name that each use of them has in its module: a head that shares the
 * embedding's matrix has `lm_head.weight` all the same.
 */
export function weightsByUse(roots: readonly Node[]): Map<string, Node> {
  const found = new Map<string, Node>();
  for (const node of topological(roots))
    for (const weight of node.inputs) if (isFrozen(weight)) found.set(useOf(node, weight), weight);
  return found;
}

/**
 * Replaces frozen weights by trainable ones, use by use: `nameOf` gives the new parameter's name for a weight's name
 * in the module that uses it, or undefined to keep it.
 */
export function replaceWeights(
  roots: readonly Node[],
  nameOf: (use: string) => string | undefined,
): Node[] {
  const made = new Map<string, Node>();
  const replaced = (user: Node, weight: Node): Node => {
    const name = isFrozen(weight) ? nameOf(useOf(user, weight)) : undefined;
    if (name === undefined) return weight;
    const { shape, dtype } = weight;
    const own = made.get(name) ?? parameter(name, shape, { trainable: true, dtype });
    made.set(name, own);
    return own;
  };
  return rewrite(roots, (node) => {
    const inputs = node.inputs.map((weight) => replaced(node, weight));
    return inputs.every((weight, i) => weight === node.inputs[i]) ? undefined : { ...node, inputs };
  });
}

function useOf(node: Node, weight: Node): string {
  const module = node.op === linear.rules ? String(node.attrs["module"] ?? "") : "";
  return module === "" ? weight.name! : `${module}.weight`;
}
