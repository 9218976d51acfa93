import type { Node } from "../ir/node.ts";
import { rewrite } from "../ir/rewrite.ts";
import { isFrozen } from "../ops/leaf.ts";

/**
 * Puts `prefix` before the names of frozen weights, so that several models go into one graph. Names that begin with
 * one of `known` stay: models whose results this one reads were prefixed before.
 */
export function prefixWeights(
  roots: readonly Node[],
  prefix: string,
  known: readonly string[] = [],
): Node[] {
  return rewrite(roots, (node) =>
    isFrozen(node) && !known.some((other) => node.name!.startsWith(other))
      ? { ...node, name: prefix + node.name! }
      : undefined,
  );
}
